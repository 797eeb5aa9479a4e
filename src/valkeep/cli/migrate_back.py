"""``valkeep migrate commit`` and ``rollback``: the end of a way back (`valkeep migrate run --rollback`), one way or the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valkeep.cli.endpoint import (
    NewServer,
    Source,
    SourcePasswordEnv,
    SourcePasswordFile,
    TargetPasswordEnv,
    TargetPasswordFile,
    address,
    endpoint,
    source_of,
)
from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    from valkeep.migrate.outcome import RunOptions, WayBackResult

__all__ = ["commit", "rollback"]

DAY = 86_400.0
State = Annotated[Path | None, typer.Option(metavar="DIR", help="Where this migration's state is kept.", show_default=False)]


def commit(
    source: Source,
    target: NewServer,
    state: State = None,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    json: JsonPath = None,
) -> ExitCode:
    """Give up the way back of a migration that was cut over: the old server is let go, and stays fenced as it is. Also after a kill -9."""
    from valkeep.migrate.back import recovery
    from valkeep.migrate.outcome import RunOptions

    options = RunOptions(
        source=source_of(source, source_password_file, source_password_env),
        target=endpoint(target, target_password_file, target_password_env),
        state=state,
    )
    return _end(options, "commit", recovery.commit(options), json)


def rollback(
    source: Source,
    target: NewServer,
    state: State = None,
    field_ttl: Annotated[
        FieldTtl, typer.Option(help="Where nobody keeps the way back any more: TTLs on hash fields, for an old server without them.")
    ] = FieldTtl.REFUSE,
    lease: Annotated[
        int, typer.Option(metavar="MS", min=200, max=60_000, help="How long writers are held or refused at most, until the promotion.")
    ] = 5000,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the gateway listens, which the old server has to reach.")] = "",
    spool: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the stream waits on disk.", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write ledger and verification there.", show_default=False)] = None,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    json: JsonPath = None,
) -> ExitCode:
    """Cut back to the old server, which has everything that the new one acknowledged: compared before, fenced as in the first cut-over.

    Where `valkeep migrate run --rollback` still runs, it does that; else the way back is gone on with here. Also after a kill -9.
    """
    from valkeep.migrate.back import recovery
    from valkeep.migrate.outcome import RunOptions
    from valkeep.report.terminal import watch

    options = RunOptions(
        source=source_of(source, source_password_file, source_password_env),
        target=endpoint(target, target_password_file, target_password_env),
        state=state,
        field_ttl=field_ttl,
        lease_ms=lease,
        listen=address(listen, "--listen") if listen else ("", 0),
        spool=spool,
        report=report,
    )
    with watch(report / "events.jsonl" if report else None) as emit:
        return _end(options, "rollback", recovery.roll_back(options, emit, time.monotonic), json)


def _end(options: RunOptions, what: str, alone: Coroutine[Any, Any, WayBackResult], json: str | None) -> ExitCode:
    """Ask whoever keeps the way back; where nobody does, do it ``alone``."""
    answer = asyncio.run(_asked(options, what, alone))
    done = [*answer["done"], _next(options, answer["outcome"])]
    for line in done:
        console(json).print(line, markup=False)
    write_json(answer, json, changed="; ".join(done))
    return ExitCode.GOOD


async def _asked(options: RunOptions, what: str, alone: Coroutine[Any, Any, WayBackResult]) -> dict[str, Any]:
    from valkeep.migrate.control import ask

    try:
        answer = await ask(options.state_directory, what, timeout=DAY)
        return answer if answer is not None else (await alone).to_json()
    finally:
        alone.close()


def _next(options: RunOptions, outcome: str) -> str:
    if outcome == "committed":
        return f"committed: {options.target.address} is the primary, and there is no way back any more"
    return f"rolled back: point the writers at {options.source.address}; {options.target.address} answers reads and refuses writes"
