"""Two migrations to one target."""

from __future__ import annotations

from pathlib import Path

import pytest

from valkeep.errors import Refused
from valkeep.migrate.control import Lock
from valkeep.migrate.run.neighbours import expect_none
from valkeep.migrate.state import MigrationState, StateFile, default_directory

OURS = ("n2:2", "n1:1")


@pytest.fixture(autouse=True)
def usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def begun(source: str, target: str, step: str, *shards: str) -> Path:
    """The folder of a migration; of a target that is a cluster with these primaries."""
    folder = default_directory(source, target)
    StateFile(folder).write(MigrationState(step, source, target, 41, shards={shard: {"marker": "m"} for shard in shards}))
    return folder


@pytest.mark.parametrize("step", ["attaching", "attached", "cutting"])
@pytest.mark.parametrize("target", ["redis://n1:1", "redis://:***@n3:3"])
def test_another_migration_to_the_same_target_is_refused_until_it_is_over(step: str, target: str) -> None:
    begun("redis://s2:2", target, step, "n1:1", "n3:3")
    with pytest.raises(Refused, match="was killed") as refused:
        expect_none(default_directory("redis://s1:1", "redis://n1:1"), OURS)
    assert (refused.value.code, refused.value.definite) == ("VK-STATE-OTHER", True)
    assert f"valkeep migrate abort --source redis://s2:2 --target {target}" in refused.value.remedy


def test_one_that_runs_is_told_from_one_that_was_killed() -> None:
    folder = begun("redis://s2:2", "redis://n1:1", "attached")
    with Lock(folder), pytest.raises(Refused, match="this target runs"):
        expect_none(default_directory("redis://s1:1", "redis://n1:1"), OURS)


def test_its_own_state_those_that_are_over_and_those_to_other_targets_are_no_neighbours(tmp_path: Path) -> None:
    own = begun("redis://s1:1", "redis://n1:1", "attached")
    expect_none(own, OURS)
    for number, step in enumerate(("promoted", "committed", "rolled-back", "aborted")):
        begun(f"redis://s{number + 5}:5", "redis://n1:1", step)
    begun("redis://s9:9", "redis://elsewhere:1", "attached", "elsewhere:2")
    (tmp_path / "valkeep" / "empty").mkdir()
    (tmp_path / "valkeep" / "damaged").mkdir()
    (tmp_path / "valkeep" / "damaged" / "migration.json").write_text("{")
    expect_none(own, OURS)
