"""Asks all shards of a side that is a cluster. Reads only; a node that does not answer is a fact, not an error.

Any node leads to its cluster: what is asked are the primaries that own slots, whoever was given. Of the source each of them is asked all that a single server
is asked: rates and samples are per shard, since each has a link, a backlog and a fork of its own. There the primaries without slots are asked, too: a run has a
lane for each, and slots may come while it runs. A table of slots does not list them, so they are those that the others name (CLUSTER NODES), by their own word
primaries; whom everybody has given up is not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from valkeep.client.cluster import ClusterDirectory, SlotTable
from valkeep.client.cluster_nodes import NodeWord, node_word
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import server_info
from valkeep.errors import ValkeepError
from valkeep.migrate.preflight.facts import ClusterFacts, ServerFacts, ShardFacts
from valkeep.migrate.preflight.gather import gather
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.snapshot import counted
from valkeep.report.events import Emit
from valkeep.topology.slots import Ranges, ranges_of

__all__ = ["gather_source", "gather_target"]


async def gather_target(endpoint: Endpoint, timeout: float) -> ServerFacts:
    """As `gather.gather`, with ``cluster`` where the target is a node of one."""
    facts = await gather(endpoint, rate_seconds=0, sample_keys=0, timeout=timeout)
    return await _Cluster(endpoint, PreflightOptions(rate_seconds=0, sample_keys=0, timeout=timeout), idle=False).around(facts)


async def gather_source(endpoint: Endpoint, options: PreflightOptions, emit: Emit, at: Callable[[], float]) -> ServerFacts:
    """As `gather.gather`, with a full census where one is wanted. Of a cluster: its first shard, with ``cluster``, under the
    name that was given."""
    if options.full_census:
        options = replace(options, sample_keys=0)
    facts = await gather(endpoint, rate_seconds=options.rate_seconds, sample_keys=options.sample_keys, timeout=options.timeout)
    cluster = _Cluster(endpoint, options, idle=True)
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


@dataclass(frozen=True, slots=True)
class _Shard:
    """Who is to be asked. ``ranges``: of its slots, () of a primary without any."""

    primary: Endpoint
    ranges: Ranges
    replicas: tuple[Endpoint, ...]


class _Cluster:
    """What is around a node. ``idle``: ask primaries without slots, too. ``primaries``: who was asked, once `around` has looked; in the order of their first
    slot, then those without."""

    def __init__(self, endpoint: Endpoint, options: PreflightOptions, *, idle: bool) -> None:
        self._endpoint = endpoint.without_database()
        self._options = options
        self._idle = idle
        self.primaries: tuple[Endpoint, ...] = ()

    async def around(self, facts: ServerFacts) -> ServerFacts:
        """The same facts with ``cluster``, where there is one."""
        if facts.mode != "cluster" or not facts.info:
            return facts
        try:
            table = await ClusterDirectory([self._endpoint]).table(self._options.timeout)
        except ValkeepError as error:
            return replace(facts, cluster=ClusterFacts(0, ()), unasked={**facts.unasked, "CLUSTER SLOTS": error.message})
        words = dict(zip(table.primaries, await asyncio.gather(*(self._word(primary) for primary in table.primaries)), strict=True))
        wanted = [
            *_serving(table),
            *(await self._without_slots([word for word in words.values() if word is not None]) if self._idle else ()),
        ]
        asked = await asyncio.gather(*(self._ask(shard, facts) for shard in wanted))
        shards = [
            one for one in asked if one.ranges or one.facts is None or one.facts.role == "primary"
        ]  # by its own word a replica: it is none
        where = {shard.primary.address: shard.primary for shard in wanted}
        self.primaries = tuple(where[one.address] for one in shards)
        moving = ", ".join(_moving(primary, word) for primary, word in words.items() if word is not None and word.moving)
        return replace(facts, cluster=ClusterFacts(table.served, tuple(shards), moving))

    async def _without_slots(self, words: Sequence[NodeWord]) -> list[_Shard]:
        """Primaries that own no slot by anybody's word, and not by their own: at its place there may be another node by now, or the same under another id. Who
        does not say is asked further: the checks say what is wrong with him."""
        named = _idle(words)
        own = await asyncio.gather(*(self._word(shard.primary) for shard in named.values()))
        return [
            shard
            for (name, shard), word in zip(named.items(), own, strict=True)
            if word is None or (word.me.id == name and word.me.primary and not word.me.ranges)
        ]

    async def _word(self, node: Endpoint) -> NodeWord | None:
        """None of whoever can't be reached, or may not be asked: the checks of each shard say so."""
        try:
            async with await Connection.open(node, timeout=self._options.timeout, client_name="valkeep-preflight") as connection:
                return await node_word(connection)
        except ValkeepError:
            return None

    async def _ask(self, shard: _Shard, given: ServerFacts) -> ShardFacts:
        options, primary = self._options, shard.primary
        versions = await asyncio.gather(*(self._version(node) for node in shard.replicas))
        replicas = {node.address: version for node, version in zip(shard.replicas, versions, strict=True)}
        if primary.address == given.address:
            return ShardFacts(primary.address, shard.ranges, given, "", replicas)
        try:
            facts = await gather(primary, rate_seconds=options.rate_seconds, sample_keys=options.sample_keys, timeout=options.timeout)
        except ValkeepError as error:
            return ShardFacts(primary.address, shard.ranges, None, error.message, replicas)
        return ShardFacts(primary.address, shard.ranges, facts, "", replicas)

    async def _version(self, node: Endpoint) -> str:
        try:
            async with await Connection.open(node, timeout=self._options.timeout, client_name="valkeep-preflight") as connection:
                return ".".join(map(str, (await server_info(connection)).version))
        except ValkeepError:
            return ""


def _serving(table: SlotTable) -> list[_Shard]:
    return [
        _Shard(primary, ranges_of(slot for slot, owner in enumerate(table.owners) if owner == primary), table.replicas.get(primary, ()))
        for primary in table.primaries
    ]


def _idle(words: Sequence[NodeWord]) -> dict[str, _Shard]:
    """Primaries that are named, and own no slot by anybody's word: by their ids, in order. Left out is whom anybody has given up, or does not know yet."""
    named = [(word, member) for word in words for member in word.members]
    out = {member.id for _, member in named if member.ranges or member.flags & {"fail", "handshake"}}
    found: dict[str, _Shard] = {}
    for word, member in sorted(named, key=lambda one: one[1].id):
        place = word.place(member)
        if member.primary and member.id not in out and member.id not in found and place is not None:
            replicas = [word.place(other) for other in word.members if other.primary_id == member.id and "fail" not in other.flags]
            found[member.id] = _Shard(place, (), tuple(replica for replica in replicas if replica is not None))
    return found


def _moving(primary: Endpoint, word: NodeWord) -> str:
    """The slots that it gives or takes now, as it says itself."""
    ranges = [str(first) if first == last else f"{first}-{last}" for first, last in ranges_of(word.moving)]
    return f"slot{'s' if len(word.moving) > 1 else ''} {', '.join(ranges)} at {primary.address}"
