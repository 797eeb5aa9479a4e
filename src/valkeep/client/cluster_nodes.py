"""What the nodes of a cluster say of it, each for itself: who is there, who owns which slots, which of them are on their way.

A node knows itself surely and the others by gossip, so nobody is believed alone: ``ClusterNodes.look`` asks many at about the same time, and
who reads the answers says whose word he takes. A node that does not answer is left out, whatever it said before.

Who is asked: everybody whom somebody has named so far and nobody has given up, by default without the replicas. Connections stay, one for each node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import text_of
from valkeep.errors import ConnectionLost, Refused, ServerError, UsageError
from valkeep.topology.members import ClusterMember, SlotMigration, cluster_members, slot_migration
from valkeep.topology.slots import slots_of

__all__ = ["ClusterNodes", "NodeWord", "given_up", "node_word"]

_PROBES: Final = (("CLUSTER", "NODES"), ("CLUSTER", "GETSLOTMIGRATIONS"))
_ROUNDS: Final = 3  # of nodes that are named by those who were asked before


@dataclass(frozen=True, slots=True)
class NodeWord:
    """What one node says. ``endpoint``: where it was asked. ``members``: as it knows them, itself among them. ``migrations``: by the servers themselves (from
    Valkey 9.0 on), also those that are over."""

    endpoint: Endpoint
    members: tuple[ClusterMember, ...]
    migrations: tuple[SlotMigration, ...] = ()

    @property
    def me(self) -> ClusterMember:
        return next(member for member in self.members if "myself" in member.flags)

    def member(self, name: str) -> ClusterMember | None:
        return next((member for member in self.members if member.id == name), None)

    @property
    def moving(self) -> frozenset[int]:
        """The slots that it gives or takes now, whoever moves them."""
        by_server = (slot for one in self.migrations if not one.over for slot in slots_of(one.ranges))
        return frozenset((*self.me.moving, *by_server))

    def place(self, member: ClusterMember) -> Endpoint | None:
        """Where this member is, with our login; None where nobody knows. Where a certificate is compared with the host's name, that is the
        name which the member announces, if it does."""
        host, _, port = member.address.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65536 or "noaddr" in member.flags:
            return None
        tls = self.endpoint.tls
        if member.hostname and tls is not None and tls.verify == "full" and tls.server_name is None:
            host = member.hostname
        return replace(self.endpoint, host=host or self.endpoint.host, port=int(port))


def given_up(words: Mapping[str, NodeWord], node: str) -> bool:
    """Whether the cluster has given up this node (its id), by what nodes say: it does not answer, and everybody has it as failed, or nobody lists it."""
    if node in words or not words:
        return False
    listed = [member for word in words.values() if (member := word.member(node)) is not None]
    return all("fail" in member.flags for member in listed)


async def node_word(connection: Connection, timeout: float | None = None) -> NodeWord:
    """Ask one node. Raises ``Refused`` where this user may not ask, ``ConnectionLost``, and ``RemoteProtocolError`` for what is no cluster's node."""
    where = connection.endpoint
    listed, jobs = await connection.pipeline(_PROBES, timeout)
    if isinstance(listed, ServerError):
        if listed.kind in ("NOPERM", "NOAUTH"):
            raise _denied(where, listed, "nodes")
        raise ConnectionLost(f"{where.address} does not say who is in its cluster: {listed.message}", remedy="is it a node of a cluster?")
    members = cluster_members(text_of(listed))
    if not any("myself" in member.flags for member in members):
        raise ConnectionLost(f"{where.address} does not say who it is in its cluster", remedy="see CLUSTER NODES there")
    if isinstance(jobs, ServerError):
        if jobs.kind == "NOPERM":
            raise _denied(where, jobs, "getslotmigrations")
        jobs = []  # before Valkey 9
    return NodeWord(where.without_database(), members, tuple(slot_migration(_pairs(job)) for job in jobs if isinstance(jobs, list)))


class ClusterNodes:
    """``seeds``: some nodes; their login is everybody's. ``async with``, or ``close`` at the end."""

    def __init__(self, seeds: Sequence[Endpoint], client_name: str = "valkeep") -> None:
        if not seeds:
            raise UsageError("no node of the cluster is given", remedy="give the address of at least one, better of several")
        self.seeds = tuple(seed.without_database() for seed in seeds)
        self._client_name = client_name
        self._primaries: set[Endpoint] = set()  # as they were named the last time
        self._replicas: set[Endpoint] = set()
        self._connections: dict[Endpoint, Connection] = {}

    @property
    def places(self) -> tuple[Endpoint, ...]:
        """Nodes that are known by now, and the seeds."""
        return tuple(dict.fromkeys((*self._primaries, *self._replicas, *self.seeds)))

    async def look(self, timeout: float = 2.0, *, everybody: bool = False) -> dict[str, NodeWord]:
        """Node → what it says, of all that answer within ``timeout`` seconds; maybe nobody. ``everybody``: replicas, too. Raises ``Refused`` where
        one says that we may not ask."""
        words: dict[Endpoint, NodeWord] = {}
        asked: set[Endpoint] = set()
        wanted = set(self._primaries) | (self._replicas if everybody else set())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout * 2):
                for _ in range(_ROUNDS):
                    if not wanted - asked and not words:
                        wanted = set(self.seeds)
                    now = wanted - asked
                    if not now:
                        break
                    asked |= now
                    found = await asyncio.gather(*(self._ask(node, timeout) for node in now))
                    words.update((node, word) for node, word in zip(now, found, strict=True) if word is not None)
                    self._learn(words.values())
                    wanted = set(self._primaries) | (self._replicas if everybody else set())
        return {word.me.id: word for word in words.values()}

    def _learn(self, words: Iterable[NodeWord]) -> None:
        """Who has been named by those who answered; where nobody did, those of before are asked again."""
        named = [(word.place(member), member) for word in words for member in word.members]
        places = [(place, member) for place, member in named if place is not None and not member.flags & {"handshake", "fail"}]
        if places:
            self._primaries = {place for place, member in places if member.primary}
            self._replicas = {place for place, member in places} - self._primaries

    async def _ask(self, node: Endpoint, timeout: float) -> NodeWord | None:
        try:
            connection = self._connections.get(node)
            if connection is None or connection.closed:
                connection = self._connections[node] = await Connection.open(node, timeout, client_name=self._client_name)
            return await node_word(connection, timeout)
        except ConnectionLost:
            return None

    async def close(self) -> None:
        while self._connections:
            _, connection = self._connections.popitem()
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _pairs(job: Value) -> Mapping[str, str]:
    texts = [text_of(item) for item in job] if isinstance(job, list) else []
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _denied(where: Endpoint, error: ServerError, word: str) -> Refused:
    return Refused(
        f"{where.address} does not say who owns which slots: {error.message}",
        remedy=f"permit CLUSTER {word.upper()} to this user (ACL SETUSER … +cluster|{word})",
    )
