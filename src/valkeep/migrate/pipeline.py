"""One migration, from preflight to promotion: composes preflight, gateway, verification and cut-over.

    preflight      reads only; NO-GO or unacknowledged warnings end it here, nothing touched
    snapshot       the gateway is a replica of the source; everything is read, checked, translated, spooled
    load           the target gets it (how: see ``delivery``)
    follow         the target takes the stream; the verification compares both sides meanwhile
    cut-over       at once, or when a person says so (``Ready.go``); see ``cutover``

What goes wrong before the cut-over leaves the source untouched and detaches the target; what was copied stays there, said so. Every change made to a
server is in the state file before it is made (``state``), so that ``abort`` can undo it after a kill -9.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.server_info import ServerInfo
from valkeep.errors import ExitCode, Refused
from valkeep.migrate.attempts import Attempts
from valkeep.migrate.back.decision import Decision
from valkeep.migrate.back.wayback import WayBack, let_go
from valkeep.migrate.control import Control, Handler, Lock
from valkeep.migrate.cutover import CutoverResult
from valkeep.migrate.delivery import Parts
from valkeep.migrate.delivery.reception import reception
from valkeep.migrate.delivery.replication_group import NOT_AWS, promoter_of, visitors
from valkeep.migrate.delivery.target import TargetFound, look
from valkeep.migrate.delivery.ways import delivery_of
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.feed.scan import ScanFeed
from valkeep.migrate.fence import FenceMode, expect_down
from valkeep.migrate.gateway import Gateway
from valkeep.migrate.handover import Handover, Ready
from valkeep.migrate.journal import Journal
from valkeep.migrate.ledger import Ledger
from valkeep.migrate.numbers import watched
from valkeep.migrate.outcome import RunOptions, RunResult, WayBackResult
from valkeep.migrate.preflight import PreflightOptions, PreflightReport, preflight
from valkeep.migrate.preflight.managed import GatewayPlace, preflight_group
from valkeep.migrate.proof import Proof
from valkeep.migrate.reading import Followed, Reading
from valkeep.migrate.resumption import Resumption
from valkeep.migrate.scanned import Scanned
from valkeep.migrate.spool import spool_folder
from valkeep.migrate.state import BACK, StateFile
from valkeep.migrate.status import told
from valkeep.migrate.unfinished import take_up
from valkeep.migrate.verify import Verifier
from valkeep.migrate.whereabouts import Whereabouts
from valkeep.report.events import Emit, VerdictEvent

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.delivery.promoter import Promoter

__all__ = ["Ready", "RunOptions", "RunResult", "run"]

ALL = "all"


async def run(
    options: RunOptions, emit: Emit, clock: Callable[[], float], ready: Ready | None = None, promoter: Promoter | None = None
) -> RunResult:
    """Migrate. Raises ``ValkeepError``: with ``definite`` True nothing is changed on the source and the target holds at most a copy; with
    ``definite`` False see the remedy. Cancelling it (Ctrl-C) detaches the target and leaves the source writable."""
    migration = _Migration(options, emit, clock, ready or Ready(), promoter)
    with Lock(options.state_directory):
        return await migration.run()


class _Migration:
    """The state of one run: what ``run`` would otherwise hand from step to step."""

    def __init__(self, options: RunOptions, emit: Emit, clock: Callable[[], float], ready: Ready, promoter: Promoter | None = None) -> None:
        self.options = options
        self.journal = Journal(options.report, emit, clock)
        self.state = StateFile(options.state_directory)
        self.handover = Handover(ready, self.state)
        self.promoter = promoter
        self.where = Whereabouts(options.source, options.source_primary, self.journal)
        ledger = options.report / "ledger.jsonl" if options.report is not None else None
        self.resumption = Resumption(options.state_directory, options.spool or options.state_directory, ledger)
        self.goes_on = False  # where a killed run was

    async def run(self) -> RunResult:
        try:
            return await self._run()
        except asyncio.CancelledError:
            if not self.handover.told_to_stop:
                raise
            raise self.handover.aborted() from None

    async def _run(self) -> RunResult:
        options, journal = self.options, self.journal
        self._refuse_unfinished()
        let_go(options.state_directory / BACK)  # of a migration before this one, which is over
        here = await options.source.resolve()
        self.goes_on = await take_up(options, self.state, self.resumption, journal)
        report = await self._preflight(here)
        async with contextlib.AsyncExitStack() as stack:
            target = await stack.enter_async_context(await self._open(options.target))
            found = await look(target, options.field_ttl, wipe=options.wipe_target, databases=report.databases, ours=self.goes_on)
            async with await self.where.writers(here) as writers:
                if options.fence is not FenceMode.EXTERNAL:  # now, and not after the copy has replaced what a promoted target got since
                    await expect_down(writers)
            kept = self._kept(found)
            stack.callback(self._let_go)
            ledger = Ledger(self.resumption.ledger_path, journal.emit, journal.clock, since=self.resumption.ledger)
            stack.callback(ledger.close)
            spool = stack.enter_context(spool_folder(options.spool or options.state_directory))
            reading = self._reading(here, spool)
            seen = await reception(
                options,
                found,
                kept.spool_folder if kept is not None else spool,
                hold_seconds=options.hold_seconds,
                listen=self.resumption.listen,
                present_as=options.present_as,
                also=await visitors(options, report.group),
            )
            gateway = await stack.enter_async_context(Gateway(reading.feed, seen, ledger, journal.emit, journal.clock, kept))
            answers = {"cutover": self.handover.go, "abort": self.handover.stop, "status": self._told(gateway)}
            await stack.enter_async_context(Control(options.state_directory, answers))
            stack.callback(self.handover.ended)  # before the control socket closes: whoever asked gets an answer
            if options.metrics is not None:
                stack.enter_context(watched(gateway, options.metrics, lambda: ""))
            parts = Parts(options, {"": gateway}, target, found, self.state, journal, self.handover.undone)
            delivery = delivery_of(options, parts, self.promoter or promoter_of(options, report.group, journal))
            async with delivery.held():
                verifiers = await stack.enter_async_context(contextlib.AsyncExitStack())

                async def renew() -> Verifier:
                    await verifiers.aclose()
                    source = await self.where.source(gateway, reading)
                    return await verifiers.enter_async_context(self._verifier(source, gateway, delivery, reading, spool))

                verifier = None if options.skip_verify else await renew()
                proof = Proof(verifier, journal, renew, lambda: gateway.history)
                stack.push_async_callback(proof.close)
                await gateway.beside(proof.full())
                cut = await Attempts(
                    options, gateway, delivery, reading, proof, self.where, report, self.state, journal, self.handover
                ).run()
            errors = await delivery.errors()
        limits = reading.limits + ((NOT_AWS,) if options.group is not None else ())
        result = self._result(report, gateway, delivery, found.info, proof, ledger, cut, errors, limits)
        journal.emit(VerdictEvent(journal.clock(), result.verdict, {"mismatches": result.mismatches}))
        journal.write_if_possible("run.json", result.to_json())
        if options.rollback:
            result = replace(result, way_back=await self._keep_way_back())
            journal.write_if_possible("run.json", result.to_json())
        return result

    async def _keep_way_back(self) -> WayBackResult:
        """Until somebody says `valkeep migrate commit` or `rollback`."""
        decision = Decision()
        way_back = WayBack(self.options, self.state, self.journal, decision)
        answers = {"commit": decision.commit, "rollback": decision.rollback, "abort": self.handover.stop, "status": way_back.told}
        async with Control(self.options.state_directory, answers):
            return await way_back.keep()

    # -- steps ----------------------------------------------------------------------------------------------------------------------

    def _refuse_unfinished(self) -> None:
        left = StateFile(self.options.state_directory).read()
        if left is not None and left.step == "promoted" and StateFile(self.options.state_directory / BACK).read() is not None:
            raise Refused(
                f"the migration from {left.source} to {left.target} is cut over, and nothing is decided about its way back",
                remedy="`valkeep migrate rollback` or `valkeep migrate commit` first",
                code="VK-STATE-UNFINISHED",
            )
        if left is not None and left.step == "cutting":
            raise Refused(
                f"a migration from {left.source} to {left.target} ended in the middle of its cut-over: the source may be fenced",
                remedy="run `valkeep migrate abort` first: it makes the source writable, or says that the target was promoted",
                code="VK-STATE-UNFINISHED",
            )

    async def _preflight(self, source: Endpoint) -> PreflightReport:
        options = self.options
        self.journal.timeline.append(("preflight", self.journal.clock()))  # it tells its own phases
        wanted = PreflightOptions(
            field_ttl=options.field_ttl,
            wipe_target=options.wipe_target,
            gateway_tls=options.gateway_tls is not None,
            deliver=options.deliver,
            read=options.read,
            rollback=options.rollback,
            goes_on=self.goes_on,
            rate_seconds=options.rate_seconds,
        )
        if options.group is not None:
            place = GatewayPlace(options.announce or options.listen, options.spool or options.state_directory)
            report = await preflight_group(source, options.group, place, wanted, self.journal.emit)
        else:
            report = await preflight(source, options.target, wanted, self.journal.emit)
        accepted = frozenset(report.conditions) if ALL in options.accept else options.accept
        self.journal.write("preflight.json", report.to_json(accepted))
        report.expect_start(accepted)
        return report

    def _told(self, gateway: Gateway) -> Handler:
        async def told_now() -> dict[str, Any]:
            step = self.journal.timeline[-1][0]
            doing = "waiting" if self.handover.ready.waiting else "cutting over" if step == "waiting" else step
            return told(gateway, self.options.source.display, doing)

        return told_now

    def _result(
        self,
        report: PreflightReport,
        gateway: Gateway,
        delivery: Delivery,
        target_info: ServerInfo,
        proof: Proof,
        ledger: Ledger,
        cut: CutoverResult,
        errors: int,
        limits: tuple[str, ...],
    ) -> RunResult:
        verdict = "invalid" if proof.differences or errors else proof.verdict
        origin = gateway.origin
        assert origin is not None  # the gateway was started
        return RunResult(
            verdict=verdict,
            exit_code={"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(verdict, ExitCode.UNKNOWN),
            preflight=report,
            verification=proof.comparison,
            keys=proof.comparison.keys_source if proof.comparison is not None else gateway.channels[0].taken.keys,
            full_sync_seconds=delivery.full_sync_seconds,
            mismatches=proof.differences,
            ledger=ledger.summary(),
            write_pause_ms=cut.write_pause_ms,
            started=self.journal.started,
            timeline=tuple(self.journal.timeline),
            source_name=origin.name,
            target_name=target_info.name,
            source_version=_version(origin.version),
            source_rdb_version=gateway.channels[0].taken.rdb_version,
            target_version=_version(target_info.version),
            unexpected_error_replies=errors,
            elapsed_seconds=self.journal.clock() - self.journal.started,
            started_at=self.options.started_at,
            host=self.options.host,
            fence=cut.fence.value,
            changed_keys_checked=cut.checked_keys,
            delivery=delivery.summary(),
            read=self.options.read,
            limits=limits,
        )

    # -- parts ----------------------------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """What ends a run, but for a kill -9, leaves nothing to go on with; unless the target still follows it, as after a killed run whose source is away."""
        left = self.state.current
        if left is None or left.step not in ("attaching", "attached"):
            self.resumption.remove()

    def _kept(self, found: TargetFound) -> Resumption | None:
        """What the gateway goes on with, or leaves for a run after a kill -9."""
        options = self.options
        if options.read != "psync":
            return None
        if self.goes_on:
            self.resumption.expect(options.field_ttl, (found.format,))
        else:
            self.resumption.begin(options.field_ttl, (found.format,))
        return self.resumption

    async def _open(self, endpoint: Endpoint) -> Connection:
        return await Connection.open(endpoint, client_name="valkeep-migrate")

    def _reading(self, source: Endpoint, spool: Path) -> Reading:
        options, journal = self.options, self.journal
        if options.read == "scan":
            return Scanned(ScanFeed(source, spool / "scan", journal.emit, journal.clock), journal)
        return Followed(PsyncFeed(options.source, patience=options.source_patience, emit=journal.emit, clock=journal.clock))

    def _verifier(self, source: Endpoint, gateway: Gateway, delivery: Delivery, reading: Reading, spool: Path) -> Verifier:
        async def recopy(database: int, key: bytes) -> None:
            await gateway.recopy(((database, key),))

        return Verifier(
            source,
            self.options.target,
            self.options.field_ttl,
            reading.barrier(delivery.drained),
            self.journal.emit,
            spool,
            recopy,
            source_read=reading.verify_by,
            patience=reading.look_seconds,
        )


def _version(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
