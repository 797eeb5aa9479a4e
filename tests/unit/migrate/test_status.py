"""What is said of migrations that run, that were killed and that are over: by their state folders, and by whoever runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from valkeep.migrate.control import Control, Lock, is_locked
from valkeep.migrate.state import MigrationState, StateFile, default_directory
from valkeep.migrate.status import MigrationStatus, statuses

LIVE = {
    "pid": 77,
    "doing": "waiting",
    "source": "redis://s:1",
    "gateway": "127.0.0.1:9",
    "source_replid": "ab" * 20,
    "source_offset": 812,
    "translated": 812,
    "keys": 3,
    "held": "",
    "targets": [],
}


def write(folder: Path, step: str) -> None:
    StateFile(folder).write(MigrationState(step, "redis://s:1", "redis://t:2", 41))


def look(*folders: Path) -> list[MigrationStatus]:
    return asyncio.run(statuses(folders))


@pytest.mark.parametrize(
    ("step", "todo"),
    [
        ("attached", "valkeep migrate abort --source redis://s:1 --target redis://t:2"),
        ("cutting", "may refuse writes: valkeep migrate abort"),
        ("promoted", "the writers belong to redis://t:2"),
        ("aborted", ""),
    ],
)
def test_a_migration_that_does_not_run_is_told_with_what_is_to_be_done(tmp_path: Path, step: str, todo: str) -> None:
    write(tmp_path, step)
    (one,) = look(tmp_path)
    assert (one.running, one.step, one.pid, one.live) == (False, step, 41, None)
    assert todo in one.todo if todo else not one.todo


def test_a_migration_in_its_usual_place_is_named_by_its_servers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    write(default_directory("redis://s:1", "redis://t:2"), "attached")
    assert "--state" not in asyncio.run(statuses())[0].todo


def test_two_primaries_of_the_same_sentinels_have_folders_of_their_own() -> None:
    one, other = (default_directory(f"redis+sentinel://s1:26379,s2:26379/{name}", "redis://t:2") for name in ("one", "other"))
    assert one != other
    assert one == default_directory("redis+sentinel://mover:***@s1:26379,s2:26379/one", "valkey://:***@t:2")


def test_a_way_back_is_to_be_decided_about(tmp_path: Path) -> None:
    write(tmp_path, "promoted")
    (tmp_path / "back").mkdir()
    assert "commit or rollback" in look(tmp_path)[0].todo


def test_whoever_runs_is_asked_and_whoever_hangs_is_told_by_the_file(tmp_path: Path) -> None:
    async def story() -> None:
        folder = tmp_path / "state"
        with Lock(folder):
            write(folder, "attached")

            async def answer() -> dict[str, Any]:
                return LIVE

            async with Control(folder, {"status": answer}):
                (one,) = await statuses([folder])
                assert (one.running, one.pid, one.live) == (True, 77, LIVE)
                assert one.todo == f"valkeep migrate cutover --source redis://s:1 --target redis://t:2 --state {folder}"

            async def on_the_way_back() -> dict[str, Any]:
                return LIVE | {"doing": "way-back"}

            async with Control(folder, {"status": on_the_way_back}):
                assert (await statuses([folder]))[0].todo.startswith("valkeep migrate commit or rollback --source redis://s:1")
            async with Control(folder, {}):
                (one,) = await statuses([folder])
                assert (one.running, one.pid, one.live, one.todo) == (True, 41, None, "")

    asyncio.run(story())


def test_all_folders_of_the_usual_place_are_found_and_those_that_run_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert asyncio.run(statuses()) == []
    write(tmp_path / "valkeep" / "a", "aborted")
    (tmp_path / "valkeep" / "empty").mkdir()
    (tmp_path / "valkeep" / "c").mkdir()
    (tmp_path / "valkeep" / "c" / "gateway.json").write_text(json.dumps({"source": "Redis 8.0.2", "listen": ["127.0.0.1", 7]}))
    (tmp_path / "valkeep" / "d").mkdir()
    (tmp_path / "valkeep" / "d" / "migration.json").write_text("{")
    with Lock(tmp_path / "valkeep" / "b"):
        found = asyncio.run(statuses())
    assert [(one.folder.name, one.step, one.running) for one in found] == [
        ("b", "preparing", True),
        ("a", "aborted", False),
        ("c", "serving", False),
        ("d", "unreadable", False),
    ]
    assert found[2].gateway == "127.0.0.1:7"


def test_looking_locks_nobody_out(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none")
    with Lock(tmp_path):
        assert is_locked(tmp_path)
    for _ in range(20):
        assert not is_locked(tmp_path)
        with Lock(tmp_path):
            pass
