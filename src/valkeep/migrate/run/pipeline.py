"""One migration, from preflight to promotion: composes preflight, gateway, verification and cut-over.

    preflight      reads only; NO-GO or unacknowledged warnings end it here, nothing touched
    snapshot       the gateway is a replica of the source; everything is read, checked, translated, spooled
    load           the target gets it (how: see ``delivery``)
    follow         the target takes the stream; the verification compares both sides meanwhile
    cut-over       at once, or when a person says so (``Ready.go``); see ``cutover``

A source that is a cluster has a lane for each of its shards (`lane`): gateways, verifications and cut-overs of their own, one target, one delivery, one
decision. What is said here of the source goes for each of them.

What goes wrong before the cut-over leaves the source untouched and detaches the target; what was copied stays there, said so. Every change made to a
server is in the state file before it is made (``state``), so that ``abort`` can undo it after a kill -9.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.server_info import ServerInfo
from valkeep.errors import ExitCode
from valkeep.migrate.abreast import Chorus, beside
from valkeep.migrate.back.decision import Decision
from valkeep.migrate.back.wayback import WayBack, let_go, not_kept
from valkeep.migrate.control import Control, Handler, Lock
from valkeep.migrate.cutover.cutover import CutoverResult
from valkeep.migrate.cutover.handover import Handover, Ready
from valkeep.migrate.delivery import Parts
from valkeep.migrate.delivery.replication_group import NOT_AWS, place_of, promoter_of, visitors
from valkeep.migrate.delivery.target import look
from valkeep.migrate.delivery.ways import delivery_of
from valkeep.migrate.fence import FenceMode, expect_down
from valkeep.migrate.gateway.gateway import Gateway
from valkeep.migrate.gateway.ledger import summary_of
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import RunOptions, RunResult, WayBackResult
from valkeep.migrate.preflight import PreflightOptions, PreflightReport, preflight
from valkeep.migrate.preflight.managed import preflight_group
from valkeep.migrate.resharding import Resharding
from valkeep.migrate.run.attempts import Attempts, Slots, Still
from valkeep.migrate.run.lane import Lane, Start, forget_others, standings, starts
from valkeep.migrate.run.lanes import Lanes
from valkeep.migrate.run.neighbours import expect_none
from valkeep.migrate.run.numbers import watched
from valkeep.migrate.run.unfinished import Footing, expect_settled, take_up
from valkeep.migrate.spool import room, spool_folder
from valkeep.migrate.state import BACK, StateFile
from valkeep.migrate.status import told
from valkeep.migrate.verify import merged
from valkeep.report.events import Emit, VerdictEvent

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.delivery.promoter import Promoter
    from valkeep.topology.slots import Ranges

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
        self.decision = Decision(due=self.handover.is_cut_over)
        self.way_back: WayBack | None = None
        self.gateways: Mapping[str, Gateway] = {}
        self.starts: tuple[Start, ...] = ()
        self.footing = Footing.ANEW

    async def run(self) -> RunResult:
        try:
            return await self._run()
        except asyncio.CancelledError:
            if not self.handover.told_to_stop:
                raise
            raise self.handover.aborted() from None

    async def _run(self) -> RunResult:
        options, journal = self.options, self.journal
        expect_settled(options.state_directory)
        let_go(options.state_directory / BACK)  # of a migration before this one, which is over
        here = await options.source.resolve()
        self.starts = await starts(options, here, self.state, journal)
        self.footing = await take_up(options, self.state, [start.resumption for start in self.starts], journal)
        if not self.footing.goes_on:  # it may not be the one of that run
            self.starts = await starts(options, here, self.state, journal)
            self.state.forget()
        report = await self._preflight(here)
        async with contextlib.AsyncExitStack() as asking:
            result = await self._move(report, asking)
            if options.rollback:
                result = replace(result, way_back=await self._keep_way_back())
                journal.write_if_possible("run.json", result.to_json())
        return result

    async def _move(self, report: PreflightReport, asking: contextlib.AsyncExitStack) -> RunResult:
        """``asking``: what other commands find us by; left open for whoever keeps the way back."""
        options, journal = self.options, self.journal
        async with contextlib.AsyncExitStack() as stack:
            target = await stack.enter_async_context(await Connection.open(options.target, client_name="valkeep-migrate"))
            found = await look(target, options.field_ttl, wipe=options.wipe_target, databases=report.databases, ours=self.footing.goes_on)
            expect_none(options.state_directory, (options.target.address, *(shard.endpoint.address for shard in found.shards)))
            await self._expect_no_fence()
            if not self.footing.goes_on:
                forget_others(options, self.starts)
            also = await visitors(options, report.group)
            stack.callback(self._let_go)
            spool = stack.enter_context(spool_folder(options.spool or options.state_directory))
            making = Lanes(options, journal, Chorus(journal.emit), spool, stack, goes_on=self.footing.goes_on)
            await making.begin(self.starts, found, also)
            gateways = making.gateways
            await self._answer(gateways, asking)
            stack.callback(self._move_ended)
            if options.metrics is not None:
                stack.enter_context(watched(gateways, options.metrics, lambda: ""))
            shards, told = standings(self.starts, {}), self.footing is Footing.TOLD
            parts = Parts(options, gateways, target, found, self.state, journal, self.handover.undone, shards, told, options.group_name)
            managed = promoter_of(options, report.group, gateways, journal, again=self.footing.goes_on)
            delivery = delivery_of(options, parts, self.promoter or managed)
            async with delivery.held():
                slots: Slots = Still()
                if holders := making.holders:
                    watch = Resharding(holders, options.target, self._record, journal.emit, journal.clock)
                    slots = await stack.enter_async_context(watch.watching())
                lanes = await beside(gateways.values(), making.prove(delivery, slots))
                cuts = await Attempts(options, lanes, delivery, report, self.state, journal, self.handover, slots).run()
            errors = await delivery.errors()
        lanes = [lane for lane in lanes if lane.name not in slots.retired]
        limits = lanes[0].reading.limits + ((NOT_AWS,) if options.group is not None else ())
        result = self._result(report, lanes, delivery, found.info, cuts, errors, limits)
        if self.starts[0].shard is not None and result.verification is not None:
            journal.write_if_possible("verification.json", result.verification.to_json())
        journal.emit(VerdictEvent(journal.clock(), result.verdict, {"mismatches": result.mismatches}))
        journal.write_if_possible("run.json", result.to_json())
        return result

    async def _answer(self, gateways: Mapping[str, Gateway], asking: contextlib.AsyncExitStack) -> None:
        """Other commands, from now on: without a gap between the cut-over and the way back, so that it can be decided about at once."""
        self.gateways = gateways
        answers: dict[str, Handler] = {"cutover": self.handover.go, "abort": self.handover.stop, "status": self._told}
        if self.options.rollback:
            answers |= {"commit": self.decision.commit, "rollback": self.decision.rollback}
        await asking.enter_async_context(Control(self.options.state_directory, answers))
        asking.callback(self.decision.ended, not_kept())

    def _move_ended(self) -> None:
        """Whoever asked gets an answer, and the gateways are not looked at any more."""
        self.gateways = {}
        self.handover.ended()

    async def _keep_way_back(self) -> WayBackResult:
        """Until somebody says `valkeep migrate commit` or `rollback`."""
        self.way_back = WayBack(self.options, self.state, self.journal, self.decision)
        return await self.way_back.keep()

    # -- steps ----------------------------------------------------------------------------------------------------------------------

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
            goes_on=self.footing.goes_on,
            rate_seconds=options.rate_seconds,
            spool_free=room(options.spool or options.state_directory),
        )
        if options.group is not None:
            place = place_of(options, self.starts[0].resumption.listen)
            report = await preflight_group(source, options.group, place, wanted, self.journal.emit)
        else:
            report = await preflight(source, options.target, wanted, self.journal.emit)
        accepted = frozenset(report.conditions) if ALL in options.accept else options.accept
        self.journal.write("preflight.json", report.to_json(accepted))
        report.expect_start(accepted)
        return report

    async def _expect_no_fence(self) -> None:
        """Now, and not after the copy has replaced what a promoted target got since."""
        for start in self.starts if self.options.fence is not FenceMode.EXTERNAL else ():
            async with await start.where.writers(await start.source.resolve()) as writers:
                await expect_down(writers)

    async def _told(self) -> dict[str, Any]:
        """`valkeep migrate status`."""
        if self.way_back is not None:
            return await self.way_back.told()
        step = self.journal.timeline[-1][0]
        doing = "waiting" if self.handover.ready.waiting else "cutting over" if step == "waiting" else step
        return told(self.gateways, self.options.source.display, doing)

    def _result(
        self,
        report: PreflightReport,
        lanes: Sequence[Lane],
        delivery: Delivery,
        target_info: ServerInfo,
        cuts: Sequence[CutoverResult],
        errors: int,
        limits: tuple[str, ...],
    ) -> RunResult:
        found = [lane.proof.comparison for lane in lanes if lane.proof.comparison is not None]
        comparison = merged(found) if len(found) == len(lanes) else None
        differences = sum(lane.proof.differences for lane in lanes)
        verdict = "invalid" if differences or errors else comparison.verdict if comparison is not None else "unknown"
        origin = lanes[0].gateway.origin
        assert origin is not None  # the gateway was started
        return RunResult(
            verdict=verdict,
            exit_code={"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(verdict, ExitCode.UNKNOWN),
            preflight=report,
            verification=comparison,
            keys=comparison.keys_source if comparison is not None else sum(lane.gateway.channels[0].taken.keys for lane in lanes),
            full_sync_seconds=delivery.full_sync_seconds,
            mismatches=differences,
            ledger=summary_of([lane.gateway.ledger for lane in lanes]),
            write_pause_ms=max(cut.write_pause_ms for cut in cuts),
            started=self.journal.started,
            timeline=tuple(self.journal.timeline),
            source_name=origin.name,
            target_name=target_info.name,
            source_version=_version(origin.version),
            source_rdb_version=lanes[0].gateway.channels[0].taken.rdb_version,
            target_version=_version(target_info.version),
            unexpected_error_replies=errors,
            elapsed_seconds=self.journal.clock() - self.journal.started,
            started_at=self.options.started_at,
            host=self.options.host,
            fence=cuts[0].fence.value,
            changed_keys_checked=sum(cut.checked_keys for cut in cuts),
            delivery=delivery.summary(),
            read=self.options.read,
            limits=limits,
        )

    # -- what is left -----------------------------------------------------------------------------------------------------------------

    def _record(self, brought: Mapping[str, Ranges]) -> None:
        """Which slots each shard's lane has brought to the target."""
        assert self.state.current is not None  # the target is written to
        self.state.step(self.state.current.step, source_shards=standings(self.starts, brought))

    def _let_go(self) -> None:
        """What ends a run, but for a kill -9, leaves nothing to go on with; unless the target still follows it, as after a killed run whose source is away."""
        left = self.state.current
        if left is None or left.step not in ("attaching", "attached"):
            for start in self.starts:
                start.resumption.remove()


def _version(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
