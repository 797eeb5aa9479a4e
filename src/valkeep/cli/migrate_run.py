"""``valkeep migrate run``, ``gateway``, ``cutover`` and ``abort``: the move itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

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
from valkeep.cli.migrate_attach import Attach, Metrics, PresentAs, PromoteWithin, delivery, presented
from valkeep.cli.migrate_elasticache import target_named, target_of
from valkeep.cli.migrate_files import expect_no_writers, restore_files
from valkeep.cli.migrate_preflight import WAYS, Deliver, acknowledged, expect_delivery, expect_way_back
from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ConnectionLost, ExitCode, UsageError, ValkeepError
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    import ssl

    from valkeep.client.endpoint import Endpoint
    from valkeep.client.named_primary import Source as AnySource
    from valkeep.migrate.elasticache.address import GroupAddress
    from valkeep.migrate.pipeline import Ready, RunOptions, RunResult
    from valkeep.report.events import Emit

__all__ = ["abort", "cutover", "gateway", "run"]

E = TypeVar("E", bound=StrEnum)
KEY_SECONDS = 0.05
WILDCARDS = ("0.0.0.0", "::", "*")

Policy = Annotated[FieldTtl, typer.Option(help="TTLs on hash fields, for a Valkey before 9: keep the field, drop it, or refuse to start.")]
Listen = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens. Default: the address that faces the target, any free port.")
]
Allow = Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Another address that the target may come from; repeatable.")]
Certificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The gateway's certificate (PEM), for a target with tls-replication.")
]
Key = Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")]
SpoolFolder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where snapshot and stream wait on disk.", show_default=False)]
SpoolLimit = Annotated[int, typer.Option(metavar="MB", min=0, help="Most that one spool may take; 0: what the disk holds.")]
Read = Annotated[
    str,
    typer.Option(
        metavar="psync|scan|PATH",
        help="How the data is read: as the source's replica; by SCAN, where that is denied; or, without --source, from a snapshot or log.",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin with a full sync, also where an earlier one could be gone on with.")]
State = Annotated[Path | None, typer.Option(metavar="DIR", help="Where this migration's state is kept.", show_default=False)]
Patience = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long a source whose link broke is waited for; 0: not at all.")]


def run(
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
    from valkeep.migrate import pipeline, restoration
    from valkeep.migrate.fence import FenceMode
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
            gateway_tls=_gateway_tls(gateway_cert, gateway_key),
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
    options = pipeline.RunOptions(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        source=source_of(source, source_password_file, source_password_env),
        target=there,
        group=group,
        read=read,
        field_ttl=field_ttl,
        deliver=delivery(attach, deliver) if group is None else "external",
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
        fence=_one_of(FenceMode, fence, "--fence") if fence else None,
        keep_fence=keep_fence,
        rollback=rollback,
        gateway_tls=_gateway_tls(gateway_cert, gateway_key),
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


def gateway(
    source: Source,
    target_version: Annotated[
        list[str], typer.Option(metavar="X.Y", help="The version of the Valkey targets that will attach; repeatable.")
    ],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens.")],
    allow: Annotated[list[str], typer.Option(metavar="HOST", help="A target that may attach, by name or address; repeatable.")],
    field_ttl: Policy = FieldTtl.REFUSE,
    databases: Annotated[int, typer.Option(min=1, help="The targets' number of databases.")] = 16,
    metrics: Annotated[str, typer.Option(metavar="HOST:PORT", help="Serve /metrics, /health and /ready there.")] = "",
    password_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The targets' primaryauth is in this file.", show_default=False)
    ] = None,
    gateway_cert: Certificate = None,
    gateway_key: Key = None,
    spool: SpoolFolder = None,
    spool_limit: SpoolLimit = 0,
    keep: Annotated[
        int,
        typer.Option(metavar="MB", min=1, help="How much may be written since the snapshot until it is given up and no target can attach."),
    ] = 4096,
    present_as: PresentAs = "7.2.4",
    ledger: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the ledger there.", show_default=False)] = None,
    source_patience: Patience = 600.0,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep there what the next start goes on with, also after a kill -9.", show_default=False),
    ] = None,
    fresh: Fresh = False,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
) -> ExitCode:
    """Run the gateway alone, as a service: targets attach by REPLICAOF and detach when they like. Ends with SIGINT or SIGTERM."""
    from valkeep.migrate import service
    from valkeep.report.terminal import watch

    settings = service.ServiceSettings(
        source=source_of(source, source_password_file, source_password_env),
        versions=tuple(_version(text) for text in target_version),
        databases=databases,
        listen=address(listen, "--listen"),
        allow=tuple(allow),
        field_ttl=field_ttl,
        metrics=address(metrics, "--metrics") if metrics else None,
        password_file=password_file,
        tls=_gateway_tls(gateway_cert, gateway_key),
        spool=spool,
        spool_limit=spool_limit << 20,
        keep=keep << 20,
        present_as=presented(present_as),
        ledger=ledger,
        source_patience=source_patience,
        state=state,
        fresh=fresh,
    )
    with watch(None) as emit:
        asyncio.run(service.serve(settings, emit))
    return ExitCode.GOOD


def cutover(source: Source, target: Target, state: State = None, json: JsonPath = None) -> ExitCode:
    """Cut over a migration that waits for it (`valkeep migrate run --cutover manual`)."""
    from valkeep.errors import Refused
    from valkeep.migrate.control import ask
    from valkeep.migrate.state import default_directory

    here, there = source_of(source), target_named(target)
    directory = state or default_directory(here.display, there.display)
    answer = asyncio.run(ask(directory, "cutover"))
    if answer is None:
        raise Refused(
            f"no migration runs in {directory}",
            remedy="start it: valkeep migrate run --cutover manual …; if it was killed: valkeep migrate abort …",
        )
    done = f"cut over: {answer['promoted']} is the primary now; write pause {answer['write_pause_ms']} ms"
    console(json).print(done, markup=False)
    write_json(answer, json, changed=done)
    return ExitCode.GOOD


def abort(
    target: Target,
    source: Source = "",
    state: State = None,
    force: Annotated[bool, typer.Option("--force", help="Make the source writable although the target was promoted.")] = False,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    json: JsonPath = None,
) -> ExitCode:
    """Undo what a migration changed: the source accepts writes again, the target is detached. Also after a kill -9.

    Without --source: a move from files (`valkeep migrate run --read PATH`).
    """
    here = source_of(source, source_password_file, source_password_env) if source else None
    there = target_named(target, target_password_file, target_password_env)
    done = asyncio.run(_abort(here, there, state, force))
    for line in done:
        console(json).print(line, markup=False)
    write_json({"done": done}, json, changed="; ".join(done))
    return ExitCode.GOOD


def _next(options: RunOptions, result: RunResult) -> str:
    if result.way_back is None:
        return f"point the writers at {options.target.address}; the source answers reads, and refuses writes until `valkeep migrate abort --force`"
    done = "; ".join(result.way_back.done)
    if result.way_back.outcome == "committed":
        return f"{done}. The writers are at {options.target.address}, for good"
    return f"rolled back: {done}. Point the writers at {options.source.address}; {options.target.address} refuses writes"


# -- parts of these commands -----------------------------------------------------------------------------------------------------------


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
    from valkeep.migrate.pipeline import Ready, run

    ready = Ready()
    async with _key_decides(ready, enabled=options.cutover == "manual"):
        return await run(options, emit, time.monotonic, ready)


@contextlib.asynccontextmanager
async def _key_decides(ready: Ready, *, enabled: bool) -> AsyncIterator[None]:
    """Enter on the terminal means go, once the migration waits for it."""
    if not enabled or not sys.stdin.isatty():
        yield
        return
    listening = asyncio.create_task(_listen(sys.stdin.fileno(), ready), name="the key")
    try:
        yield
    finally:
        listening.cancel()


async def _listen(terminal: int, ready: Ready) -> None:
    """The end of input (Ctrl-D, a closed terminal) is nobody's decision. The terminal is asked and not waited for: what is typed while we are in the
    background is for somebody else, and reading it would stop this process (SIGTTIN) in the middle of a migration."""
    with contextlib.suppress(OSError):  # it was closed
        while True:
            await asyncio.sleep(KEY_SECONDS)
            if not _in_foreground(terminal) or not select.select([terminal], [], [], 0)[0]:
                continue
            if os.read(terminal, 1024) and ready.waiting:
                ready.go.set()


def _in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # not the terminal that controls us: there is no job control
        return True


async def _abort(source: AnySource | None, target: Endpoint | GroupAddress, state: Path | None, force: bool) -> list[str]:
    from valkeep.client.connection import Connection
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate import abort as undo
    from valkeep.migrate.control import Lock, ask, remove_socket
    from valkeep.migrate.elasticache.address import GroupAddress
    from valkeep.migrate.spool import sweep
    from valkeep.migrate.state import StateFile, default_directory

    directory = state or default_directory(source.display if source is not None else "file:", target.display)
    running = await ask(directory, "abort")
    if running is not None:
        return list(running["done"])
    with Lock(directory):
        remove_socket(directory)
        sweep(directory)
        file = StateFile(directory)
        found = file.read()
        if found is not None and found.fence_at and source is not None:  # a source that is a replica is fenced at its primary
            where = Endpoint.parse(found.fence_at)
            source = source.at(where.host, where.port)
        if isinstance(target, GroupAddress):
            there = Endpoint.parse(found.target) if found is not None else None
        else:
            there = target
        async with contextlib.AsyncExitStack() as stack:

            async def reach(where: AnySource | None) -> Connection | None:
                if where is None:
                    return None
                try:
                    return await stack.enter_async_context(await Connection.open(await where.resolve()))
                except ConnectionLost:
                    return None

            return await undo.abort(await reach(source), await reach(there), file, force=force)


def _accepted(codes: list[str]) -> frozenset[str]:
    return frozenset({"all"}) if "all" in codes else acknowledged(codes)


def _one_of(kind: type[E], text: str, option: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not known", remedy=f"one of {', '.join(kind)}") from None


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        raise UsageError(f"--target-version {text!r} is no version", remedy="write it like --target-version 8.1") from None


def _gateway_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    import ssl

    if cert is None:
        raise UsageError("--gateway-key without --gateway-cert", remedy="give both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"the gateway's certificate cannot be loaded: {error}", remedy="give readable PEM files that belong together"
        ) from error
    return context
