"""``valkeep migrate verify``: is the target what the source says it should be?"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.endpoint import SourcePasswordEnv, SourcePasswordFile, TargetPasswordEnv, TargetPasswordFile, endpoint, source_now
from valkeep.cli.output import JsonPath, console, progress_console, write_json
from valkeep.errors import ExitCode, Refused, UsageError, ValkeepError
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.verify import Comparison, Verifier
    from valkeep.report.events import Event

__all__ = ["verify"]


def verify(
    source: Annotated[str, typer.Option(metavar="URL", help="What was moved; the truth.")],
    target: Annotated[str, typer.Option(metavar="URL", help="Where it was moved to.")],
    field_ttl: Annotated[
        FieldTtl, typer.Option(help="What the move did with TTLs on hash fields, for a Valkey before 9.")
    ] = FieldTtl.REFUSE,
    repair: Annotated[
        bool, typer.Option("--repair", help="Copy missing and differing keys again, delete extra ones; then look again.")
    ] = False,
    pause: Annotated[
        int, typer.Option(metavar="MS", min=0, max=10_000, help="Hold the source's writers for at most MS ms, so that hot keys settle.")
    ] = 0,
    source_read: Annotated[
        str,
        typer.Option(metavar="auto|scan", help="How the source is read: a snapshot by PSYNC where that is permitted, or SCAN and DUMP."),
    ] = "auto",
    target_read: Annotated[str, typer.Option(metavar="auto|scan", help="The same for the target.")] = "auto",
    workdir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where temporary files go: some 100 bytes for each key and side.")
    ] = None,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    json: JsonPath = None,
) -> ExitCode:
    """Compare every key, value, TTL and field of two servers (or clusters: any node's URL), also under writes: two snapshots, then what was written meanwhile.

    A server that is read by PSYNC forks once. Exit code 0: valid. 1: there are differences. 3: it could not be judged. 4: could not look.
    """
    here = source_now(source, source_password_file, source_password_env)
    there = endpoint(target, target_password_file, target_password_env)
    if (here.host, here.port) == (there.host, there.port):
        raise UsageError("source and target are the same server", remedy="give the migration's source and its target")
    for option, read in (("--source-read", source_read), ("--target-read", target_read)):
        if read not in ("auto", "scan"):
            raise UsageError(f"{option} {read!r} is not known", remedy=f"say {option} auto or {option} scan")
    result = asyncio.run(_verify(here, there, field_ttl, repair, pause, workdir, (source_read, target_read)))
    _show(result, json)
    write_json(result.to_json(), json)
    return result.exit_code


async def _verify(
    source: Endpoint, target: Endpoint, field_ttl: FieldTtl, repair: bool, pause: int, workdir: Path | None, read: tuple[str, str]
) -> Comparison:
    from valkeep.migrate.verify import Verifier

    async with Verifier(source, target, field_ttl, emit=_progress, workdir=workdir, source_read=read[0], target_read=read[1]) as verifier:
        progress_console().print(f"barrier: {verifier.how}", markup=False, soft_wrap=True)
        result = await verifier.full()
        if result.hot_only and pause:
            if verifier.shards[0] > 1:
                result = result.because(
                    "--pause holds one server's writers, and not those of a cluster: hold them yourself, then verify again"
                )
            else:
                result = await _paused(verifier, source, pause, result)
        if repair and result.verdict == "invalid":
            result = await _repaired(verifier, result)
        return result


async def _paused(verifier: Verifier, source: Endpoint, pause: int, result: Comparison) -> Comparison:
    """Hold the writers as briefly as it goes, and settle what is left."""
    from valkeep.client.connection import Connection
    from valkeep.client.server_info import server_info

    try:
        async with await Connection.open(source.without_database()) as connection:
            await verifier.round()
            await connection.call("CLIENT", "PAUSE", pause, "WRITE")
            try:
                return await verifier.final((await server_info(connection)).offset)
            finally:
                await connection.call("CLIENT", "UNPAUSE")
    except ValkeepError as error:
        return result.because(f"the source's writers could not be held: {error.message}")


async def _repaired(verifier: Verifier, result: Comparison) -> Comparison:
    try:
        return await verifier.repair()
    except Refused as error:  # what was found is to be told all the same
        how = "it was not repaired" if error.definite else "it was repaired in part"
        return result.because(f"{how}: {error.message}; {error.remedy}")


def _progress(event: Event) -> None:
    from valkeep.report.events import Note, Progress

    if isinstance(event, Note):
        progress_console().print(f"{event.level}: {event.text}", markup=False, soft_wrap=True)
        if "traceback" in event.fields and os.environ.get("VALKEEP_DEBUG"):
            sys.stderr.write(event.fields["traceback"])
    elif isinstance(event, Progress) and event.at > 0 and progress_console().is_terminal:
        progress_console().print(f"{event.keys:,} keys, {event.bytes / 1e6:,.0f} MB", markup=False, end="\r")


def _show(result: Comparison, json: str | None) -> None:
    out = console(json)
    rate = f", {result.keys_per_second:,.0f} keys/s" if result.keys_per_second else ""
    out.print(f"verdict    {result.verdict}", markup=False)
    out.print(
        f"keys       {result.keys_source:,} on the source, {result.keys_target:,} on the target ({result.seconds:.1f} s{rate})",
        markup=False,
    )
    if "scan" in (result.source_read, result.target_read):
        out.print(f"read       source by {result.source_read.upper()}, target by {result.target_read.upper()}", markup=False)
    out.print(f"differ     {result.missing} missing, {result.extra} extra, {result.different} different", markup=False)
    out.print(f"written    {result.looked_again:,} looked at again, {result.unsettled} unsettled; {result.expired} expired", markup=False)
    if max(result.source_shards, result.target_shards) > 1:
        out.print(f"shards     {result.source_shards} of the source, {result.target_shards} of the target", markup=False)
    if result.repaired:
        out.print(f"repaired   {result.repaired}", markup=False)
    for one in result.examples:
        out.print(f"  {one.what:10}db {one.database}  {_printable(one.key)}  {one.detail}", markup=False)
    for line in result.reasons:
        out.print(f"because    {line}", markup=False)
    for line in result.notes:
        out.print(f"note       {line}", markup=False)
    if result.verdict == "unknown" and result.unsettled:
        out.print("remedy     verify when fewer writes run, or with --pause 200 (holds the writers for at most that many ms)", markup=False)


def _printable(key: bytes) -> str:
    """A key's name without what a terminal would obey."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in key.decode("utf-8", "backslashreplace")
    )
