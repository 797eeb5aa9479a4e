"""The primary of a shard of real clusters, through failovers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from valkeep.client.cluster_nodes import ClusterNodes
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.shard_primary import NoShardPrimary, ShardPrimary
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec

pytestmark = pytest.mark.server


async def call(at: Endpoint, *words: str) -> None:
    async with await Connection.open(at) as connection:
        await connection.call(*words)


async def follows_another(shard: ShardPrimary, old: Endpoint) -> Endpoint:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(NoShardPrimary):
                found = await shard.resolve()
                if found != old:
                    return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("server", ["redis-7.0", "redis-8.0", "valkey-9.1"])
def test_a_shard_is_followed_through_a_failover_by_hand_and_a_crash(server: str) -> None:
    asyncio.run(followed(server))


async def followed(server: str) -> None:
    async with LocalDeployment(replace(TopologySpec.cluster(shards=3, replicas=2), server=server)) as cluster:
        async with ClusterNodes([cluster.machines["n2"].endpoint]) as nodes:
            words = await nodes.look()
            assert len(words) == 3  # replicas are asked on demand
            everybody = await nodes.look(everybody=True)
            assert len(everybody) == 9
        name = next(word.me.id for word in words.values() if word.endpoint.port == cluster.machines["n1"].endpoint.port)
        shard = ShardPrimary([cluster.machines["n3"].endpoint], name)
        first = await shard.resolve()
        assert first.address == cluster.machines["n1"].endpoint.address
        assert len(shard.members) == 3
        replica = next(word for word in everybody.values() if word.me.primary_id == name)
        await call(replica.endpoint, "CLUSTER", "FAILOVER")
        second = await follows_another(shard, first)
        assert second == replica.endpoint
        await next(machine for machine in cluster.machines.values() if machine.endpoint == second).kill()
        third = await follows_another(shard, second)
        assert third != second
        assert await shard.resolve() == third
