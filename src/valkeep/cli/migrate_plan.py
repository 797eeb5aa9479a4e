"""``valkeep migrate plan``: how the work splits over processes and machines, and what it costs whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.endpoint import (
    Source,
    SourcePasswordEnv,
    SourcePasswordFile,
    TargetPasswordEnv,
    TargetPasswordFile,
    endpoint,
    source_now,
)
from valkeep.cli.output import JsonPath, console, writable, write_json
from valkeep.errors import ExitCode

if TYPE_CHECKING:
    from valkeep.migrate.plan import LanePlan, Plan

__all__ = ["plan"]


def plan(
    source: Source,
    target: Annotated[str, typer.Option(metavar="URL", help="Where to: valkey://[[user]:password@]host[:port], of a cluster any node.")],
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    json: JsonPath = None,
) -> ExitCode:
    """Print how a move would split: a lane for each shard of the source, who writes to whom, and what both sides and this machine have to bear.

    Reads only, for about two seconds. Exit code 0: planned. 1: planned, and preflight says NO-GO. 4: could not look.
    """
    from valkeep.migrate.plan import survey

    writable(json)
    here = source_now(source, source_password_file, source_password_env)
    there = endpoint(target, target_password_file, target_password_env)
    found = asyncio.run(survey(here, there, lambda _event: None))
    write_json(found.to_json(), json)
    out = console(json)
    for line in _lines(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    return ExitCode.JUDGED_BAD if found.blockers else ExitCode.GOOD


def _lines(found: Plan) -> Iterator[str]:
    yield f"{found.source.product} {found.source.display}  →  {found.target.product} {found.target.display}"
    yield ""
    yield f"deliver    {found.deliver}: {found.why}"
    if found.read != "psync":
        yield f"read       {found.read}: see docs/how-to/migrate.md for what that can't promise"
    for lane in found.lanes:
        yield from _lane(lane, len(found.lanes))
    yield ""
    yield from _cost(found)
    yield ""
    for text in found.advice:
        yield f"- {text}"
    for finding in found.blockers:
        yield f"NO-GO      {finding.code}: {finding.title}"
        yield f"           remedy: {finding.remedy}"
    yield ""
    yield f"run        {found.command}"


def _lane(lane: LanePlan, lanes: int) -> Iterator[str]:
    from valkeep.migrate.preflight.facts import human

    slots = f", {lane.slots:,} slots" if lane.slots is not None else ""
    data = "size not known" if lane.data_bytes is None else human(lane.data_bytes)
    writes = "changes/s not known" if lane.changes_per_second is None else f"{lane.changes_per_second:,.0f} changes/s"
    stream = (
        "" if lane.stream_bytes_per_second is None else f", {human(lane.stream_bytes_per_second)}/s{'' if lane.exact else ' (estimated)'}"
    )
    yield ""
    yield f"lane {lane.name}{f' of {lanes}' if lanes > 1 else '     '} {lane.source}{slots}: {lane.keys:,} keys, {data}, {writes}{stream}"
    for one in lane.gives:
        yield f"           → {one.target}{f', {one.slots:,} slots' if one.slots is not None else ''}"


def _cost(found: Plan) -> Iterator[str]:
    from valkeep.migrate.preflight.facts import human

    cost, lanes = found.cost, len(found.lanes)
    workers = cost.processes - 1
    yield f"where      this machine: one process `valkeep migrate run` ({lanes} lane{'s' if lanes > 1 else ''}, one cut-over) and {workers} that compare"
    yield f"memory     {human(cost.memory_bytes)} here at most (docs/reference/benchmarks.md: 40 MB and 160 MB for each lane)"
    yield f"disk       {human(cost.spool_bytes)} of spool (the data, and what is written while it crosses), {human(cost.verify_bytes)} to compare"
    yield f"source     at most {_each(cost.source_connections, 'connections')}; {_each(cost.source_forks, 'forks')} (copy, comparison)"
    yield f"target     at most {_each(cost.target_connections, 'connections')}; {_each(cost.target_forks, 'forks')} (comparison)"
    yield f"network    {human(cost.network_in_bytes)} in, {human(cost.network_out_bytes)} out, then {human(cost.network_bytes_per_second)}/s of stream"
    fast, slow = cost.copy_seconds
    network = f"on 1 Gbit/s {cost.gigabit_seconds:,.0f} s at least"
    yield f"time       estimated: {_span(fast, slow)} to copy ({network}), {cost.verify_seconds:,.0f} s to compare"
    yield "           by the rates of docs/reference/benchmarks.md, which have no network in them"


def _each(counts: dict[str, int], what: str) -> str:
    """``2 forks at each of 3 servers``, or each by its address."""
    if len(set(counts.values())) > 1:
        return f"{what}: " + ", ".join(f"{count} at {address}" for address, count in counts.items())
    count = next(iter(counts.values()), 0)
    word = what if count != 1 else what.removesuffix("s")
    return f"{count} {word}" + (f" at each of {len(counts)} servers" if len(counts) > 1 else "")


def _span(fast: float, slow: float) -> str:
    return f"{fast:,.0f} to {slow:,.0f} s" if round(fast) != round(slow) else f"{slow:,.0f} s"
