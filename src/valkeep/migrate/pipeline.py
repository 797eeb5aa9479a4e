"""One migration, from preflight to promotion: composes preflight, gateway, verification and cut-over.

    preflight      reads only; NO-GO or unacknowledged warnings end it here, nothing touched
    snapshot       the gateway is a replica of the source; everything is read, checked, translated, spooled
    load           the target is told to replicate from the gateway (when: see ``attach``)
    follow         the target takes the stream; the verification compares both sides meanwhile
    cut-over       at once, or when a person says so (``Ready.go``); see ``cutover``

What goes wrong before the cut-over leaves the source untouched and detaches the target; what was copied stays there, said so. Every change made to a
server is in the state file before it is made (``state``), so that ``abort`` can undo it after a kill -9.

Files of the report folder: preflight.json, ledger.jsonl, verification.json, cutover.json, run.json. All have ``schema: 1``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ExitCode, Refused, ValkeepError
from valkeep.migrate import attach
from valkeep.migrate.control import Control, Lock
from valkeep.migrate.cutover import Aborted, Cutover, CutoverResult, FenceMode, fence_mode, restore_target
from valkeep.migrate.gateway import Gateway, GatewayOptions
from valkeep.migrate.handover import Handover, Ready
from valkeep.migrate.ledger import Ledger
from valkeep.migrate.outcome import NotEqual, RunOptions, RunResult
from valkeep.migrate.preflight import CutoverVariant, PreflightOptions, PreflightReport, preflight
from valkeep.migrate.spool import spool_folder
from valkeep.migrate.state import MigrationState, StateFile
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.report.events import Emit, Note, Phase, VerdictEvent

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint

__all__ = ["Ready", "RunOptions", "RunResult", "run"]

ALL = "all"
ATTEMPTS = 3
RETRY_SECONDS = 2.0
PASSING = frozenset({"VK-CUTOVER-LEASE", "VK-CUTOVER-LAG", "VK-CUTOVER-WRITERS"})  # reasons to call a cut-over off that may pass
SETTLING_ROUNDS = 10
FEW_KEYS = 100
_FENCES = {
    CutoverVariant.PAUSE_AND_FENCE: FenceMode.PAUSE,
    CutoverVariant.FENCE_ONLY: FenceMode.DIRECT,
    CutoverVariant.STOP_WRITERS: FenceMode.EXTERNAL,
}


async def run(options: RunOptions, emit: Emit, clock: Callable[[], float], ready: Ready | None = None) -> RunResult:
    """Migrate. Raises ``ValkeepError``: with ``definite`` True nothing is changed on the source and the target holds at most a copy; with
    ``definite`` False see the remedy. Cancelling it (Ctrl-C) detaches the target and leaves the source writable."""
    migration = _Migration(options, emit, clock, ready or Ready())
    with Lock(options.state_directory):
        return await migration.run()


class _Migration:
    """The state of one run: what ``run`` would otherwise hand from step to step."""

    def __init__(self, options: RunOptions, emit: Emit, clock: Callable[[], float], ready: Ready) -> None:
        self.options = options
        self.emit = emit
        self.clock = clock
        self.started = clock()
        self.timeline: list[tuple[str, float]] = []
        self.state = StateFile(options.state_directory)
        self.looking: asyncio.Future[Comparison] | None = None
        self.comparison: Comparison | None = None
        self.handover = Handover(ready, self.state)
        self.full_sync_seconds = 0.0

    async def run(self) -> RunResult:
        try:
            return await self._run()
        except asyncio.CancelledError:
            if not self.handover.told_to_stop:
                raise
            raise self.handover.aborted() from None

    async def _run(self) -> RunResult:
        options = self.options
        left = StateFile(options.state_directory).read()
        if left is not None and left.step == "cutting":
            raise Refused(
                f"a migration from {left.source} to {left.target} ended in the middle of its cut-over: the source may be fenced",
                remedy="run `valkeep migrate abort` first: it makes the source writable, or says that the target was promoted",
                code="VK-STATE-UNFINISHED",
            )
        report = await self._preflight()
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(await self._open(options.source))
            target = await stack.enter_async_context(await self._open(options.target))
            found = await attach.look(target, options.field_ttl, wipe=options.wipe_target)
            fence_at = await stack.enter_async_context(await self._fence_connection(source))
            ledger = Ledger(options.report / "ledger.jsonl" if options.report else None)
            stack.callback(ledger.close)
            spool = stack.enter_context(spool_folder(options.spool or options.state_directory))
            gateway_options = await self._gateway_options(found, spool)
            gateway = await stack.enter_async_context(Gateway(gateway_options, ledger, self.emit, self.clock))
            await stack.enter_async_context(Control(options.state_directory, {"cutover": self.handover.go, "abort": self.handover.stop}))
            stack.callback(self.handover.ended)  # before the control socket closes: whoever asked gets an answer
            async with self._attached(gateway, target, found):
                verifier: Verifier | None = None
                if not options.skip_verify:
                    verifier = await stack.enter_async_context(self._verifier(gateway, spool))
                    await gateway.beside(self._verify(verifier))
                elsewhere = fence_at.endpoint.address != options.source.address
                fence = options.fence or (await fence_mode(fence_at) if elsewhere else _FENCES[report.cutover])
                cut = await self._cut_when_it_may(gateway, fence_at, target, verifier, fence)
            result = await self._result(report, gateway, target, found, ledger, cut)
        self.emit(VerdictEvent(self.clock(), result.verdict, {"mismatches": result.mismatches}))
        self._write_if_possible("run.json", result.to_json())
        return result

    # -- steps ----------------------------------------------------------------------------------------------------------------------

    async def _preflight(self) -> PreflightReport:
        options = self.options
        self._mark("preflight")
        wanted = PreflightOptions(
            field_ttl=options.field_ttl,
            wipe_target=options.wipe_target,
            gateway_tls=options.gateway_tls is not None,
            rate_seconds=options.rate_seconds,
        )
        report = await preflight(options.source, options.target, wanted, self.emit)
        accepted = frozenset(report.conditions) if ALL in options.accept else options.accept
        self._write("preflight.json", report.to_json(accepted))
        if report.may_start(accepted):
            return report
        codes = report.blockers or report.open(accepted)
        finding = next(one for one in report.findings if one.code == codes[0])
        more = f" (and {', '.join(codes[1:])})" if len(codes) > 1 else ""
        evidence = "; ".join(f"{name}: {value}" for name, value in finding.evidence.items())
        detail = f" [{evidence}]" if evidence else ""
        remedy = (
            finding.remedy
            if report.blockers
            else f"{finding.remedy}; or say that this is known: --acknowledge {' --acknowledge '.join(codes)}"
        )
        raise Refused(f"preflight says {report.verdict}: {finding.title}{detail}{more}", remedy=remedy, code=finding.code)

    @contextlib.asynccontextmanager
    async def _attached(self, gateway: Gateway, target: Connection, found: attach.TargetFound) -> AsyncIterator[None]:
        """The target follows the gateway inside; whatever goes wrong there detaches it again."""
        address = self.options.announce or gateway.address
        state = MigrationState(
            "attaching", self.options.source.display, self.options.target.display, os.getpid(), gateway=f"{address[0]}:{address[1]}"
        )
        touched = False
        guard: asyncio.Task[None] | None = None
        try:
            await gateway.resynced()
            if not found.early:
                await gateway.snapshot_taken()
            self.state.write(state)
            touched = True
            self._mark("attach")
            await attach.attach(target, address)
            guard = asyncio.create_task(self._guard(gateway, address), name="target guard")
            self.state.step("attached")
            await gateway.snapshot_taken()
            self._mark("snapshot-taken")
            link = await gateway.online(gateway.channels[0])
            self.full_sync_seconds = self.clock() - gateway.started
            self._mark("online")
            self.emit(Phase(self.clock(), "follow", detail=f"target {link.peer}"))
            gateway.release_snapshots()
            yield
        except BaseException as error:
            promoted = self.state.current is not None and self.state.current.step == "promoted"
            if touched and not promoted:
                gateway.expect_departure()
                await asyncio.shield(self._detach(target, error))
            raise
        finally:
            if guard is not None:
                guard.cancel()

    async def _guard(self, gateway: Gateway, address: tuple[str, int]) -> None:
        def state() -> tuple[bool, int, str]:
            there = gateway.departing or any(link.channel is not None for link in gateway.links)
            return there, gateway.failed_syncs, gateway.departure

        try:
            await attach.guard(self.options.target, address, state)
        except ValkeepError as error:
            gateway.fail(error)

    async def _detach(self, target: Connection, error: BaseException) -> None:
        state = self.state.current
        if state is None or state.step == "cutting":
            return  # the cut-over says what is left; a target that may be promoted is not touched
        try:
            if target.closed:
                target = await self._open(self.options.target)
            done = await restore_target(target, state)
            self.state.step("aborted")
            self.handover.undone = done
            if isinstance(error, ValkeepError):
                replaced = "; what it held before is gone" if self.options.wipe_target else ""
                error.changed = f"nothing on the source; {'; '.join(done)}{replaced}"
            for line in done:
                self.emit(Note(self.clock(), "info", line))
        except ValkeepError as failed:
            remedy = "when it answers again: valkeep migrate abort"
            self.emit(Note(self.clock(), "warning", f"the target could not be detached: {failed.message}; {remedy}"))
            if isinstance(error, ValkeepError):
                error.definite = False
                error.exit_code = ExitCode.UNCERTAIN

    async def _verify(self, verifier: Verifier) -> None:
        self._mark("verify")
        comparison = await verifier.full()
        if comparison.hot_only:
            comparison = await verifier.round()
        self.comparison = comparison
        self._write("verification.json", comparison.to_json())
        self._mark("verified")
        if comparison.differences or (comparison.verdict == "unknown" and not comparison.hot_only):
            raise NotEqual(comparison)

    async def _round(self, verifier: Verifier) -> Comparison:
        """One round; the verifier is asked one thing at a time, so a look that a cut-over has given up on is waited for first."""
        if self.looking is not None:
            await self.looking
        return await verifier.round()

    async def _settle(self, verifier: Verifier) -> None:
        """Compare what was written meanwhile, again and again: each round is shorter than the one before, and little is left for the pause."""
        last = 0
        for _ in range(SETTLING_ROUNDS):
            before = self.comparison.looked_again if self.comparison is not None else 0
            self.comparison = await self._round(verifier)
            looked = self.comparison.looked_again - before
            if looked <= FEW_KEYS or (last and looked > last * 0.8):
                return
            last = looked

    async def _wait_for_go(self, gateway: Gateway, verifier: Verifier | None) -> None:
        if self.options.cutover != "manual":
            return
        self._mark("waiting")
        self.handover.ready.waiting = True
        self.emit(Phase(self.clock(), "waiting", detail="for `valkeep migrate cutover`"))
        watch = asyncio.create_task(gateway.watch())
        go = asyncio.create_task(self.handover.ready.go.wait())
        try:
            while not go.done():
                await asyncio.wait({watch, go}, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    watch.result()
                if verifier is not None and not go.done():
                    self.comparison = await self._round(verifier)
        finally:
            self.handover.ready.waiting = False
            watch.cancel()
            go.cancel()

    async def _cut_when_it_may(
        self, gateway: Gateway, fence_at: Connection, target: Connection, verifier: Verifier | None, fence: FenceMode
    ) -> CutoverResult:
        """Cut over, again when it was called off for a reason that may pass: at once a few times, or whenever a person says so."""
        attempts = 0
        while True:
            await self._wait_for_go(gateway, verifier)
            try:
                return await self._cut(gateway, fence_at, target, verifier, fence)
            except Aborted as error:
                attempts += 1
                manual = self.options.cutover == "manual"
                if error.code not in PASSING or (not manual and attempts >= ATTEMPTS):
                    raise
                self.emit(Note(self.clock(), "warning", f"the cut-over was called off: {error.message}. {error.remedy}"))
                self.handover.answer(error, again=True)
                if not manual:
                    await gateway.beside(asyncio.sleep(RETRY_SECONDS * attempts))

    async def _cut(
        self, gateway: Gateway, fence_at: Connection, target: Connection, verifier: Verifier | None, fence: FenceMode
    ) -> CutoverResult:
        if verifier is not None:
            await gateway.beside(self._settle(verifier))
        if gateway.held:
            wanted = gateway.held[0]
            assert wanted.hold is not None
            raise Refused(f"the stream is held: {wanted.hold.why}", remedy=wanted.hold.remedy, code="VK-HELD")

        async def verify(offset: int) -> tuple[int, int]:
            if verifier is None:
                return 0, 0
            before = self.comparison.looked_again if self.comparison is not None else 0
            # The cut-over may lose patience; the verifier is asked one thing at a time, so the look itself goes on (``_settle`` waits for it).
            self.looking = asyncio.ensure_future(verifier.final(offset))
            final = self.comparison = await asyncio.shield(self.looking)
            if final.verdict == "unknown":
                raise Aborted(
                    "what changed lately could not be compared: " + "; ".join(final.reasons or (f"{final.unsettled} keys are unsettled",)),
                    remedy="start the migration again; the source goes on writing",
                    code="VK-CUTOVER-UNKNOWN",
                )
            return final.looked_again - before, final.differences

        async def drained(offset: int) -> None:
            await gateway.drained(offset)
            (channel,) = gateway.channels
            ours = channel.covering(offset)
            assert ours is not None  # it was drained
            await attach.confirm(target, channel.replid, ours)

        cutover = Cutover(
            fence_at,
            target,
            fence=fence,
            lease_ms=self.options.lease_ms,
            drained=drained,
            verify=verify,
            writes_seen=lambda: sum(channel.writes for channel in gateway.channels),
            promoting=gateway.expect_departure,
            state=self.state,
            emit=self.emit,
            clock=self.clock,
        )
        try:
            cut = await cutover.run()
        finally:
            if self.comparison is not None:
                self._write_if_possible("verification.json", self.comparison.to_json())
        self.timeline += cut.timeline
        self._write_if_possible("cutover.json", cut.to_json(self.started))
        self.handover.answer({"promoted": self.options.target.display, "write_pause_ms": round(cut.write_pause_ms, 1)})
        if fence is not FenceMode.EXTERNAL:
            text = (
                "the source refuses writes from now on (min-replicas-to-write 255): that is the fence, leave it until the source is retired"
            )
            self.emit(Note(self.clock(), "info", text))
        return cut

    async def _result(
        self,
        report: PreflightReport,
        gateway: Gateway,
        target: Connection,
        found: attach.TargetFound,
        ledger: Ledger,
        cut: CutoverResult,
    ) -> RunResult:
        after = await server_info(target)
        errors = after.number("unexpected_error_replies") - found.error_replies
        comparison = self.comparison
        mismatches = comparison.differences if comparison is not None else 0
        if mismatches or errors:
            verdict = "invalid"
        else:
            verdict = comparison.verdict if comparison is not None else "unknown"
        source_info = gateway.source_info
        assert source_info is not None  # the gateway was started
        code = {"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(verdict, ExitCode.UNKNOWN)
        return RunResult(
            verdict=verdict,
            exit_code=code,
            preflight=report,
            verification=comparison,
            keys=comparison.keys_source if comparison is not None else gateway.channels[0].keys,
            full_sync_seconds=self.full_sync_seconds,
            mismatches=mismatches,
            ledger=ledger.summary(),
            write_pause_ms=cut.write_pause_ms,
            started=self.started,
            timeline=tuple(self.timeline),
            source_name=source_info.name,
            target_name=found.info.name,
            source_version=_version(source_info),
            source_rdb_version=gateway.channels[0].source_rdb_version,
            target_version=_version(found.info),
            unexpected_error_replies=errors,
            elapsed_seconds=self.clock() - self.started,
            started_at=self.options.started_at,
            host=self.options.host,
            fence=cut.fence.value,
            changed_keys_checked=cut.checked_keys,
        )

    # -- parts ----------------------------------------------------------------------------------------------------------------------

    async def _open(self, endpoint: Endpoint) -> Connection:
        return await Connection.open(endpoint, client_name="valkeep-migrate")

    async def _fence_connection(self, source: Connection) -> Connection:
        """Where the writers are: the source, or the primary that the source follows."""
        info = await server_info(source)
        if info.role == "primary":
            return await self._open(self.options.source)
        primary = self.options.source_primary or replace(
            self.options.source, host=info.fields.get("master_host", ""), port=info.number("master_port")
        )
        self.emit(Note(self.clock(), "info", f"the source is a replica; its writers are held and fenced at its primary {primary.address}"))
        return await self._open(primary)

    async def _gateway_options(self, found: attach.TargetFound, spool: Path) -> GatewayOptions:
        options = self.options
        host, port = options.listen
        if found.tls_replication and options.gateway_tls is None:
            raise Refused(
                "the target replicates over TLS only (tls-replication yes), and the gateway has no certificate",
                remedy="give one that the target's CA signed: --gateway-cert FILE --gateway-key FILE",
                code="VK-GATEWAY-TLS",
            )
        return GatewayOptions(
            source=options.source,
            formats=(found.format,),
            field_ttl=options.field_ttl,
            listen=(host or await attach.facing(options.target), port),
            allow=options.allow | await attach.addresses(options.target.host),
            spool=spool,
            spool_limit=options.spool_limit,
            password=found.password,
            username=found.username,
            tls=options.gateway_tls if found.tls_replication else None,
            hold_seconds=options.hold_seconds,
        )

    def _verifier(self, gateway: Gateway, spool: Path) -> Verifier:
        async def recopy(database: int, key: bytes) -> None:
            await gateway.recopy(((database, key),))

        return Verifier(
            self.options.source,
            self.options.target,
            self.options.field_ttl,
            gateway.drained,
            self.emit,
            spool,
            recopy,
        )

    def _mark(self, step: str) -> None:
        self.timeline.append((step, self.clock()))
        if step == "preflight":
            return
        self.emit(Phase(self.clock(), step))

    def _write_if_possible(self, name: str, content: dict[str, Any]) -> None:
        """From the cut-over on, what became of the servers is more than a file, and must not be hidden behind its error."""
        try:
            self._write(name, content)
        except ValkeepError as error:
            self.emit(Note(self.clock(), "warning", error.message))

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if self.options.report is None:
            return
        try:
            self.options.report.mkdir(parents=True, exist_ok=True)
            (self.options.report / name).write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
        except OSError as error:
            raise ValkeepError(
                f"the report {self.options.report / name} cannot be written: {error.strerror}", remedy="choose another --report folder"
            ) from error


def _version(info: ServerInfo) -> str:
    return ".".join(map(str, info.version))
