"""The move itself, as the rehearsal calls it: one function, so that another way of moving can take its place in tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valkeep.client.endpoint import Endpoint
from valkeep.report.events import Emit

__all__ = ["Move", "MoveRequest", "Moved", "through_gateway"]


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """``field_ttl``: keep-field, drop-field or refuse. ``report``: the folder for the move's own files."""

    source: Endpoint
    target: Endpoint
    field_ttl: str
    report: Path
    spool: Path


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move says of itself. ``write_pause_ms``: by its own clock; ``mismatches``: keys that its verification found to differ."""

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


Move = Callable[[MoveRequest, Emit], Awaitable[Moved]]


async def through_gateway(request: MoveRequest, emit: Emit) -> Moved:
    """Preflight, gateway, verification and cut-over, as ``valkeep migrate run`` does them."""
    raise NotImplementedError
