"""Which node of a cluster owns a key's slot: the table, what redirections say, and where a fresh table comes from.

The table is a cache of an opinion. It may be wrong at any time; the node that is asked knows better and says so: ``MOVED`` (it is there, for good)
changes the table, ``ASK`` (this one key may be there already, the slot is on its way) does not. Addresses in replies lack what a client needs to
get in, so they are completed with the login of the node that answered; an empty host means "the one you asked".

``CLUSTER SLOTS`` is what tables are made of: every version answers it, and each slot has one owner in it. Sources: the cluster
specification; Valkey ``src/cluster.c``, ``clusterCommandSlots``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import text_of
from valkeep.errors import ConnectionLost, RemoteProtocolError, ServerError, UsageError, ValkeepError
from valkeep.topology.slots import SLOTS, slots_of

__all__ = ["ClusterDirectory", "NoCluster", "Redirect", "SlotTable", "parse_redirect", "parse_slots"]

_NO_CLUSTER: Final = "is it a cluster's node? CLUSTER SLOTS has another form"


class NoCluster(ConnectionLost):
    """No node of the cluster answers with a table of slots."""


@dataclass(frozen=True, slots=True)
class SlotTable:
    """``owners``: 16384 primaries by slot, None where nobody serves it. ``replicas``: of each primary, maybe none."""

    owners: tuple[Endpoint | None, ...]
    replicas: Mapping[Endpoint, tuple[Endpoint, ...]]

    def owner(self, slot: int) -> Endpoint | None:
        return self.owners[slot]

    @property
    def primaries(self) -> tuple[Endpoint, ...]:
        """Those that own at least one slot, in the order of their first."""
        return tuple(dict.fromkeys(owner for owner in self.owners if owner is not None))

    @property
    def nodes(self) -> tuple[Endpoint, ...]:
        """Primaries, then replicas."""
        return tuple(dict.fromkeys((*self.primaries, *(node for nodes in self.replicas.values() for node in nodes))))

    @property
    def served(self) -> int:
        """Slots that have an owner."""
        return SLOTS - self.owners.count(None)

    def moved(self, slot: int, owner: Endpoint) -> SlotTable:
        """The same table after ``MOVED slot owner``."""
        return SlotTable((*self.owners[:slot], owner, *self.owners[slot + 1 :]), self.replicas)


@dataclass(frozen=True, slots=True)
class Redirect:
    """``moved``: the slot belongs to ``owner`` from now on. ``ask``: send this command there, after ``ASKING``, and no other."""

    kind: Literal["moved", "ask"]
    slot: int
    owner: Endpoint


def parse_redirect(error: ServerError, asked: Endpoint) -> Redirect | None:
    """What a ``MOVED`` or ``ASK`` reply of ``asked`` says; None for every other error."""
    if error.kind not in {"MOVED", "ASK"}:
        return None
    slot, _, address = error.text.partition(" ")
    host, _, port = address.partition(" ")[0].rpartition(":")
    if not (slot.isdigit() and int(slot) < SLOTS and port.isdigit() and 0 < int(port) < 65536):
        raise RemoteProtocolError(f"{asked.address} redirects to no address: {error.message}", remedy="is it a cluster's node?")
    return Redirect("moved" if error.kind == "MOVED" else "ask", int(slot), _at(asked, host, int(port)))


def parse_slots(reply: Value, asked: Endpoint) -> SlotTable:
    """The table of a ``CLUSTER SLOTS`` reply: ``[first, last, [host, port, id, …] (the primary), [host, port, …] …]`` for each range."""
    ranges: list[tuple[int, int, list[Endpoint]]] = []
    for entry in _listed(reply, asked):
        match entry:
            case [int(first), int(last), *nodes] if nodes:
                ranges.append((first, last, [_node_of_slots(node, asked) for node in nodes]))
            case _:
                raise RemoteProtocolError(f"{asked.address} answered CLUSTER SLOTS with {text_of(entry)[:80]!r}", remedy=_NO_CLUSTER)
    return _table(ranges)


class ClusterDirectory:
    """``seeds``: some nodes of the cluster; their login is everybody's. ``source``: the address to connect from."""

    def __init__(self, seeds: Sequence[Endpoint], source: str = "") -> None:
        if not seeds:
            raise UsageError("no node of the cluster is given", remedy="give the address of at least one, better of several")
        self.seeds = tuple(seeds)
        self.source = source
        self.better: Endpoint | None = (
            None  # who is asked first the next time: the others may not have heard yet what MOVED said of this node
        )
        self._known: tuple[Endpoint, ...] = ()
        self._turn = 0

    async def table(self, timeout: float = 5.0) -> SlotTable:
        """A fresh table from the first node that answers: those of the last table, then the seeds, another one first each time, so that a node that
        is cut off with an old opinion is not believed for ever. ``timeout``: seconds for all of it. Raises ``NoCluster``, definite."""
        deadline = time.monotonic() + timeout
        known = self._known
        self._turn += 1
        start = self._turn % len(known) if known else 0
        better, self.better = (self.better,) if self.better is not None else (), None
        nodes = tuple(dict.fromkeys((*better, *known[start:], *known[:start], *self.seeds)))
        reasons: list[str] = []
        for asked, node in enumerate(nodes):
            share = max(0.01, (deadline - time.monotonic()) / (len(nodes) - asked))
            try:
                async with await Connection.open(node, share, source_address=self.source) as connection:
                    table = parse_slots(await connection.call("CLUSTER", "SLOTS"), node)
            except ValkeepError as error:
                reasons.append(error.message if node.address in error.message else f"{node.address}: {error.message}")
                continue
            if table.served:
                self._known = table.nodes
                return table
            reasons.append(f"{node.address} knows of no slot that is served")
        raise NoCluster(
            f"no node answers with a table of slots: {'; '.join(reasons)}",
            remedy="check that these nodes run, that they are nodes of a cluster (cluster-enabled yes), and that slots are assigned (CLUSTER INFO)",
        )


def _table(ranges: Iterable[tuple[int, int, list[Endpoint]]]) -> SlotTable:
    owners: list[Endpoint | None] = [None] * SLOTS
    replicas: dict[Endpoint, tuple[Endpoint, ...]] = {}
    for first, last, (primary, *others) in ranges:
        for slot in slots_of([(first, last)]):
            owners[slot] = primary
        replicas[primary] = tuple(others)
    return SlotTable(tuple(owners), replicas)


def _listed(reply: Value, asked: Endpoint) -> list[Value]:
    if not isinstance(reply, list):
        raise RemoteProtocolError(f"{asked.address} answered with {text_of(reply)[:80]!r} where slots were expected", remedy=_NO_CLUSTER)
    return reply


def _node_of_slots(node: Value, asked: Endpoint) -> Endpoint:
    match node:
        case [bytes() | None as host, int(port), *_]:
            return _at(asked, text_of(host or b""), port)
    raise RemoteProtocolError(f"{asked.address} answered CLUSTER SLOTS with the node {text_of(node)[:80]!r}", remedy=_NO_CLUSTER)


def _at(asked: Endpoint, host: str, port: int) -> Endpoint:
    """The node at this address; no host, or ``?`` (it does not know its own name), is the host that was asked."""
    return replace(asked, host=asked.host if host in {"", "?"} else host, port=port)
