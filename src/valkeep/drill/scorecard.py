"""The same faults with every client library: how long their applications could not write, what they were shown, what happened twice.

A library that retries by itself shows fewer errors and, where it sends a write again that had happened, makes duplicates: both are counted.
The recorder stands first: it retries nothing, so its numbers are the servers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from valkeep.drill.catalogue import find
from valkeep.drill.comparison import ScoreRow
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.run import RunOptions, run_drill
from valkeep.drill.script import Drill
from valkeep.drill.workloads.driver import DRIVERS, driver_of
from valkeep.errors import UsageError, ValkeepError
from valkeep.report.events import Emit

__all__ = ["CLIENTS", "DRILLS", "run_clients"]

CLIENTS: Final = ("recorder", *DRIVERS)
DRILLS: Final = ("sentinel-kill-primary", "sentinel-plain-failover", "cluster-kill-primary", "cluster-redirects")
"""What is asked of each client: a crash and a planned failover, by Sentinel and in a cluster."""
RATE: Final = 4000
"""Operations/s of all clients together, one in flight each, as applications have it: what the slowest of the libraries can do here."""


async def run_clients(clients: Sequence[str], drills: Sequence[str], options: RunOptions, emit: Emit) -> Sequence[ScoreRow]:
    """One run for each drill and client. A client that can't do a drill (GLIDE knows no Sentinel), or is not installed, is a row that says so."""
    unknown = [name for name in clients if name not in CLIENTS]
    if unknown:
        raise UsageError(f"there is no client {unknown[0]!r}", remedy=f"one of {', '.join(CLIENTS)}")
    rows: list[ScoreRow] = []
    for name in drills:
        for client in clients:
            drill = _as_applications_do(find(name, options.timeout_ms))
            row = ScoreRow(client, _version(client), drill.name, "unknown")
            try:
                rows.append(_scored(row, await run_drill(drill, replace(options, driver=client), emit)))
            except ValkeepError as error:
                rows.append(replace(row, reason=f"{error.message} (remedy: {error.remedy})"))
    return rows


def _as_applications_do(drill: Drill) -> Drill:
    """The same drill at a rate that every library manages, judged by what no configuration allows: the numbers are for comparison."""
    expects = tuple(one for one in drill.expects if one.measure in ("unexplained", "promotions"))
    return replace(drill, load=replace(drill.load, rate=RATE), expects=expects, warm_operations=min(drill.warm_operations, 2 * RATE))


def _version(client: str) -> str:
    if client == "recorder":
        return ""
    try:
        return driver_of(client).version
    except ValkeepError:
        return ""


def _scored(row: ScoreRow, outcome: DrillOutcome) -> ScoreRow:
    measures = outcome.measures
    columns = outcome.history.columns
    block = max(
        (returned - invoked for invoked, returned in zip(columns.invoked, columns.returned, strict=True) if returned >= 0), default=0
    )
    lost = measures.get("lost")
    return replace(
        row,
        verdict=outcome.verdict,
        acked=int(measures.get("acked") or 0),
        gap_ms=measures.get("gap_ms"),
        errors=int((measures.get("refused") or 0) + (measures.get("indefinite") or 0)),
        block_ms=round(block / 1e6, 1),
        duplicates=sum(judgement.counts.get("duplicated", 0) for judgement in outcome.judgements),
        lost=None if lost is None else int(lost),
        reason="; ".join(outcome.reasons),
    )
