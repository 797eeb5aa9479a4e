"""``valkeep migrate preflight``: is this source ready to move to this target?"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.endpoint import (
    AwsRegion,
    AwsUrl,
    Source,
    SourcePasswordEnv,
    SourcePasswordFile,
    TargetPasswordEnv,
    TargetPasswordFile,
    address,
    endpoint,
    group_of,
    source_now,
)
from valkeep.cli.migrate_elasticache import expect_fit
from valkeep.cli.migrate_files import expect_no_writers, judged_files
from valkeep.cli.output import JsonPath, console, progress_console, write_json
from valkeep.errors import ExitCode, UsageError
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    from valkeep.migrate.preflight import PreflightReport
    from valkeep.report.events import Event

__all__ = ["WAYS", "Deliver", "acknowledged", "expect_delivery", "expect_way_back", "preflight"]

WAYS = ("psync", "scan")  # to read a running source
DELIVERIES = ("native", "push")
Deliver = Annotated[
    str, typer.Option(metavar="native|push", help="How the target gets it: it replicates from us, or we write to it as a client.")
]


def expect_way_back(read: str) -> None:
    """Raises ``UsageError`` where there can't be a way back to the source."""
    if read == "scan":
        raise UsageError(
            "--rollback needs a source that may be replicated, and that can replicate: one that is read by SCAN has no history to go on with",
            remedy="leave --rollback or --read scan out",
        )


def expect_delivery(deliver: str) -> None:
    """Raises ``UsageError`` for one that is not there."""
    if deliver not in DELIVERIES:
        remedy = f"say --deliver {' or --deliver '.join(DELIVERIES)}; a target that attaches by itself is `migrate run --attach external`"
        raise UsageError(f"--deliver {deliver!r} is not known", remedy=remedy)


def preflight(
    source: Source = "",
    target: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to, or elasticache:ID. Without it only the source is judged.")
    ] = None,
    read: Annotated[
        str,
        typer.Option(
            metavar="psync|scan|PATH",
            help="How the move would read the source; or, in place of --source, a snapshot or append-only file, of which all is read.",
        ),
    ] = "psync",
    census: Annotated[
        str, typer.Option(metavar="sample|full", help="Look at some keys by SCAN, or read a whole snapshot (the source forks).")
    ] = "sample",
    field_ttl: Annotated[
        FieldTtl, typer.Option(help="What the move would do with TTLs on hash fields, for a Valkey before 9.")
    ] = FieldTtl.REFUSE,
    wipe_target: Annotated[bool, typer.Option("--wipe-target", help="The target may have keys: they would be deleted.")] = False,
    deliver: Deliver = "native",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Is there a way back after the cut-over, and what would not come back as it is?")
    ] = False,
    acknowledge: Annotated[
        list[str] | None, typer.Option(metavar="VK-…", help="A condition that is known; repeat it, or separate codes by commas.")
    ] = None,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    gateway: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="With elasticache:ID: where the gateway is, or will be; it is asked when it runs.")
    ] = "",
    aws_region: AwsRegion = "",
    aws_endpoint_url: AwsUrl = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every check, and the evidence of what is fine, too.")] = False,
    json: JsonPath = None,
) -> ExitCode:
    """Judge whether a source is ready to move to a target: GO, CONDITIONAL-GO or NO-GO.

    Reads only. Exit code 0: GO, or every condition is acknowledged. 1: NO-GO, or conditions are open. 4: could not look.
    """
    from valkeep.migrate.preflight import PreflightOptions
    from valkeep.migrate.preflight import preflight as judge_pair
    from valkeep.migrate.preflight.managed import GatewayPlace, preflight_group
    from valkeep.migrate.spool import room
    from valkeep.migrate.state import default_directory

    if census not in ("sample", "full"):
        raise UsageError(f"there is no census {census!r}", remedy="say --census sample or --census full")
    accepted = acknowledged(acknowledge or ())
    if read not in WAYS:
        options = PreflightOptions(field_ttl=field_ttl, wipe_target=wipe_target, deliver=deliver)
        expect_no_writers(
            source=source,
            census=census == "full",
            rollback=rollback,
            source_password_file=source_password_file,
            source_password_env=source_password_env,
        )
        return _judged(judged_files(read, target, target_password_file, target_password_env, options, _notes), accepted, json, verbose)
    if not source:
        raise UsageError("there is no source", remedy="say --source URL, or --read PATH for a snapshot or an append-only file")
    if rollback:
        expect_way_back(read)
    here = source_now(source, source_password_file, source_password_env)
    expect_delivery(deliver)
    options = PreflightOptions(
        field_ttl=field_ttl, wipe_target=wipe_target, full_census=census == "full", read=read, deliver=deliver, rollback=rollback
    )
    group = group_of(target or "", aws_region, aws_endpoint_url)
    if group is not None:
        unlike = {f"--deliver {deliver}": deliver != "native", "--rollback": rollback}
        password = target_password_file is not None or target_password_env is not None
        expect_fit(group, password=password, unlike=tuple(name for name, given in unlike.items() if given))
        place = GatewayPlace(address(gateway, "--gateway") if gateway else ("", 0), Path(tempfile.gettempdir()))
        report = asyncio.run(preflight_group(here, group, place, options, _notes))
    else:
        if gateway:
            raise UsageError(
                "--gateway belongs to --target elasticache:ID", remedy="leave it out, or name a replication group as the target"
            )
        there = endpoint(target, target_password_file, target_password_env) if target is not None else None
        if there is not None:
            options = replace(options, spool_free=room(default_directory(here.display, there.display)))
        report = asyncio.run(judge_pair(here, there, options, _notes))
    return _judged(report, accepted, json, verbose)


def _judged(report: PreflightReport, accepted: frozenset[str], json: str | None, verbose: bool) -> ExitCode:
    _show(report, accepted, json, verbose)
    if report.may_start(accepted):
        pass
    elif not report.blockers and json is None and sys.stdin.isatty() and sys.stdout.isatty():
        accepted = accepted | _ask(report, accepted)
    write_json(report.to_json(accepted), json)
    return report.exit_code(accepted)


def acknowledged(words: list[str] | tuple[str, ...]) -> frozenset[str]:
    """The codes that were named, each one of those that can be a condition."""
    from valkeep.migrate.preflight.codes import CODES
    from valkeep.migrate.preflight.numbered import NUMBERED

    parts = (part.strip().upper() for word in words for part in word.split(",") if part.strip())
    named = {f"VK-{part}" if part.startswith("A-") else part for part in parts}
    known = {row.code: row.severities for row in (*CODES, *NUMBERED)}
    for code in sorted(named):
        if code not in known:
            import difflib

            near = difflib.get_close_matches(code, known, n=1)
            raise UsageError(
                f"preflight has no code {code!r}",
                remedy=f"did you mean {near[0]}?" if near else "docs/reference/preflight-codes.md lists them",
            )
        if not {"warning", "unknown"} & set(known[code]):
            raise UsageError(f"{code} is no condition: there is nothing to acknowledge", remedy="leave it out; a blocker has to be removed")
    return frozenset(named)


def _notes(event: Event) -> None:
    from valkeep.report.events import Note

    if isinstance(event, Note):
        progress_console().print(f"{event.level}: {event.text}", markup=False, soft_wrap=True)


def _show(report: PreflightReport, accepted: frozenset[str], json: str | None, verbose: bool) -> None:
    from valkeep.migrate.preflight.render import lines

    out = console(json)
    for line in lines(report, accepted, verbose=verbose):
        out.print(line)


def _ask(report: PreflightReport, accepted: frozenset[str]) -> frozenset[str]:
    """Each open condition by itself: a person who says yes has read its code."""
    said = set()
    for code in report.open(accepted):
        title = next(finding.title for finding in report.findings if finding.code == code and finding.severity.is_condition)
        if not typer.confirm(f"{code}: {title}. Acknowledge?", default=False):
            break
        said.add(code)
    return frozenset(said)
