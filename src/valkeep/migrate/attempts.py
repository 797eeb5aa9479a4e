"""When a migration is cut over: at once when it is verified, or when a person says so, and again when it was called off for a reason that may pass.

Before each attempt what was written lately is compared until little is left, so that the writers are kept out for a short time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from valkeep.errors import ValkeepError
from valkeep.migrate.cutover import Cutover, CutoverResult
from valkeep.migrate.fence import Aborted, FenceMode
from valkeep.migrate.whereabouts import Whereabouts, fence_mode
from valkeep.report.events import Phase

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.gateway import Gateway
    from valkeep.migrate.handover import Handover
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions
    from valkeep.migrate.preflight import PreflightReport
    from valkeep.migrate.proof import Proof
    from valkeep.migrate.reading import Reading
    from valkeep.migrate.state import StateFile

__all__ = ["Attempts"]

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
        "VK-SOURCE-LOST",
        "VK-HELD",
    }
)
FOR_A_PERSON: Final = frozenset(  # may pass, but somebody has to look; whoever says go again has
    {"VK-CUTOVER-REPLICA", "VK-CUTOVER-FENCE-LOST", "VK-PROMOTE-LATE"}
)


class Attempts:
    """Of one migration, whose parts these are. ``manual``: whether a person says when."""

    def __init__(
        self,
        options: RunOptions,
        gateway: Gateway,
        delivery: Delivery,
        reading: Reading,
        proof: Proof,
        where: Whereabouts,
        report: PreflightReport,
        state: StateFile,
        journal: Journal,
        handover: Handover,
    ) -> None:
        self.manual = options.cutover == "manual"
        self._options = options
        self._gateway = gateway
        self._delivery = delivery
        self._reading = reading
        self._proof = proof
        self._where = where
        self._report = report
        self._state = state
        self._journal = journal
        self._handover = handover

    async def run(self) -> CutoverResult:
        """Cut over. Raises what called the last attempt off."""
        attempts = 0
        passing = PASSING | FOR_A_PERSON if self.manual else PASSING
        while True:
            if self.manual:
                await self._wait_for_go()
            try:
                return await self._cut()
            except ValkeepError as error:
                attempts += 1
                if error.code not in passing or not isinstance(error, Aborted) or (not self.manual and attempts >= ATTEMPTS):
                    self._handover.answer(error)
                    raise
                self._journal.say("warning", f"the cut-over was called off: {error.message}. {error.remedy}")
                self._handover.answer(error, again=True)
                if not self.manual:
                    await self._gateway.beside(asyncio.sleep(RETRY_SECONDS * attempts))

    async def _wait_for_go(self) -> None:
        """Until a person says so; what is written meanwhile is compared."""
        ready, gateway = self._handover.ready, self._gateway
        self._journal.begin("waiting")
        ready.waiting = True
        self._journal.emit(Phase(self._journal.clock(), "waiting", detail="for `valkeep migrate cutover`"))
        watch = asyncio.create_task(gateway.watch())
        go = asyncio.create_task(ready.go.wait())
        try:
            while not go.done():
                await asyncio.wait({watch, go}, timeout=ROUND_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    watch.result()
                if not go.done():
                    await gateway.beside(self._proof.round())
        finally:
            ready.waiting = False
            watch.cancel()
            go.cancel()

    async def _cut(self) -> CutoverResult:
        gateway, proof = self._gateway, self._proof
        if self.manual:
            _refuse_held(gateway)  # at once: who said go waits for an answer
        await gateway.beside(proof.settle())
        _refuse_held(gateway)
        async with await self._where.writers(await self._where.source(gateway, self._reading)) as writers:
            mode = self._options.fence or await fence_mode(writers, self._report)
            patience = await self._reading.ready(gateway, mode, self._options.lease_ms, proof.seconds)
            return await self._cut_at(writers, mode, patience)

    async def _cut_at(self, writers: Connection, mode: FenceMode, patience: float) -> CutoverResult:
        options, journal, proof = self._options, self._journal, self._proof
        cutover = Cutover(
            writers,
            self._reading.successor(self._delivery),
            mode=mode,
            lease_ms=options.lease_ms,
            keep_fence=options.keep_fence,
            gateway_port=self._gateway.address[1],
            verify=lambda offset: proof.last(offset, held=self._reading.held(mode)),
            patience=patience,
            state=self._state,
            emit=journal.emit,
            clock=journal.clock,
            on_stop=self._delivery.hurry,
        )
        try:
            cut = await cutover.run()
        finally:
            proof.save()
        journal.timeline += cut.timeline
        journal.write_if_possible("cutover.json", cut.to_json(journal.started))
        self._handover.answer({"promoted": options.target.display, "write_pause_ms": round(cut.write_pause_ms, 1)})
        for node in cut.source_nodes:
            journal.say("warning" if node.worries else "info", f"on the source's side, {node.node}: {node.why}")
        return cut


def _refuse_held(gateway: Gateway) -> None:
    if gateway.held:
        _, hold = gateway.held[0]
        raise Aborted(f"the stream is held: {hold.why}", remedy=hold.remedy, code="VK-HELD")
