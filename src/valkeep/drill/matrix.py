"""What if: the same fault under every setting that is said to help, measured side by side.

    min-replicas-to-write {0, 1} × WAIT {0, 1, 2} × appendfsync {everysec, always} × timeout {500, 1000, 5000} ms

The fault is the one in which the settings differ most: the primary is cut off, with a client on its side that stays, until after the
others have failed over. Nobody writes any more once the partition has healed (what a stale primary goes on to ack after that is the drill
sentinel-partition-primary's subject); what survived is read when it has been demoted, some ten seconds later. Latencies are those before the fault:
what a setting costs on every ordinary day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from valkeep.drill.comparison import MatrixRow
from valkeep.drill.drills.parts import EXPLAINED, STAYER, sentinel_spec, took_over
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.run import RunOptions, run_drill
from valkeep.drill.script import Drill, Load, Step
from valkeep.errors import ValkeepError
from valkeep.report.events import Emit
from valkeep.topology.spec import Persistence

__all__ = ["Axes", "cells", "run_matrix"]


@dataclass(frozen=True, slots=True)
class Axes:
    """The values of each setting; every combination is run."""

    min_replicas: tuple[int, ...] = (0, 1)
    wait: tuple[int, ...] = (0, 1, 2)
    fsync: tuple[Persistence, ...] = (Persistence.EVERYSEC, Persistence.ALWAYS)
    timeout_ms: tuple[int, ...] = (500, 1000, 5000)


def cells(axes: Axes) -> Iterator[tuple[MatrixRow, Drill]]:
    """Each setting, and the drill that measures it."""
    for min_replicas, wait, fsync, timeout in product(axes.min_replicas, axes.wait, axes.fsync, axes.timeout_ms):
        yield MatrixRow(min_replicas, wait, fsync.value, timeout, "unknown"), _drill(min_replicas, wait, fsync, timeout)


def _drill(min_replicas: int, wait: int, fsync: Persistence, timeout: int) -> Drill:
    spec = replace(sentinel_spec(timeout), persistence=fsync)
    if min_replicas:
        spec = spec.with_settings(min_replicas_to_write=min_replicas, min_replicas_max_lag=1)
    clients = tuple(replace(client, wait=wait) for client in STAYER)
    return Drill(
        f"matrix-{min_replicas}-{wait}-{fsync.value}-{timeout}",
        "What a setting costs on every day, and saves on the day of the partition.",
        spec,
        (Step("partition", "primary,c1", lasts=timeout / 1000 + 4.0, until="recovered"),),
        (EXPLAINED, took_over(timeout)),
        load=Load(clients=clients),
        settle=0.0,
    )


async def run_matrix(axes: Axes, options: RunOptions, emit: Emit) -> Sequence[MatrixRow]:
    """One run for each combination, one after the other. A run that could not be done is a row that says why."""
    rows: list[MatrixRow] = []
    for row, drill in cells(axes):
        try:
            rows.append(_measured(row, await run_drill(drill, options, emit)))
        except ValkeepError as error:
            rows.append(replace(row, reason=f"{error.message} (remedy: {error.remedy})"))
    return rows


def _measured(row: MatrixRow, outcome: DrillOutcome) -> MatrixRow:
    measures = outcome.measures
    lost = measures.get("lost")
    return replace(
        row,
        verdict=outcome.verdict,
        acked=int(measures.get("acked") or 0),
        lost=None if lost is None else int(lost),
        gap_ms=measures.get("gap_ms"),
        p50_ms=measures.get("p50_ms"),
        p99_ms=measures.get("p99_ms"),
        per_second=measures.get("warm_operations_per_second"),
        reason="; ".join(outcome.reasons),
    )
