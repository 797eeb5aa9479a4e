"""When a migration is cut over: at once when it is verified, or when a person says so, and again when it was called off for a reason that may pass.

Before each attempt what was written lately is compared until little is left, so that the writers are kept out for a short time. The shards of a cluster are cut
over together, or none of them is (`joint`); not before their slots stand still (`Slots`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from valkeep.errors import ValkeepError
from valkeep.migrate.abreast import Chorus, beside, together
from valkeep.migrate.cutover.cutover import Cutover, CutoverResult
from valkeep.migrate.cutover.joint import CalledOff, Joint, Member
from valkeep.migrate.fence import Aborted, FenceMode
from valkeep.migrate.run.whereabouts import fence_mode

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.cutover.handover import Handover
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.preflight import PreflightReport
    from valkeep.migrate.run.lane import Lane
    from valkeep.migrate.state import StateFile
    from valkeep.report.events import Emit

__all__ = ["Attempts", "Slots", "Still"]

ATTEMPTS: Final = 3
RETRY_SECONDS: Final = 2.0
ROUND_SECONDS: Final = 5.0  # while a person has not decided yet
PASSING: Final = frozenset(  # reasons to call a cut-over off that may pass
    {
        "VK-CUTOVER-LEASE",
        "VK-CUTOVER-LAG",
        "VK-CUTOVER-WRITERS",
        "VK-CUTOVER-PASSED",
        "VK-CUTOVER-TRANSACTION",
        "VK-CUTOVER-CONCURRENT",
        "VK-CUTOVER-LINK",
        "VK-CUTOVER-SLOTS",
        "VK-SOURCE-LOST",
        "VK-HELD",
    }
)
OF_CLUSTERS: Final = frozenset(
    {"VK-CUTOVER-ROLE", "VK-CUTOVER-REPLICA"}
)  # a shard has failed over: the cluster says to whom, and its lane follows
FOR_A_PERSON: Final = frozenset(  # may pass, but somebody has to look; whoever says go again has
    {"VK-CUTOVER-REPLICA", "VK-CUTOVER-FENCE-LOST", "VK-PROMOTE-LATE"}
)


class Slots(Protocol):
    """Of a source that is a cluster: do they lie where the lanes have them? ``retired``: lanes whose shard is over."""

    @property
    def retired(self) -> frozenset[str]: ...

    async def settled(self) -> None:
        """Return when nothing is on its way."""
        ...

    async def expect_still(self, fenced: Mapping[str, str] | None = None) -> None:
        """Ask now. Raises ``Aborted`` where anything is on its way, or lies elsewhere. ``fenced``: lane → history of the server that was fenced: no other
        may be the primary now."""
        ...


class Still:
    """The `Slots` of a single server: there are none."""

    retired: frozenset[str] = frozenset()

    async def settled(self) -> None:
        """At once."""

    async def expect_still(self, fenced: Mapping[str, str] | None = None) -> None:
        """Nothing moves."""


@dataclass(frozen=True, slots=True)
class _Leg:
    """One lane's part of an attempt."""

    lane: Lane
    writers: Connection
    mode: FenceMode
    patience: float


class Attempts:
    """Of one migration: ``lanes``, to one target by one ``delivery``. ``state``: of the whole. ``manual``: whether a person says when."""

    def __init__(
        self,
        options: RunOptions,
        lanes: Sequence[Lane],
        delivery: Delivery,
        report: PreflightReport,
        state: StateFile,
        journal: Journal,
        handover: Handover,
        slots: Slots,
    ) -> None:
        self.manual = options.cutover == "manual"
        self._options = options
        self._all = lanes
        self._delivery = delivery
        self._report = report
        self._state = state
        self._journal = journal
        self._handover = handover
        self._slots = slots
        self._cluster = lanes[0].start.shard is not None

    async def run(self) -> tuple[CutoverResult, ...]:
        """Cut over: what came of each lane. Raises what called the last attempt off."""
        attempts = 0
        passing = PASSING | (FOR_A_PERSON if self.manual else frozenset()) | (OF_CLUSTERS if self._cluster else frozenset())
        while True:
            if self.manual:
                await self._wait_for_go()
            try:
                return await self._cut()
            except ValkeepError as error:
                attempts += error.code != "VK-CUTOVER-SLOTS"  # which are waited for, however often they move
                if error.code not in passing or not isinstance(error, Aborted) or (not self.manual and attempts >= ATTEMPTS):
                    self._handover.answer(error)
                    raise
                self._journal.say("warning", f"the cut-over was called off: {error.message}. {error.remedy}")
                self._handover.answer(error, again=True)
                if not self.manual:
                    await beside(self._gateways, asyncio.sleep(RETRY_SECONDS * max(attempts, 1)))

    @property
    def _lanes(self) -> list[Lane]:
        return [lane for lane in self._all if lane.name not in self._slots.retired]

    @property
    def _gateways(self) -> list[Gateway]:
        return [lane.gateway for lane in self._lanes]

    async def _wait_for_go(self) -> None:
        """Until a person says so; what is written meanwhile is compared."""
        ready, gateways = self._handover.ready, self._gateways
        ready.waiting = True
        self._journal.begin("waiting", "for `valkeep migrate cutover`")
        go = asyncio.create_task(ready.go.wait())
        try:
            while not go.done():
                await beside(gateways, asyncio.wait({go}, timeout=ROUND_SECONDS))
                if not go.done():
                    await beside(gateways, together(lane.proof.round() for lane in self._lanes))
        finally:
            ready.waiting = False
            go.cancel()

    async def _cut(self) -> tuple[CutoverResult, ...]:
        if self.manual:  # at once: who said go waits for an answer
            self._refuse_held()
            await self._slots.expect_still()
        await beside(self._gateways, self._slots.settled())
        await beside(self._gateways, together(lane.proof.settle() for lane in self._lanes))
        self._refuse_held()
        await self._slots.expect_still()  # once more before writers are kept out, and behind the fences
        async with contextlib.AsyncExitStack() as stack:
            legs = [await self._leg(lane, stack) for lane in self._lanes]
            cuts = await self._cut_all(legs)
        journal = self._journal
        journal.timeline += cuts[0].timeline
        journal.write_if_possible("cutover.json", self._told(legs, cuts))
        pause = max(cut.write_pause_ms for cut in cuts)
        self._handover.answer({"promoted": self._options.target.display, "write_pause_ms": round(pause, 1)})
        for node in (node for cut in cuts for node in cut.source_nodes):
            journal.say("warning" if node.worries else "info", f"on the source's side, {node.node}: {node.why}")
        return cuts

    async def _leg(self, lane: Lane, stack: contextlib.AsyncExitStack) -> _Leg:
        at = await lane.where.source(lane.gateway, lane.reading)
        writers = await stack.enter_async_context(await lane.where.writers(at))
        mode = self._options.fence or await fence_mode(writers, self._report)
        return _Leg(lane, writers, mode, await lane.reading.ready(lane.gateway, mode, self._options.lease_ms, lane.proof.seconds))

    async def _cut_all(self, legs: Sequence[_Leg]) -> tuple[CutoverResult, ...]:
        try:
            if self._cluster:
                return await self._cut_together(legs)
            (leg,) = legs
            return (await self._cutover(leg, None, self._journal.emit).run(),)
        finally:
            for leg in legs:
                leg.lane.proof.save()

    async def _cut_together(self, legs: Sequence[_Leg]) -> tuple[CutoverResult, ...]:
        async def look() -> None:
            states = {leg.lane.name: leg.lane.state.current for leg in legs}
            await self._slots.expect_still({name: state.source_replid for name, state in states.items() if state is not None})

        joint = Joint([leg.lane.start.display for leg in legs], self._options.lease_ms / 1000, look)
        self._state.step("cutting", target_run=await self._delivery.identify())
        chorus = Chorus(self._journal.emit)  # of this attempt: each of its steps is told once
        works = [self._cutover(leg, joint.member(leg.lane.start.display), chorus.voice(leg.lane.name)).run() for leg in legs]
        try:
            cuts = await asyncio.gather(*works, return_exceptions=True)
        finally:
            steps = {leg.lane.state.current.step for leg in legs if leg.lane.state.current is not None}
            if not steps & {"cutting", "promoted"}:
                self._state.step("attached", target_run="")  # every shard of the source writes again
        failed = [cut for cut in cuts if isinstance(cut, BaseException)]
        if not failed:
            return tuple(cut for cut in cuts if isinstance(cut, CutoverResult))
        raise min(failed, key=_rank)

    def _cutover(self, leg: _Leg, allies: Member | None, emit: Emit) -> Cutover:
        options, lane = self._options, leg.lane
        held = lane.reading.held(leg.mode)
        return Cutover(
            leg.writers,
            lane.reading.successor(lane.successor),
            mode=leg.mode,
            lease_ms=options.lease_ms,
            keep_fence=options.keep_fence,
            gateway_port=lane.gateway.address[1],
            verify=lambda offset: lane.proof.last(offset, held=held),
            patience=leg.patience,
            state=lane.state,
            emit=emit,
            clock=self._journal.clock,
            on_stop=self._delivery.hurry,
            allies=allies,
        )

    def _refuse_held(self) -> None:
        for lane in self._lanes:
            if lane.gateway.held:
                _, hold = lane.gateway.held[0]
                raise Aborted(f"the stream is held: {hold.why}", remedy=hold.remedy, code="VK-HELD")

    def _told(self, legs: Sequence[_Leg], cuts: Sequence[CutoverResult]) -> dict[str, Any]:
        """``cutover.json``: of several shards what they had in common, the first one's timeline, and each by itself."""
        each = [cut.to_json(self._journal.started) for cut in cuts]
        if not self._cluster:
            return each[0]
        return {
            **each[0],
            "write_pause_ms": max(one["write_pause_ms"] for one in each),
            "checked_keys": sum(one["checked_keys"] for one in each),
            "source_nodes": [node for one in each for node in one["source_nodes"]],
            "shards": [{"shard": leg.lane.name, **one} for leg, one in zip(legs, each, strict=True)],
        }


def _rank(error: BaseException) -> int:
    """What is said first of several errors: what leaves something uncertain, then causes, then what followed from them."""
    if not isinstance(error, ValkeepError):
        return 1
    return 0 if not error.definite else 2 if isinstance(error, CalledOff) else 1
