"""The rehearsal's machinery with native replication in the gateway's place: Valkey to Valkey, which needs no gateway.

The move is a parameter of the rehearsal, so everything around it – data set, writers, checkpoint, failover, judgement – is tested
here without the thing that it judges; and moves that lose or change something must be found.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from tests.support import nodes
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import parse_info, server_info
from valkeep.drill.rehearsal.failover import Failover, kill_and_promote
from valkeep.drill.rehearsal.move import Moved, MoveRequest
from valkeep.drill.rehearsal.rehearse import RehearsalOptions, rehearse
from valkeep.report.events import Emit, Event, Phase
from valkeep.runtime.node import Node

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rehearsal")]
WRITES_APART = 100_000  # bytes of the primary's stream: a thousand writes or so


async def natively(request: MoveRequest, emit: Emit) -> Moved:
    """REPLICAOF, then the same cut-over protocol in its simplest form: pause, drain, fence, drain, promote."""
    began = time.monotonic()
    async with (
        await Connection.open(request.source) as source,
        await Connection.open(request.target) as target,
    ):
        emit(Phase(0, "sync"))
        await target.call("REPLICAOF", request.source.host, request.source.port)
        await _until(target, "master_link_status", "up")
        emit(Phase(0, "sync", done=True))
        synced = time.monotonic()
        emit(Phase(0, "cut-over"))
        await source.call("CLIENT", "PAUSE", 5000, "WRITE")
        paused = time.monotonic()
        await _drained(source, target)
        fenced = await source.pipeline([("CONFIG", "SET", "min-replicas-to-write", 255), ("CLIENT", "UNPAUSE")])
        assert fenced == [b"OK", b"OK"]
        await _drained(source, target)
        await target.call("REPLICAOF", "NO", "ONE")
        emit(Phase(0, "cut-over", done=True))
        return Moved("valid", 0, synced - began, 0, (time.monotonic() - paused) * 1000, None, 0)


async def _until(connection: Connection, field: str, value: str) -> None:
    async with asyncio.timeout(20):
        while parse_info(await connection.call("INFO", "replication")).get(field) != value:  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.01)


async def _drained(source: Connection, target: Connection) -> None:
    wanted = int(parse_info(await source.call("INFO", "replication"))["master_repl_offset"])
    async with asyncio.timeout(20):
        while int(parse_info(await target.call("INFO", "replication"))["slave_repl_offset"]) < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def options() -> RehearsalOptions:
    nodes.binary("valkey-9.1")
    return RehearsalOptions(
        source_server="valkey-9.1", target_server="valkey-9.1", keys=20_000, rate=3000, warm_up=0.5, settle=0.7, field_ttl="refuse"
    )


def test_a_native_move_between_valkeys_is_valid_and_every_number_is_there() -> None:
    seen: list[Event] = []
    outcome = asyncio.run(rehearse(options(), seen.append, move=natively))
    found = outcome.to_json()
    assert outcome.verdict == "valid", found["reasons"]
    assert found["representative"] is False
    assert found["lost_acked_writes"] == found["mismatches"] == found["unexpected_error_replies"] == 0
    assert found["keys"] >= 20_000
    assert found["acked_writes"] > 3000
    assert 0 < found["write_pause_ms"] < 3000
    assert 0 < found["failover"]["detected_ms"] < found["failover"]["promoted_ms"]
    assert found["failover"]["first_ack_ms"] > 0  # by the writers' process: it may see the promotion before we read our clock
    assert found["failover"]["lost_acked_writes"] == found["failover"]["allowed"]
    assert found["sample"]["keys"] > 300
    assert {"string", "list", "set", "hash", "zset", "stream"} <= found["sample"]["kinds"].keys()
    assert any(isinstance(event, Phase) and event.name == "cut-over" for event in seen)


async def _tampering(request: MoveRequest, emit: Emit) -> Moved:
    """A move that damages the target in every way at once, right after the cut."""
    moved = await natively(request, emit)
    async with await Connection.open(request.target) as target:
        keys = await target.call("KEYS", "w:0:*")
        lists = sorted(key for key in keys if key.startswith(b"w:0:list:"))
        expiring = [key for key in keys if key.startswith(b"w:0:ttl:")]
        await target.pipeline([
            ("LPOP", lists[0]),
            ("DECRBY", "counter:0", 5),
            ("SADD", "w:0:pool", *range(6000)),
            ("DEL", *[key for key in keys if key.startswith(b"w:0:set:")]),
            *[("PERSIST", key) for key in expiring],
            ("XTRIM", "w:0:stream", "MAXLEN", 3),
            ("RPUSH", "w:0:tx:l", 12345),
            ("DEL", "big-hash:0"),
        ])  # fmt: skip
    return moved


def test_damage_done_by_a_move_is_found_by_every_checker() -> None:
    damaged = replace(options(), settle=0.05)
    outcome = asyncio.run(rehearse(damaged, lambda _: None, move=_tampering))
    found = {judgement.checker: judgement for judgement in outcome.move.judgements}
    assert outcome.verdict == "invalid"
    assert {name for name, judgement in found.items() if judgement.verdict == "invalid"} >= {"incr", "rpush", "xadd", "spop", "multi"}
    assert outcome.move.lost > 10
    assert any("big-hash:0" in difference for difference in outcome.spot.differences)
    assert outcome.reasons


async def _cut_off(primary: Node, replica: Node) -> Failover:
    """The replica loses its primary some hundred writes before the kill, so that acked writes are really lost."""
    async with (
        await Connection.open(Endpoint.parse(replica.endpoint)) as heir,
        await Connection.open(Endpoint.parse(primary.endpoint)) as here,
    ):
        await heir.call("CONFIG", "SET", "replica-read-only", "yes")
        await heir.call("REPLICAOF", "127.0.0.1", 1)  # nobody there: it stays a replica and goes on refusing writes
        apart = (await server_info(here)).offset
        async with asyncio.timeout(20):
            while (await server_info(here)).offset < apart + WRITES_APART:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    return await kill_and_promote(primary, replica)


def test_writes_that_a_failover_really_lost_are_counted_and_allowed() -> None:
    outcome = asyncio.run(rehearse(options(), lambda _: None, move=natively, kill=_cut_off))
    assert outcome.verdict == "valid", outcome.reasons
    assert outcome.move.lost == 0
    assert outcome.failover.lost > 100
    assert outcome.failover.allowed == outcome.failover.lost


async def _liar(primary: Node, replica: Node) -> Failover:
    """As above, but the record claims that the replica had everything."""
    return replace(await _cut_off(primary, replica), promised_until=time.monotonic_ns())


def test_a_loss_of_what_the_replica_should_have_had_is_invalid() -> None:
    outcome = asyncio.run(rehearse(options(), lambda _: None, move=natively, kill=_liar))
    assert outcome.verdict == "invalid"
    assert outcome.failover.allowed < outcome.failover.lost
