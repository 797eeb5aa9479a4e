"""The target attaches to the gateway by itself: somebody else tells it whom to follow, and promotes it (`promoter`). Nothing is sent to it by us but questions.

    snapshot     spooled and checked before the target is answered (``GatewayOptions.late``): one that comes early waits on bare newlines, with all that
                 it has, and cannot give up over a slow source
    begin        the promoter is told where the gateway is, which stands in the state file before; then we wait, for as long as it takes
    attached     when the target itself says that it follows the gateway's stream: some server that attached is not enough
    drained      by what the target itself says it has applied, so that other replicas of the gateway hold up nobody
    promote      the promoter is asked, the source refuses writes meanwhile, and the target is looked at until it is a primary

**The promotion is seen, never believed.** The target must be the process that took the source's writes (``run_id``), and its second replication id must be
the gateway's stream, to an offset behind everything that was drained: so it was promoted from here, with all of it.

**When it takes too long.** A person is told that it is called off; the target is a replica then, the source gets its writers back, and who promotes it all the
same makes two primaries: the message says so. A promotion that cannot be taken back (``Promoter.binding``) is never called off: the source stays fenced until a
person looks.

A run that was killed is gone on with (`unfinished`): the target's link comes back to the same stream, and nobody is asked to begin again.

Detaching is the promoter's, too; what is left to a person is said, and stands in the state file for ``valkeep migrate abort``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.server_info import parse_info
from valkeep.errors import ConnectionLost, ExitCode, ValkeepError
from valkeep.migrate.cutover.promotion import recorded, uncertain
from valkeep.migrate.fence import Aborted
from valkeep.migrate.state import MigrationState
from valkeep.report.events import Phase

if TYPE_CHECKING:
    from valkeep.migrate.cutover.cutover import Successor
    from valkeep.migrate.delivery import Parts
    from valkeep.migrate.delivery.promoter import Promoter

__all__ = ["External"]

LOOK_SECONDS = 0.5  # between two looks at a target that is about to attach, or that was attached
DRAIN_SECONDS = 0.005  # the same while writers wait
PROMOTE_SECONDS = 0.02
MISSING_SECONDS = 30.0  # a managed target that restarts its link takes its time
FULL_SYNCS = 5
PRIMARY, REPLICA = "master", "slave"  # on the wire


class External:
    """A `Delivery`. ``undone``: gets what was put back, or is left to be, when it ended badly."""

    def __init__(self, parts: Parts, promoter: Promoter) -> None:
        self.full_sync_seconds = 0.0
        self._run = parts
        self._target = parts.target
        self._promoter = promoter
        self._address = parts.errand.announce or parts.gateway.address
        self._attached = False
        self._have = 0  # our offset up to which the target said it has everything
        self._stop = asyncio.Event()
        self._opening = asyncio.Lock()
        self._opened: list[Connection] = []

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The target has the snapshot and takes the stream inside."""
        guard: asyncio.Task[None] | None = None
        asked = False
        try:
            await self._run.gateway.snapshot_taken()
            self._run.journal.begin("snapshot-taken")
            self._run.state.write(self._first_state())
            self._run.journal.begin("attach")
            asked = True
            await self._run.gateway.beside(self._begin())
            guard = asyncio.create_task(self._guard(), name="target guard")
            await self._run.gateway.beside(self._until_attached())
            self._run.state.step("attached")
            yield
        except BaseException as error:
            if asked:
                await asyncio.shield(self._undo(error))
            raise
        finally:
            if guard is not None:
                guard.cancel()
            for connection in self._opened:
                await connection.close()

    def hurry(self) -> None:
        """Somebody wants to stop: a promotion that has not been seen is not waited for any more."""
        self._stop.set()

    # -- Successor -------------------------------------------------------------------------------------------------------------------

    def of(self, lane: str) -> Successor:
        del lane  # there is one
        return self

    async def identify(self) -> str:
        return (await self._look()).get("run_id", "")

    async def drained(self, source_offset: int) -> None:
        (channel,) = self._run.gateway.channels
        while (ours := channel.covering(source_offset)) is None:
            await self._run.gateway.beside(asyncio.sleep(DRAIN_SECONDS))
        while (applied := self._applied(info := await self._look("replication"))) < ours:
            if applied < 0:
                raise self._lost(info)
            await self._run.gateway.beside(asyncio.sleep(DRAIN_SECONDS))
        self._have = max(self._have, ours)

    async def promote(self, run_id: str) -> float:
        promoter = self._promoter
        self._stop.clear()
        self._run.gateway.departing = True
        self._run.state.step("cutting", promotion=promoter.name if promoter.binding else "")
        try:
            await promoter.promote()
        except ValkeepError as error:
            if not error.definite:
                raise uncertain(error.message, run_id) from error
            raise self._called_off(f"{promoter.name} did not promote the target: {error.message}", error.remedy) from error
        info = await self._until_primary(run_id)
        self._expect_ours(info, run_id)
        return recorded(self._run.state, self._run.journal.emit, self._run.journal.clock)

    async def errors(self) -> int:
        async with await Connection.open(self._run.errand.target, client_name="valkeep-migrate") as target:
            info = parse_info(await target.call("INFO", "stats"))
        return int(info.get("unexpected_error_replies", "0")) - self._run.found.error_replies

    def summary(self) -> dict[str, object]:
        return {"how": "external", "promoter": self._promoter.name}

    # -- looking at the target ---------------------------------------------------------------------------------------------------------

    async def _look(self, *section: str) -> Mapping[str, str]:
        """The target's INFO, over a new connection where the last one broke: a promotion may close it. Nothing else is asked: the rest may be denied."""
        async with self._opening:
            if self._target.closed:
                self._target = await Connection.open(self._run.errand.target, client_name="valkeep-migrate")
                self._opened.append(self._target)
        return parse_info(await self._target.call("INFO", *section))

    async def _seen(self, *section: str) -> Mapping[str, str] | None:
        """The same; None where it does not answer."""
        try:
            return await self._look(*section)
        except ValkeepError:
            return None

    def _applied(self, info: Mapping[str, str]) -> int:
        """Our offset up to which it has applied our stream; -1 where it does not follow it."""
        (channel,) = self._run.gateway.channels
        if info.get("role") != REPLICA or info.get("master_replid") != channel.replid:
            return -1
        return int(info.get("slave_repl_offset", "-1"))

    async def _until_attached(self) -> None:
        gateway, journal = self._run.gateway, self._run.journal
        journal.emit(Phase(journal.clock(), "attach", detail=f"waiting for {self._run.errand.target.address}"))
        strangers: set[str] = set()
        while True:
            link = await gateway.online(gateway.channels[0])
            info = await self._seen("replication")
            if info is not None and self._applied(info) >= gateway.channels[0].begins:
                break
            if link.peer not in strangers and info is not None:
                strangers.add(link.peer)
                text = f"{link.peer} replicates from the gateway, and the target {self._run.errand.target.address} does not (yet): it is a {_role(info)}"
                journal.say("warning", text)
            await asyncio.sleep(LOOK_SECONDS)
        self._attached = True
        self.full_sync_seconds = journal.clock() - gateway.started
        journal.begin("online")
        journal.emit(Phase(journal.clock(), "follow", detail=f"target {self._run.errand.target.address}"))

    async def _guard(self) -> None:
        """Ends the gateway's work when the target has left for good, or the promoter says so."""
        watching = asyncio.create_task(self._promoter.watch(), name="promoter")
        try:
            missing = 0.0
            while not watching.done():
                await asyncio.wait({watching}, timeout=LOOK_SECONDS)
                missing = await self._check(missing)
            watching.result()
        except ValkeepError as error:
            self._run.gateway.fail(error)
        finally:
            watching.cancel()

    async def _check(self, missing: float) -> float:
        """``missing``: since when the target does not follow, on the loop's clock (0: it does). Raises ``ConnectionLost``. The target itself is asked: a link
        may be somebody else's."""
        gateway, now = self._run.gateway, asyncio.get_running_loop().time()
        if gateway.departing:
            return 0.0
        info = await self._seen("replication") if self._attached else None
        if info is not None and self._applied(info) >= 0 and info.get("master_link_status") == "up":
            return 0.0
        why = f" (the last link that ended: {gateway.departure})" if gateway.departure else ""
        if gateway.failed_syncs >= FULL_SYNCS:
            raise ConnectionLost(
                f"{gateway.failed_syncs} full syncs were begun and none finished{why}",
                remedy="see the target's log: disk space, memory or an error while loading; then start again",
                code="VK-TARGET-SYNC",
            )
        if not self._attached or gateway.departing:
            return 0.0
        missing = missing or now
        if info is not None and info.get("role") == PRIMARY:
            raise self._lost(info)
        if now - missing > MISSING_SECONDS:
            raise ConnectionLost(
                f"the target {self._run.errand.target.address} has not followed the gateway for {MISSING_SECONDS:.0f} s{why}",
                remedy="see its log, and the network between it and the gateway; --allow says who may attach",
                code="VK-TARGET-UNREACHED",
            )
        return missing

    def _lost(self, info: Mapping[str, str]) -> ConnectionLost:
        where = info.get("master_host", "")
        what = (
            f"follows {where}:{info.get('master_port', '')}, whose stream is {info.get('master_replid', '?')}"
            if where
            else f"is a {_role(info)}"
        )
        return ConnectionLost(
            f"the target {self._run.errand.target.address} does not follow the gateway any more: it {what}",
            remedy="it was told so, promoted too early (then see that nobody writes to it: the source goes on), or restarted: see its log, then start again "
            "(--wipe-target replaces the part that it has)",
            code="VK-TARGET-LOST",
        )

    # -- the promotion -----------------------------------------------------------------------------------------------------------------

    async def _until_primary(self, run_id: str) -> Mapping[str, str]:
        """The target as a primary. Raises ``Aborted`` where it is surely none and need not become one, else an error that is not definite."""
        promoter, clock = self._promoter, self._run.journal.clock
        until = clock() + promoter.seconds
        stop = asyncio.create_task(self._stop.wait())
        try:
            while True:
                info = await self._seen()
                if info is not None and info.get("role") == PRIMARY:
                    return info
                if clock() > until or (stop.done() and not promoter.binding):
                    break
                await asyncio.wait({stop}, timeout=PROMOTE_SECONDS) if not stop.done() else await asyncio.sleep(PROMOTE_SECONDS)
        finally:
            stop.cancel()
        why = "the migration was told to stop" if self._stop.is_set() else f"it was no primary after {promoter.seconds:g} s"
        if promoter.binding:
            raise uncertain(f"{promoter.name} was asked for it, which cannot be taken back, and {why}", run_id)
        if info is None:
            raise uncertain("it does not answer", run_id)
        raise self._called_off(
            f"the target {self._run.errand.target.address} was not promoted: {why}",
            "do NOT promote it any more: the source goes on writing, and there would be two primaries. When you are ready, cut over again",
        )

    def _called_off(self, text: str, remedy: str) -> Aborted:
        self._run.gateway.departing = False
        return Aborted(f"{text}; the source goes on writing", remedy=remedy, code="VK-PROMOTE-LATE")

    def _expect_ours(self, info: Mapping[str, str], run_id: str) -> None:
        (channel,) = self._run.gateway.channels
        if info.get("run_id", "") != run_id:
            raise uncertain(f"it is a primary, and another process (run_id {info.get('run_id', '?')})", run_id)
        former = info.get("master_replid2", "")
        behind = int(info.get("second_repl_offset", "-1"))
        if former and (former != channel.replid or behind <= self._have):
            raise uncertain(
                f"it is a primary, and what it followed last was {former} up to {behind}: not {channel.replid} up to {self._have} and beyond",
                run_id,
            )

    async def _begin(self) -> None:
        if self._run.told:
            await self._promoter.taken_up(self._address)
            return
        await self._promoter.prepare(self._address)
        self._run.state.step("attaching", gateway=self._where)  # intent first
        await self._promoter.begin(self._address)

    # -- the end -----------------------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        host, port = self._address
        return f"{host}:{port}"

    def _first_state(self) -> MigrationState:
        options, promoter = self._run.errand, self._promoter
        return MigrationState(
            "attaching",
            options.source.display,
            options.target.display,
            os.getpid(),
            gateway=self._where if self._run.told else "",
            delivery="external",
            group=self._run.group,
            detach_by=promoter.detach_by,
        )

    async def _undo(self, error: BaseException) -> None:
        state = self._run.state.current
        if state is None or state.step in ("cutting", "promoted"):
            return
        self._run.gateway.expect_departure()
        try:
            self._run.undone.extend(await self._promoter.undo())
            self._run.state.step("aborted")
        except ValkeepError as failed:
            self._run.undone.append(
                f"{self._promoter.name} could not detach the target: {failed.message}; detach it by {self._promoter.detach_by}"
            )
            if isinstance(error, ValkeepError):
                error.definite = False
                error.exit_code = ExitCode.UNCERTAIN
        if isinstance(error, ValkeepError):
            replaced = "; what it held before is gone" if self._run.errand.wipe_target else ""
            error.changed = f"nothing on the source; {'; '.join(self._run.undone)}{replaced}"
        for line in self._run.undone:
            self._run.journal.say("info", line)


def _role(info: Mapping[str, str]) -> str:
    return {PRIMARY: "primary", REPLICA: "replica"}.get(info.get("role", ""), "server without a role")
