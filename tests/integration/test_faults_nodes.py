"""Each fault that strikes nodes does what it says to real servers, and is undone by its heal."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.support.staged import ask, becomes, staged, struck
from tests.support.waiting import until
from valkeep.drill.stage import Stage
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.slots import tag_for
from valkeep.topology.spec import Kind, Persistence, TopologySpec

pytestmark = pytest.mark.server

PAIR = TopologySpec(Kind.STANDALONE, replicas=1, timeout_ms=0)
SENTINEL = TopologySpec.sentinel()
CLUSTER = TopologySpec.cluster(shards=3, replicas=1)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(90):
            await test

    asyncio.run(bounded())


async def answers(stage: Stage, name: str) -> bool:
    try:
        return bool(await ask(stage, name, "PING") == b"PONG")
    except ValkeepError:
        return False


async def says(stage: Stage, sentinel: str, wanted: str) -> None:
    """Until CKQUORUM of this sentinel begins with ``wanted``."""
    said = ""
    while not said.startswith(wanted):
        try:
            said = (await ask(stage, sentinel, "SENTINEL", "CKQUORUM", "valkeep")).decode()
        except ServerError as error:
            said = error.message
        await asyncio.sleep(0.05)


def test_kill_term_and_pause_take_a_node_away_and_the_heal_brings_it_back() -> None:
    async def main() -> None:
        async with staged(PAIR) as stage:
            for fault in ("kill", "term", "pause"):
                injected = await struck(stage, f"{fault}:replica")
                assert injected.nodes == ("n2",)
                assert injected.lasting
                assert not await answers(stage, "n2")
                assert await answers(stage, "n1")
                await injected.heal()
                assert await answers(stage, "n2")
                assert injected.healed is not None
                assert injected.at <= injected.done <= injected.healed
                await injected.heal()  # nothing happens
                await becomes(stage, lambda view: view.nodes["n2"].link_up)

    run(main())


def test_restart_keeps_the_data_and_restart_empty_does_not() -> None:
    async def main() -> None:
        async with staged(replace(TopologySpec.standalone(), persistence=Persistence.ALWAYS)) as stage:
            await ask(stage, "n1", "SET", "k", "v")
            injected = await struck(stage, "restart:primary")
            assert not injected.lasting
            assert await ask(stage, "n1", "GET", "k") == b"v"
            await struck(stage, "restart-empty:n1")
            assert await ask(stage, "n1", "GET", "k") is None

    run(main())


def test_config_sets_and_the_heal_sets_back_what_was() -> None:
    async def main() -> None:
        async with staged(PAIR) as stage:
            injected = await struck(stage, "config:primary(min-replicas-to-write=1,maxmemory=77mb)")
            assert await ask(stage, "n1", "CONFIG", "GET", "min-replicas-to-write") == [b"min-replicas-to-write", b"1"]
            assert await ask(stage, "n2", "CONFIG", "GET", "min-replicas-to-write") == [b"min-replicas-to-write", b"0"]
            await injected.heal()
            assert await ask(stage, "n1", "CONFIG", "GET", "min-replicas-to-write") == [b"min-replicas-to-write", b"0"]
            assert await ask(stage, "n1", "CONFIG", "GET", "maxmemory") == [b"maxmemory", b"0"]
            with pytest.raises(ValkeepError, match="no setting"):
                await struck(stage, "config:primary(no-such-thing=1)")

    run(main())


def test_a_full_disk_stops_writes_under_everysec_and_ends_the_server_under_always() -> None:
    async def write(stage: Stage) -> str:
        try:
            return str(await ask(stage, "n1", "APPEND", "k", "x" * 100_000))
        except ServerError as error:
            return error.kind

    async def main() -> None:
        async with staged(replace(TopologySpec.standalone(), persistence=Persistence.EVERYSEC)) as stage:
            assert (await write(stage)).isdecimal()
            injected = await struck(stage, "disk-full:primary")
            while await write(stage) != "MISCONF":
                pass
            kept = await ask(stage, "n1", "STRLEN", "k")
            await injected.heal()
            while not (await write(stage)).isdecimal():
                pass
            assert await ask(stage, "n1", "STRLEN", "k") == kept + 100_000
        async with staged(replace(TopologySpec.standalone(), persistence=Persistence.ALWAYS)) as stage:
            acked = int(await write(stage))
            injected = await struck(stage, "disk-full:primary")
            with pytest.raises(ValkeepError):
                while True:
                    acked = int(await write(stage))
            await asyncio.to_thread(until, lambda: not stage.machine("n1").alive, "the server has exited")
            await injected.heal()
            assert await ask(stage, "n1", "STRLEN", "k") == acked

    run(main())


@pytest.mark.parametrize("mode", ["plain", "coordinated"])
def test_sentinel_promotes_on_request(mode: str) -> None:
    async def main() -> None:
        async with staged(SENTINEL) as stage:
            injected = await struck(stage, f"promote:primary(mode={mode})")
            assert injected.nodes == ("n1",)
            await becomes(stage, lambda view: any(node.name != "n1" for node in view.primaries()))

    run(main())


def test_sentinel_loss_leaves_the_quorum_and_quorum_loss_does_not() -> None:
    async def main() -> None:
        async with staged(SENTINEL) as stage:
            lost = await struck(stage, "sentinel-loss:sentinel:2")
            assert lost.nodes == ("s2",)
            await says(stage, "s1", "OK 2 usable Sentinels")
            await lost.heal()
            lost = await struck(stage, "quorum-loss:sentinel")
            assert lost.nodes == ("s1", "s3")
            alive = [name for name, machine in stage.deployment.machines.items() if name.startswith("s") and machine.alive]
            assert alive == ["s2"]
            await says(stage, "s2", "NOQUORUM 1 usable Sentinels")
            await lost.heal()
            assert all(machine.alive for machine in stage.deployment.machines.values())

    run(main())


@pytest.mark.parametrize("server", ["newest-valkey", "valkey-8.0"])
def test_slots_move_with_their_keys(server: str) -> None:
    async def main() -> None:
        async with staged(replace(CLUSTER, server=server)) as stage:
            stays, goes = tag_for(5).decode(), tag_for(5000).decode()
            for tag in (stays, goes):
                await ask(stage, "n1", "SET", f"{{{tag}}}", tag)
            injected = await struck(stage, "slot-migration:shard:1(to=3)")
            assert injected.nodes == ("n1", "n3")
            assert ("MIGRATESLOTS" if server == "newest-valkey" else "SETSLOT") in injected.deed.detail
            assert await ask(stage, "n1", "GET", f"{{{stays}}}") == stays.encode()
            assert await ask(stage, "n3", "GET", f"{{{goes}}}") == goes.encode()
            await becomes(stage, lambda view: all(view.covered(node) == 16384 for node in view.nodes.values()))
            await becomes(stage, lambda view: view.nodes["n1"].slot_count == 2731 and view.nodes["n3"].slot_count == 8192)
            assert stage.shard_of("n1") == 0
            await stage.deployment.ready()

    run(main())


def test_a_cluster_promotes_on_request_in_three_ways_and_without_most_of_its_primaries_it_stops() -> None:
    async def main() -> None:
        async with staged(CLUSTER) as stage:
            for shard, mode in enumerate(("cluster", "cluster-force", "takeover")):
                injected = await struck(stage, f"promote:primary:{shard + 1}(mode={mode})")
                assert injected.nodes == (f"n{shard + 1}",)
                heir = f"n{shard + 4}"
                await becomes(stage, lambda view, heir=heir: heir in [node.name for node in view.primaries()])  # type: ignore[misc]
            injected = await struck(stage, "quorum-loss:primary")
            assert injected.nodes == ("n4", "n6")
            await becomes(stage, lambda view: view.nodes["n5"].state == "fail")
            await injected.heal()
            await becomes(stage, lambda view: all(node.state == "ok" for node in view.nodes.values()))

    run(main())
