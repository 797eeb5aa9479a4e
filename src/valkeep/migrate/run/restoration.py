"""Files brought to a target: what `pipeline` is for a running source, where the source is a snapshot or an append-only file.

    survey         the files are read once: form, census, end of the log
    preflight      the checks that need no server as a source
    snapshot       the gateway reads, checks and translates all of it; nothing is told to the target before that went well
    load           the target gets it (`delivery.native` or `delivery.push`)
    verify         the snapshot against the target, see `verify.file_side`
    promotion      when everything has arrived, no command was answered with an error, and nothing differs

Nobody writes to a file, so there is no pause, no fence and no cut-over of writers: a pipeline of its own, shorter, with the same parts.

What it can't promise is in ``limits`` of the result: what was written to the server after its files is not there; values that only the log wrote
are not compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.errors import ExitCode, Refused, ValkeepError
from valkeep.migrate.control import Control, Lock
from valkeep.migrate.cutover.abort import restore_target
from valkeep.migrate.cutover.handover import Handover, Ready
from valkeep.migrate.delivery import Parts
from valkeep.migrate.delivery.push import expiry
from valkeep.migrate.delivery.reception import reception
from valkeep.migrate.delivery.target import TargetFound, look
from valkeep.migrate.delivery.ways import delivery_by
from valkeep.migrate.feed.file import FileFeed, commands_of, place_of
from valkeep.migrate.feed.files import DataFiles
from valkeep.migrate.feed.survey import Survey, survey
from valkeep.migrate.gateway.gateway import Gateway
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import NotEqual, RunResult
from valkeep.migrate.preflight import PreflightOptions, PreflightReport
from valkeep.migrate.preflight.files import FileFacts, preflight_files
from valkeep.migrate.spool import spool_folder
from valkeep.migrate.state import StateFile, default_directory
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify.file_side import FileSide, compare_with_file
from valkeep.report.events import Emit, Phase, VerdictEvent

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.delivery import Delivery
    from valkeep.migrate.verify import Comparison

__all__ = ["FileSource", "RestoreOptions", "judge", "restore"]

ALL = "all"
LOOK_SECONDS = 0.02
_FROM_A_SERVER = "load the files into a server of their own version, and migrate from there: --source URL"


@dataclass(frozen=True, slots=True)
class FileSource:
    """``path``: as it was given."""

    path: Path

    @property
    def display(self) -> str:
        """As a source, for the state file and messages."""
        return f"file:{os.path.abspath(self.path)}"  # noqa: PTH100 - links are not followed


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """As in `outcome.RunOptions`; what is about writers is missing. ``deliver``: "native" or "push"."""

    source: FileSource
    target: Endpoint
    field_ttl: FieldTtl = FieldTtl.REFUSE
    wipe_target: bool = False
    accept: frozenset[str] = frozenset()
    report: Path | None = None
    spool: Path | None = None
    spool_limit: int = 0
    state: Path | None = None
    listen: tuple[str, int] = ("", 0)
    announce: tuple[str, int] | None = None
    deliver: str = "native"
    allow: frozenset[str] = frozenset()
    gateway_tls: ssl.SSLContext | None = field(default=None, compare=False)
    started_at: str = ""
    host: str = ""

    @property
    def state_directory(self) -> Path:
        """One for each target: two files can't be restored into one target at a time."""
        return self.state or default_directory("file:", self.target.display)


async def restore(options: RestoreOptions, emit: Emit, clock: Callable[[], float]) -> RunResult:
    """Bring the files to the target and promote it. Raises ``ValkeepError``; the target is then detached and holds at most a copy. Cancelling it detaches the
    target, too."""
    with DataFiles.open(options.source.path) as files, Lock(options.state_directory):
        return await _Restoration(options, files, emit, clock).run()


async def judge(source: FileSource, target: Endpoint, options: PreflightOptions, emit: Emit, clock: Callable[[], float]) -> PreflightReport:
    """Preflight alone: read all of the files, look at the target, and change nothing."""
    with DataFiles.open(source.path) as files:
        found = await survey(files, emit, clock)
        files.expect_unchanged()
        return await preflight_files(_facts(source, found), target, options, clock)


class _Restoration:
    def __init__(self, options: RestoreOptions, files: DataFiles, emit: Emit, clock: Callable[[], float]) -> None:
        self.options = options
        self.files = files
        self.journal = Journal(options.report, emit, clock)
        self.state = StateFile(options.state_directory)
        self.handover = Handover(Ready(), self.state)

    async def run(self) -> RunResult:
        try:
            async with Control(self.options.state_directory, {"abort": self.handover.stop}):
                try:
                    return await self._run()
                finally:
                    self.handover.ended()  # before the control socket closes: whoever asked gets an answer
        except asyncio.CancelledError:
            if not self.handover.told_to_stop:
                raise
            raise self.handover.aborted() from None

    async def _run(self) -> RunResult:
        options, journal = self.options, self.journal
        journal.begin("survey")
        found = await survey(self.files, journal.emit, journal.clock)
        self.files.expect_unchanged()
        await self._put_back_what_was_left()
        self.state.forget()
        report = await self._preflight(found)
        async with contextlib.AsyncExitStack() as stack:
            target = await stack.enter_async_context(await Connection.open(options.target, client_name="valkeep-migrate"))
            target_found = await look(target, options.field_ttl, wipe=options.wipe_target)
            ledger = Ledger(options.report / "ledger.jsonl" if options.report else None, journal.emit, journal.clock)
            stack.callback(ledger.close)
            spool = stack.enter_context(spool_folder(options.spool or options.state_directory))
            feed = FileFeed(found)
            seen = await reception(options, target_found, spool, hold_seconds=0.0)
            gateway = await stack.enter_async_context(Gateway(feed, seen, ledger, journal.emit, journal.clock))
            await self._read_all(gateway, feed, found)
            parts = Parts(options, {"": gateway}, target, target_found, self.state, journal, self.handover.undone)
            delivery = delivery_by(options.deliver, parts)
            async with delivery.held():
                if found.log and delivery.summary().get("expiry") == expiry.RECOPY:
                    raise _expires(options)
                run_id = await delivery.identify()
                await gateway.beside(delivery.drained(feed.received))
                errors = await delivery.errors()
                if errors:
                    raise _answered_with_errors(errors, found)
                comparison = await self._verify(gateway, found, spool)
                self.files.expect_unchanged()
                await self._promote(delivery, run_id)
            errors = await delivery.errors()
        result = self._result(report, found, delivery, target_found, ledger, comparison, errors)
        journal.emit(VerdictEvent(journal.clock(), result.verdict, {"mismatches": result.mismatches}))
        journal.write_if_possible("run.json", result.to_json())
        return result

    async def _put_back_what_was_left(self) -> None:
        """A run that was killed left the target attached: this one begins anew."""
        options, left = self.options, self.state.read()
        if left is None or left.step in ("promoted", "aborted"):
            return
        if not left.source.startswith("file:") or left.target != options.target.display:
            raise Refused(
                f"{options.state_directory} has the state of a migration from {left.source} to {left.target}, which is {left.step}",
                remedy="give another --state folder, or end that one first: valkeep migrate abort",
                code="VK-STATE-UNFINISHED",
            )
        async with await Connection.open(options.target, client_name="valkeep-migrate") as target:
            done = await restore_target(target, left)
        self.state.step("aborted")
        self.journal.say("info", "; ".join([f"an earlier run (pid {left.pid}) was killed, and this one begins anew", *done]))

    async def _preflight(self, found: Survey) -> PreflightReport:
        options, journal = self.options, self.journal
        journal.begin("preflight")
        wanted = PreflightOptions(
            field_ttl=options.field_ttl,
            wipe_target=options.wipe_target,
            gateway_tls=options.gateway_tls is not None,
            deliver=options.deliver,
        )
        report = await preflight_files(_facts(options.source, found), options.target, wanted, journal.clock)
        accepted = frozenset(report.conditions) if ALL in options.accept else options.accept
        journal.write("preflight.json", report.to_json(accepted))
        report.expect_start(accepted)
        return report

    async def _read_all(self, gateway: Gateway, feed: FileFeed, found: Survey) -> None:
        """Everything is read, checked and translated; the target knows of nothing yet."""
        try:
            await gateway.snapshot_taken()
            await gateway.beside(feed.read_all.wait())
            (channel,) = gateway.channels
            while channel.covering(feed.received) is None:
                await gateway.beside(asyncio.sleep(LOOK_SECONDS))
        except ValkeepError as error:
            raise await self._with_place(error, gateway, found) from error
        self.files.expect_unchanged()

    async def _with_place(self, error: ValkeepError, gateway: Gateway, found: Survey) -> ValkeepError:
        """A command that can't be sent is told with its place in the files."""
        wanted = gateway.channels[0].wanted if gateway.channels else None
        if wanted is None:
            return error
        command = wanted.command.decode("ascii", "backslashreplace")
        why = wanted.hold.why if wanted.hold is not None else f"{command} cannot be expressed for the target: {error.message}"
        return Refused(
            f"{await place_of(found, wanted.offset)}: {why}",
            remedy=_FROM_A_SERVER if wanted.hold is None or wanted.places else wanted.hold.remedy,
            code="VK-FILE-COMMAND",
        )

    async def _verify(self, gateway: Gateway, found: Survey, spool: Path) -> Comparison:
        options, journal = self.options, self.journal
        journal.begin("verify")
        first = found.parts[0]
        side = FileSide(first.part.path, first.snapshot, sum(found.keys.values()), lambda: commands_of(found), found.log)
        work = asyncio.ensure_future(compare_with_file(side, options.target, options.field_ttl, journal.emit, journal.clock, spool))
        await gateway.beside(work)
        comparison = work.result()
        journal.write("verification.json", comparison.to_json())
        journal.begin("verified")
        if comparison.differences:
            raise NotEqual(comparison)
        return comparison

    async def _promote(self, delivery: Delivery, run_id: str) -> None:
        self.journal.emit(Phase(self.journal.clock(), "promote"))
        try:
            await delivery.promote(run_id)
        except ValkeepError as error:
            raise error.saying(
                f"the target has everything, and may or may not have been promoted: {error.message}",
                remedy=f"ask the target for its ROLE: if it is a primary with run_id {run_id} (INFO server), all is done; else start again with --wipe-target",
            ) from error
        self.journal.timeline.append(("promoted", self.journal.clock()))

    def _result(
        self,
        report: PreflightReport,
        found: Survey,
        delivery: Delivery,
        target: TargetFound,
        ledger: Ledger,
        comparison: Comparison,
        errors: int,
    ) -> RunResult:
        verdict = "invalid" if errors else comparison.verdict
        return RunResult(
            verdict=verdict,
            exit_code={"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(verdict, ExitCode.UNKNOWN),
            preflight=report,
            verification=comparison,
            keys=comparison.keys_target - (self.options.deliver == "push"),  # its marker
            full_sync_seconds=delivery.full_sync_seconds,
            mismatches=comparison.differences,
            ledger=ledger.summary(),
            write_pause_ms=0.0,
            started=self.journal.started,
            timeline=tuple(self.journal.timeline),
            source_name=found.product,
            target_name=target.info.name,
            source_version=".".join(map(str, found.version)),
            source_rdb_version=found.rdb_version,
            target_version=".".join(map(str, target.info.version)),
            unexpected_error_replies=errors,
            elapsed_seconds=self.journal.clock() - self.journal.started,
            started_at=self.options.started_at,
            host=self.options.host,
            fence="",
            changed_keys_checked=0,
            read="file",
            delivery=delivery.summary(),
            limits=_limits(found, comparison),
        )


def _facts(source: FileSource, found: Survey) -> FileFacts:
    torn = found.torn
    return FileFacts(
        display=source.display,
        files=tuple(str(one.part.path) for one in found.parts),
        kind=found.kind,
        version=found.version,
        product=found.product,
        census=found.census,
        keys=found.keys,
        used_memory=found.used_memory,
        commands=found.commands,
        log=found.log,
        tail=torn.tail if torn else 0,
        torn_at=torn.snapshot + torn.log if torn else 0,
    )


def _limits(found: Survey, comparison: Comparison) -> tuple[str, ...]:
    limits = ["what was written to the server after its files were made is not on the target"]
    if comparison.verdict != "valid":
        limits += [f"not proven key by key: {reason}" for reason in comparison.reasons]
    if found.commands:
        limits.append(f"every one of the log's {found.commands} commands was applied by the target, and none was answered with an error")
    if found.torn is not None:
        limits.append(f"the last {found.torn.tail} bytes of {found.torn.part.path} are no whole command, and were left out")
    return tuple(limits)


def _expires(options: RestoreOptions) -> ValkeepError:
    return Refused(
        f"the target {options.target.address} does not let itself be kept from expiring keys, which the log's next commands may need",
        remedy="permit CONFIG SET import-mode to this user, or leave --deliver push out: a replica expires nothing",
        code="VK-FILE-EXPIRY",
    )


def _answered_with_errors(errors: int, found: Survey) -> ValkeepError:
    error = ValkeepError(
        f"the target answered {errors} of {found.commands} commands of the log with an error; it was not promoted",
        remedy=f"see the target's log for the command; {_FROM_A_SERVER}",
        code="VK-FILE-ERRORS",
    )
    error.exit_code = ExitCode.JUDGED_BAD
    return error
