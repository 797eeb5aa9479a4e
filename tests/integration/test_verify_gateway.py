"""Verification and repair through a running gateway: the target is a replica, and what differs is copied again in its stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.verifying import FAR, Writers, bounded, endpoint, fill
from tests.support.waiting import until
from valkeep.client.replication_reader import ReplicationReader
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.migrate.verify.barrier import Relation
from valkeep.migrate.verify.session import Session, VerifySettings
from valkeep.migrate.verify.shards import Shards
from valkeep.runtime.node import Process

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]


@asynccontextmanager
async def linked(source: Process, target: Process, there: Any, folder: Path, policy: FieldTtl) -> AsyncIterator[Verifier]:
    """A verifier whose barrier and repairs go through a gateway that the target hangs off."""
    version = TargetFormat(tuple(int(part) for part in there.info("server")["valkey_version"].split(".")))
    options = GatewayOptions((version,), policy, ("127.0.0.1", 0), frozenset({"127.0.0.1"}), folder)
    async with Gateway(PsyncFeed(endpoint(source)), options, Ledger(None), lambda _event: None, time.monotonic) as gateway:
        await gateway.snapshot_taken()
        await asyncio.to_thread(there.replicaof, gateway.address[0], gateway.address[1])
        await gateway.online(gateway.channels[0])

        async def recopy(database: int, key: bytes) -> None:
            await gateway.recopy(((database, key),))

        async with Verifier(endpoint(source), endpoint(target), policy, gateway.drained, None, folder, recopy) as verifier:
            yield verifier
        await asyncio.to_thread(there.replicaof, "NO", "ONE")


def plant(there: Callable[[int], Any]) -> int:
    """One of each kind of difference, in several databases; returns how many keys differ."""
    there(0).pexpireat("ttl", FAR + 1)
    there(0).set("one more", 1)
    there(3).delete("set:3")
    there(3).hset("hash:700", "field 9", "other")
    there(9).lset("list:700", 350, "other")
    there(9).execute_command("XCLAIM", "stream", "group", "alice", 0, "3-1", "RETRYCOUNT", 7)
    there(5).rename("untouched", "moved")
    return 8


@pytest.mark.parametrize("target", ["valkey-9.1", "valkey-8.1"])
def test_planted_differences_are_copied_again_through_the_gateway(server: Server, client: Client, tmp_path: Path, target: str) -> None:
    a, b = server("redis-8.0"), server(target, replica_read_only="no")
    fill(client(a))
    client(a, db=5).set("untouched", 1)
    for database in (0, 3):
        client(a, db=database).hset("fields", mapping={"a": 1, "b": 2})
        client(a, db=database).execute_command("HPEXPIREAT", "fields", FAR, "FIELDS", 1, "a")

    async def job() -> list[Comparison]:
        async with linked(a, b, client(b), tmp_path, FieldTtl.KEEP_FIELD) as verifier:
            results = [await verifier.full()]
            planted = await asyncio.to_thread(plant, lambda database: client(b, db=database))
            client(b, db=3).hset("fields", "a", "other")
            results.append(await verifier.full())
            assert results[-1].differences == planted + 1
            return [*results, await verifier.repair(), await verifier.round(), await verifier.full()]

    before, found, repaired, after, again = bounded(job())
    assert found.verdict == "invalid"
    for result in (before, repaired, after, again):
        assert (result.verdict, result.examples) == ("valid", ())
    assert repaired.repaired == 9
    assert client(b, db=3).hgetall("fields") == {b"a": b"1", b"b": b"2"}
    assert client(b).pexpiretime("ttl") == FAR
    assert client(b).get("one more") is None
    assert client(b).info("stats")["unexpected_error_replies"] == 0


def test_repairs_through_the_gateway_while_writers_write(server: Server, client: Client, tmp_path: Path) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", replica_read_only="no")
    fill(client(a))
    client(a, db=5).set("untouched", 1)

    async def job() -> list[Comparison]:
        async with linked(a, b, client(b), tmp_path, FieldTtl.REFUSE) as verifier:
            with Writers(a.port, fields_expire=True) as writers:
                await asyncio.to_thread(until, lambda: writers.writes > 1000, "1,000 writes")
                planted = await asyncio.to_thread(plant, lambda database: client(b, db=database))
                results = [await verifier.full()]
                assert results[0].differences == planted
                results += [await verifier.repair(), await verifier.full()]
            return [*results, await verifier.round()]

    found, repaired, again, quiet = bounded(job())
    assert found.verdict == "invalid"
    assert repaired.repaired == 8
    for result in (repaired, again):
        assert (result.differences, result.examples) == (0, ())
        assert result.verdict in ("valid", "unknown")
    assert quiet.verdict == "valid"
    for database in (0, 3, 5, 7, 9):
        here, there = client(a, db=database), client(b, db=database)
        until(lambda here=here, there=there: here.dbsize() == there.dbsize(), "as many keys as at the source", 10)  # type: ignore[misc]


def test_a_repaired_key_is_looked_at_behind_its_copy_and_not_before(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ReplicationReader.stream

    async def late(self: ReplicationReader) -> AsyncIterator[bytes]:
        async for piece in stream(self):
            await asyncio.sleep(0.2)  # a link that is slower than the gateway's
            yield piece

    monkeypatch.setattr(ReplicationReader, "stream", late)
    a, b = server("valkey-9.1"), server("valkey-9.1")
    client(a).set("k", 1)
    waited_for: list[int] = []
    copied_at: list[int] = []

    async def barrier(offset: int) -> None:
        waited_for.append(offset)

    async def recopy(_database: int, _key: bytes) -> None:
        client(a).set("written before the copy is read", 1)
        client(b).set("written before the copy is read", 1)
        copied_at.append(client(a).info("replication")["master_repl_offset"])
        client(b).set("k", 1)

    async def job() -> list[Comparison]:
        source, target = await Shards.open(endpoint(a)), await Shards.open(endpoint(b))
        settings = VerifySettings(source, target, FieldTtl.REFUSE, Relation.PIPELINE, tmp_path, 30.0)
        session = Session(settings, barrier, lambda *_, **__: None)
        try:
            await session.open()
            results = [await session.full()]
            del waited_for[:]
            results.append(await session.repair(None, recopy))
        finally:
            await session.close()
        return results

    found, repaired = bounded(job())
    assert (found.verdict, found.missing) == ("invalid", 1)
    assert (repaired.verdict, repaired.repaired) == ("valid", 1)
    assert waited_for[0] >= copied_at[0]
