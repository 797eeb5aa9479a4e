"""The cut-over: a protocol with a fence, so that no acknowledged write is lost and the writers wait as little as possible.

    1  pause    CLIENT PAUSE lease WRITE on the source: writers wait, the pause ends by itself (a lease) if we die
    2  drain    the source's offset M is read; the target has acknowledged what M means in our offsets
    3  verify   what was written since the full verification is compared again, key by key
    4  fence    one MULTI: min-replicas-to-write 255, then UNPAUSE: the held writers get errors, and so does everyone after them
    5  drain    once more: everything acknowledged before the fence is on the target
    6  promote  REPLICAOF NO ONE

**Why a pause is not enough.** Writers held by CLIENT PAUSE get +OK *on the source* as soon as the pause times out, at whatever point we are.
The fence is what makes the source refuse; it is atomic with the end of the pause, and it comes before the promotion. So at every moment at most
one side acknowledges writes, and when the target starts to, it has everything the source ever acknowledged.

**If we are killed** before 4: the lease ends, the source goes on, the target is still a replica. Between 4 and 6: the source refuses writes, the
target is not promoted: nobody acknowledges anything until a person decides (``valkeep migrate abort`` restores the source). After 6: done.

Sources without CLIENT PAUSE WRITE (before 6.2) are fenced at once (1 and 4 together: writers get errors while the rest is drained and verified).
Where CONFIG is denied nothing can be fenced by us: the writers must be stopped by their owner (``external``), and we check that no write comes
any more before we promote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ExitCode, Refused, ServerError, ValkeepError
from valkeep.report.events import Emit, Note, Phase

if TYPE_CHECKING:
    from valkeep.migrate.state import MigrationState, StateFile

__all__ = ["Aborted", "Cutover", "CutoverResult", "FenceMode", "abort", "fence_before", "fence_mode", "restore_target"]

FENCE = "255"
FENCED_BY = ("min-replicas-to-write", "min-replicas-max-lag")
_OLD_NAMES = {"min-replicas-to-write": "min-slaves-to-write", "min-replicas-max-lag": "min-slaves-max-lag"}
QUIET_SECONDS = 2.0
PATIENCE_SECONDS = 60.0  # for the comparison where no lease runs out
RESTORES = 3


class FenceMode(StrEnum):
    """How the source is kept from writing. See the module's head."""

    PAUSE = "pause"  # pause, then fence
    DIRECT = "direct"  # fence at once
    EXTERNAL = "external"  # the writers were stopped by their owner


class Aborted(ValkeepError):
    """The cut-over was called off; the source goes on writing."""

    exit_code = ExitCode.JUDGED_BAD


@dataclass(frozen=True, slots=True)
class CutoverResult:
    """``timeline``: (step, seconds on the job's clock) in order. ``write_pause_ms``: from the pause (or fence) until the target was promoted: how long a
    writer that turns to the target at once could not write."""

    timeline: tuple[tuple[str, float], ...]
    write_pause_ms: float
    fence: FenceMode
    checked_keys: int

    def to_json(self, started: float) -> dict[str, Any]:
        """``cutover.json``, schema 1; times in seconds since ``started`` (on the job's clock)."""
        return {
            "schema": 1,
            "fence": self.fence.value,
            "write_pause_ms": round(self.write_pause_ms, 1),
            "checked_keys": self.checked_keys,
            "timeline": [{"step": step, "at": round(at - started, 6)} for step, at in self.timeline],
        }


class Cutover:
    """One cut-over. ``drained(offset)`` returns when the target has acknowledged everything up to that source offset; ``verify(offset)`` compares what was
    written since the full verification and returns (keys compared, differences); ``writes_seen()`` counts writes in the source's stream so far;
    ``promoting()`` is called before the target is told."""

    def __init__(
        self,
        source: Connection,
        target: Connection,
        *,
        fence: FenceMode,
        lease_ms: int,
        drained: Callable[[int], Awaitable[None]],
        verify: Callable[[int], Awaitable[tuple[int, int]]],
        writes_seen: Callable[[], int],
        promoting: Callable[[], None],
        state: StateFile,
        emit: Emit,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._target = target
        self._fence = fence
        self._lease = lease_ms / 1000
        self._drained = drained
        self._verify = verify
        self._writes_seen = writes_seen
        self._promoting = promoting
        self._state = state
        self._emit = emit
        self._clock = clock
        self._timeline: list[tuple[str, float]] = []
        self._id = 0  # of our connection at the source; 0: unknown
        self._quiet_at = 0  # writes seen when the writers were expected to have stopped
        self._run_id = ""  # of the target's process: what was drained into it is lost with it, perhaps
        self._opened: Connection | None = None  # by ourselves, to call it off when the one we were given broke

    async def run(self) -> CutoverResult:
        """Drive the protocol. Raises ``Aborted`` (or what went wrong) when it was called off and the source is writable again; a ``ValkeepError`` with
        ``definite=False`` when the source may be left fenced or the target promoted."""
        before = {} if self._fence is FenceMode.EXTERNAL else await fence_before(self._source)
        if any(value == FENCE for name, value in before.items() if name.endswith("-to-write")):
            raise Refused(
                f"the source is fenced already (min-replicas-to-write {FENCE}): a cut-over before this one was neither completed nor aborted",
                remedy="run `valkeep migrate abort` for it, or set min-replicas-to-write on the source to what it shall be, then start again",
                code="VK-CUTOVER-FENCED",
            )
        with suppress(ServerError):
            self._id = await self._source.call("CLIENT", "ID")
        self._run_id = (await server_info(self._target)).run_id
        self._state.step("cutting", fence_before=before, fence_at=self._source.endpoint.display, target_run=self._run_id)
        started = self._clock()
        try:
            checked = await self._silence_writers(started, before)
            self._mark("drain-after-fence")
            await self._drain(2 * self._lease)
            if self._fence is FenceMode.EXTERNAL:
                self._expect_no_write_since()
        except BaseException as error:
            await _to_the_end(self._call_off(before, error))
            if isinstance(error, ValkeepError) and not error.definite:  # it is certain now: the source writes, the target was not promoted
                raise ValkeepError(
                    f"the cut-over was called off, and the source goes on writing: {error.message}",
                    remedy=error.remedy,
                    code="VK-CUTOVER-BROKEN",
                ) from error
            raise
        promoted = await self._beyond_return()
        return CutoverResult(tuple(self._timeline), (promoted - started) * 1000, self._fence, checked)

    async def _beyond_return(self) -> float:
        """Step 6, which nothing interrupts: the target has everything, the source refuses, and half a promotion helps nobody. Ctrl-C counts after it."""
        work = asyncio.ensure_future(self._promote())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({work})
            work.result()
            text = "stopped after the point of no return: the cut-over is complete, the target is the primary and the source refuses writes"
            self._emit(Note(self._clock(), "warning", text))
            raise

    async def _silence_writers(self, started: float, before: dict[str, str]) -> int:
        """Steps 1 to 4: returns the number of keys compared. From here on the source acknowledges no write."""
        if self._fence is FenceMode.EXTERNAL:
            await self._expect_silence()
            return await self._drain_and_verify(PATIENCE_SECONDS)
        if self._fence is FenceMode.DIRECT:
            await self._raise_fence(before)
            return await self._drain_and_verify(PATIENCE_SECONDS)
        self._mark("pause")
        await self._source.call("CLIENT", "PAUSE", int(self._lease * 1000), "WRITE")
        checked = await self._drain_and_verify(self._lease * 0.8 - (self._clock() - started))
        await self._raise_fence(before)
        return checked

    async def _drain_and_verify(self, seconds: float) -> int:
        """Steps 2 and 3, in at most ``seconds``: a pause must not end while we still look."""
        until = self._clock() + seconds
        self._mark("drain")
        offset = await self._drain(self._lease * 0.5)
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
                remedy="see verification.json; run `valkeep migrate verify --repair`, then try the cut-over again",
                code="VK-CUTOVER-DIFFERENT",
            )
        return checked

    async def _expect_silence(self) -> None:
        self._mark("wait-for-silence")
        self._quiet_at = self._writes_seen()
        await asyncio.sleep(QUIET_SECONDS)
        self._expect_no_write_since()

    def _expect_no_write_since(self) -> None:
        more = self._writes_seen() - self._quiet_at
        if more:
            raise Aborted(
                f"the source still gets writes ({more} commands since the cut-over began), and this user may not fence it",
                remedy="stop the writers (or permit CONFIG SET to this user: ACL SETUSER … +config), then try again",
                code="VK-CUTOVER-WRITERS",
            )

    async def _raise_fence(self, before: dict[str, str]) -> None:
        self._mark("fence")
        commands: list[tuple[str, ...]] = []
        for name, old in before.items():
            # A max-lag of 0 would switch the fence off.
            value = (old if old != "0" else "10") if name.endswith("max-lag") else FENCE
            commands.append(("CONFIG", "SET", name, value))
        if self._fence is FenceMode.PAUSE:
            commands.append(("CLIENT", "UNPAUSE"))
        try:
            failed = [reply for reply in await self._source.execute(commands) if isinstance(reply, ServerError)]
        except ServerError as refused:
            failed = [refused]
        if failed:
            raise Aborted(
                f"the source could not be fenced: {failed[0].message}",
                remedy="permit CONFIG SET to this user, or stop the writers yourself and use --fence external",
                code="VK-CUTOVER-FENCE",
            )

    async def _drain(self, seconds: float) -> int:
        """Wait until the target has everything that the source acknowledged up to now; returns the source's offset."""
        info = await server_info(self._source)
        try:
            async with asyncio.timeout(seconds):
                await self._drained(info.offset)
        except TimeoutError:
            raise Aborted(
                f"the target did not acknowledge source offset {info.offset} within {seconds:.1f} s",
                remedy="wait until the target's lag is smaller, or give a longer --lease",
                code="VK-CUTOVER-LAG",
            ) from None
        return info.offset

    async def _promote(self) -> float:
        self._mark("promote")
        self._promoting()
        try:
            await self._target.call("REPLICAOF", "NO", "ONE")
            role = (await self._target.call("ROLE"))[0]
        except ValkeepError as error:
            raise _promotion_uncertain(error.message, self._run_id) from error
        if role != b"master":
            raise _promotion_uncertain(f"its role is still {role.decode('ascii', 'replace')}", self._run_id)
        promoted = self._clock()
        try:
            self._state.step("promoted")
        except ValkeepError as error:  # `abort` finds the target a primary all the same
            self._emit(Note(promoted, "warning", f"the target is promoted, and the cut-over complete; but {error.message}"))
        self._mark("promoted")
        return promoted

    async def _call_off(self, before: dict[str, str], cause: BaseException) -> None:
        """Make the source writable again: nothing was promoted, so nothing can be lost by that."""
        self._mark("call-off")
        commands: list[tuple[str, ...]] = [("CONFIG", "SET", name, old) for name, old in before.items()]
        if self._fence is FenceMode.PAUSE:
            commands.append(("CLIENT", "UNPAUSE"))
        try:
            if self._source.closed:
                self._source = await Connection.open(self._source.endpoint, client_name="valkeep-migrate")
                self._opened = self._source
                # what was sent on the broken connection must not take effect after this
                await self._source.pipeline([("CLIENT", "KILL", "ID", self._id)] if self._id else [])
            failed = [reply for reply in await self._source.pipeline(commands) if isinstance(reply, ServerError)]
            if failed and await fence_before(self._source) != before:
                raise failed[0]
        except ValkeepError as error:
            raise ValkeepError(
                f"the cut-over was called off ({cause}), but the source could not be made writable again: {error.message}",
                remedy="run `valkeep migrate abort` as soon as the source answers; the target was not promoted",
                definite=False,
                code="VK-CUTOVER-UNFENCE",
            ) from error
        finally:
            if self._opened is not None:
                await self._opened.close()
        self._state.step("attached", fence_before={})

    def _mark(self, name: str) -> None:
        now = self._clock()
        self._timeline.append((name, now))
        self._emit(Phase(now, f"cutover:{name}"))


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do this although we are cancelled, also more than once: half done, it would leave the source fenced."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()


def _promotion_uncertain(why: str, run_id: str) -> ValkeepError:
    return ValkeepError(
        f"the target may or may not have been promoted ({why}); the source is fenced, so no write is lost either way",
        remedy=f"ask the target for its ROLE and run_id (INFO server): if it is a primary with run_id {run_id}, move the writers there; with another "
        "run_id it was restarted and may hold less than the source: do not use it; if it is no primary, `valkeep migrate abort` makes the source "
        "writable again",
        definite=False,
        code="VK-CUTOVER-PROMOTE",
    )


async def fence_before(source: Connection) -> dict[str, str]:
    """The parameters that the fence sets, by the name this server knows, with their present values. Raises ``Refused`` where CONFIG is denied."""
    found: dict[str, str] = {}
    for name in FENCED_BY:
        for known in (name, _OLD_NAMES[name]):
            try:
                reply = await source.call("CONFIG", "GET", known)
            except ServerError as error:
                raise Refused(
                    f"the source may not be fenced by this user: {error.message}",
                    remedy="permit CONFIG GET and SET to this user, or stop the writers yourself and use --fence external",
                    code="VK-CUTOVER-FENCE",
                ) from error
            if reply:
                found[known] = reply[1].decode()
                break
        else:  # without either of them there is no fence, and UNPAUSE alone would let the writers go on
            raise Refused(
                f"the source has no parameter {name} (or {_OLD_NAMES[name]}), so it cannot be fenced",
                remedy="is a proxy in between, or is it no Redis? Stop the writers yourself and use --fence external",
                code="VK-CUTOVER-FENCE",
            )
    return found


async def fence_mode(source: Connection) -> FenceMode:
    """The safest variant that this server permits, where preflight could not ask it: the primary of a source that is a replica."""
    try:
        await fence_before(source)
    except Refused:
        return FenceMode.EXTERNAL
    info = await server_info(source)
    return FenceMode.PAUSE if info.kind == "valkey" or info.version >= (6, 2) else FenceMode.DIRECT


async def abort(source: Connection | None, target: Connection | None, state: StateFile, *, force: bool = False) -> list[str]:
    """Undo what a migration changed, from its state file and from what the servers say now; returns what was done, in sentences.

    None stands for a server that does not answer: what can be done without it is done. Raises ``Refused`` when the target was promoted already (making the
    source writable then would let two primaries diverge) or when nobody can tell; ``force`` does it all the same.
    """
    found = state.current or state.read()
    if found is None:
        raise Refused(
            f"no migration is recorded in {state.directory}",
            remedy="give the --source and --target of the migration, or its --state folder",
        )
    if found.step == "aborted":
        return ["nothing is left to undo: this migration was aborted before"]
    role = (await target.call("ROLE"))[0] if target is not None else b""
    promoted = found.step == "promoted" or (found.step == "cutting" and role == b"master")
    if target is not None and promoted and found.step == "cutting" and found.target_run and not force:
        run_id = (await server_info(target)).run_id
        if run_id != found.target_run:  # a replica that is started again is a primary, with what its last snapshot had
            raise Refused(
                f"the target {found.target} is a primary, but not the process that took the source's writes: it was restarted since (run_id {run_id}), may "
                "hold less than the source, and nobody knows whether it had been promoted before",
                remedy="do not move writers there; when no client wrote to it since the cut-over began, `--force` makes the source writable again",
                code="VK-ABORT-UNKNOWN",
            )
    if promoted and not force:
        raise Refused(
            f"the target {found.target} is a primary already: the cut-over is complete, and it has every write that the source acknowledged",
            remedy="move the writers to the target; `--force` makes the source writable too, and the two then diverge",
            code="VK-ABORT-PROMOTED",
        )
    if target is None and found.step == "cutting" and not force:
        raise Refused(
            f"the target {found.target} does not answer, so nobody knows whether it was promoted",
            remedy="make it answer and try again; if it is lost, or surely no primary, `--force` makes the source writable",
            code="VK-ABORT-UNKNOWN",
        )
    done: list[str] = []
    if found.fence_before:
        await _unfence(source, found)
        if not promoted:  # before it is detached: a detached target is a primary, too, and must not be taken for a promoted one
            state.step("attached", fence_before={})
        done.append("the source accepts writes again (" + ", ".join(f"{name} {old}" for name, old in found.fence_before.items()) + ")")
    else:
        done.append("the source was never fenced and accepts writes")
    if target is None:
        done.append("the target does not answer: when it does, abort again, or detach it with REPLICAOF NO ONE")
        return done
    if not promoted:
        done += await restore_target(target, found)
    state.step("aborted")
    return done


async def _unfence(source: Connection | None, found: MigrationState) -> None:
    settings = "; ".join(f"CONFIG SET {name} {old}" for name, old in found.fence_before.items())
    if source is None:
        raise ValkeepError(
            f"the source {found.fence_at or found.source} does not answer, so it could not be made writable",
            remedy=f"abort again when it answers (a restart of it ends the fence, too: {settings})",
            definite=False,
            code="VK-CUTOVER-UNFENCE",
        )
    commands = [*(("CONFIG", "SET", name, old) for name, old in found.fence_before.items()), ("CLIENT", "UNPAUSE")]
    refused: list[ServerError] = []
    for _ in range(RESTORES):  # a fence that a killed Valkeep had sent may only arrive between two of our commands
        replies = await source.pipeline(commands)
        refused = [reply for reply in replies[:-1] if isinstance(reply, ServerError)]
        if refused or await fence_before(source) == found.fence_before:
            break
    if refused:
        raise ValkeepError(
            f"the source could not be made writable: {refused[0].message}",
            remedy=f"{settings} on the source, by a user who may",
            definite=False,
            code="VK-CUTOVER-UNFENCE",
        )


async def restore_target(target: Connection, found: MigrationState) -> list[str]:
    """Detach the target from the gateway. There is nothing else to put back: no setting of it was changed (see ``attach``)."""
    done: list[str] = []
    role = await target.call("ROLE")
    if role[0] != b"master" and (not found.gateway or found.gateway == f"{role[1].decode()}:{role[2]}"):
        await target.call("REPLICAOF", "NO", "ONE")
        done.append("the target is detached; it keeps what was copied so far")
    return done
