"""The source is a cluster, and clusters move: slots from shard to shard, a shard's primary from node to node. Both are watched while a migration runs.

    a failover          the lane's feed is told whom to follow
    a slot has moved    it is handed over from lane to lane (`handover`), when all who matter say that it is where it is (`layout`)
    a slot moves        nothing yet; but there is no cut-over before it has arrived
    a shard is over     all its slots have gone, and its primary has become a replica of another shard, or left: the lane carries nothing any
                        more, and its feed is closed
    a new node has slots    the migration ends: nobody has read what that node holds

All primaries are asked some times a second, for what they know of themselves. Slots of which several become ready together are handed over together. What is
recorded (``record``) is which slots each lane has brought to the target *wholly*: one that is under way is nobody's, and a run that goes on begins it anew.

At the cut-over, behind all fences, everybody is asked once more (``expect_still``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from valkeep.client.cluster_nodes import ClusterNodes, NodeWord
from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.migrate.abreast import together
from valkeep.migrate.fence import Aborted
from valkeep.migrate.resharding.handover import Handover
from valkeep.migrate.resharding.holder import Follower, Holder
from valkeep.migrate.resharding.layout import Layout, Move, layout_of, told
from valkeep.report.events import Emit, Note
from valkeep.topology.slots import Ranges, ranges_of, slots_of

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint

__all__ = ["Follower", "Holder", "Resharding"]

EVERY: Final = 0.3  # seconds between two looks
PATIENCE: Final = 1.0  # seconds for one node to answer
QUIET: Final = 2.0  # seconds without any move, until it counts as over: tools move slot after slot, with a breath between two of them
_NAME: Final = "valkeep-resharding"


class Resharding:
    """``holders``: the lanes, each with the territory that it has brought to the target so far. ``target``: a node of that cluster. ``record``:
    called with lane → slots whenever that changes, and when a shard's members do (`ShardPrimary.members`); what it is given has to be on the disk when
    it returns. ``retired``: lanes whose shard is over; nobody has to fence, drain or compare them."""

    def __init__(
        self,
        holders: Sequence[Holder],
        target: Endpoint,
        record: Callable[[Mapping[str, Ranges]], None],
        emit: Emit,
        clock: Callable[[], float],
    ) -> None:
        self.retired: frozenset[str] = frozenset()
        self._holders = tuple(holders)
        self._target = target
        self._record = record
        self._emit = emit
        self._clock = clock
        self._brought = {one.name: frozenset(slots_of(one.territory.ranges)) for one in holders}
        self._nodes = ClusterNodes([seed for one in holders[:1] for seed in one.shard.seeds], _NAME)
        self._primaries: dict[str, Endpoint | None] = {one.name: None for one in holders}  # as they were followed last
        self._members: dict[str, tuple[str, ...]] = {}
        self._work: asyncio.Task[None] | None = None
        self._needed: frozenset[str] = frozenset()  # lanes whose feeds it needs
        self._looks = 0  # begun so far
        self._seen = 0  # the newest look that found everything where it belongs, and has done so for a while
        self._moved = float("-inf")  # when something was found on its way last
        self._wrong = ""
        self._excuse = ""  # why the last handover was given up
        self._failed: BaseException | None = None
        self._news = asyncio.Event()

    @property
    def standing(self) -> dict[str, Ranges]:
        """Lane → slots that it has brought to the target wholly."""
        return {name: ranges_of(slots) for name, slots in self._brought.items()}

    # -- what others ask -------------------------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Return when a look that begins from now on finds nothing on its way, and nothing has been for `QUIET` seconds. Raises what ended ``run``."""
        since = self._looks
        while self._seen <= since:
            if self._failed is not None:
                raise self._failed.saying() if isinstance(self._failed, ValkeepError) else self._failed
            self._news.clear()
            await self._news.wait()

    async def expect_still(self, fenced: Mapping[str, str] | None = None) -> None:
        """Ask everybody now. Raises ``Aborted`` where anything is on its way, lies elsewhere, or is written by another node than the one that is followed.
        ``fenced``: lane → history of the server that was fenced. Who has been promoted since goes on with another, and we may follow him by now."""
        try:
            async with ClusterNodes(self._nodes.places, _NAME) as nodes:
                words = await self._words(nodes)
            layout = layout_of(words, self._present, self._brought)
            wrong = layout.wrong or await self._unfollowed(layout, fenced or {})
        except ConnectionLost as error:
            wrong = error.message
        if wrong or self._work is not None:
            raise Aborted(
                f"the source's cluster does not stand still: {wrong or 'slots are handed over'}",
                remedy="wait until nothing moves there (CLUSTER NODES), keep others from resharding until the writers have moved, then try again",
                code="VK-CUTOVER-SLOTS",
            )

    async def _unfollowed(self, layout: Layout, fenced: Mapping[str, str]) -> str:
        """Which shard is written by a node that is not the one that its lane follows, or that was fenced, or ""."""

        async def history(at: Endpoint) -> str:
            async with await Connection.open(at, PATIENCE, client_name=_NAME) as connection:
                return (await server_info(connection)).replid

        lanes = [(one, layout.primaries[one.name].endpoint) for one in self._present if one.name in layout.primaries]
        for (one, at), found in zip(lanes, await asyncio.gather(*(history(at) for _, at in lanes)), strict=True):
            if found != one.gateway.history:
                return f"{at.address} has the history {found}, and we follow {one.gateway.history}"
            if found != fenced.get(one.name, found):
                return f"{at.address} became a primary when the one before it was fenced already"
        return ""

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Self]:
        """``run`` meanwhile. What ends it ends the lanes' gateways."""
        watch = asyncio.create_task(self.run(), name="slots of the source")

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                for one in self._holders:
                    one.gateway.fail(error)

        watch.add_done_callback(ended)
        try:
            yield self
        finally:
            watch.cancel()
            await asyncio.wait({watch})

    # -- the watch -------------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Never returns. Raises what nobody here can put right: ``Refused`` VK-SOURCE-SHARDS, and what ended a lane."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(EVERY)
        except BaseException as error:
            self._failed = error
            raise
        finally:
            if self._work is not None:
                self._work.cancel()
                await asyncio.wait({self._work})
            await self._nodes.close()
            self._news.set()

    @property
    def _present(self) -> list[Holder]:
        return [one for one in self._holders if one.name not in self.retired]

    async def _look(self) -> None:
        self._looks += 1
        look = self._looks
        if self._work is not None and self._work.done():
            work, self._work = self._work, None
            self._needed = frozenset()
            work.result()
        words = await self._words(self._nodes)
        layout = layout_of(words, self._present, self._brought)
        self._follow(layout)
        await self._retire([name for name in layout.over if name not in self._needed])
        if self._work is None and layout.moves:
            self._needed = frozenset(one.name for one in self._holders)
            self._work = asyncio.create_task(self._hand_over(layout.moves), name="slots from lane to lane")
        self._tell("slots are handed over" if self._work is not None else layout.wrong)
        if self._work is not None or layout.wrong:
            self._moved = asyncio.get_running_loop().time()
        elif asyncio.get_running_loop().time() - self._moved >= QUIET:
            self._seen = look
        self._news.set()

    async def _words(self, nodes: ClusterNodes) -> dict[str, NodeWord]:
        """Of the primaries; of everybody where one of them is missing."""
        words = await nodes.look(PATIENCE)
        if any(one.shard.node_id not in words or not words[one.shard.node_id].me.primary for one in self._present):
            return await nodes.look(PATIENCE, everybody=True)
        return words

    def _follow(self, layout: Layout) -> None:
        for one in self._present:
            word = layout.primaries.get(one.name)
            now = word.endpoint if word is not None else None
            if now is not None and now != self._primaries[one.name]:
                one.feed.follow(now)
            self._primaries[one.name] = now
        members = {one.name: one.shard.members for one in self._present}
        if members != self._members:
            self._members = members
            self._record(self.standing)

    async def _retire(self, names: Sequence[str]) -> None:
        for one in self._present:
            if one.name in names:
                self.retired |= {one.name}
                self._say("info", f"the shard of {one.shard.address} is over: it has no slots, and is no primary any more")
                await one.feed.close()

    # -- from lane to lane -----------------------------------------------------------------------------------------------------------

    async def _hand_over(self, moves: Sequence[Move]) -> None:
        began = self._clock()
        takers = {one: slots for one in self._holders if (slots := [move.slot for move in moves if move.taker == one.name])}
        try:
            await self._leave({one: [move.slot for move in moves if _leaves(one.name, move)] for one in self._holders})
            self._needed = frozenset(one.name for one in takers)  # copying may take longer than the patience with a shard that is over
            works = [Handover(one, slots, self._target) for one, slots in takers.items()]
            await together([work.run(partial(self._arrived, work.taker.name)) for work in works])
        except ConnectionLost as error:
            if not error.passing:
                raise
            if error.message != self._excuse:
                self._excuse = error.message
                self._say("warning", f"slots could not be handed over yet: {error.message}")
            await self._leave({one: [slot for slot in slots if slot not in self._brought[one.name]] for one, slots in takers.items()})
            return
        self._excuse = ""
        keys = sum(work.copied for work in works)
        taken = told(frozenset(move.slot for move in moves))
        self._say("info", f"{taken}: {keys} keys were copied again from their new shard, in {self._clock() - began:.1f} s")

    async def _leave(self, slots: Mapping[Holder, Sequence[int]]) -> None:
        """These lanes say nothing more of these slots, and what they said is in the target."""
        leaving = {one: some for one, some in slots.items() if some}
        for one, some in leaving.items():
            self._brought[one.name] -= frozenset(some)
        self._record(self.standing)  # before anything is left out: who goes on after a kill would not miss it
        ends: list[tuple[Holder, int]] = []
        for one, some in leaving.items():
            for slot in some:
                one.territory.leave(slot)
            # a feed that has ended leaves half a command behind, which will never have its effect
            alive = self._primaries[one.name] is not None
            ends.append((one, one.channel.source_offset if alive else one.channel.checkpoint.source))
        await together([one.gateway.drained(end) for one, end in ends])

    def _arrived(self, taker: str, slots: Sequence[int]) -> None:
        self._brought[taker] |= frozenset(slots)
        self._record(self.standing)

    # -- what is told ----------------------------------------------------------------------------------------------------------------

    def _tell(self, wrong: str) -> None:
        """Once each time that it begins, and when it is over."""
        if bool(wrong) != bool(self._wrong):
            text = f"{wrong}: there is no cut-over before they stand still" if wrong else "the source's cluster stands still again"
            self._say("info", text)
        self._wrong = wrong

    def _say(self, level: str, text: str) -> None:
        self._emit(Note(self._clock(), level, text))


def _leaves(lane: str, move: Move) -> bool:
    """Whether this lane has to be silent of the slot first. Where nobody is known to have it, whoever had it before a kill may have said something that is not
    in the target yet."""
    return lane == move.giver if move.giver else lane != move.taker
