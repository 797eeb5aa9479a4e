"""Slots go from lane to lane: the order that loses nothing and writes nothing twice.

            ── recorded: nobody has them ──
    giver   leave ─▶ what it has said of them so far is in the target                      from here on it says nothing of them
    taker   note ─▶ list their keys, here and in the target ─▶ its stream is as far as the list
            ─▶ enter: keys that are not on the list, and were not written since `note`, cross at once: they begin after the list, or are nowhere
            ─▶ the others are copied again, some at a time; each crosses from the place of the stream on at which its copy was asked for
            ─▶ all copies are in the target
            ── recorded: the taker has them ──

**Why everything is copied.** The giver's stream ends with the deletion of what went away, and in the taker's stream the keys come in while its lane
has no right to the slot. No cheaper order is known that is right whatever was acknowledged on either side meanwhile. The keys of the target are on the
list, too: what was deleted on the source in between has to be deleted there.

**Killed in the middle**, nobody has the slots by what is recorded: it is done again from the beginning. Who had them is not known any more, so all other
lanes leave them, and what they had said is waited for. That nobody has them is recorded before anything is left out: else the giver would have them by the
record, and should they be his again when the next run looks, nobody would copy what was left out.

**Moved on meanwhile**, the taker answers that a key is not here: it is deleted in the target, and copied again when its new owner takes over.

Memory: the names of a group's keys (`keys.portions`), and copies of `COPIED_AT_ONCE` keys or `COPIED_BYTES`, or of one larger key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from valkeep.client.cluster import ClusterDirectory
from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost
from valkeep.migrate.marker import DATABASE, is_marker
from valkeep.migrate.resharding import keys

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.resharding.holder import Holder

__all__ = ["Handover"]

COPIED_AT_ONCE: Final = 500  # keys
COPIED_BYTES: Final = 16 << 20  # as the source counts them
_NAME: Final = "valkeep-resharding"


class Handover:
    """Of ``slots`` that are one lane's by now. ``target``: a node of the target. ``copied``: keys so far, of which some may have been gone."""

    def __init__(self, taker: Holder, slots: Sequence[int], target: Endpoint) -> None:
        self.taker = taker
        self.slots = tuple(slots)
        self.copied = 0
        self._target = target

    async def run(self, done: Callable[[Sequence[int]], None]) -> None:
        """The giver has left them. ``done``: called with those that the taker has brought to the target. Raises ``ConnectionLost`` without a code where it is
        to be done again from the beginning."""
        here = self.taker.shard.endpoint
        assert here is not None  # it said that the slots are its own
        async with await Connection.open(here, client_name=_NAME) as source:
            counts = await keys.counted(source, self.slots)
            for group in keys.portions(counts.items(), keys.AT_ONCE):
                await self._take(source, group)
                done(group)

    async def _take(self, source: Connection, slots: Sequence[int]) -> None:
        gateway, territory = self.taker.gateway, self.taker.territory
        for slot in slots:
            territory.note(slot)
        names = await keys.listed(source, slots)
        await self._follow(source)
        for slot, there in (await self._in_target(slots)).items():
            names.setdefault(slot, set()).update(there)
        for slot in slots:
            territory.enter(slot, names.pop(slot, ()))
        pending = [key for slot in slots for key in territory.pending(slot)]
        for at in range(0, len(pending), COPIED_AT_ONCE):
            some = pending[at : at + COPIED_AT_ONCE]
            for chunk in keys.portions(zip(some, await keys.heavy(source, some), strict=True), COPIED_BYTES):
                await self._copy(chunk)
        await gateway.drained(self.taker.channel.source_offset)

    async def _copy(self, some: Sequence[bytes]) -> None:
        territory = self.taker.territory
        await self.taker.gateway.recopy(tuple((DATABASE, key) for key in some), lambda: territory.arrive(some), why="")
        self.copied += len(some)

    async def _follow(self, source: Connection) -> None:
        """Return when our stream has come to where the source is now. Raises ``ConnectionLost`` where it is another's: what a replica has listed may be old."""
        info = await server_info(source)
        if info.replid != self.taker.gateway.history or info.role != "primary":
            raise ConnectionLost(
                f"{source.endpoint.address} is a {info.role} of the history {info.replid}, and we follow {self.taker.gateway.history}",
                remedy="it is asked again",
            )
        await self.taker.gateway.drained(info.offset)

    async def _in_target(self, slots: Sequence[int]) -> dict[int, set[bytes]]:
        table = await ClusterDirectory([self._target]).table()
        by_owner: dict[Endpoint, list[int]] = {}
        for slot in slots:
            owner = table.owner(slot)
            if owner is None:
                raise ConnectionLost(f"slot {slot} is served by nobody in the target", remedy="see CLUSTER INFO there")
            by_owner.setdefault(owner, []).append(slot)
        found: dict[int, set[bytes]] = {}
        for owner, theirs in by_owner.items():
            async with await Connection.open(owner, client_name=_NAME) as target:
                for slot, names in (await keys.listed(target, theirs)).items():
                    found[slot] = {name for name in names if not is_marker(DATABASE, name)}
        return found
