"""Asks all shards of a target that is a cluster. Reads only; a node that does not answer is a fact, not an error."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from valkeep.client.cluster import ClusterDirectory, SlotTable
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import server_info, text_of
from valkeep.errors import ValkeepError
from valkeep.migrate.preflight.facts import ClusterFacts, ServerFacts, ShardFacts
from valkeep.migrate.preflight.gather import gather

__all__ = ["gather_target"]


async def gather_target(endpoint: Endpoint, timeout: float) -> ServerFacts:
    """As `gather.gather`, with ``cluster`` where the target is a node of one."""
    facts = await gather(endpoint, rate_seconds=0, sample_keys=0, timeout=timeout)
    if facts.mode != "cluster":
        return facts
    endpoint = endpoint.without_database()
    try:
        table = await ClusterDirectory([endpoint]).table(timeout)
        shards = await asyncio.gather(*(_shard(table, primary, timeout) for primary in table.primaries))
        moving = ", ".join(filter(None, await asyncio.gather(*(_moving(primary, timeout) for primary in table.primaries))))
    except ValkeepError as error:
        return replace(facts, cluster=ClusterFacts(0, ()), unasked={**facts.unasked, "CLUSTER SLOTS": error.message})
    return replace(facts, cluster=ClusterFacts(table.served, tuple(shards), moving))


async def _shard(table: SlotTable, primary: Endpoint, timeout: float) -> ShardFacts:
    slots = table.owners.count(primary)
    nodes = table.replicas.get(primary, ())
    versions = await asyncio.gather(*(_version(node, timeout) for node in nodes))
    replicas = {node.address: version for node, version in zip(nodes, versions, strict=True)}
    try:
        facts = await gather(primary, rate_seconds=0, sample_keys=0, timeout=timeout)
    except ValkeepError as error:
        return ShardFacts(primary.address, slots, None, error.message, replicas)
    return ShardFacts(primary.address, slots, facts, "", replicas)


async def _version(node: Endpoint, timeout: float) -> str:
    try:
        async with await Connection.open(node, timeout=timeout, client_name="valkeep-preflight") as connection:
            return ".".join(map(str, (await server_info(connection)).version))
    except ValkeepError:
        return ""


async def _moving(primary: Endpoint, timeout: float) -> str:
    """The slots that it gives or takes now, as CLUSTER NODES says of itself: ``[123->-<id>]``."""
    try:
        async with await Connection.open(primary, timeout=timeout, client_name="valkeep-preflight") as connection:
            listed = text_of(await connection.call("CLUSTER", "NODES"))
    except ValkeepError:
        return ""  # said by whoever can't be reached
    mine = next((line.split() for line in listed.splitlines() if "myself" in line), [])
    slots = [token.strip("[]").partition("-")[0] for token in mine[8:] if token.startswith("[")]
    return f"slot {', '.join(slots)} at {primary.address}" if slots else ""
