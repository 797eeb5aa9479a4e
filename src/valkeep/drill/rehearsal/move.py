"""The move itself, as the rehearsal calls it: one function, so that another way of moving can take its place in tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from valkeep.client.endpoint import Endpoint
from valkeep.report.events import Emit, Event, VerdictEvent

__all__ = ["Move", "MoveRequest", "Moved", "through_gateway"]


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """``field_ttl``: keep-field, drop-field or refuse. ``report``: the folder for the move's own files; ``work``: for what it needs
    meanwhile. ``clock``: seconds on the rehearsal's clock."""

    source: Endpoint
    target: Endpoint
    field_ttl: str
    report: Path
    work: Path
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move says of itself. ``write_pause_ms``: by its own clock; ``mismatches``: keys that its verification found to differ;
    ``timeline``: (step, seconds on the rehearsal's clock)."""

    verdict: str
    keys: int
    full_sync_seconds: float
    mismatches: int
    write_pause_ms: float | None
    source_rdb_version: int | None
    unexpected_error_replies: int
    ledger: list[dict[str, object]] = field(default_factory=list)
    timeline: tuple[tuple[str, float], ...] = ()
    verification: dict[str, Any] = field(default_factory=dict)
    preflight: str = ""


Move = Callable[[MoveRequest, Emit], Awaitable[Moved]]


async def through_gateway(request: MoveRequest, emit: Emit) -> Moved:
    """Preflight, gateway, verification and cut-over, as ``valkeep migrate run`` does them, with every known condition acknowledged.

    Raises ``ValkeepError`` where the migration refuses or stops; the target is detached then and the source goes on.
    """
    from valkeep.migrate.run.pipeline import ALL, RunOptions, run
    from valkeep.migrate.transform.target import FieldTtl

    options = RunOptions(
        source=request.source,
        target=request.target,
        field_ttl=FieldTtl(request.field_ttl),
        accept=frozenset([ALL]),
        report=request.report,
        spool=request.work / "spool",
        state=request.work / "state",
    )
    result = await run(options, lambda event: emit(_as_part(event)), request.clock)
    comparison = result.verification
    return Moved(
        verdict=result.verdict,
        keys=result.keys,
        full_sync_seconds=result.full_sync_seconds,
        mismatches=result.mismatches,
        write_pause_ms=result.write_pause_ms,
        source_rdb_version=result.source_rdb_version,
        unexpected_error_replies=result.unexpected_error_replies,
        ledger=result.ledger,
        timeline=result.timeline,
        verification=comparison.to_json() if comparison is not None else {},
        preflight=str(result.preflight.verdict),
    )


def _as_part(event: Event) -> Event:
    """The verdict of the migration is not the rehearsal's."""
    if isinstance(event, VerdictEvent) and "of" not in event.detail:
        return replace(event, detail={"of": "move", **event.detail})
    return event
