"""Asks all shards of a side that is a cluster. Reads only; a node that does not answer is a fact, not an error.

Any node leads to its cluster: what is asked are the primaries that own slots, whoever was given. Of the source each of them is asked all that a single server
is asked: rates and samples are per shard, since each has a link, a backlog and a fork of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from valkeep.client.cluster import ClusterDirectory, SlotTable
from valkeep.client.cluster_nodes import node_word
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import server_info
from valkeep.errors import ValkeepError
from valkeep.migrate.preflight.facts import ClusterFacts, ServerFacts, ShardFacts
from valkeep.migrate.preflight.gather import gather
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.snapshot import counted
from valkeep.report.events import Emit
from valkeep.topology.slots import ranges_of

__all__ = ["gather_source", "gather_target"]


async def gather_target(endpoint: Endpoint, timeout: float) -> ServerFacts:
    """As `gather.gather`, with ``cluster`` where the target is a node of one."""
    facts = await gather(endpoint, rate_seconds=0, sample_keys=0, timeout=timeout)
    return await _Cluster(endpoint, PreflightOptions(rate_seconds=0, sample_keys=0, timeout=timeout)).around(facts)


async def gather_source(endpoint: Endpoint, options: PreflightOptions, emit: Emit, at: Callable[[], float]) -> ServerFacts:
    """As `gather.gather`, with a full census where one is wanted. Of a cluster: its first shard, with ``cluster``, under the
    name that was given."""
    if options.full_census:
        options = replace(options, sample_keys=0)
    facts = await gather(endpoint, rate_seconds=options.rate_seconds, sample_keys=options.sample_keys, timeout=options.timeout)
    cluster = _Cluster(endpoint, options)
    facts = await cluster.around(facts)
    if options.full_census and facts.mode != "cluster":
        return await counted(endpoint, facts, emit, at)
    if options.full_census and facts.cluster is not None:  # one fork at a time: shards often share a machine
        shards = []
        for primary, shard in zip(cluster.primaries, facts.cluster.shards, strict=True):
            looked = await counted(primary, shard.facts, emit, at) if shard.facts is not None else None
            shards.append(replace(shard, facts=looked))
        facts = replace(facts, cluster=replace(facts.cluster, shards=tuple(shards)))
    found = next((shard.facts for shard in facts.cluster.shards if shard.facts is not None), None) if facts.cluster is not None else None
    return replace(found, cluster=facts.cluster, display=facts.display) if found is not None else facts


class _Cluster:
    """What is around a node. ``primaries``: in the order of their first slot, once `around` has looked."""

    def __init__(self, endpoint: Endpoint, options: PreflightOptions) -> None:
        self._endpoint = endpoint.without_database()
        self._options = options
        self.primaries: tuple[Endpoint, ...] = ()

    async def around(self, facts: ServerFacts) -> ServerFacts:
        """The same facts with ``cluster``, where there is one."""
        if facts.mode != "cluster" or not facts.info:
            return facts
        try:
            table = await ClusterDirectory([self._endpoint]).table(self._options.timeout)
        except ValkeepError as error:
            return replace(facts, cluster=ClusterFacts(0, ()), unasked={**facts.unasked, "CLUSTER SLOTS": error.message})
        self.primaries = table.primaries
        shards = await asyncio.gather(*(self._shard(table, primary, facts) for primary in self.primaries))
        moving = ", ".join(filter(None, await asyncio.gather(*(self._moving(primary) for primary in self.primaries))))
        return replace(facts, cluster=ClusterFacts(table.served, tuple(shards), moving))

    async def _shard(self, table: SlotTable, primary: Endpoint, given: ServerFacts) -> ShardFacts:
        options = self._options
        ranges = ranges_of(slot for slot, owner in enumerate(table.owners) if owner == primary)
        nodes = table.replicas.get(primary, ())
        versions = await asyncio.gather(*(self._version(node) for node in nodes))
        replicas = {node.address: version for node, version in zip(nodes, versions, strict=True)}
        if primary.address == given.address:
            return ShardFacts(primary.address, ranges, given, "", replicas)
        try:
            facts = await gather(primary, rate_seconds=options.rate_seconds, sample_keys=options.sample_keys, timeout=options.timeout)
        except ValkeepError as error:
            return ShardFacts(primary.address, ranges, None, error.message, replicas)
        return ShardFacts(primary.address, ranges, facts, "", replicas)

    async def _version(self, node: Endpoint) -> str:
        try:
            async with await Connection.open(node, timeout=self._options.timeout, client_name="valkeep-preflight") as connection:
                return ".".join(map(str, (await server_info(connection)).version))
        except ValkeepError:
            return ""

    async def _moving(self, primary: Endpoint) -> str:
        """The slots that it gives or takes now, as it says itself."""
        try:
            async with await Connection.open(primary, timeout=self._options.timeout, client_name="valkeep-preflight") as connection:
                moving = (await node_word(connection)).moving
        except ValkeepError:
            return ""  # said by whoever can't be reached, or may not be asked
        ranges = [str(first) if first == last else f"{first}-{last}" for first, last in ranges_of(moving)]
        return f"slot{'s' if len(moving) > 1 else ''} {', '.join(ranges)} at {primary.address}" if ranges else ""
