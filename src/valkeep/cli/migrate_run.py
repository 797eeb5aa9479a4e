"""``valkeep migrate run``: the move itself."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.decision_key import key_decides
from valkeep.cli.endpoint import (
    AwsRegion,
    AwsUrl,
    Source,
    SourcePasswordEnv,
    SourcePasswordFile,
    Target,
    TargetPasswordEnv,
    TargetPasswordFile,
    address,
    endpoint,
    source_of,
)
from valkeep.cli.migrate_attach import Attach, Metrics, PresentAs, PromoteWithin, delivery, expect_use, presented
from valkeep.cli.migrate_elasticache import target_of
from valkeep.cli.migrate_files import expect_no_writers, restore_files
from valkeep.cli.migrate_options import (
    Allow,
    Certificate,
    Fresh,
    Key,
    Listen,
    Patience,
    Policy,
    Read,
    SpoolFolder,
    SpoolLimit,
    State,
    gateway_tls,
    one_of,
)
from valkeep.cli.migrate_preflight import WAYS, Deliver, acknowledged, expect_delivery, expect_way_back
from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode, UsageError, ValkeepError
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    from valkeep.migrate.run.pipeline import RunOptions, RunResult
    from valkeep.report.events import Emit

__all__ = ["run"]

WILDCARDS = ("0.0.0.0", "::", "*")


def run(
    context: typer.Context,
    target: Target,
    source: Source = "",
    read: Read = "psync",
    deliver: Deliver = "native",
    field_ttl: Policy = FieldTtl.REFUSE,
    cutover: Annotated[
        str, typer.Option(metavar="auto|manual", help="Cut over when verified, or wait for Enter or `valkeep migrate cutover`.")
    ] = "auto",
    wipe_target: Annotated[bool, typer.Option("--wipe-target", help="The target may have keys: the copy replaces them.")] = False,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option(metavar="VK-…|all", help="A condition of preflight that is known; repeat it, or separate codes by commas."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write preflight, ledger, verification and timeline there.", show_default=False)
    ] = None,
    lease: Annotated[
        int, typer.Option(metavar="MS", min=200, max=60_000, help="How long writers are held or refused at most, until the promotion.")
    ] = 5000,
    fence: Annotated[
        str, typer.Option(metavar="pause|direct|external", help="How writers are kept out; default: what the source permits.")
    ] = "",
    keep_fence: Annotated[
        bool, typer.Option("--keep-fence", help="Write the fence into the source's configuration file, so that a restart does not end it.")
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="After the cut-over, keep the old server current until `valkeep migrate commit` or `rollback`."),
    ] = False,
    hold: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="When something cannot be sent: how long to wait for a person before the move ends."),
    ] = 300.0,
    source_patience: Patience = 600.0,
    listen: Listen = "",
    announce: Annotated[str, typer.Option(metavar="HOST:PORT", help="What the target is told to connect to, behind NAT.")] = "",
    attach: Attach = "native",
    promote_within: PromoteWithin = 60.0,
    present_as: PresentAs = "7.2.4",
    metrics: Metrics = "",
    allow: Allow = None,
    gateway_cert: Certificate = None,
    gateway_key: Key = None,
    spool: SpoolFolder = None,
    spool_limit: SpoolLimit = 0,
    state: State = None,
    fresh: Fresh = False,
    source_primary: Annotated[
        str, typer.Option(metavar="URL", help="The primary of a source that is a replica, if not the one it names.")
    ] = "",
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    aws_region: AwsRegion = "",
    aws_endpoint_url: AwsUrl = "",
    json: JsonPath = None,
) -> ExitCode:
    """Move a live source to a Valkey target: preflight, copy, follow, verify, cut over. With --read PATH the source is files.

    Exit code 0: moved and proven. 1: differences. 3: could not be judged. 4: nothing changed. 5: see the remedy.
    """
    from valkeep.migrate.fence import FenceMode
    from valkeep.migrate.run import pipeline, restoration
    from valkeep.report.terminal import watch

    if cutover not in ("auto", "manual"):
        raise UsageError(f"there is no cut-over {cutover!r}", remedy="say --cutover auto or --cutover manual")
    if listen and not announce and address(listen, "--listen")[0] in WILDCARDS:
        raise UsageError(
            f"--listen {listen} is no address that the target could connect to",
            remedy="name one, or say what the target is told: --announce HOST:PORT",
        )
    if read not in WAYS:
        expect_delivery(deliver)
        expect_no_writers(
            source=source,
            attach=attach != "native",
            cutover=cutover == "manual",
            fence=fence,
            keep_fence=keep_fence,
            rollback=rollback,
            source_primary=source_primary,
            source_password_file=source_password_file,
            source_password_env=source_password_env,
        )
        files = restoration.RestoreOptions(
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            host=socket.gethostname(),
            source=restoration.FileSource(Path(read)),
            target=endpoint(target, target_password_file, target_password_env),
            field_ttl=field_ttl,
            wipe_target=wipe_target,
            deliver=deliver,
            accept=_accepted(acknowledge or []),
            report=report,
            spool=spool,
            spool_limit=spool_limit << 20,
            state=state,
            listen=address(listen, "--listen") if listen else ("", 0),
            announce=address(announce, "--announce") if announce else None,
            allow=frozenset(allow or ()),
            gateway_tls=gateway_tls(gateway_cert, gateway_key),
        )
        return restore_files(files, json)
    if not source:
        raise UsageError("there is no source", remedy="say --source URL, or --read PATH to read a snapshot or an append-only file")
    expect_delivery(deliver)
    if rollback:
        expect_way_back(read)
    if rollback and (deliver, attach) != ("native", "native"):
        raise UsageError(
            "--rollback needs a target that we may tell to replicate from us: any other has no history that the way back could surely begin from",
            remedy="leave --rollback out, or --deliver and --attach",
        )
    unlike = {"--deliver push": deliver != "native", "--rollback": rollback, "--read " + read: read != "psync"}
    there, group = target_of(
        target,
        aws_region,
        aws_endpoint_url,
        target_password_file,
        target_password_env,
        unlike=tuple(name for name, given in unlike.items() if given),
    )
    how = delivery(attach, deliver) if group is None else "external"
    expect_use(context, how)
    options = pipeline.RunOptions(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        source=source_of(source, source_password_file, source_password_env),
        target=there,
        group=group,
        read=read,
        field_ttl=field_ttl,
        deliver=how,
        present_as=presented(present_as),
        promote_seconds=promote_within,
        metrics=address(metrics, "--metrics") if metrics else None,
        cutover=cutover,
        wipe_target=wipe_target,
        accept=_accepted(acknowledge or []),
        report=report,
        spool=spool,
        spool_limit=spool_limit << 20,
        state=state,
        listen=address(listen, "--listen") if listen else ("", 0),
        announce=address(announce, "--announce") if announce else None,
        allow=frozenset(allow or ()),
        lease_ms=lease,
        hold_seconds=hold,
        source_patience=source_patience,
        fence=one_of(FenceMode, fence, "--fence") if fence else None,
        keep_fence=keep_fence,
        rollback=rollback,
        gateway_tls=gateway_tls(gateway_cert, gateway_key),
        source_primary=endpoint(source_primary, source_password_file, source_password_env) if source_primary else None,
        fresh=fresh,
    )
    with watch(report / "events.jsonl" if report else None) as emit:
        try:
            result = asyncio.run(_run(options, emit))
        except KeyboardInterrupt:  # the second, most likely: the first one calls everything off
            _tell_unfinished(options)
            raise
    out = console(json)
    out.print(
        f"[bold]{result.verdict}[/bold]: {result.keys:,} keys moved from {result.source_name} to {result.target_name}; "
        f"{result.mismatches} mismatches; write pause {result.write_pause_ms:.0f} ms; {result.elapsed_seconds:.1f} s in all"
    )
    out.print(f"  next: {_next(options, result)}", markup=False)
    for row in result.ledger:
        out.print(f"  ledger: {row['action']} {row['what']} {row['policy']} × {row['count']}", markup=False)
    for limit in result.limits:
        out.print(f"  note: {limit}", markup=False)
    if report is not None:
        out.print(f"  report: {report} (valkeep report {report} shows it again)", markup=False)
    write_json(result.to_json(), json, changed=f"all that is said above; the migration is {result.verdict}, only its JSON is missing")
    return result.exit_code


def _next(options: RunOptions, result: RunResult) -> str:
    if result.way_back is None:
        return f"point the writers at {options.target.address}; the source answers reads, and refuses writes until `valkeep migrate abort --force`"
    done = "; ".join(result.way_back.done)
    if result.way_back.outcome == "committed":
        return f"{done}. The writers are at {options.target.address}, for good"
    return f"rolled back: {done}. Point the writers at {options.source.address}; {options.target.address} refuses writes"


def _tell_unfinished(options: RunOptions) -> None:
    """Raise where an interrupted migration left the source fenced, or the target promoted: "interrupted" would say too little."""
    from valkeep.migrate.state import StateFile

    left = StateFile(options.state_directory).read()
    if left is not None and left.step == "cutting" and left.pid == os.getpid():
        raise ValkeepError(
            "interrupted in the middle of the cut-over: the source may refuse writes, and the target may be promoted",
            remedy="run `valkeep migrate abort`: it makes the source writable, or says that the target was promoted",
            definite=False,
            code="VK-STATE-UNFINISHED",
        )


async def _run(options: RunOptions, emit: Emit) -> RunResult:
    from valkeep.migrate.run.pipeline import Ready, run

    ready = Ready()
    async with key_decides(ready, enabled=options.cutover == "manual"):
        return await run(options, emit, time.monotonic, ready)


def _accepted(codes: list[str]) -> frozenset[str]:
    return frozenset({"all"}) if "all" in codes else acknowledged(codes)
