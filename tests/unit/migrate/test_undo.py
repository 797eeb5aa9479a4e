"""Which servers `valkeep migrate abort` asks: those that the state folder names, with the login that was given."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NoReturn

import pytest

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate.elasticache.address import GroupAddress
from valkeep.migrate.run.undo import undo
from valkeep.migrate.state import SHARDS, MigrationState, StateFile

SOURCE = Endpoint.parse("redis://mover:secret@10.0.0.1:6379")
TARGET = Endpoint.parse("valkey://10.0.0.9:6379")
FENCE = {"min-replicas-to-write": "0"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Endpoint]:
    """Nobody answers."""
    found: list[Endpoint] = []

    async def opened(where: Endpoint, *_: Any, **__: Any) -> NoReturn:
        found.append(where)
        raise ConnectionLost(f"{where.address} does not answer", remedy="start it")

    monkeypatch.setattr(Connection, "open", opened)
    return found


def left(folder: Path, step: str, **more: Any) -> None:
    StateFile(folder).write(MigrationState(step, SOURCE.display, TARGET.display, 1, **more))


def said(folder: Path, target: Endpoint | GroupAddress = TARGET, source: Endpoint | None = SOURCE, *, force: bool = False) -> Any:
    """The lines, or the error's code."""
    try:
        return asyncio.run(undo(source, target, folder, force=force))
    except ValkeepError as error:
        return error.code


def test_a_single_source_is_asked_where_it_is_fenced(tmp_path: Path, asked: list[Endpoint]) -> None:
    left(tmp_path, "cutting", fence_before=FENCE, fence_at="redis://10.0.0.2:6380")
    assert said(tmp_path) == "VK-ABORT-UNKNOWN"
    assert [one.address for one in asked] == ["10.0.0.2:6380", "10.0.0.9:6379"]
    assert asked[0].username == "mover"


def test_a_source_that_was_never_fenced_is_asked_where_it_was_given(tmp_path: Path, asked: list[Endpoint]) -> None:
    left(tmp_path, "attached")
    assert "the source was never fenced and accepts writes" in said(tmp_path)
    assert [one.address for one in asked] == ["10.0.0.1:6379", "10.0.0.9:6379"]


def test_of_a_cluster_the_shards_that_were_begun_with_are_asked_and_each_shard_of_the_target(tmp_path: Path, asked: list[Endpoint]) -> None:
    shards = {name: {"nodes": name * 40, "slots": ""} for name in ("1", "2", "3")}
    there = {f"10.0.0.{last}:6379": {"marker": "m", "run_id": "r"} for last in (9, 8)}
    left(tmp_path, "cutting", delivery="push", source_shards=shards, shards=there)
    left(tmp_path / SHARDS / "1", "cutting", fence_before=FENCE, fence_at="redis://10.0.0.3:6379")
    left(tmp_path / SHARDS / "2", "attached")  # not fenced: it is not asked
    left(tmp_path / SHARDS / "4", "cutting", fence_before=FENCE, fence_at="redis://10.0.0.4:6379")  # of another run
    assert said(tmp_path) == "VK-ABORT-UNKNOWN"
    assert [one.address for one in asked] == ["10.0.0.3:6379", "10.0.0.9:6379", "10.0.0.9:6379", "10.0.0.8:6379"]
    assert asked[0].password == SOURCE.password


def test_of_a_replication_group_the_server_that_was_its_primary_is_asked(tmp_path: Path, asked: list[Endpoint]) -> None:
    left(tmp_path, "attached", group="elasticache:mine")
    assert said(tmp_path, GroupAddress.parse("elasticache:other")) == "VK-STATE-OTHER"
    assert asked == []
    said(tmp_path, GroupAddress.parse("elasticache:mine"))
    assert [one.address for one in asked] == ["10.0.0.1:6379", "10.0.0.9:6379"]


def test_a_folder_of_another_target_is_refused_unless_it_is_forced(tmp_path: Path, asked: list[Endpoint]) -> None:
    left(tmp_path, "attached")
    other = Endpoint.parse("valkey://10.0.0.7:6379")
    assert said(tmp_path, other) == "VK-STATE-OTHER"
    assert asked == []
    assert isinstance(said(tmp_path, other, force=True), list)


def test_without_a_migration_nothing_is_undone_and_the_remedy_says_where_they_are(tmp_path: Path, asked: list[Endpoint]) -> None:
    with pytest.raises(Refused, match="no migration is recorded") as refused:
        asyncio.run(undo(SOURCE, TARGET, tmp_path))
    assert "valkeep migrate status" in refused.value.remedy
    assert len(asked) == 2
