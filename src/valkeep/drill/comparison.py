"""Many runs side by side: what each setting costs and saves (`matrix`), and what each client library makes of the same fault (`clients`).

Values that whoever runs them fills in, their JSON, and their stories: a table of all numbers, and one shaded grid for each number that matters.
A number that could not be measured is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from valkeep.drill.outcome import SCHEMA
from valkeep.drill.picture import number
from valkeep.report.story import Grid, Story, Table, Tile

__all__ = ["MatrixRow", "ScoreRow", "clients_json", "clients_story", "matrix_json", "matrix_story"]

COMPARE: Final = "compare them with each other, not with yours"
_SIGNS: Final = {"valid": "✓", "invalid": "✗"}
_TONES: Final = {"valid": "good", "invalid": "bad"}


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One setting, measured. ``min_replicas``: min-replicas-to-write; ``wait``: replicas that each write waits for; ``fsync``: everysec or always;
    ``timeout_ms``: down-after or node-timeout. ``acked``, ``lost``: writes; ``gap_ms``: longest time without an ack; ``p50_ms``, ``p99_ms``: latency of acked
    writes before the fault; ``per_second``: acked, before the fault. ``reason``: why it is not valid."""

    min_replicas: int
    wait: int
    fsync: str
    timeout_ms: int
    verdict: str
    acked: int = 0
    lost: int | None = None
    gap_ms: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    per_second: float | None = None
    reason: str = ""

    @property
    def setting(self) -> str:
        return f"min-replicas {self.min_replicas}, WAIT {self.wait}, {self.fsync}"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One client library in one drill. ``errors``: shown to the application; ``block_ms``: the longest single call; ``duplicates``: of non-idempotent
    writes that the library sent again by itself; ``lost``: acked and gone."""

    client: str
    version: str
    drill: str
    verdict: str
    acked: int = 0
    gap_ms: float | None = None
    errors: int | None = None
    block_ms: float | None = None
    duplicates: int | None = None
    lost: int | None = None
    reason: str = ""


def matrix_json(rows: Iterable[MatrixRow], *, seconds: float, seed: int) -> dict[str, Any]:
    return {"schema": SCHEMA, "seed": seed, "total_seconds": round(seconds, 2), "rows": [asdict(row) for row in rows]}


def clients_json(rows: Iterable[ScoreRow], *, seconds: float, seed: int) -> dict[str, Any]:
    return {"schema": SCHEMA, "seed": seed, "total_seconds": round(seconds, 2), "rows": [asdict(row) for row in rows]}


# ----------------------------------------------------------------------------------------------------------------------- what if


def matrix_story(rows: Sequence[MatrixRow], *, subtitle: str, seconds: float, command: str = "") -> Story:
    """``subtitle``: the topology, the server and the fault."""
    base = _base(rows)
    table = Table(
        "All settings",
        ("", "min-replicas", "WAIT", "fsync", "timeout ms", "acked", "lost", "gap ms", "p50 ms", "p99 ms", "cost", "writes/s"),
        tuple(
            (
                _SIGNS.get(row.verdict, "?"), str(row.min_replicas), str(row.wait), row.fsync, f"{row.timeout_ms:,}", number(row.acked), number(row.lost),
                _whole(row.gap_ms), number(row.p50_ms), number(row.p99_ms), _times(row.p50_ms, base), _whole(row.per_second),
            )
            for row in rows
        ),
        "Cost: the median latency of acked writes, against min-replicas 0, WAIT 0, everysec. All before the fault.",
        frozenset(range(4, 12)) | {1, 2},
        tuple(_TONES.get(row.verdict, "warn") for row in rows),
    )  # fmt: skip
    grids = (
        _matrix_grid("Acked writes lost", "writes", rows, lambda row: row.lost),
        _matrix_grid("Gap", "ms without an ack", rows, lambda row: row.gap_ms),
        _matrix_grid("Latency", "ms, median before the fault", rows, lambda row: row.p50_ms),
    )
    return Story(
        title="What if: loss, gap and latency by setting",
        subtitle=subtitle,
        verdict=_verdict(row.verdict for row in rows),
        sentence=_sentence(rows),
        tiles=_tiles(rows),
        tables=(table,),
        grids=grids,
        reasons=tuple(f"{row.setting}, {row.timeout_ms} ms: {row.reason}" for row in rows if row.reason),
        command=command,
        command_title="Again",
        footer=f"valkeep drill matrix · {len(rows)} runs in {seconds:,.0f} s on this machine: {COMPARE}",
    )


def _base(rows: Sequence[MatrixRow]) -> float | None:
    return next((row.p50_ms for row in rows if (row.min_replicas, row.wait, row.fsync) == (0, 0, "everysec") and row.p50_ms), None)


def _whole(value: float | None) -> str:
    return number(None if value is None else round(value))


def _times(value: float | None, base: float | None) -> str:
    return f"{value / base:.1f}×" if value and base else "–"


def _matrix_grid(title: str, unit: str, rows: Sequence[MatrixRow], value: Callable[[MatrixRow], float | None]) -> Grid:
    timeouts = sorted({row.timeout_ms for row in rows})
    settings = list(dict.fromkeys(row.setting for row in rows))
    found = {(row.setting, row.timeout_ms): value(row) for row in rows}
    lines = tuple((setting, tuple(found.get((setting, timeout)) for timeout in timeouts)) for setting in settings)
    return Grid(title, unit, tuple(f"{timeout:,} ms" for timeout in timeouts), lines)


def _sentence(rows: Sequence[MatrixRow]) -> str:
    measured = [row for row in rows if row.lost is not None]
    if not measured:
        return "No setting could be measured."
    worst = max(measured, key=lambda row: row.lost or 0)
    none = [row for row in measured if row.lost == 0]
    lost = (
        f"At worst {worst.lost:,} acked writes were lost ({worst.setting}, {worst.timeout_ms:,} ms)"
        if worst.lost
        else "No setting lost an acked write"
    )
    return f"{lost}; {len(none)} of {len(measured)} settings lost none in this one run of each. What was not lost once is not thereby promised."


def _tiles(rows: Sequence[MatrixRow]) -> tuple[Tile, ...]:
    gaps = [row for row in rows if row.gap_ms is not None]
    slow = [row for row in rows if row.p50_ms is not None]
    tiles = []
    if gaps:
        least, most = min(gaps, key=lambda row: row.gap_ms or 0), max(gaps, key=lambda row: row.gap_ms or 0)
        tiles.append(Tile("Shortest gap", number(least.gap_ms), "ms", f"{least.setting}, {least.timeout_ms:,} ms"))
        tiles.append(Tile("Longest gap", number(most.gap_ms), "ms", f"{most.setting}, {most.timeout_ms:,} ms"))
    if slow:
        dear = max(slow, key=lambda row: row.p50_ms or 0)
        tiles.append(
            Tile(
                "Dearest setting",
                number(dear.p50_ms),
                "ms",
                f"median latency: {dear.setting}; {_times(dear.p50_ms, _base(rows))} of the defaults",
            )
        )
    return tuple(tiles)


def _verdict(verdicts: Iterable[str]) -> str:
    found = set(verdicts)
    return "invalid" if "invalid" in found else "unknown" if "unknown" in found or not found else "valid"


# ----------------------------------------------------------------------------------------------------------------------- clients


def clients_story(rows: Sequence[ScoreRow], *, subtitle: str, seconds: float, command: str = "") -> Story:
    table = Table(
        "The same drills with each client",
        ("", "drill", "client", "gap ms", "errors shown", "longest call ms", "sent twice", "lost", "acked"),
        tuple(
            (
                _SIGNS.get(row.verdict, "?"), row.drill, f"{row.client} {row.version}".strip(), _whole(row.gap_ms), number(row.errors), _whole(row.block_ms),
                number(row.duplicates), number(row.lost), number(row.acked),
            )
            for row in rows
        ),
        "Gap: the longest time in which no call of that client succeeded. Errors shown: exceptions that the application had to handle.",
        frozenset({3, 4, 5, 6, 7, 8}),
        tuple(_TONES.get(row.verdict, "warn") for row in rows),
    )  # fmt: skip
    grids = (
        _clients_grid("Gap", "ms without a success", rows, lambda row: row.gap_ms),
        _clients_grid("Errors", "shown to the application", rows, lambda row: row.errors),
        _clients_grid("Longest call", "ms", rows, lambda row: row.block_ms),
    )
    names = list(dict.fromkeys(row.client for row in rows))
    drills = list(dict.fromkeys(row.drill for row in rows))
    return Story(
        title="Scorecard of the clients",
        subtitle=subtitle,
        verdict=_verdict(row.verdict for row in rows),
        sentence=f"{len(names)} clients in {len(drills)} drills, with the same load, seed and faults. Defaults of each library; one run of each.",
        tables=(table,),
        grids=grids,
        reasons=tuple(f"{row.client}, {row.drill}: {row.reason}" for row in rows if row.reason),
        command=command,
        command_title="Again",
        footer=f"valkeep drill clients · {seconds:,.0f} s on this machine: {COMPARE}",
    )


def _clients_grid(title: str, unit: str, rows: Sequence[ScoreRow], value: Callable[[ScoreRow], float | None]) -> Grid:
    names = list(dict.fromkeys(row.client for row in rows))
    drills = list(dict.fromkeys(row.drill for row in rows))
    found = {(row.client, row.drill): value(row) for row in rows}
    return Grid(title, unit, tuple(drills), tuple((name, tuple(found.get((name, drill)) for drill in drills)) for name in names))
