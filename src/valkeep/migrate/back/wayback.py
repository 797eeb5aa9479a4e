"""The way back while it stands: the old server is kept current, until somebody decides. See the package's head.

    attaching     the old server becomes a replica of our gateway
    current       it has everything; from now on the new server's writes reach it, and `commit` and `rollback` are answered
    rollback      everything is compared, then it is cut over like the first time; called off, the way back goes on
    commit        the old server is let go

Whoever ends this process (Ctrl-C, kill) decides nothing: the old server stays read-only as it is, and `valkeep migrate rollback` or `commit` go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Secret
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate import fence
from valkeep.migrate.back import gap
from valkeep.migrate.back.decision import Asked, Decision
from valkeep.migrate.back.feed import BackFeed
from valkeep.migrate.back.old import OldServer, lost, old_endpoint
from valkeep.migrate.back.returning import Returning
from valkeep.migrate.cutover.cutover import Cutover
from valkeep.migrate.delivery.target import addresses, facing, setting
from valkeep.migrate.feed import Position, ReplicationGap
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.gateway.channel import Joined
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.gateway.resumption import Rebooted, Resumption, discard
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import WayBackResult
from valkeep.migrate.preflight import gather
from valkeep.migrate.proof import Proof
from valkeep.migrate.state import BACK, MigrationState, StateFile
from valkeep.migrate.status import told
from valkeep.migrate.transform.target import TargetFormat
from valkeep.migrate.verify import Verifier
from valkeep.report.events import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from valkeep.migrate.outcome import RunOptions

__all__ = ["WayBack", "let_go", "not_kept"]

PATIENCE_SECONDS = 300.0
GUARD_SECONDS = 0.5
HELD_SECONDS = 0.2
UNDECIDED = (
    "the cut-over is complete and nothing is decided about the way back: the old server stays read-only, and is not kept current until "
    "`valkeep migrate rollback` (or `commit`) goes on"
)


class WayBack:
    """``options``: of the migration. ``main``: its state, which says "promoted"."""

    def __init__(self, options: RunOptions, main: StateFile, journal: Journal, decision: Decision) -> None:
        state = main.current
        assert state is not None  # there was a cut-over
        self._options = options
        self._main = main
        self._journal = Journal(options.report / BACK if options.report is not None else None, journal.emit, journal.clock)
        self._host = ""
        self._gateway: Gateway | None = None
        self._decision = decision
        self._old = OldServer(old_endpoint(options, state.fence_at), state)
        self._state = StateFile(main.directory / BACK)
        self._known: frozenset[str] = frozenset()  # the ids of our own history that the old server may follow already
        self._done: list[str] = []

    async def told(self) -> dict[str, Any]:
        """`valkeep migrate status`."""
        source = self._options.target.display
        return told({"": self._gateway}, source, "way-back") if self._gateway is not None else told({}, source, "way-back:attach")

    async def keep(self) -> WayBackResult:
        """Until somebody decides. Raises ``VK-ROLLBACK-LOST`` when there is nothing left to decide."""
        journal = self._journal
        ledger: Ledger | None = None
        try:
            target = await self._format()
            resumption = self._resumption(target)
            ledger = Ledger(resumption.ledger_path, journal.emit, journal.clock, since=resumption.ledger)
            result = await self._keep(ledger, target, resumption)
            resumption.remove()
            return result
        except ReplicationGap as gone:
            raise lost(gone.message) from gone
        except asyncio.CancelledError:
            if self._at("promoted"):  # Ctrl-C counts after a promotion, which is never left half done
                self._main.step("rolled-back")
            journal.say("warning", self._ended().message)
            raise
        finally:
            self._decision.ended(self._ended())
            if ledger is not None:
                ledger.close()

    def _ended(self) -> ValkeepError:
        """For whoever decides from now on: what became of the way back."""
        match self._old_state.step:
            case "rolled-back":
                what = f"it was rolled back, and the old server {self._old.endpoint.address} is the primary"
            case "committed":
                what = "it was committed; `valkeep migrate commit` again says whether the old server was let go"
            case _:
                return not_kept()
        return Refused(f"the way back is over: {what}", remedy="nothing is left to decide", code="VK-ROLLBACK-NONE")

    async def _keep(self, ledger: Ledger, target: TargetFormat, resumption: Resumption) -> WayBackResult:
        journal = self._journal
        journal.begin("way-back:attach")
        since = await self._begins()
        feed = BackFeed(self._options.target, since, self._attach, patience=PATIENCE_SECONDS, emit=journal.emit, clock=journal.clock)
        options = await self._gateway_options(feed, target, resumption.spool_folder)
        async with Gateway(feed, options, ledger, journal.emit, journal.clock, resumption) as gateway:
            self._gateway = gateway
            await gateway.resynced()
            async with self._guarded(gateway):
                await gateway.online(gateway.channels[0])
                await self._fill_gap(gateway)
                journal.begin("way-back:current")
                journal.emit(Phase(journal.clock(), "way-back", detail="for `valkeep migrate commit` or `valkeep migrate rollback`"))
                self._decision.stand()
                return await self._until_decided(gateway, ledger, resumption.spool_folder)

    # -- attached ----------------------------------------------------------------------------------------------------------------------

    async def _begins(self) -> Position:
        """Where the new server's own writes begin."""
        async with await Connection.open(self._options.target, client_name="valkeep-migrate") as connection:
            info = await server_info(connection)
        state, begins = self._old_state, info.number("second_repl_offset", -1) - 1
        if info.role != "primary" or info.run_id != state.target_run:
            raise lost(f"the new server {self._options.target.address} is a {info.role} now, or was restarted since the cut-over")
        if begins < 0 or info.fields.get("master_replid2") != state.channel:
            raise lost(
                f"the new server {self._options.target.address} does not know where its own history began: it followed another server meanwhile"
            )
        return Position(info.replid, begins)

    @property
    def _old_state(self) -> MigrationState:
        assert self._main.current is not None
        return self._main.current

    async def _attach(self, port: int) -> Joined:
        host, fixed = self._options.announce or (self._host, 0)
        gateway = (host, fixed or port)
        before = self._state.read()
        written = MigrationState(
            "attaching",
            self._options.target.display,
            self._old.endpoint.display,
            os.getpid(),
            gateway=f"{gateway[0]}:{gateway[1]}",
            gap_end=before.gap_end if before is not None else 0,
            channel=self._old_state.fence_token,
        )
        self._state.write(written)
        stood = await self._old.attach(gateway, self._known)
        if stood.replid == self._old_state.source_replid:  # it is where its own history ended
            self._state.step("attached", gap_end=stood.offset)
        else:
            self._state.step("attached")
        return stood

    async def _format(self) -> TargetFormat:
        async with await Connection.open(self._old.endpoint, client_name="valkeep-migrate") as connection:
            info = await server_info(connection)
        return TargetFormat(info.version, info.databases or 16, info.kind == "valkey")

    def _resumption(self, target: TargetFormat) -> Resumption:
        """What an earlier process left of this way back, or a new beginning."""
        folder, directory = self._journal.folder, self._state.directory
        ledger = folder / "ledger.jsonl" if folder is not None else None
        found = Resumption(directory, self._options.spool or directory, ledger)
        try:
            if found.load():
                found.expect(self._options.field_ttl, (target,))
                self._known = frozenset(found.channels)
                return found
        except Rebooted as error:
            raise lost(error.message) from error
        found.begin(self._options.field_ttl, (target,))
        return found

    async def _gateway_options(self, feed: BackFeed, target: TargetFormat, spool: Path) -> GatewayOptions:
        options, old = self._options, self._old.endpoint
        async with await Connection.open(old, client_name="valkeep-migrate") as connection:
            password, user, tls = [await setting(connection, name) for name in ("masterauth", "masteruser", "tls-replication")]
        host, port = options.listen
        self._host = host or await facing(old)
        return GatewayOptions(
            formats=(target,),
            field_ttl=options.field_ttl,
            listen=(self._host, port),
            allow=options.allow | await addresses(old.host),
            spool=spool,
            spool_limit=options.spool_limit,
            password=Secret(password) if password else None,
            username=user or "default",
            tls=options.gateway_tls if tls == "yes" else None,
            hold_seconds=None,
            late=True,
            join=feed.joined,
        )

    async def _fill_gap(self, gateway: Gateway) -> None:
        """Copy the keys again that the old server wrote by itself after it was drained."""
        state, end = self._old_state, self._state.current.gap_end if self._state.current is not None else 0
        if not end:
            return
        databases: set[int] = set()
        for endpoint in (self._options.target, self._old.endpoint):
            async with await Connection.open(endpoint, client_name="valkeep-migrate") as connection:
                databases |= set((await server_info(connection)).keys)
        try:
            places = await gap.keys_written(self._old.endpoint, state.source_replid, state.source_offset, end, databases | {0})
        except ConnectionLost as error:
            raise lost(error.message) from error
        if places:
            self._journal.say("info", f"{len(places)} keys that the old server changed by itself are copied again")
            await gateway.recopy(tuple(sorted(places)))
            await gateway.drained(gateway.source_offset)
        self._state.step("attached", gap_end=0)

    @contextlib.asynccontextmanager
    async def _guarded(self, gateway: Gateway) -> AsyncIterator[None]:
        guard = asyncio.create_task(self._guard(gateway), name="old server's guard")
        try:
            yield
        finally:
            guard.cancel()

    async def _guard(self, gateway: Gateway) -> None:
        while True:
            await asyncio.sleep(GUARD_SECONDS)
            if not gateway.departing and not any(link.channel is not None for link in gateway.links) and (why := await self._old.left()):
                gateway.fail(lost(why))
                return

    # -- decided -----------------------------------------------------------------------------------------------------------------------

    async def _until_decided(self, gateway: Gateway, ledger: Ledger, spool: Path) -> WayBackResult:
        async with contextlib.AsyncExitStack() as stack:
            proof = Proof(None, self._journal)
            verified = self._options.skip_verify
            while True:
                what, answer = await self._decided(gateway)
                try:
                    if what == "commit":
                        result = await self._commit(gateway, ledger)
                    else:
                        if not verified:
                            proof = Proof(await stack.enter_async_context(self._verifier(gateway, spool)), self._journal)
                            stack.push_async_callback(proof.close)
                            self._journal.begin("verify")
                            await _unless_held(gateway, proof.full())
                            self._journal.begin("verified")
                            verified = True
                        result = await self._roll_back(gateway, proof, ledger)
                except ValkeepError as error:
                    if not answer.done():
                        answer.set_exception(error)
                        answer.exception()  # retrieved: nobody may be asking any more
                    if self._at("promoted") or self._at("cutting") or not error.definite:
                        raise
                    self._journal.say("warning", f"{what} was called off, and the way back goes on: {error.message}. {error.remedy}")
                else:
                    if not answer.done():
                        answer.set_result(result.to_json())
                    return result

    async def _decided(self, gateway: Gateway) -> Asked:
        decided = asyncio.create_task(self._decision.next())
        await gateway.beside(decided)
        return decided.result()

    async def _commit(self, gateway: Gateway, ledger: Ledger) -> WayBackResult:
        self._main.step("committed")
        gateway.expect_departure()
        done = await self._old.release()
        let_go(self._state.directory)
        return WayBackResult("committed", tuple(done), gateway.channels[0].writes, ledger=tuple(ledger.summary()))

    async def _roll_back(self, gateway: Gateway, proof: Proof, ledger: Ledger) -> WayBackResult:
        journal, options = self._journal, self._options
        await _unless_held(gateway, proof.settle())
        async with contextlib.AsyncExitStack() as stack:
            new = await stack.enter_async_context(await Connection.open(options.target, client_name="valkeep-migrate"))
            old = await stack.enter_async_context(await Connection.open(self._old.endpoint, client_name="valkeep-migrate"))
            mode = fence.decide(await gather(options.target, rate_seconds=0, sample_keys=0))
            cut = await Cutover(
                new,
                Returning(gateway, self._old, old, self._state, journal.emit, journal.clock, self._done),
                mode=mode,
                lease_ms=options.lease_ms,
                keep_fence=options.keep_fence,
                gateway_port=gateway.address[1],
                verify=lambda offset: proof.last(offset, held=mode is FenceMode.PAUSE),
                state=self._state,
                emit=journal.emit,
                clock=journal.clock,
            ).run()
        self._main.step("rolled-back")
        journal.write_if_possible("rollback.json", cut.to_json(journal.started))
        for node in cut.source_nodes:
            journal.say("warning" if node.worries else "info", f"on the new server's side, {node.node}: {node.why}")
        keys = proof.comparison.keys_source if proof.comparison is not None else 0
        return WayBackResult(
            "rolled-back", tuple(self._done), gateway.channels[0].writes, cut.write_pause_ms, keys, tuple(ledger.summary())
        )

    # -- parts -------------------------------------------------------------------------------------------------------------------------

    def _at(self, step: str) -> bool:
        return self._state.current is not None and self._state.current.step == step

    def _verifier(self, gateway: Gateway, spool: Path) -> Verifier:
        async def recopy(database: int, key: bytes) -> None:
            await gateway.recopy(((database, key),))

        return Verifier(
            self._options.target, self._old.endpoint, self._options.field_ttl, gateway.drained, self._journal.emit, spool, recopy
        )


async def _unless_held(gateway: Gateway, work: Coroutine[Any, Any, object]) -> None:
    """Wait for ``work``, which would wait for ever for a stream that does not go on. Raises ``Aborted`` then."""
    task = asyncio.ensure_future(gateway.beside(work))
    try:
        while not task.done():
            if gateway.held:
                _, hold = gateway.held[0]
                raise fence.Aborted(f"the way back is held: {hold.why}", remedy=hold.remedy, code="VK-HELD")
            await asyncio.wait({task}, timeout=HELD_SECONDS)
        task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def not_kept() -> ValkeepError:
    """For whoever wants to decide when nobody keeps it (any more)."""
    return ValkeepError(f"the way back is not kept any more: {UNDECIDED}", remedy="say it once more", code="VK-ROLLBACK-NOT-YET")


def let_go(directory: Path) -> None:
    """Remove what a way back kept there, and on the spool's disk."""
    discard(directory)
    shutil.rmtree(directory, ignore_errors=True)
