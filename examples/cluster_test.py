"""Keys, slots, MOVED and a promotion in a cluster: run with ``python -m pytest examples/cluster_test.py``."""

from __future__ import annotations

import asyncio
from typing import Any

import cluster_client

from valkeep.client.endpoint import Endpoint
from valkeep.client.resilient import ResilientClient


def connect(servers: Any) -> ResilientClient:
    return ResilientClient.cluster([Endpoint.parse(url) for url in servers.urls[:2]], patience=cluster_client.PATIENCE)


def test_keys_are_spread_by_slot_and_counted_on_each_shard(valkey_cluster: Any) -> None:
    async def check() -> None:
        async with connect(valkey_cluster) as client:
            empty = await client.each_primary("DBSIZE")
            counted = await cluster_client.spread(client, 3000)
            sizes = await client.each_primary("DBSIZE")
            assert {node.address: sizes[node] - empty[node] for node in sizes} == counted
            assert len(counted) == 3
            assert all(900 < keys < 1100 for keys in counted.values())

            said = await cluster_client.follow_moved(client, "spread:0")
            assert said.startswith("MOVED ")
            assert said.endswith((await client.owner("spread:0")).address)

    asyncio.run(check())


def test_a_primary_is_killed_its_replica_promoted_and_service_restored(valkey_cluster: Any, faults: Any) -> None:
    async def check() -> None:
        async with connect(valkey_cluster) as client:
            await cluster_client.spread(client, 300)
            killed = (await faults.aio.kill("primary")).endpoints[0].address
            acked = await cluster_client.write_for(client, 3.0)
            primaries = await client.primaries()
            assert len(primaries) == 3
            assert killed not in [node.address for node in primaries]
            assert acked
            assert await cluster_client.missing(client, acked) == []
            values = await client.pipeline([("GET", f"spread:{number}") for number in range(300)])
            assert values == [b"x"] * 300

    asyncio.run(check())
