"""The members of a cluster as one node knows them (CLUSTER NODES), and the slots that it moves as a whole (CLUSTER GETSLOTMIGRATIONS). Pure.

    e7d1… 127.0.0.1:30001@31001,host-1 myself,master - 0 0 1 connected 0-5460 [93-<-292f…] [77->-e7d1…]
    id    host:port@bus,hostname       flags         of ping pong epoch link  slots owned, taken from, given to

Each line but that of the node itself (``myself``) is hearsay: a node that was cut off has old news of the others. An address can be missing: of a
node that never learnt its own (``:30001@31001``), and of one that nobody can find (``:0@0 … noaddr``).

A tool moves a slot key by key (``SETSLOT``): then the slot stands in brackets on the line of the node itself. A Valkey from 9.0 on moves whole
ranges by itself (``MIGRATESLOTS``): that is told by GETSLOTMIGRATIONS only, for some time also when it is over.

Source: the commands' own pages, and servers from Redis 4 to Valkey 9.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from valkeep.errors import RemoteProtocolError
from valkeep.topology.slots import SLOTS

__all__ = ["ClusterMember", "SlotMigration", "cluster_members", "slot_migration"]

_OVER: Final = frozenset({"success", "failed", "cancelled", "canceled"})


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One line of CLUSTER NODES. ``address``: host:port. ``flags``: as there (master, slave, fail, fail?, handshake, noaddr, myself). ``primary_id``: whose
    replica it is, or "". ``epoch``: of the configuration; a replica has its primary's. ``ranges``: of its slots, inclusive. ``giving``, ``taking``: slots on
    their way, and the id of the node that they go to or come from. ``hostname``: that it announces, or ""."""

    id: str
    address: str
    flags: frozenset[str]
    primary_id: str
    epoch: int
    connected: bool
    ranges: tuple[tuple[int, int], ...]
    giving: tuple[tuple[int, str], ...] = ()
    taking: tuple[tuple[int, str], ...] = ()
    hostname: str = ""

    @property
    def failing(self) -> bool:
        return bool(self.flags & {"fail", "fail?", "noaddr", "handshake"})

    @property
    def primary(self) -> bool:
        return "master" in self.flags

    @property
    def moving(self) -> tuple[int, ...]:
        """Slots that it gives or takes, key by key."""
        return tuple(sorted({slot for slot, _ in (*self.giving, *self.taking)}))


@dataclass(frozen=True, slots=True)
class SlotMigration:
    """``ranges``: of the slots, inclusive. ``source``, ``target``: ids of nodes. ``state``: as the server calls it."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    source: str
    target: str
    state: str

    @property
    def over(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.state in _OVER


def cluster_members(said: str) -> tuple[ClusterMember, ...]:
    """What CLUSTER NODES answers. Raises ``RemoteProtocolError``."""
    return tuple(_member(line) for line in said.splitlines() if line)


def slot_migration(said: Mapping[str, str]) -> SlotMigration:
    """One of GETSLOTMIGRATIONS' maps. Raises ``RemoteProtocolError``."""
    spans = tuple(_span(word) for word in said.get("slot_ranges", "").replace(",", " ").split())
    return SlotMigration(
        said.get("name", ""), spans, said.get("source_node", ""), said.get("target_node", ""), said.get("state", "").lower() or "unknown"
    )


def _member(line: str) -> ClusterMember:
    words = line.split()
    if len(words) < 8 or not words[6].isdecimal():
        raise RemoteProtocolError(f"CLUSTER NODES has a line that is none: {line[:80]!r}", remedy="is it Valkey or Redis, 4.0 or newer?")
    ranges: list[tuple[int, int]] = []
    giving: list[tuple[int, str]] = []
    taking: list[tuple[int, str]] = []
    for word in words[8:]:
        if word.startswith("["):
            slot, arrow, other = _on_its_way(word)
            (giving if arrow == "->-" else taking).append((slot, other))
        else:
            ranges.append(_span(word))
    address, _, rest = words[1].partition(",")
    return ClusterMember(
        id=words[0],
        address=address.partition("@")[0],
        flags=frozenset(words[2].split(",")),
        primary_id="" if words[3] == "-" else words[3],
        epoch=int(words[6]),
        connected=words[7] == "connected",
        ranges=tuple(ranges),
        giving=tuple(giving),
        taking=tuple(taking),
        hostname=rest.partition(",")[0] if "=" not in rest.partition(",")[0] else "",
    )


def _on_its_way(word: str) -> tuple[int, str, str]:
    """``[77->-e7d1…]``"""
    for arrow in ("->-", "-<-"):
        slot, found, other = word.strip("[]").partition(arrow)
        if found and other and word.endswith("]"):
            return _span(slot)[0], arrow, other
    raise _no_slots(word)


def _span(word: str) -> tuple[int, int]:
    first, _, last = word.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < SLOTS):
        raise _no_slots(word)
    return int(first), int(last)


def _no_slots(word: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{word[:60]!r} was said where slots were expected", remedy="slots are 0 … 16383; is it Valkey or Redis?")
