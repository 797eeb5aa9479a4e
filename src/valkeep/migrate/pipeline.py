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
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ConnectionLost, ExitCode, Refused, ValkeepError
from valkeep.migrate.back.decision import Decision
from valkeep.migrate.back.wayback import WayBack, let_go
from valkeep.migrate.control import Control, Handler, Lock
from valkeep.migrate.cutover import PATIENCE_SECONDS, Cutover, CutoverResult
from valkeep.migrate.delivery.elasticache import ElastiCache
from valkeep.migrate.delivery.external import External
from valkeep.migrate.delivery.native import Native
from valkeep.migrate.delivery.promoter import Person, Promoter
from valkeep.migrate.delivery.push import Push
from valkeep.migrate.delivery.target import TargetFound, addresses, facing, look
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.feed.scan import ScanFeed
from valkeep.migrate.fence import Aborted, FenceMode, decide, expect_down
from valkeep.migrate.gateway import Gateway, GatewayOptions
from valkeep.migrate.handover import Handover, Ready
from valkeep.migrate.journal import Journal
from valkeep.migrate.ledger import Ledger
from valkeep.migrate.numbers import watched
from valkeep.migrate.outcome import RunOptions, RunResult, WayBackResult
from valkeep.migrate.preflight import PreflightOptions, PreflightReport, gather, preflight
from valkeep.migrate.preflight.managed import GatewayPlace, preflight_group
from valkeep.migrate.proof import Proof
from valkeep.migrate.resumption import Resumption
from valkeep.migrate.scanned import LIMITS, UNFOLLOWED_SECONDS, Scanned
from valkeep.migrate.spool import spool_folder
from valkeep.migrate.state import BACK, StateFile
from valkeep.migrate.status import told
from valkeep.migrate.unfinished import UNTOUCHED, take_up
from valkeep.migrate.verify import PATIENCE, Verifier
from valkeep.report.events import Emit, Phase, VerdictEvent

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.cutover import Successor
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.feed import Feed

__all__ = ["Ready", "RunOptions", "RunResult", "run"]

ALL = "all"
ATTEMPTS = 3
RETRY_SECONDS = 2.0
SOURCE_SECONDS = 0.2  # between two looks for a source that is away
PASSING = frozenset(  # reasons to call a cut-over off that may pass
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
FOR_A_PERSON = frozenset(
    {"VK-CUTOVER-REPLICA", "VK-CUTOVER-FENCE-LOST", "VK-PROMOTE-LATE"}
)  # may pass, but somebody has to look; whoever says go again has
KEEP = 4 << 30  # bytes of stream for which a target that attaches by itself can begin again
NOT_AWS = "ElastiCache's side was tested against a control plane of Valkeep's own tests, never against AWS itself"
ROUND_SECONDS = 5.0  # while a person has not decided yet


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
        self.members: tuple[str, ...] = ()  # hosts of the replication group that is the target
        self.external: External | None = None  # the delivery, where the target attaches by itself
        self.scanned: Scanned | None = None  # where the source is read by SCAN
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
            async with await self._fence_connection(here) as fence_at:
                if options.fence is not FenceMode.EXTERNAL:  # now, and not after the copy has replaced what a promoted target got since
                    await expect_down(fence_at)
            kept = self._kept(found)
            stack.callback(self._let_go)
            ledger = Ledger(self.resumption.ledger_path, journal.emit, journal.clock, since=self.resumption.ledger)
            stack.callback(ledger.close)
            spool = stack.enter_context(spool_folder(options.spool or options.state_directory))
            gateway_options = await self._gateway_options(found, kept.spool_folder if kept is not None else spool)
            gateway = await stack.enter_async_context(
                Gateway(self._feed(here, spool), gateway_options, ledger, journal.emit, journal.clock, kept)
            )
            answers = {"cutover": self.handover.go, "abort": self.handover.stop, "status": self._told(gateway)}
            await stack.enter_async_context(Control(options.state_directory, answers))
            stack.callback(self.handover.ended)  # before the control socket closes: whoever asked gets an answer
            if options.metrics is not None:
                stack.enter_context(watched(gateway, options.metrics, lambda: ""))
            delivery = self._delivery(report, gateway, target, found)
            async with delivery.held():
                verifiers = await stack.enter_async_context(contextlib.AsyncExitStack())

                async def renew() -> Verifier:
                    await verifiers.aclose()
                    return await verifiers.enter_async_context(self._verifier(await self._source_now(gateway), gateway, spool))

                verifier = None if options.skip_verify else await renew()
                proof = Proof(verifier, journal, renew, lambda: gateway.history)
                stack.push_async_callback(proof.close)
                await gateway.beside(proof.full())
                cut = await self._cut_when_it_may(gateway, delivery, proof, report)
            errors = await delivery.errors()
        result = self._result(report, gateway, delivery, found.info, proof, ledger, cut, errors)
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
            rate_seconds=options.rate_seconds,
        )
        if options.group is not None:
            place = GatewayPlace(options.announce or options.listen, options.spool or options.state_directory)
            report = await preflight_group(source, options.group, place, wanted, self.journal.emit)
            self.members = tuple(node.host for node in report.group.nodes if node.host) if report.group is not None else ()
        else:
            report = await preflight(source, options.target, wanted, self.journal.emit)
        if self.goes_on:
            report = replace(report, findings=tuple(one for one in report.findings if one.code not in UNTOUCHED))
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

    async def _wait_for_go(self, gateway: Gateway, proof: Proof) -> None:
        """Until a person says so; what is written meanwhile is compared, so that the pause stays short."""
        ready = self.handover.ready
        self.journal.begin("waiting")
        ready.waiting = True
        self.journal.emit(Phase(self.journal.clock(), "waiting", detail="for `valkeep migrate cutover`"))
        watch = asyncio.create_task(gateway.watch())
        go = asyncio.create_task(ready.go.wait())
        try:
            while not go.done():
                await asyncio.wait({watch, go}, timeout=ROUND_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    watch.result()
                if not go.done():
                    await gateway.beside(proof.round())
        finally:
            ready.waiting = False
            watch.cancel()
            go.cancel()

    async def _cut_when_it_may(self, gateway: Gateway, delivery: Delivery, proof: Proof, report: PreflightReport) -> CutoverResult:
        """Cut over, again when it was called off for a reason that may pass: at once a few times, or whenever a person says so."""
        attempts = 0
        manual = self.options.cutover == "manual"
        passing = PASSING | FOR_A_PERSON if manual else PASSING
        while True:
            if manual:
                await self._wait_for_go(gateway, proof)
            try:
                return await self._cut(gateway, delivery, proof, report)
            except ValkeepError as error:
                attempts += 1
                if error.code not in passing or not isinstance(error, Aborted) or (not manual and attempts >= ATTEMPTS):
                    self.handover.answer(error)
                    raise
                self.journal.say("warning", f"the cut-over was called off: {error.message}. {error.remedy}")
                self.handover.answer(error, again=True)
                if not manual:
                    await gateway.beside(asyncio.sleep(RETRY_SECONDS * attempts))

    async def _cut(self, gateway: Gateway, delivery: Delivery, proof: Proof, report: PreflightReport) -> CutoverResult:
        if self.options.cutover == "manual":
            _refuse_held(gateway)  # at once: who said go waits for an answer
        await gateway.beside(proof.settle())
        _refuse_held(gateway)
        async with await self._fence_connection(await self._source_now(gateway)) as fence_at:
            mode = self.options.fence or await self._fence_mode(fence_at, report)
            if self.scanned is None:
                return await self._cut_at(fence_at, gateway, delivery, proof, mode)
            patience = await self.scanned.ready(gateway, mode, self.options.lease_ms, proof.seconds)
            return await self._cut_at(fence_at, gateway, self.scanned.successor(delivery), proof, mode, patience)

    async def _cut_at(
        self,
        fence_at: Connection,
        gateway: Gateway,
        successor: Successor,
        proof: Proof,
        mode: FenceMode,
        patience: float = PATIENCE_SECONDS,
    ) -> CutoverResult:
        journal = self.journal
        cutover = Cutover(
            fence_at,
            successor,
            mode=mode,
            lease_ms=self.options.lease_ms,
            keep_fence=self.options.keep_fence,
            gateway_port=gateway.address[1],
            verify=lambda offset: proof.last(offset, held=mode is FenceMode.PAUSE or self.scanned is not None),
            patience=patience,
            state=self.state,
            emit=journal.emit,
            clock=journal.clock,
            on_stop=self.external.hurry if self.external is not None else lambda: None,
        )
        try:
            cut = await cutover.run()
        finally:
            proof.save()
        journal.timeline += cut.timeline
        journal.write_if_possible("cutover.json", cut.to_json(journal.started))
        self.handover.answer({"promoted": self.options.target.display, "write_pause_ms": round(cut.write_pause_ms, 1)})
        for node in cut.source_nodes:
            journal.say("warning" if node.worries else "info", f"on the source's side, {node.node}: {node.why}")
        return cut

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
    ) -> RunResult:
        verdict = "invalid" if proof.differences or errors else proof.verdict
        origin = gateway.origin
        assert origin is not None  # the gateway was started
        return RunResult(
            verdict=verdict,
            exit_code={"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(verdict, ExitCode.UNKNOWN),
            preflight=report,
            verification=proof.comparison,
            keys=proof.comparison.keys_source if proof.comparison is not None else gateway.channels[0].keys,
            full_sync_seconds=delivery.full_sync_seconds,
            mismatches=proof.differences,
            ledger=ledger.summary(),
            write_pause_ms=cut.write_pause_ms,
            started=self.journal.started,
            timeline=tuple(self.journal.timeline),
            source_name=origin.name,
            target_name=target_info.name,
            source_version=_version(origin.version),
            source_rdb_version=gateway.channels[0].source_rdb_version,
            target_version=_version(target_info.version),
            unexpected_error_replies=errors,
            elapsed_seconds=self.journal.clock() - self.journal.started,
            started_at=self.options.started_at,
            host=self.options.host,
            fence=cut.fence.value,
            changed_keys_checked=cut.checked_keys,
            delivery=delivery.summary(),
            read=self.options.read,
            limits=(() if self.scanned is None else LIMITS) + ((NOT_AWS,) if self.options.group is not None else ()),
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

    def _elasticache(self, report: PreflightReport) -> Promoter | None:
        group = self.options.group
        if group is None or report.group is None:
            return None
        databases = (report.group.parameters or {}).get("databases", "")
        return ElastiCache.of(group, self.options.target, self.journal, databases)

    def _delivery(self, report: PreflightReport, gateway: Gateway, target: Connection, found: TargetFound) -> Delivery:
        options, journal = self.options, self.journal
        if options.deliver == "external":
            person = Person(options.target.address, lambda text: journal.say("info", text), options.promote_seconds)
            promoter = self.promoter or self._elasticache(report) or person
            self.external = External(options, gateway, target, found, self.state, journal, self.handover.undone, promoter)
            return self.external
        way = Push if options.deliver == "push" else Native
        return way(options, gateway, target, found, self.state, journal, self.handover.undone)

    async def _open(self, endpoint: Endpoint) -> Connection:
        return await Connection.open(endpoint, client_name="valkeep-migrate")

    def _feed(self, source: Endpoint, spool: Path) -> Feed:
        if self.options.read == "scan":
            feed = ScanFeed(source, spool / "scan", self.journal.emit, self.journal.clock)
            self.scanned = Scanned(feed, self.journal)
            return feed
        return PsyncFeed(self.options.source, patience=self.options.source_patience, emit=self.journal.emit, clock=self.journal.clock)

    async def _source_now(self, gateway: Gateway) -> Endpoint:
        """Who the source is now, and has the history that the gateway follows: what others have at some offset is something else. Whoever waits for a
        source that is away ends us."""
        told = ""
        while True:
            try:
                at = await self.options.source.resolve()
                async with await self._open(at) as connection:
                    info = await server_info(connection)
                if self.options.read != "psync" or gateway.history in (info.replid, info.run_id) or info.replid == "?":
                    return at
                why = f"{at.address} has the history {info.replid}, and the gateway follows {gateway.history}"
            except ConnectionLost as error:
                why = error.message
            if why != told:
                told = why
                self.journal.say("info", f"waiting for the source: {why}")
            await gateway.beside(asyncio.sleep(SOURCE_SECONDS))

    async def _fence_connection(self, source: Endpoint) -> Connection:
        """Where the writers are: the source, or the primary that the source follows."""
        async with await self._open(source) as connection:
            info = await server_info(connection)
        if info.role == "primary":
            return await self._open(source)
        primary = self.options.source_primary or source.at(info.fields.get("master_host", ""), info.number("master_port"))
        self.journal.say("info", f"the source is a replica; its writers are held and fenced at its primary {primary.address}")
        return await self._open(primary)

    async def _fence_mode(self, fence_at: Connection, report: PreflightReport) -> FenceMode:
        """By what preflight found, or what it would find at the primary of a source that is a replica."""
        if fence_at.endpoint.address == report.source.address:
            return decide(report.source)
        return decide(await gather(fence_at.endpoint, rate_seconds=0, sample_keys=0))

    async def _gateway_options(self, found: TargetFound, spool: Path) -> GatewayOptions:
        options = self.options
        host, port = options.listen if options.listen[1] else self.resumption.listen  # where the target looks for it
        if options.deliver == "push":  # nobody attaches
            return GatewayOptions(
                formats=(found.format,),
                field_ttl=options.field_ttl,
                listen=("127.0.0.1", 0),
                allow=frozenset(),
                spool=spool,
                spool_limit=options.spool_limit,
                hold_seconds=options.hold_seconds,
            )
        if found.tls_replication and options.gateway_tls is None:
            raise Refused(
                "the target replicates over TLS only (tls-replication yes), and the gateway has no certificate",
                remedy="give one that the target's CA signed: --gateway-cert FILE --gateway-key FILE",
                code="VK-GATEWAY-TLS",
            )
        return GatewayOptions(
            formats=(found.format,),
            field_ttl=options.field_ttl,
            listen=(host or await facing(options.target), port),
            allow=options.allow | await addresses(options.target.host) | await self._group_addresses(host),
            spool=spool,
            spool_limit=options.spool_limit,
            password=found.password,
            username=found.username,
            tls=options.gateway_tls if found.tls_replication else None,
            hold_seconds=options.hold_seconds,
            present_as=options.present_as,
            late=options.deliver == "external",
            keep=KEEP if options.deliver == "external" else 0,
        )

    async def _group_addresses(self, host: str) -> frozenset[str]:
        """Which nodes of a replication group may come besides its primary; and we, who ask the gateway before ElastiCache does."""
        options = self.options
        if options.group is None:
            return frozenset()
        found = {host, await facing(options.target)}
        for name in (*self.members, *([options.announce[0]] if options.announce is not None else [])):
            with contextlib.suppress(ConnectionLost):
                found |= await addresses(name)
        return frozenset(found)

    def _verifier(self, source: Endpoint, gateway: Gateway, spool: Path) -> Verifier:
        async def recopy(database: int, key: bytes) -> None:
            await gateway.recopy(((database, key),))

        drained = self.external.drained if self.external is not None else gateway.drained
        return Verifier(
            source,
            self.options.target,
            self.options.field_ttl,
            drained if self.scanned is None else self.scanned.barrier(drained),
            self.journal.emit,
            spool,
            recopy,
            source_read="auto" if self.scanned is None else "scan",
            patience=PATIENCE if self.scanned is None else UNFOLLOWED_SECONDS,
        )


def _refuse_held(gateway: Gateway) -> None:
    if gateway.held:
        _, hold = gateway.held[0]
        raise Aborted(f"the stream is held: {hold.why}", remedy=hold.remedy, code="VK-HELD")


def _version(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
