"""The folder of a migration's state: one for each pair of servers, however their URLs are written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from valkeep.migrate.control import LOCK, Lock
from valkeep.migrate.state import MigrationState, StateFile, default_directory, write_durably


def test_cutover_and_abort_find_a_migration_that_was_started_with_a_password() -> None:
    started = default_directory("redis://:***@10.0.0.5:6379", "rediss://mover:***@10.0.0.9:6380/3")
    assert default_directory("redis://10.0.0.5:6379", "redis://10.0.0.9:6380") == started


def test_other_servers_have_another_folder() -> None:
    folders = {default_directory(f"redis://10.0.0.5:{port}", "redis://10.0.0.9:6379") for port in (6379, 6380)}
    assert len(folders | {default_directory("redis://10.0.0.9:6379", "redis://10.0.0.5:6379")}) == 3


def test_what_is_kept_is_for_its_user_alone_also_in_a_folder_that_is_open_to_others(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", tmp_path):
        before = os.umask(0)
        try:
            with Lock(folder):
                StateFile(folder).write(MigrationState("attaching", "redis://127.0.0.1:1", "redis://127.0.0.1:2", 1))
                (folder / "gateway.new").touch(0o644)  # a kill left it
                write_durably(folder / "gateway.json", {"schema": 1, "much": "x" * 100})
                write_durably(folder / "gateway.json", {"schema": 1})
        finally:
            os.umask(before)
        kept = [path for path in folder.iterdir() if path.is_file()]
        assert {path.name for path in kept} == {LOCK, "migration.json", "gateway.json"}
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
        assert json.loads((folder / "gateway.json").read_text()) == {"schema": 1}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
