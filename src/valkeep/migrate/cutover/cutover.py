"""The cut-over: a protocol with a fence, so that no acknowledged write is lost and the writers wait as little as possible.

    1  pause    CLIENT PAUSE lease WRITE on the source: writers wait, the pause ends by itself (a lease) if we die
    2  drain    the source's offset M is read; the target has acknowledged what M means in our offsets
    3  verify   what was written since the full verification is compared again, key by key
    4  fence    one MULTI: min-replicas-to-write 255, then UNPAUSE: the held writers get errors, and so does everyone after them
    5  drain    once more, until a last look at the source finds nothing that the target lacks, and nothing that speaks against 6
    6  promote  REPLICAOF NO ONE

**Why a pause is not enough.** Writers held by CLIENT PAUSE get +OK *on the source* as soon as the pause times out, at whatever point we are.
The fence is what makes the source refuse; it is atomic with the end of the pause, and it comes before the promotion. So at every moment at most
one side acknowledges writes, and when the target starts to, it has everything the source ever acknowledged.

**If we are killed** before 4: the lease ends, the source goes on, the target is still a replica. Between 4 and 6: the source refuses writes, the
target is not promoted: nobody acknowledges anything until a person decides (``valkeep migrate abort`` restores the source). After 6: done.

**The last look** (``lookout``) is what makes 6 right: the same process as at the beginning, still a primary, still fenced, no replica of it gone.

Sources without CLIENT PAUSE WRITE (before 6.2) are fenced at once (1 and 4 together: writers get errors while the rest is drained and verified, for
at most the lease). Transactions that were opened before are waited for, and then nothing may write for a moment: a fence that old does not hold all.
Where CONFIG is denied nothing can be fenced by us: the writers must be stopped by their owner (``external``), and we check that no client writes any
more before we promote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from valkeep.errors import ServerError, ValkeepError
from valkeep.migrate import fence
from valkeep.migrate.cutover import promotion
from valkeep.migrate.cutover.abort import Paused, call_off, reopened, to_the_end
from valkeep.migrate.cutover.lookout import Look, Lookout, Standing
from valkeep.migrate.fence import Aborted, FenceMode
from valkeep.report.events import Emit, Note, Phase

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.cutover.joint import Allies
    from valkeep.migrate.state import StateFile

__all__ = ["PATIENCE_SECONDS", "Aborted", "Cutover", "CutoverResult", "Successor"]

SILENCE_SECONDS = 2.0  # without a write, where we cannot fence
SETTLING_SECONDS = 0.5  # the same behind the fence of a server before Redis 7.0, and at most a quarter of the lease
PATIENCE_SECONDS = 60.0  # for the comparison where nobody waits for us: the writers were stopped by their owner


@dataclass(frozen=True, slots=True)
class CutoverResult:
    """``timeline``: (step, seconds on the job's clock) in order. ``write_pause_ms``: from the pause (or fence) until the target was promoted: how long a
    writer that turns to the target at once could not write. ``source_nodes``: who on the source's side could take writes after it."""

    timeline: tuple[tuple[str, float], ...]
    write_pause_ms: float
    fence: FenceMode
    checked_keys: int
    source_nodes: tuple[Standing, ...]

    def to_json(self, started: float) -> dict[str, Any]:
        """``cutover.json``, schema 1; times in seconds since ``started`` (on the job's clock)."""
        return {
            "schema": 1,
            "fence": self.fence.value,
            "write_pause_ms": round(self.write_pause_ms, 1),
            "checked_keys": self.checked_keys,
            "source_nodes": [node.to_json() for node in self.source_nodes],
            "timeline": [{"step": step, "at": round(at - started, 6)} for step, at in self.timeline],
        }


class Successor(Protocol):
    """Who takes over from the source."""

    async def identify(self) -> str:
        """The run_id of its process now: what was brought there is lost with it, perhaps."""

    async def drained(self, source_offset: int) -> None:
        """Return when it has everything up to that source offset."""

    async def promote(self, run_id: str) -> float:
        """Make it the primary; when it was, on the job's clock. Raises ``Aborted`` when it surely is none and will not become one, ``ValkeepError`` with
        ``definite=False`` when nobody knows whether it is."""


class Cutover:
    """One cut-over. ``lease_ms``: how long writers are held or refused at most: once until the fence, and once from there to the promotion.
    ``keep_fence``: write it into the source's configuration file, too. ``verify(offset)`` compares what was written since the full verification and
    returns (keys compared, differences). ``gateway_port``: of our own replica, as the source knows it. ``patience``: seconds for draining and comparing
    where the writers were stopped by their owner. ``on_stop``: told when somebody wants to stop during the promotion. ``allies``: who is cut over together
    with it."""

    def __init__(
        self,
        source: Connection,
        successor: Successor,
        *,
        mode: FenceMode,
        lease_ms: int,
        keep_fence: bool,
        gateway_port: int,
        verify: Callable[[int], Awaitable[tuple[int, int]]],
        state: StateFile,
        emit: Emit,
        clock: Callable[[], float],
        on_stop: Callable[[], None] = lambda: None,
        patience: float = PATIENCE_SECONDS,
        allies: Allies | None = None,
    ) -> None:
        self._source = source
        self._successor = successor
        self._on_stop = on_stop
        self._patience = patience
        self._allies = allies
        self._mode = mode
        self._lease = lease_ms / 1000
        self._keep_fence = keep_fence
        self._verify = verify
        self._state = state
        self._emit = emit
        self._clock = clock
        self._lookout = Lookout(source, gateway_port)
        self._timeline: list[tuple[str, float]] = []
        self._before: dict[str, str] = {}  # the fence's parameters, to be put back
        self._token = fence.new_token()
        self._id = 0  # of our connection at the source; 0: unknown
        self._first: Look | None = None
        self._silent: Look | None = None  # the source when the writers were found to have stopped
        self._until = 0.0  # on the clock: when writers must not be kept any longer
        self._drained = 0  # the source offset up to which the target has everything
        self._run_id = ""  # of the target's process: what was drained into it is lost with it, perhaps

    async def run(self) -> CutoverResult:
        """Drive the protocol. Raises ``Aborted`` (or what went wrong) when it was called off and the source is writable again; a ``ValkeepError`` with
        ``definite=False`` when the source may be left fenced or the target promoted."""
        try:
            return await self._run()
        except BaseException as error:
            self._leave_allies(error)
            raise
        finally:
            await self._lookout.leave()

    async def _run(self) -> CutoverResult:
        first = await self._begin()
        started = self._clock()
        try:
            checked = await self._silence_writers()
            self._mark("drain-after-fence")
            await self._drain_all(self._lease)
            if self._allies is not None:
                await self._agree(self._allies)
        except BaseException as error:
            self._leave_allies(error)  # now: their writers are kept out, too
            await self._call_off(first, error)
            if isinstance(error, ValkeepError) and not error.definite:  # it is certain now: the source writes, the target was not promoted
                raise ValkeepError(
                    f"the cut-over was called off, and the source goes on writing: {error.message}",
                    remedy=error.remedy,
                    code="VK-CUTOVER-BROKEN",
                ) from error
            raise
        try:
            promoted, kept = await promotion.beyond_return(self._finish(), self._emit, self._clock, self._on_stop)
        except Aborted as error:  # the successor surely is no primary, and will not become one
            await self._call_off(first, error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # that is why
                raise asyncio.CancelledError from error
            raise
        with suppress(ValkeepError):  # it says where the way back begins; the offset that is there already is one that only makes it longer
            self._state.step("promoted", source_offset=self._drained)
        nodes = await self._remaining(first, kept=kept)
        return CutoverResult(tuple(self._timeline), (promoted - started) * 1000, self._mode, checked, nodes)

    async def _call_off(self, first: Look, error: BaseException) -> None:
        self._mark("call-off")
        paused = None if self._mode is FenceMode.EXTERNAL else Paused(self._source, self._id, first.run_id, self._before, self._token)
        await to_the_end(call_off(paused, self._state, error))

    async def _begin(self) -> Look:
        """Before anything is changed: are we the only ones, is this where the writers are, what will the fence replace?"""
        if not await self._lookout.enter():
            text = (
                "this user may not see the source's clients (CLIENT LIST): neither a second cut-over nor open transactions would be noticed"
            )
            self._emit(Note(self._clock(), "warning", text))
        before = {} if self._mode is FenceMode.EXTERNAL else await fence.settings(self._source)
        if fence.is_up(before):
            raise fence.already_up()
        first = self._first = await self._lookout.look(before)
        if (objection := self._lookout.objection(first, first, token="")) is not None:
            raise objection
        await self._lookout.learn(list(first.calls))  # now, and not in the pause
        with suppress(ServerError):
            self._id = await self._source.call("CLIENT", "ID")
        self._run_id = await self._successor.identify()
        where = self._source.endpoint.display
        self._state.step(
            "cutting",
            fence_before=before,
            fence_token=self._token,
            fence_at=where,
            target_run=self._run_id,
            source_replid=first.replid,
            source_offset=first.offset,
        )
        self._before = before
        return first

    # -- steps 1 to 5 -----------------------------------------------------------------------------------------------------------------

    async def _silence_writers(self) -> int:
        """Steps 1 to 4: returns the number of keys compared. From here on the source acknowledges no write."""
        if self._mode is FenceMode.EXTERNAL:
            self._mark("wait-for-silence")
            earlier = await self._look()
            await asyncio.sleep(SILENCE_SECONDS)
            self._silent = await self._look()
            self._expect_silence(await self._lookout.wrote(earlier, self._silent))
            return await self._drain_and_verify(self._patience)
        if self._mode is FenceMode.DIRECT:
            await self._raise_fence()
            await self._transactions_over()
            return await self._drain_and_verify(self._until - self._clock())
        self._mark("pause")
        began = self._clock()
        await self._source.call("CLIENT", "PAUSE", int(self._lease * 1000), "WRITE")
        checked = await self._drain_and_verify(self._lease * 0.8 - (self._clock() - began))
        await self._raise_fence()
        return checked

    async def _drain_and_verify(self, seconds: float) -> int:
        """Steps 2 and 3, in at most ``seconds``: a pause must not end while we still look."""
        until = self._clock() + seconds
        self._mark("drain")
        offset = (await self._look()).offset
        await self._drain(offset, self._patience if self._mode is FenceMode.EXTERNAL else self._lease * 0.5)
        self._mark("verify-changed")
        try:
            async with asyncio.timeout(until - self._clock()):
                checked, differences = await self._verify(offset)
        except TimeoutError:
            raise Aborted(
                f"draining and verifying took more than {seconds:.2f} s, of a lease of {self._lease:.2f} s; the source goes on writing",
                remedy="wait until the target's lag is smaller, or give a longer --lease",
                code="VK-CUTOVER-LEASE",
            ) from None
        if differences:
            raise Aborted(
                f"{differences} of {checked} keys that changed lately differ on the target; the source goes on writing",
                remedy="see verification.json for the keys: does anything else write to the target? "
                "Then start the migration again, which copies everything anew",
                code="VK-CUTOVER-DIFFERENT",
            )
        return checked

    async def _raise_fence(self) -> None:
        self._mark("fence")
        expected, pausing = self._before, self._mode is FenceMode.PAUSE
        found = await fence.raise_up(self._source, expected, self._token, unpause=pausing)
        self._until = self._clock() + self._lease
        if found != expected:
            self._before = found
            self._state.step("cutting", fence_before=found)
        if fence.is_up(found):  # somebody was faster, whom the lookout could not see: their fence is put back
            raise fence.already_up()

    async def _transactions_over(self) -> None:
        """Return when no transaction is open that was before the fence: its queued writes would pass it (before Redis 6.0)."""
        open_ = await self._lookout.transactions()
        while open_:
            if self._clock() > self._until:
                raise Aborted(
                    f"{len(open_)} clients have had a transaction open since before the fence ({', '.join(sorted(open_)[:5])}), which would pass it; "
                    "the source goes on writing",
                    remedy="see CLIENT LIST (multi=) on the source: end those clients, or give a longer --lease",
                    code="VK-CUTOVER-TRANSACTION",
                )
            await asyncio.sleep(0.01)
            open_ &= await self._lookout.transactions()

    async def _drain_all(self, seconds: float) -> None:
        """Step 5: returns when nothing was written, for as long as we can see, that the target does not have. ``seconds``: for the target to get it."""
        look = await self._look(fenced=True)
        leaks = self._mode is FenceMode.DIRECT and look.scripts_pass  # what was queued before may pass such a fence, too
        settling = min(SETTLING_SECONDS, self._lease / 4) if leaks else 0.0
        if self._silent is not None:
            self._expect_silence(await self._lookout.wrote(self._silent, look))
        while True:
            await self._drain(look.offset, seconds)
            self._drained = look.offset
            await asyncio.sleep(settling)
            last = await self._look(fenced=True)
            wrote = await self._lookout.wrote(look, last)
            if not wrote:
                return
            if self._mode is FenceMode.EXTERNAL:
                self._expect_silence(wrote)
            elif self._clock() > self._until:
                raise Aborted(
                    f"writes pass the fence of the source ({', '.join(wrote)}); the source goes on writing",
                    remedy="stop the writers that use EVAL and EVALSHA (before Redis 7.0 scripts pass it), then try again",
                    code="VK-CUTOVER-PASSED",
                )
            look = last

    async def _agree(self, allies: Allies) -> None:
        """Return when it is decided for all, within the lease; what our source did while we waited for the others is looked at in between."""
        self._mark("wait-for-shards")
        if self._mode is FenceMode.EXTERNAL:
            self._until = self._clock() + self._lease
        await allies.all_drained(self._left)
        await self._drain_all(self._left)
        await allies.decide(self._left)

    @property
    def _left(self) -> float:
        """Seconds for which writers may still be kept out."""
        return max(self._until - self._clock(), 0.0)

    def _leave_allies(self, why: BaseException) -> None:
        if self._allies is not None:
            self._allies.left(why)

    async def _look(self, *, fenced: bool = False) -> Look:
        """The source now; raises ``Aborted`` when it is not any more what it was at the beginning."""
        assert self._first is not None  # ``_begin`` was there
        look = await self._lookout.look(self._before)
        objection = self._lookout.objection(self._first, look, token=self._token if fenced and self._before else "")
        if objection is not None:
            raise objection
        return look

    def _expect_silence(self, wrote: tuple[str, ...]) -> None:
        if wrote:
            raise Aborted(
                f"the source still gets writes ({', '.join(wrote)} since the cut-over began), and this user may not fence it",
                remedy="stop the writers (or permit CONFIG SET to this user: ACL SETUSER … +config), then try again",
                code="VK-CUTOVER-WRITERS",
            )

    async def _drain(self, offset: int, seconds: float) -> None:
        """Return when the target has acknowledged everything up to this source offset."""
        try:
            async with asyncio.timeout(seconds):
                await self._successor.drained(offset)
        except TimeoutError:
            raise Aborted(
                f"the target did not acknowledge source offset {offset} within {seconds:.1f} s",
                remedy="wait until the target's lag is smaller, or give a longer --lease",
                code="VK-CUTOVER-LAG",
            ) from None

    # -- step 6 -----------------------------------------------------------------------------------------------------------------------

    async def _finish(self) -> tuple[float, bool]:
        """The promotion and what must not be parted from it: when it was, and whether the fence survives a restart of the source."""
        promoted = await self._promote()
        return promoted, await self._keep() if self._keep_fence and self._before else False

    async def _promote(self) -> float:
        self._mark("promote")
        promoted = await self._successor.promote(self._run_id)
        self._mark("promoted")
        return promoted

    async def _keep(self) -> bool:
        """Make the fence survive a restart of the source; whether that worked."""
        try:
            self._state.step("promoted", fence_kept=True)
            await fence.persist(self._source)
        except ValkeepError as error:
            text = f"the fence could not be written into the source's configuration file, and ends with a restart of the source: {error.message}"
            self._emit(Note(self._clock(), "warning", text))
            return False
        return True

    async def _remaining(self, first: Look, *, kept: bool) -> tuple[Standing, ...]:
        """Who on the source's side could take writes now. Our connection may have gone with the source's process, and the fence, too."""
        if not self._source.closed:
            return await self._lookout.remaining(first, self._before, kept=kept)
        try:
            async with await reopened(self._source) as again:
                return await Lookout(again).remaining(first, self._before, kept=kept)
        except ValkeepError as error:
            return (Standing(self._source.endpoint.address, None, f"it did not answer after the promotion: {error.message}"),)

    def _mark(self, name: str) -> None:
        now = self._clock()
        self._timeline.append((name, now))
        self._emit(Phase(now, f"cutover:{name}"))
