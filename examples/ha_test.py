"""A primary is killed, and the application goes on: run with ``python -m pytest examples/ha_test.py``."""

from __future__ import annotations

import asyncio
from typing import Any

import ha_client

from valkeep.client.endpoint import Endpoint
from valkeep.client.resilient import ResilientClient


def connect(servers: Any) -> ResilientClient:
    return ResilientClient.sentinel([Endpoint.parse(url) for url in servers.urls], patience=ha_client.PATIENCE)


def test_create_read_update_delete(valkey_sentinel: Any) -> None:
    async def check() -> None:
        async with connect(valkey_sentinel) as client:
            await ha_client.create_read_update_delete(client)

    asyncio.run(check())


def test_after_a_failover_the_data_is_consistent_through_the_new_primary(valkey_sentinel: Any, faults: Any) -> None:
    async def check() -> None:
        async with connect(valkey_sentinel) as client:
            before = await ha_client.write_for(client, 0.5)
            killed = (await faults.aio.kill("primary")).endpoints[0].address
            after = await ha_client.write_for(client, 3.0)  # sentinels take about two seconds to notice and to agree
            (primary,) = await client.primaries()
            assert primary.address != killed
            assert before
            assert after
            assert await ha_client.missing(client, before[len(after) :] + after) == []  # each number was written again from 1 on
            await ha_client.create_read_update_delete(client)
            assert client.counts.in_doubt == 0

    asyncio.run(check())
