"""A whole migration for every pair of versions, under writes; the end state is compared key by key through ordinary commands of both servers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest
import valkey

from tests.support.rdb_oracle import said
from valkeep.client.endpoint import Endpoint
from valkeep.drill.rehearsal.dataset import Abilities, dataset
from valkeep.migrate.outcome import RunOptions, RunResult
from valkeep.migrate.run.pipeline import run
from valkeep.migrate.transform.target import FieldTtl
from valkeep.wire.rdb.record import Consumer, Field, Record, Stream

pytestmark = pytest.mark.server

SOURCES = ("redis-7.0", "redis-8.0", "valkey-8.0", "valkey-8.1", "valkey-9.1")
TARGETS = ("valkey-8.0", "valkey-8.1", "valkey-9.1")
WITH_FIELD_TTL = {"redis-8.0", "valkey-9.1"}
KEYS = 800


class Writer:
    """Writes to the source without rest until it is refused; ``acked`` counts INCRs and RPUSHes that were answered."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.acked = 0
        self.refused = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "the source was never fenced"

    def _run(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with self.client.pipeline(transaction=True) as pipe:
                    pipe.incr("written:counter")
                    pipe.rpush("written:list", self.acked)
                    pipe.hset(f"written:hash:{self.acked % 50}", "n", self.acked)
                    pipe.set(f"written:{self.acked % 500}", self.acked, ex=1_000_000)
                    pipe.execute()
            except valkey.exceptions.ValkeyError as error:
                self.refused = str(error)
                return
            self.acked += 1


def load(client: Callable[..., Any], node: Any, *, field_ttl: bool) -> None:
    now = int(time.time() * 1000)
    for block in dataset(Random(7), KEYS, Abilities(field_ttl=field_ttl, functions=True), now_ms=now):
        with client(node, db=block.database).pipeline(transaction=False) as pipe:
            for command in block.commands:
                pipe.execute_command(*command)
            pipe.execute()


def move(source: Any, target: Any, folder: Path, policy: FieldTtl) -> RunResult:
    options = RunOptions(
        source=Endpoint.parse(source.endpoint),
        target=Endpoint.parse(target.endpoint),
        field_ttl=policy,
        accept=frozenset({"all"}),
        report=folder / "report",
        state=folder / "state",
        rate_seconds=0.1,
    )
    return asyncio.run(run(options, lambda _event: None, time.monotonic))


def everything(client: Callable[..., Any], node: Any, *, field_ttl: bool) -> dict[tuple[int, bytes], Record]:
    found = {}
    for database in range(3):
        connection = client(node, db=database)
        for key in connection.scan_iter(count=1000):
            found[database, key] = comparable(said(connection, key, database=database, field_ttl=field_ttl))
    return found


def comparable(record: Record) -> Record:
    """Without what a move does not keep on purpose: when a consumer was last seen, when an entry was last delivered."""
    if isinstance(record.value, Stream):
        groups = [
            replace(
                group,
                pending=[one._replace(delivery_ms=0) for one in group.pending],
                consumers=[Consumer(one.name, 0, 0, one.owned) for one in group.consumers if one.owned],
            )
            for group in record.value.groups
        ]
        return replace(record, value=replace(record.value, groups=groups))
    return record


def as_the_target_has_it(record: Record, policy: FieldTtl) -> Record | None:
    """What the policy makes of a hash, told by hand: fields with a TTL stay without it, or do not cross."""
    if not isinstance(record.value, dict) or not record.value or not isinstance(next(iter(record.value.values())), Field):
        return record
    if policy is FieldTtl.KEEP_FIELD:
        fields = {name: Field(field.value) for name, field in record.value.items()}
    else:
        fields = {name: field for name, field in record.value.items() if field.expire_ms < 0}
    return replace(record, value=fields) if fields else None


@pytest.mark.parametrize("target_spec", TARGETS)
@pytest.mark.parametrize("source_spec", SOURCES)
def test_every_key_arrives_for_each_pair_of_versions(
    source_spec: str, target_spec: str, server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    has_ttl, takes_ttl = source_spec in WITH_FIELD_TTL, target_spec in WITH_FIELD_TTL
    policy = (
        FieldTtl.REFUSE
        if takes_ttl or not has_ttl
        else Random(source_spec + target_spec).choice([FieldTtl.KEEP_FIELD, FieldTtl.DROP_FIELD])
    )
    source, target = server(source_spec), server(target_spec)
    load(client, source, field_ttl=has_ttl)

    with Writer(client(source)) as writer:
        result = move(source, target, tmp_path, policy)

    assert (result.verdict, result.mismatches, result.unexpected_error_replies) == ("valid", 0, 0)
    assert "NOREPLICAS" in writer.refused or "Not enough good replicas" in writer.refused
    assert target.alive
    moved = client(target)
    assert moved.role()[0] in (b"master", "master")
    assert int(moved.get("written:counter")) == moved.llen("written:list") == writer.acked

    expected = everything(client, source, field_ttl=has_ttl)
    if has_ttl and not takes_ttl:
        expected = {place: record for place, one in expected.items() if (record := as_the_target_has_it(one, policy)) is not None}
    found = everything(client, target, field_ttl=has_ttl and takes_ttl)
    assert found.keys() == expected.keys()
    assert [place for place, record in expected.items() if found[place] != record] == []
    assert len(found) > KEYS
    assert names(client(target)) == names(client(source)) == {b"rehearsal"}


def names(connection: Any) -> set[bytes]:
    """The libraries of functions that a server has."""
    listed = connection.execute_command("FUNCTION", "LIST")
    return {row[row.index(b"library_name") + 1] if isinstance(row, list) else row[b"library_name"] for row in listed}
