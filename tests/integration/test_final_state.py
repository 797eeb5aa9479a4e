"""What is read at a drill's end is what is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.waiting import holds
from valkeep.client.connection import Connection
from valkeep.drill.checkers.evidence import FinalState, FinalStream
from valkeep.drill.script import ClientSpec, Load
from valkeep.drill.workloads import final as final_module
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.final import read_final
from valkeep.drill.workloads.recorder import Recorder
from valkeep.drill.workloads.targets import Targets
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import TopologySpec

pytestmark = pytest.mark.server
CLIENTS = (ClientSpec("c1"), ClientSpec("c2"))


def run(test: object) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100):
            await test  # type: ignore[misc]

    asyncio.run(bounded())


def test_every_kind_of_key_is_read_and_what_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_module, "PIECE", 3)

    async def test() -> None:
        async with LocalDeployment(TopologySpec.standalone()) as deployment:
            targets = Targets.of(deployment, tags=2)
            tag, _ = targets.tags
            async with await Connection.open(deployment.machines["n1"].endpoint) as connection:
                assert await read_final({0: connection}, deployment.spec, targets) == FinalState()
                await connection.call("RPUSH", keys.journal(tag), *range(10))
                await connection.call("SET", keys.register(tag, 3), 33)
                await connection.call("SADD", keys.uniques(tag), *range(10))
                await connection.call("INCRBY", keys.counter(tag), 4)
                await connection.call("SET", keys.pair(tag) + b":b", 5)
                for element in range(10):
                    await connection.call("XADD", keys.stream(tag), "*", "n", element)
                await connection.call("XGROUP", "CREATE", keys.stream(tag), keys.GROUP, 0)
                ((_, entries),) = await connection.call(
                    "XREADGROUP", "GROUP", keys.GROUP, "me", "COUNT", 7, "STREAMS", keys.stream(tag), ">"
                )
                await connection.call("XACK", keys.stream(tag), keys.GROUP, entries[0][0])
                assert await read_final({0: connection}, deployment.spec, targets) == FinalState(
                    {keys.journal(tag): list(range(10))},
                    {keys.register(tag, 3): 33},
                    {keys.counter(tag): 4},
                    {keys.uniques(tag): set(range(10))},
                    {keys.pair(tag): (None, 5)},
                    {keys.stream(tag): FinalStream(list(range(10)), frozenset(range(1, 7)), frozenset({7, 8, 9}))},
                )

    run(test())


def test_a_slot_that_moved_is_read_where_it_is_now(tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.cluster(shards=3, replicas=0)) as deployment:
            targets = Targets.of(deployment)
            slot = key_slot(targets.tags[0])
            connections = {shard: await Connection.open(deployment.machines[f"n{shard + 1}"].endpoint) for shard in range(3)}
            for connection in connections.values():
                await connection.call("CLUSTER", "SETSLOT", slot, "NODE", await connections[2].call("CLUSTER", "MYID"))
            async with Recorder(Load("mixed", CLIENTS, 3000), targets, tmp_path / "work", 1) as recorder:
                await recorder.start()
                await holds(lambda: recorder.acked >= 1000, "acks")
                result = await recorder.finish()
            final = await read_final(connections, deployment.spec, targets)
            for connection in connections.values():
                await connection.close()
        appended = {operation.value for operation in result.history.of("append")}
        assert {element for listed in final.journals.values() for element in listed} == appended
        assert set(final.journals) == {keys.journal(tag) for tag in targets.tags}
        increments = sum(1 for _ in result.history.of("incr"))
        assert sum(int(value or 0) for value in final.counters.values()) == increments

    run(test())
