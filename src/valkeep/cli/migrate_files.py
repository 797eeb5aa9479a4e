"""``valkeep migrate run`` and ``preflight`` with ``--read PATH``: what they do with a running source, where the source is files."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from valkeep.cli.endpoint import endpoint
from valkeep.cli.output import console, write_json
from valkeep.errors import UsageError

if TYPE_CHECKING:
    from valkeep.errors import ExitCode
    from valkeep.migrate.preflight import PreflightOptions, PreflightReport
    from valkeep.migrate.run.restoration import RestoreOptions
    from valkeep.report.events import Emit

__all__ = ["expect_no_writers", "judged_files", "restore_files"]


def expect_no_writers(**given: object) -> None:
    """Raises ``UsageError`` for an option that is about a running source, and was ``given`` a value."""
    for name, value in given.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is about a running source, and --read PATH reads files, to which nobody writes",
                remedy=f"leave {option} out, or leave --read out to migrate from the source itself",
            )


def judged_files(
    path: str, target: str | None, password_file: str | None, password_env: str | None, options: PreflightOptions, emit: Emit
) -> PreflightReport:
    """Preflight of files. Raises ``UsageError`` without a target."""
    from valkeep.migrate.run.restoration import FileSource, judge

    if target is None:
        raise UsageError("--read PATH without --target", remedy="say which server the files shall go to: --target URL")
    where = endpoint(target, password_file, password_env)
    return asyncio.run(judge(FileSource(Path(path)), where, options, emit, time.monotonic))


def restore_files(options: RestoreOptions, json: str | None) -> ExitCode:
    """Do it, and tell what came of it."""
    from valkeep.migrate.run.restoration import restore
    from valkeep.report.terminal import watch

    with watch(options.report / "events.jsonl" if options.report else None) as emit:
        result = asyncio.run(restore(options, emit, time.monotonic))
    out = console(json)
    out.print(
        f"[bold]{result.verdict}[/bold]: {result.keys:,} keys of {result.source_name} are on {result.target_name}, which is a primary now; "
        f"{result.mismatches} mismatches; {result.elapsed_seconds:.1f} s in all"
    )
    for limit in result.limits:
        out.print(f"  note: {limit}", markup=False)
    for row in result.ledger:
        out.print(f"  ledger: {row['action']} {row['what']} {row['policy']} × {row['count']}", markup=False)
    if options.report is not None:
        out.print(f"  report: {options.report} (valkeep report {options.report} shows it again)", markup=False)
    write_json(result.to_json(), json, changed=f"all that is said above; the result is {result.verdict}, only its JSON is missing")
    return result.exit_code
