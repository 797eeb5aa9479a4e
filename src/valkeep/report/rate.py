"""The event of those who write while a job runs: how much was acked, and by whom."""

from __future__ import annotations

from dataclasses import dataclass

from valkeep.report.events import Event

__all__ = ["Rate"]


@dataclass(frozen=True, slots=True)
class Rate(Event):
    """``acked``: operations so far; ``per_second``: over the last tick; ``node``: who acked last ("source", "target", "replica")."""

    acked: int
    per_second: float
    node: str
