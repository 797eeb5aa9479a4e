"""How large and how long a run is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.data import Snapshots

__all__ = ["BenchOptions"]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """``pairs``: interleaved pairs of each ratio, None for what each measurement thinks right. ``keys``: of the full syncs. ``say``: takes lines for the
    person who waits."""

    pairs: int | None
    keys: int
    verify_keys: int
    big_fields: int
    big_string: int
    stall_seconds: float
    lag_seconds: float
    drain_commands: int
    drain_pairs: int
    cutovers: int
    cutover_keys: int
    snapshots: Snapshots
    say: Callable[[str], None]
