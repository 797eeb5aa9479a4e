"""The target replicates from the gateway for the time of a run; whatever goes wrong then detaches it again.

A target is touched in one way only: REPLICAOF. No setting of it is changed. When it may be told depends on what it does with a snapshot that
is still arriving: with ``repl-diskless-load disabled`` (the default) it writes it to a file, and its data stays as it is until the last byte is
there; so it can be attached *early*, and the copy runs while the source still sends. With any other setting it would load, and drop, as bytes
come: it is attached *late*, when the whole snapshot has been read, checked and translated.

What it held before is gone once the snapshot was loaded (``wipe_target`` allowed that); what was copied stays there, said so. When the cut-over has
begun, nothing is detached here: a target that may be promoted is not touched, and ``cutover`` says what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.server_info import parse_info, server_info
from valkeep.errors import ConnectionLost, ExitCode, Refused, ServerError, ValkeepError
from valkeep.migrate.cutover import promotion
from valkeep.migrate.cutover.abort import restore_target
from valkeep.migrate.state import MigrationState
from valkeep.report.events import Phase

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.cutover.cutover import Successor
    from valkeep.migrate.delivery import Parts

__all__ = ["Native", "confirm"]

GUARD_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
FULL_SYNCS = 5


class Native:
    """A `Delivery`. ``undone``: gets what was put back when it ended badly, in sentences."""

    def __init__(self, parts: Parts) -> None:
        self.full_sync_seconds = 0.0
        self._run = parts
        self._target = parts.target
        self._address = parts.errand.announce or parts.gateway.address

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The target has the snapshot and takes the stream inside."""
        guard: asyncio.Task[None] | None = None
        touched = False
        try:
            await self._run.gateway.resynced()
            if not self._run.found.early:
                await self._run.gateway.snapshot_taken()
            self._run.state.write(self._first_state())
            touched = True
            self._run.journal.begin("attach")
            await _attach(self._target, self._address)
            guard = asyncio.create_task(self._guard(), name="target guard")
            self._run.state.step("attached", channel=self._run.gateway.channels[0].replid)
            await self._loaded()
            yield
        except BaseException as error:
            promoted = self._run.state.current is not None and self._run.state.current.step == "promoted"
            if touched and not promoted:
                self._run.gateway.expect_departure()
                await asyncio.shield(self._detach(error))
            raise
        finally:
            if guard is not None:
                guard.cancel()

    # -- Successor -------------------------------------------------------------------------------------------------------------------

    def of(self, lane: str) -> Successor:
        del lane  # there is one
        return self

    async def identify(self) -> str:
        return (await server_info(self._target)).run_id

    async def drained(self, source_offset: int) -> None:
        await self._run.gateway.drained(source_offset)
        (channel,) = self._run.gateway.channels
        ours = channel.covering(source_offset)
        assert ours is not None  # it was drained
        await confirm(self._target, channel.replid, ours)

    async def promote(self, run_id: str) -> float:
        self._run.gateway.expect_departure()
        return await promotion.promote(self._target, run_id, self._run.state, self._run.journal.emit, self._run.journal.clock)

    def hurry(self) -> None:
        """The promotion is one round trip."""

    async def errors(self) -> int:
        return (await server_info(self._target)).number("unexpected_error_replies") - self._run.found.error_replies

    def summary(self) -> dict[str, object]:
        return {"how": "native"}

    # -- attached --------------------------------------------------------------------------------------------------------------------

    def _first_state(self) -> MigrationState:
        host, port = self._address
        return MigrationState(
            "attaching", self._run.errand.source.display, self._run.errand.target.display, os.getpid(), gateway=f"{host}:{port}"
        )

    async def _loaded(self) -> None:
        gateway, journal = self._run.gateway, self._run.journal
        await gateway.snapshot_taken()
        journal.begin("snapshot-taken")
        link = await gateway.online(gateway.channels[0])
        self.full_sync_seconds = journal.clock() - gateway.started
        journal.begin("online")
        journal.emit(Phase(journal.clock(), "follow", detail=f"target {link.peer}"))
        gateway.release_snapshots()

    async def _guard(self) -> None:
        gateway = self._run.gateway

        def state() -> tuple[bool, int, str]:
            if gateway.stranded is not None:
                raise gateway.stranded
            there = gateway.departing or any(link.channel is not None for link in gateway.links)
            return there, gateway.failed_syncs, gateway.departure

        try:
            await _watch(self._run.errand.target, self._address, state)
        except ValkeepError as error:
            gateway.fail(error)

    async def _detach(self, error: BaseException) -> None:
        state = self._run.state.current
        if state is None or state.step == "cutting":
            return
        try:
            if self._target.closed:
                self._target = await Connection.open(self._run.errand.target, client_name="valkeep-migrate")
            self._run.undone.extend(await restore_target(self._target, state))
            self._run.state.step("aborted")
            if isinstance(error, ValkeepError):
                replaced = "; what it held before is gone" if self._run.errand.wipe_target else ""
                error.changed = f"nothing on the source; {'; '.join(self._run.undone)}{replaced}"
            for line in self._run.undone:
                self._run.journal.say("info", line)
        except ValkeepError as failed:
            self._run.journal.say(
                "warning", f"the target could not be detached: {failed.message}; when it answers again: valkeep migrate abort"
            )
            if isinstance(error, ValkeepError):
                error.definite = False
                error.exit_code = ExitCode.UNCERTAIN


async def _attach(target: Connection, gateway: tuple[str, int]) -> None:
    """Tell the target to replicate from the gateway. Raises ``Refused`` where it may not be told."""
    host, port = gateway
    try:
        await target.call("REPLICAOF", host, port)
    except ServerError as error:
        raise Refused(
            f"the target does not take REPLICAOF: {error.message}",
            remedy="permit REPLICAOF to this user; on ElastiCache: --target elasticache:ID; where a service denies it: --attach external or --deliver push",
            code="VK-TARGET-REPLICAOF",
        ) from error


async def confirm(target: Connection, replid: str, offset: int) -> None:
    """Make sure that this very server follows the gateway's stream ``replid`` and has applied it up to ``offset``. Raises ``ConnectionLost``.

    An ACK says that a replica at the gateway's port has; it need not be the one that is going to be promoted.
    """
    info = parse_info(await target.call("INFO", "replication"))
    applied = int(info.get("slave_repl_offset", "-1"))
    if info.get("role") == "slave" and info.get("master_replid") == replid and applied >= offset:
        return
    raise ConnectionLost(
        f"the target {target.endpoint.address} does not have what the gateway's replica acknowledged: it is a {info.get('role', '?')} of "
        f"{info.get('master_replid', '?')} at offset {applied}, and {replid} at {offset} was acknowledged",
        remedy="does another server replicate from the gateway (see --allow)? Or was the target told to leave? See its log, then start again",
        code="VK-TARGET-LOST",
    )


async def _watch(target: Endpoint, gateway: tuple[str, int], state: Callable[[], tuple[bool, int, str]]) -> None:
    """Raise ``ConnectionLost`` when the target has left the gateway for good; else never return.

    ``state``: whether it is attached now, how many full syncs in a row it did not finish, and why its last link ended. A target that is gone is asked for
    its role over a new connection: one that was restarted, or follows somebody else, does not come back.
    """
    loop = asyncio.get_running_loop()
    missing = 0.0
    while True:
        await asyncio.sleep(GUARD_SECONDS)
        attached, failures, why = state()
        why = f" (its last link: {why})" if why else ""
        if failures >= FULL_SYNCS:
            raise ConnectionLost(
                f"the target {target.address} began {failures} full syncs and finished none{why}",
                remedy="see the target's log: disk space, memory or an error while loading; then start again",
                code="VK-TARGET-SYNC",
            )
        if attached:
            missing = 0.0
            continue
        missing = missing or loop.time()
        role = await _role(target)
        if role is not None and role[1:3] != [gateway[0].encode(), gateway[1]]:
            what = "is a primary" if role[0] == b"master" else f"follows {role[1].decode()}:{role[2]}"
            raise ConnectionLost(
                f"the target {target.address} left the migration: it {what}",
                remedy="it was restarted, or told so: see its log, then start again (--wipe-target replaces the part that it has)",
                code="VK-TARGET-LOST",
            )
        if loop.time() - missing > PATIENCE_SECONDS:
            if role is None:
                raise ConnectionLost(
                    f"the target {target.address} has not answered for {PATIENCE_SECONDS:.0f} s",
                    remedy="see whether it runs, and its log; then start again",
                    code="VK-TARGET-LOST",
                )
            raise ConnectionLost(
                f"the target {target.address} does not get through to the gateway at {gateway[0]}:{gateway[1]}; its link is {role[3].decode()}{why}",
                remedy="check the network between them; --listen and --announce say where the gateway is, --allow who may attach",
                code="VK-TARGET-UNREACHED",
            )


async def _role(target: Endpoint) -> list[Any] | None:
    """What the target answers to ROLE; None when it does not."""
    try:
        async with await Connection.open(target, client_name="valkeep-guard") as connection:
            answer = await connection.call("ROLE")
    except ValkeepError:
        return None
    return answer if isinstance(answer, list) else None
