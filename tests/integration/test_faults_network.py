"""Faults of the network, through the proxy (the namespace keeps the same contract: test_network_partitions), and faults that do not fit."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.support.network_contract import Caller
from tests.support.staged import ask, becomes, staged, struck
from tests.support.waiting import holds
from valkeep.client.connection import Connection
from valkeep.drill.faults import FAULTS, check, needs
from valkeep.drill.script import HEAL, Load, parse_schedule
from valkeep.drill.stage import Stage
from valkeep.errors import UsageError
from valkeep.topology.spec import Kind, TopologySpec

PAIR = TopologySpec(Kind.STANDALONE, replicas=1, timeout_ms=0)
SENTINEL = TopologySpec.sentinel()
CLUSTER = TopologySpec.cluster()


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(90):
            await test

    asyncio.run(bounded())


async def heard(stage: Stage, client: str, node: str, timeout: float = 10.0) -> bool:
    """Whether this client's PING is answered within ``timeout`` seconds."""

    def say() -> bool:
        try:
            caller = Caller(stage.deployment, client, node, timeout)  # type: ignore[arg-type]
        except TimeoutError:
            return False
        with caller.socket:
            return caller.ask("PING", timeout) != ""

    return await asyncio.to_thread(say)


async def copies(stage: Stage, milliseconds: int) -> Any:
    """Writes to n1: how many replicas have it within that time."""
    connection = await Connection.open(stage.machine("n1").endpoint)
    try:
        await connection.call("SET", "k", "1")
        return await connection.call("WAIT", 1, milliseconds, timeout=20.0)
    finally:
        await connection.close()


@pytest.mark.server
def test_a_partition_takes_named_clients_along_and_leaves_the_others_on_the_far_side() -> None:
    async def main() -> None:
        async with staged(PAIR, "proxy") as stage:
            injected = await struck(stage, "partition:primary,c1")
            assert injected.nodes == ("n1", "c1")
            assert await heard(stage, "c1", "n1")
            assert not await heard(stage, "c1", "n2", 0.4)
            assert not await heard(stage, "c2", "n1", 0.4)
            assert await heard(stage, "c2", "n2")
            assert await copies(stage, 100) == 0
            await injected.heal()
            assert await heard(stage, "c2", "n1")
            assert await copies(stage, 10_000) == 1

    run(main())


@pytest.mark.server
@pytest.mark.parametrize("way", ["in", "out"])
def test_a_one_way_partition_stops_writes_or_only_what_the_replica_hears(way: str) -> None:
    async def main() -> None:
        async with staged(PAIR, "proxy") as stage:
            await struck(stage, f"partition:n2(way={way})")
            assert await copies(stage, 300) == 0  # out: it has the write, and nobody hears its ACK
            if way == "in":
                assert await ask(stage, "n2", "GET", "k") is None
            else:
                await holds(lambda: ask(stage, "n2", "GET", "k"), "the replica has the write")

    run(main())


@pytest.mark.server
def test_an_isolated_node_still_serves_every_client_and_a_slow_link_slows_only_its_ends() -> None:
    async def main() -> None:
        async with staged(PAIR, "proxy") as stage:
            isolated = await struck(stage, "isolate:primary")
            assert await heard(stage, "c1", "n1")
            assert await heard(stage, "c1", "n2")
            assert await copies(stage, 100) == 0
            await isolated.heal()
            slow = await struck(stage, "slow-link:replica(ms=120)")
            best = math.inf
            for _ in range(5):
                begun = time.monotonic()
                assert await heard(stage, "c1", "n1")
                best = min(best, time.monotonic() - begun)
            assert best < 0.2
            begun = time.monotonic()
            assert await copies(stage, 10_000) == 1
            assert time.monotonic() - begun >= 0.24
            await slow.heal()

    run(main())


@pytest.mark.server
def test_a_cluster_replaces_a_primary_that_is_cut_off_and_it_steps_down_after_the_heal() -> None:
    async def main() -> None:
        async with staged(replace(CLUSTER, timeout_ms=500), "proxy") as stage:
            injected = await struck(stage, "partition:primary")
            await becomes(stage, lambda view: "n4" in [node.name for node in view.primaries()])
            assert stage.watch.view.nodes["n1"].role == "primary", "the watcher sees both sides"
            await injected.heal()
            await becomes(stage, lambda view: view.nodes["n1"].role == "replica")

    run(main())


@pytest.mark.parametrize(
    ("text", "spec", "says"),
    [
        ("burn:primary", SENTINEL, "'burn' is no fault"),
        ("kill:replica:9", SENTINEL, "no target"),
        ("kill:c1", SENTINEL, "c1 is a client"),
        ("kill:sentinel", CLUSTER, "no target"),
        ("kill:primary(hard=1)", SENTINEL, "no option 'hard'"),
        ("promote:primary", PAIR, "nobody decides"),
        ("promote:primary(mode=cluster)", SENTINEL, "mode=cluster is none of plain, coordinated"),
        ("promote:primary(mode=plain)", CLUSTER, "mode=plain is none of cluster"),
        ("partition:primary(way=up)", SENTINEL, "way=up"),
        ("slow-link:primary(ms=soon)", SENTINEL, "ms=soon"),
        ("sentinel-loss:sentinel(count=2)", SENTINEL, "count=2"),
        ("sentinel-loss:primary", CLUSTER, "needs sentinels"),
        ("quorum-loss:primary", PAIR, "needs sentinel or cluster"),
        ("slot-migration:primary", SENTINEL, "between the shards of a cluster"),
        ("slot-migration:primary(slots=9-3)", CLUSTER, "slots=9-3"),
        ("slot-migration:primary(to=4)", CLUSTER, "to=4"),
        ("config:primary", SENTINEL, "sets nothing"),
        ("crash:primary", SENTINEL, "can not do: fsync"),
        ("partition:primary", SENTINEL, "can not do: partition"),
    ],
)
def test_a_step_that_can_not_be_done_is_refused_before_anything_starts(text: str, spec: TopologySpec, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(parse_schedule(f"{text}@0"), spec, Load(), frozenset())
    assert says in caught.value.message
    assert caught.value.remedy


def test_what_steps_need_is_known_before_the_deployment_is_made() -> None:
    steps = parse_schedule(f"partition:primary@0+3 crash:n1@1 kill:n1@0 {HEAL}:all@1")
    assert needs(steps) == {"partition", "fsync"}
    check(steps, SENTINEL, Load())


def test_every_fault_says_what_it_does_in_a_sentence() -> None:
    for name, fault in FAULTS.items():
        assert name == fault.name
        assert 10 < len(fault.does) < 140, name
        assert not fault.does.endswith("."), name
