"""The folder of a migration's state: one for each pair of servers, however their URLs are written."""

from __future__ import annotations

from valkeep.migrate.state import default_directory


def test_cutover_and_abort_find_a_migration_that_was_started_with_a_password() -> None:
    started = default_directory("redis://:***@10.0.0.5:6379", "rediss://mover:***@10.0.0.9:6380/3")
    assert default_directory("redis://10.0.0.5:6379", "redis://10.0.0.9:6380") == started


def test_other_servers_have_another_folder() -> None:
    folders = {default_directory(f"redis://10.0.0.5:{port}", "redis://10.0.0.9:6379") for port in (6379, 6380)}
    assert len(folders | {default_directory("redis://10.0.0.9:6379", "redis://10.0.0.5:6379")}) == 3
