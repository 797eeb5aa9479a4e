"""The target follows the gateway for the time of a run; whatever goes wrong then detaches it again.

What it held before is gone once the snapshot was loaded (``wipe_target`` allowed that); what was copied stays there, said so. When the cut-over has
begun, nothing is detached here: a target that may be promoted is not touched, and ``cutover`` says what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.errors import ExitCode, ValkeepError
from valkeep.migrate import attach
from valkeep.migrate.abort import restore_target
from valkeep.migrate.state import MigrationState, StateFile
from valkeep.report.events import Phase

if TYPE_CHECKING:
    from valkeep.migrate.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.outcome import RunOptions

__all__ = ["Attachment"]


class Attachment:
    """``undone``: gets what was put back when it ended badly, in sentences. ``full_sync_seconds``: from the gateway's start until the target had the
    snapshot."""

    def __init__(
        self,
        options: RunOptions,
        gateway: Gateway,
        target: Connection,
        found: attach.TargetFound,
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
        self._address = options.announce or gateway.address

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The target has the snapshot and takes the stream inside."""
        guard: asyncio.Task[None] | None = None
        touched = False
        try:
            await self._gateway.resynced()
            if not self._found.early:
                await self._gateway.snapshot_taken()
            self._state.write(self._first_state())
            touched = True
            self._journal.begin("attach")
            await attach.attach(self._target, self._address)
            guard = asyncio.create_task(self._guard(), name="target guard")
            self._state.step("attached")
            await self._loaded()
            yield
        except BaseException as error:
            promoted = self._state.current is not None and self._state.current.step == "promoted"
            if touched and not promoted:
                self._gateway.expect_departure()
                await asyncio.shield(self._detach(error))
            raise
        finally:
            if guard is not None:
                guard.cancel()

    def _first_state(self) -> MigrationState:
        host, port = self._address
        return MigrationState(
            "attaching", self._options.source.display, self._options.target.display, os.getpid(), gateway=f"{host}:{port}"
        )

    async def _loaded(self) -> None:
        gateway, journal = self._gateway, self._journal
        await gateway.snapshot_taken()
        journal.begin("snapshot-taken")
        link = await gateway.online(gateway.channels[0])
        self.full_sync_seconds = journal.clock() - gateway.started
        journal.begin("online")
        journal.emit(Phase(journal.clock(), "follow", detail=f"target {link.peer}"))
        gateway.release_snapshots()

    async def _guard(self) -> None:
        gateway = self._gateway

        def state() -> tuple[bool, int, str]:
            there = gateway.departing or any(link.channel is not None for link in gateway.links)
            return there, gateway.failed_syncs, gateway.departure

        try:
            await attach.guard(self._options.target, self._address, state)
        except ValkeepError as error:
            gateway.fail(error)

    async def _detach(self, error: BaseException) -> None:
        state = self._state.current
        if state is None or state.step == "cutting":
            return
        try:
            if self._target.closed:
                self._target = await Connection.open(self._options.target, client_name="valkeep-migrate")
            self._undone += await restore_target(self._target, state)
            self._state.step("aborted")
            if isinstance(error, ValkeepError):
                replaced = "; what it held before is gone" if self._options.wipe_target else ""
                error.changed = f"nothing on the source; {'; '.join(self._undone)}{replaced}"
            for line in self._undone:
                self._journal.say("info", line)
        except ValkeepError as failed:
            self._journal.say(
                "warning", f"the target could not be detached: {failed.message}; when it answers again: valkeep migrate abort"
            )
            if isinstance(error, ValkeepError):
                error.definite = False
                error.exit_code = ExitCode.UNCERTAIN
