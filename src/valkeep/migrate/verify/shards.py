"""One side of a verification: the servers that together hold one key space. One server, or all primaries of a cluster, each with the slots it owns.

Everything here rests on the slots standing still: a key is looked for on the owner of its slot, and a shard's snapshot is one of the keys of its slots. So
each comparison asks every shard, at its beginning and at its end, what it owns (`Shards.steady`); slots that are on their way, an owner that changed, a
configuration epoch that grew: then nothing can be judged, and the verdict is unknown. A redirection (MOVED, ASK) is not followed for the same reason.

Where only some slots are compared, only they have to stand still. The source then is one node (``only``), which has to own all of them; it is followed, so that
a slot that left and came back is in its stream, whatever its epoch. Of the target the shards that own some of them are read (``within``), and no others.

A key in a slot that its server does not own (after a botched resharding) is in that server's snapshot, and no client can read it. `Shards.strays` finds such
keys, on all shards, also those that are not read: servers count the keys of any slot, owned or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from valkeep.client.cluster import ClusterDirectory, SlotTable
from valkeep.client.cluster_nodes import node_word
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.migrate.verify.eyes import Eyes, together
from valkeep.migrate.verify.functions import libraries_of
from valkeep.migrate.verify.look import Eye
from valkeep.topology.slots import SLOTS, Ranges, key_slot, ranges_of, slots_of

__all__ = ["Member", "Shards", "Stray", "uneven"]

_ALL: Ranges = ((0, SLOTS - 1),)
NAMED = 1000  # stray keys that are told apart
_CLIENT = "valkeep-verify"


@dataclass(frozen=True, slots=True)
class Member:
    """A server of a side. ``ranges``: of its slots those that count; ``info``: as it was when the side was opened."""

    endpoint: Endpoint
    ranges: Ranges
    connection: Connection
    info: ServerInfo
    eye: Eye


@dataclass(frozen=True, slots=True)
class Stray:
    """A key that lies on a server which does not own its slot."""

    key: bytes
    where: str
    owner: str


class Shards:
    """``await Shards.open(endpoint)``, then ``close``. ``eye``: looks at any key that counts. ``cluster``: whether it may be several servers."""

    def __init__(self, members: Sequence[Member], *, cluster: bool, within: Ranges = (), others: Sequence[Endpoint] = ()) -> None:
        """``within``: the slots that count, (): all. ``others``: shards that own none of them."""
        self.members = tuple(members)
        self.cluster = cluster
        self._within = frozenset(slots_of(within or _ALL))
        self._others = tuple(others)
        self._owner = [0] * SLOTS
        for number, member in enumerate(self.members):
            for slot in slots_of(member.ranges) if cluster else ():
                self._owner[slot] = number
        self.eye: Eye | Eyes = Eyes([member.eye for member in self.members], self._place) if cluster else self.members[0].eye
        self._states: list[Any] = []

    @classmethod
    async def open(cls, endpoint: Endpoint, *, only: Ranges = (), within: Ranges = ()) -> Self:
        """Connect to the server, or to all primaries where it is a node of a cluster (``only``: just to that node, for the keys of these slots; ``within``: to
        those that own some of these). Raises what `Connection.open` raises, and ``ConnectionLost`` where not every slot has an owner that can be reached."""
        endpoint = endpoint.without_database()
        opened: list[Connection] = []
        try:
            first = await Connection.open(endpoint, client_name=_CLIENT)
            opened.append(first)
            info = await server_info(first)
            if only or info.mode != "cluster":
                return cls([Member(endpoint, only, first, info, Eye(first, info))], cluster=False, within=only)
            table = await ClusterDirectory([endpoint]).table()
            if table.served < SLOTS:
                raise ConnectionLost(
                    f"{SLOTS - table.served} of the slots of the cluster of {endpoint.address} are served by nobody",
                    remedy="bring the missing shard back, or assign its slots (CLUSTER INFO), then verify again",
                )
            counted = frozenset(slots_of(within or _ALL))
            members = []
            near = [node for node in table.primaries if any(table.owners[slot] == node for slot in counted)]
            for node in near:
                connection = await Connection.open(node, client_name=_CLIENT)
                opened.append(connection)
                told = await server_info(connection)
                members.append(Member(node, _ranges(table, node, counted), connection, told, Eye(connection, told)))
            await first.close()
            return cls(members, cluster=True, within=within, others=[node for node in table.primaries if node not in near])
        except BaseException:
            for connection in opened:
                await connection.close()
            raise

    async def close(self) -> None:
        for member in self.members:
            await member.connection.close()

    @property
    def first(self) -> Member:
        return self.members[0]

    @property
    def oldest(self) -> ServerInfo:
        """Of the members, the one of the lowest version."""
        return min((member.info for member in self.members), key=lambda info: info.version)

    def __len__(self) -> int:
        return len(self.members)

    def _place(self, key: bytes) -> int:
        return self._owner[key_slot(key)]

    def owner(self, key: bytes) -> Endpoint:
        """Where this key is written."""
        return self.members[self._place(key) if self.cluster else 0].endpoint

    async def keys(self) -> int:
        """On all of them now."""
        return sum(sum(info.keys.values()) for info in await together(*(server_info(member.connection) for member in self.members)))

    async def libraries(self) -> dict[str, str]:
        """Library → digest of its code, or what differs between the shards, see `uneven`."""
        found = await together(*(libraries_of(member.connection) for member in self.members))
        return uneven({member.endpoint.address: one for member, one in zip(self.members, found, strict=True)})

    async def steady(self, *, begin: bool = False) -> None:
        """Raises ``ConnectionLost`` when slots are on their way, or are not where they were when this was first asked (``begin``: from now on)."""
        if self.first.info.mode != "cluster":
            return
        states = await together(*(self._state(member) for member in self.members))
        if begin or not self._states:
            self._states = states
        for member, before, now in zip(self.members, self._states, states, strict=True):
            if now != before:
                raise _moving(f"{member.endpoint.address} owned other slots, or was another node, when the comparison began")

    async def strays(self) -> tuple[int, list[Stray]]:
        """How many keys lie on a server that does not own their slot, and the first `NAMED` of them. Raises ``Refused`` where that can't be asked."""
        if not self.cluster:
            return 0, []
        found = await together(
            *(self._strays_of(member.connection, number) for number, member in enumerate(self.members)),
            *(self._strays_on(node) for node in self._others),
        )
        return sum(count for count, _ in found), [stray for _, strays in found for stray in strays][:NAMED]

    async def _strays_on(self, node: Endpoint) -> tuple[int, list[Stray]]:
        async with await Connection.open(node, client_name=_CLIENT) as connection:
            return await self._strays_of(connection, None)

    async def _strays_of(self, connection: Connection, number: int | None) -> tuple[int, list[Stray]]:
        """``number``: of the member that is asked; None: it is none."""
        where = connection.endpoint.address
        others = [slot for slot in sorted(self._within) if self._owner[slot] != number]
        block = b"".join([b"*3\r\n$7\r\nCLUSTER\r\n$15\r\nCOUNTKEYSINSLOT\r\n$%d\r\n%d\r\n" % (len(str(slot)), slot) for slot in others])
        replies = await connection.exchange(block, len(others), "CLUSTER", 60.0)
        total = 0
        strays: list[Stray] = []
        for slot, reply in zip(others, replies, strict=True):
            if isinstance(reply, ServerError):
                raise _denied(where, "COUNTKEYSINSLOT", reply)
            total += int(reply)
            if reply and len(strays) < NAMED:
                owner = self.members[self._owner[slot]].endpoint.address
                names = await _asked(connection, "GETKEYSINSLOT", slot, NAMED)
                strays += [Stray(key, where, owner) for key in names]
        return total, strays

    async def _state(self, member: Member) -> tuple[str, int]:
        """Its id and its configuration epoch, as it says itself. Raises where it has not just the slots that it had when we connected, of those that count."""
        word = await node_word(member.connection)
        where = member.endpoint.address
        if not word.me.primary:
            raise _moving(f"{where} is a replica now")
        if going := self._within & word.moving:
            raise _moving(f"{_told(going)} {'is on its' if len(going) == 1 else 'are on their'} way, says {where}")
        if word.me.ranges != member.ranges:  # a look inside takes milliseconds, and writers may be waiting
            owned, expected = self._within.intersection(slots_of(word.me.ranges)), frozenset(slots_of(member.ranges))
            if gone := expected - owned:
                raise _moving(f"{where} does not own {_told(gone)} (any more)")
            if come := owned - expected:
                raise _moving(f"{where} owns {_told(come)} now")
        return word.me.id, word.me.epoch if self.cluster else 0


def uneven(found: dict[str, dict[str, str]]) -> dict[str, str]:
    """Address → (library → digest of its code), as one: library → digest where all shards have the same, else words that say who has what."""
    if len(found) == 1:
        return next(iter(found.values()))
    out = {}
    for name in sorted({name for libraries in found.values() for name in libraries}):
        codes = {address: libraries.get(name) for address, libraries in found.items()}
        missing = [address for address, code in codes.items() if code is None]
        first = next(code for code in codes.values() if code is not None)
        if len(set(codes.values())) == 1:
            out[name] = first
        else:
            out[name] = f"not on {', '.join(missing)}" if missing else f"not the same on {', '.join(codes)}"
    return out


def _ranges(table: SlotTable, node: Endpoint, counted: frozenset[int]) -> Ranges:
    return ranges_of(slot for slot in counted if table.owners[slot] == node)


async def _asked(connection: Connection, *words: str | int) -> Any:
    try:
        return await connection.call("CLUSTER", *words)
    except ServerError as error:
        raise _denied(connection.endpoint.address, str(words[0]), error) from None


def _denied(where: str, word: str, error: ServerError) -> Refused:
    return Refused(
        f"{where} does not say which slots it has: {error.message}",
        remedy=f"permit CLUSTER {word} to this user (ACL SETUSER … +cluster|{word.lower()})",
    )


def _moving(why: str) -> ConnectionLost:
    return ConnectionLost(
        f"the slots of the cluster move: {why}", remedy="verify again when they stand still (CLUSTER NODES)", code="VK-VERIFY-SLOTS"
    )


def _told(slots: Iterable[int]) -> str:
    """Some of them, for people."""
    ranges = [str(first) if first == last else f"{first}-{last}" for first, last in ranges_of(slots)]
    return f"slot{'s' if len(ranges) > 1 or '-' in ranges[0] else ''} {', '.join(ranges[:5])}{' and more' if len(ranges) > 5 else ''}"
