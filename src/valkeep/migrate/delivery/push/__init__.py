"""We write to the target as an ordinary client does: for targets that cannot, or may not, replicate from us (managed services that deny REPLICAOF).

    snapshot    the channel's, in the target's own format: as RESTORE commands over several connections (`snapshot`, `lanes`, `pieces`)
    stream      the channel's, in transactions that also hold the offset they lead to (`batches`, `stream`, `migrate.marker`): exactly once
    expiry      nothing expires early meanwhile (`expiry`)
    promotion   the target was a primary all the time: the marker is removed, and its setting put back, in one transaction

Before anything is changed, the state file says so. When it ends before the promotion, the setting is put back and the marker removed; what was copied stays
there. The target's own data is removed (``wipe_target``) only when the whole snapshot was read and checked; an empty target gets the copy while it still
arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from valkeep.client.connection import Connection
from valkeep.client.server_info import parse_info, server_info, text_of
from valkeep.errors import ConnectionLost, ExitCode, Refused, ServerError, ValkeepError
from valkeep.migrate import marker, promotion
from valkeep.migrate.abort import restore_target
from valkeep.migrate.delivery.push import expiry
from valkeep.migrate.delivery.push.door import NAME, Door
from valkeep.migrate.delivery.push.refusals import lost, refused
from valkeep.migrate.delivery.push.snapshot import SnapshotLoad
from valkeep.migrate.delivery.push.stream import PushLink
from valkeep.migrate.state import MigrationState, StateFile
from valkeep.report.events import Phase

if TYPE_CHECKING:
    from valkeep.migrate.delivery import Errand
    from valkeep.migrate.delivery.target import TargetFound
    from valkeep.migrate.gateway import Gateway
    from valkeep.migrate.journal import Journal

__all__ = ["Push"]

Done = TypeVar("Done")


class Push:
    """A `Delivery`. ``undone``: gets what was put back when it ended badly, in sentences."""

    def __init__(
        self,
        options: Errand,
        gateway: Gateway,
        target: Connection,
        found: TargetFound,
        state: StateFile,
        journal: Journal,
        undone: list[str],
    ) -> None:
        self.full_sync_seconds = 0.0
        self._options = options
        self._gateway = gateway
        self._target = target
        self._found = found
        self._state = state
        self._journal = journal
        self._undone = undone
        self._door = Door(options.target, found.info.run_id)
        self._before: dict[str, str] = {}
        self._expiry = expiry.RECOPY
        self._link: PushLink | None = None

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The target has the snapshot and takes the stream inside."""
        carrying: asyncio.Task[None] | None = None
        touched = False
        try:
            await self._gateway.resynced()
            begun = await self._begun()
            wipe = begun is None and bool(self._found.keys)
            if wipe or not self._found.early:
                await self._gateway.snapshot_taken()
            if begun is None:
                import_mode = await self._at_target(expiry.found)
                self._before = {expiry.SETTING: import_mode} if import_mode else {}
            self._state.write(self._first_state())
            touched = True
            self._journal.begin("attach")
            await self._prepare(wipe=wipe)
            link = await self._load(begun)
            carrying = asyncio.create_task(link.run(begun), name="push")
            carrying.add_done_callback(self._ended)
            self._state.step("attached")
            await self._online(link)
            yield
        except BaseException as error:
            promoted = self._state.current is not None and self._state.current.step == "promoted"
            await self._stop(carrying)
            carrying = None
            if touched and not promoted:
                self._gateway.expect_departure()
                await asyncio.shield(self._put_back(error))
            raise
        finally:
            await self._stop(carrying)

    # -- Successor -------------------------------------------------------------------------------------------------------------------

    async def identify(self) -> str:
        return (await self._at_target(server_info)).run_id

    async def drained(self, source_offset: int) -> None:
        await self._gateway.drained(source_offset)
        await self._confirm()

    async def promote(self, run_id: str) -> float:
        """The target becomes what it is already: nobody's copy. Raises ``ValkeepError`` with ``definite=False`` when nobody knows whether it did."""
        assert self._link is not None
        self._gateway.expect_departure()
        try:
            await self._link.stop()
            if await self.identify() != run_id:
                raise lost(self._options.target.address, "was restarted")
            await self._confirm()
            commands: list[tuple[str | bytes | int, ...]] = [("SELECT", marker.DATABASE), ("DEL", marker.KEY)]
            commands += [("CONFIG", "SET", name, value) for name, value in self._before.items()]
            answers = await self._at_target(lambda target: target.execute(commands))  # twice is as good as once
            failed = next((answer for answer in answers if isinstance(answer, ServerError)), None)
        except (ValkeepError, TimeoutError) as error:
            raise promotion.uncertain(str(error), run_id) from error
        if failed is not None:
            self._journal.say("warning", f"the target is the primary, but its setting could not be put back: {failed.message}")
        return promotion.recorded(self._state, self._journal.emit, self._journal.clock)

    def hurry(self) -> None:
        """The promotion is one round trip."""

    async def errors(self) -> int:
        """None: an error reply ends the delivery."""
        return 0

    def summary(self) -> dict[str, object]:
        """How it was delivered, for the report."""
        return {"how": "push", "expiry": self._expiry, "recopied": self._link.recopied if self._link is not None else 0}

    # -- steps -----------------------------------------------------------------------------------------------------------------------

    def _first_state(self) -> MigrationState:
        return MigrationState(
            "attaching",
            self._options.source.display,
            self._options.target.display,
            os.getpid(),
            delivery="push",
            target_before=self._before,
        )

    async def _prepare(self, *, wipe: bool) -> None:
        if self._before:
            forbidden = await self._at_target(lambda target: expiry.forbid(target, self._before))
            if forbidden:
                self._expiry = expiry.IMPORT_MODE
                self._door.import_source = True
            else:
                self._before = {}
                self._state.step("attaching", target_before={})
        how = "nothing expires there meanwhile (import-mode)" if self._before else "keys whose renewal comes too late are copied again"
        self._journal.say("info", f"the target is written to as by a client; {how}")
        if wipe:
            self._journal.say("info", f"the target's {self._found.keys} keys and its functions are removed (--wipe-target)")
            try:
                await self._at_target(lambda target: target.call("FLUSHALL", timeout=0))
                await self._at_target(lambda target: target.call("FUNCTION", "FLUSH", timeout=0))
            except ServerError as error:
                raise refused(self._options.target.address, [b"FLUSHALL"], error, "--wipe-target") from error

    async def _begun(self) -> marker.Marker | None:
        """Where a run that was killed left this very channel in the target; None: it has none of it."""
        (channel,) = self._gateway.channels
        left = self._state.current
        if left is None or left.delivery != "push" or left.step not in ("attaching", "attached") or not channel.complete:
            return None
        await self._at_target(_end_others)
        value = await self._at_target(marker.read)
        found = None if value is None else marker.Marker.parse(value)
        if found is None or found.replid != channel.replid:
            return None
        if not channel.stream.start <= found.offset <= channel.stream.committed:
            raise Refused(
                f"the target {self._options.target.address} has our stream up to {found.offset}, and {channel.stream.start} to "
                f"{channel.stream.committed} of it is here",
                remedy="begin anew: --fresh --wipe-target",
                code="VK-PUSH-MARKER",
            )
        self._before = dict(left.target_before)
        return found

    async def _load(self, begun: marker.Marker | None) -> PushLink:
        gateway, journal = self._gateway, self._journal
        (channel,) = gateway.channels
        link = self._link = PushLink(gateway, channel, self._door, renewals=self._expiry == expiry.RECOPY)
        gateway.adopt(link)
        if begun is None:
            assert channel.snapshot is not None  # nobody has released it yet
            load = SnapshotLoad(channel.snapshot, self._door, link.loaded)
            await gateway.beside(load.run())
        await gateway.snapshot_taken()
        journal.begin("snapshot-taken")
        return link

    async def _online(self, link: PushLink) -> None:
        gateway, journal = self._gateway, self._journal
        await gateway.online(gateway.channels[0])
        self.full_sync_seconds = journal.clock() - gateway.started
        journal.begin("online")
        journal.emit(Phase(journal.clock(), "follow", detail=f"target {link.peer}"))
        gateway.release_snapshots()

    async def _confirm(self) -> None:
        """Make sure that this very server has what the link says, by its marker. Raises ``Refused``."""
        assert self._link is not None
        info = parse_info(await self._at_target(lambda target: target.call("INFO", "replication")))
        if info.get("role") != "master":
            raise lost(self._options.target.address, f"is a replica of {info.get('master_host')}:{info.get('master_port')} now")
        value = await self._at_target(marker.read)
        expected = self._link.marked
        if value != expected.value:
            found = None if value is None else marker.Marker.parse(value)
            if found is None or found.replid != expected.replid or found.offset < expected.offset:
                raise Refused(
                    f"the target {self._options.target.address} has {value!r} as {marker.KEY.decode()}, and {expected.value!r} was written",
                    remedy="somebody else writes to the target: find who (CLIENT LIST), stop them, then start again with --wipe-target",
                    code="VK-PUSH-MARKER",
                )

    async def _at_target(self, work: Callable[[Connection], Awaitable[Done]]) -> Done:
        """What may be asked twice; again when the connection breaks."""
        while True:
            if self._target.closed:
                self._target = await self._door.reopen()
            try:
                return await work(self._target)
            except ConnectionLost as error:
                if error.code:
                    raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._gateway.fail(error)

    async def _stop(self, carrying: asyncio.Task[None] | None) -> None:
        if self._link is not None:
            self._link.close("the delivery ends")
        if carrying is not None:
            carrying.cancel()
            await asyncio.wait({carrying})

    async def _put_back(self, error: BaseException) -> None:
        state = self._state.current
        if state is None or state.step == "cutting":
            return
        try:
            if self._target.closed:
                self._target = await Connection.open(self._options.target, client_name="valkeep-migrate")
            self._undone += await restore_target(self._target, state)
            self._state.step("aborted")
            if isinstance(error, ValkeepError):
                error.changed = f"nothing on the source; {'; '.join(self._undone)}"
            for line in self._undone:
                self._journal.say("info", line)
        except ValkeepError as failed:
            self._journal.say(
                "warning", f"the target could not be put in order: {failed.message}; when it answers again: valkeep migrate abort"
            )
            if isinstance(error, ValkeepError):
                error.definite = False
                error.exit_code = ExitCode.UNCERTAIN


async def _end_others(target: Connection) -> None:
    """End the connections of a delivery that was killed: what it had sent may still be executed."""
    for one in text_of(await target.call("CLIENT", "LIST")).splitlines():
        fields = dict(field.partition("=")[::2] for field in one.split())
        if fields.get("name") == NAME:
            with contextlib.suppress(ServerError):  # it is gone already
                await target.call("CLIENT", "KILL", "ID", fields["id"])
