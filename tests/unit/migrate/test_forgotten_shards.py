"""A run that begins anew removes what runs before it left of shards that it has not: their spools, their states, and nothing of anybody else."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from valkeep.migrate.control import Lock
from valkeep.migrate.gateway.resumption import Resumption
from valkeep.migrate.run.lane import forget_others
from valkeep.migrate.state import SHARDS, MigrationState, StateFile
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

LANES: Any = [SimpleNamespace(name="1"), SimpleNamespace(name="2")]


def planted(state: Path, name: str, disk: Path) -> Path:
    """What a killed run leaves of a shard; returns its spool."""
    folder = state / SHARDS / name
    resumption = Resumption(folder, disk, None)
    resumption.begin(FieldTtl.DROP_FIELD, [TargetFormat((8, 1))])
    (resumption.spool_folder / "stream-1").write_bytes(b"x" * 1000)
    StateFile(folder).write(MigrationState("attached", "s", "t", 1))
    (folder / "migration.new").write_text("half")
    return resumption.spool_folder


def forget(state: Path, spool: Path | None = None) -> None:
    options: Any = SimpleNamespace(state_directory=state, spool=spool)
    forget_others(options, LANES)


def test_folders_and_spools_of_other_shards_go_and_those_of_this_run_stay(tmp_path: Path) -> None:
    spools = {name: planted(tmp_path, name, tmp_path / "disk") for name in ("1", "2", "3", "10")}
    forget(tmp_path)  # without the --spool of that run: the folder says where it was
    assert {folder.name for folder in (tmp_path / SHARDS).iterdir()} == {"1", "2"}
    assert [name for name, spool in spools.items() if spool.exists()] == ["1", "2"]


def test_a_run_that_has_no_shards_leaves_none(tmp_path: Path) -> None:
    spool = planted(tmp_path, "3", tmp_path)
    forget(tmp_path)
    assert not spool.exists()
    assert list(tmp_path.iterdir()) == []
    forget(tmp_path)  # nothing is there


def test_what_valkeep_did_not_write_stays(tmp_path: Path) -> None:
    spool = planted(tmp_path, "3", tmp_path)
    (tmp_path / SHARDS / "3" / "notes.txt").write_text("mine")
    (tmp_path / SHARDS / "backup").mkdir()
    (tmp_path / SHARDS / "7").write_text("a file")
    forget(tmp_path)
    assert not spool.exists()
    left = {str(path.relative_to(tmp_path / SHARDS)) for path in (tmp_path / SHARDS).rglob("*")}
    assert left == {"3", "3/notes.txt", "backup", "7"}


@pytest.mark.parametrize("what", ["shards", "folder", "gateway.json", "spool"])
def test_no_symbolic_link_is_followed(tmp_path: Path, what: str) -> None:
    elsewhere, state = tmp_path / "elsewhere", tmp_path / "state"
    spool = planted(elsewhere, "3", elsewhere)
    (spool / "kept").write_text("precious")
    (state / SHARDS).mkdir(parents=True)
    if what == "shards":
        (state / SHARDS).rmdir()
        (state / SHARDS).symlink_to(elsewhere / SHARDS)
    elif what == "folder":
        (state / SHARDS / "3").symlink_to(elsewhere / SHARDS / "3")
    elif what == "gateway.json":
        (state / SHARDS / "3").mkdir()
        (state / SHARDS / "3" / "gateway.json").symlink_to(elsewhere / SHARDS / "3" / "gateway.json")
    else:
        own = planted(state, "3", state)
        for path in own.iterdir():
            path.unlink()
        own.rmdir()
        own.symlink_to(spool)
    forget(state)
    assert (spool / "kept").read_text() == "precious"
    assert (elsewhere / SHARDS / "3" / "migration.json").exists()


def test_a_folder_that_somebody_works_in_is_left_alone(tmp_path: Path) -> None:
    spool = planted(tmp_path, "3", tmp_path)
    with Lock(tmp_path / SHARDS / "3"):
        forget(tmp_path)
        assert spool.exists()
    forget(tmp_path)
    assert not spool.exists()


def test_a_copy_of_a_folder_does_not_say_what_is_removed_of_the_original(tmp_path: Path) -> None:
    spool = planted(tmp_path / "first", "3", tmp_path / "first")
    shutil.copytree(tmp_path / "first" / SHARDS, tmp_path / "copy" / SHARDS)
    forget(tmp_path / "copy")
    assert spool.exists()
    assert not (tmp_path / "copy" / SHARDS).exists()
