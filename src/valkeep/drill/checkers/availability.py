"""How long nobody could write, what clients were told, and how long they waited: measured, hardly judged.

A *gap* is the longest time without an ack of a write that survived: a stale primary's acks, which are lost later, do not end it. A shard
that is silent until the end has a gap until the end. *Phases*: before the first fault, from then until the last is over, and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from valkeep.drill.checkers.evidence import ELSEWHERE, LOST, WRITES, Evidence
from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.history import Outcome

__all__ = ["Availability", "Gap", "Phase", "measure_availability"]

_OK: Final = int(Outcome.OK)


@dataclass(frozen=True, slots=True)
class Gap:
    """``begins``, ``ends``: ns, the acks on both sides, or the end of the load."""

    shard: int
    begins: int
    ends: int

    @property
    def ms(self) -> float:
        return (self.ends - self.begins) / 1e6

    def to_json(self) -> dict[str, object]:
        return {"shard": self.shard, "begins": self.begins, "ends": self.ends, "ms": self.ms}


@dataclass(frozen=True, slots=True)
class Phase:
    """``name``: before, during or after. Latencies in ms, of acked operations; 0 where there are none."""

    name: str
    acked: int
    refused: int
    indefinite: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "acked": self.acked,
            "refused": self.refused,
            "indefinite": self.indefinite,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
        }


@dataclass(frozen=True, slots=True)
class Availability:
    """``gaps``: one for each shard that acked writes, the longest first."""

    gaps: tuple[Gap, ...]
    errors: dict[str, int]
    phases: tuple[Phase, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "gaps": [gap.to_json() for gap in self.gaps],
            "errors": dict(self.errors),
            "phases": [phase.to_json() for phase in self.phases],
        }


def measure_availability(evidence: Evidence, faults: Sequence[tuple[int, int]]) -> tuple[Availability, Judgement]:
    """``faults``: from, to in ns. The judgement is unknown when nothing was acked, and valid otherwise."""
    columns = evidence.columns
    gaps = _gaps(evidence)
    first = min((begin for begin, _ in faults), default=1 << 62)
    last = max((end for _, end in faults), default=1 << 62)
    names = ("before", "during", "after")
    waits: tuple[list[int], ...] = ([], [], [])
    others = [[0, 0], [0, 0], [0, 0]]
    for outcome, invoked, returned in zip(columns.outcome, columns.invoked, columns.returned, strict=True):
        phase = 0 if 0 <= returned < first else 2 if invoked > last else 1
        if outcome == _OK:
            waits[phase].append(returned - invoked)
        else:
            others[phase][outcome != Outcome.FAIL] += 1
    phases = tuple(_phase(name, took, *counts) for name, took, counts in zip(names, waits, others, strict=True))
    acked = sum(phase.acked for phase in phases)
    found = Availability(gaps, evidence.history.error_counts(), phases)
    if not acked:
        return found, Judgement("availability", "unknown", 0, 0, {}, (), "no operation was acked")
    note = f"longest time without a write that lasts: {gaps[0].ms:.0f} ms (shard {gaps[0].shard})" if gaps else "no write was acked"
    return found, Judgement("availability", "valid", acked, 0, {}, (), note)


def _gaps(evidence: Evidence) -> tuple[Gap, ...]:
    columns = evidence.columns
    writes = bytearray(name in WRITES for name in evidence.history.functions.names)
    shards = [reign.shard for reign in evidence.reigns] + [0] * (ELSEWHERE + 1 - len(evidence.reigns))
    acks: dict[int, list[int]] = {}
    everything = zip(columns.function, columns.outcome, evidence.reign, evidence.fate, columns.returned, strict=True)
    for function, outcome, reign, fate, returned in everything:
        if outcome == _OK and writes[function] and fate != LOST and reign != ELSEWHERE:
            acks.setdefault(shards[reign], []).append(returned)
    end = max(columns.invoked, default=0)
    found: list[Gap] = []
    for shard, times in acks.items():
        times.sort()
        times.append(max(end, times[-1]))
        begins, ends = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
        found.append(Gap(shard, begins, ends))
    return tuple(sorted(found, key=lambda gap: -gap.ms))


def _phase(name: str, took: list[int], refused: int, indefinite: int) -> Phase:
    took.sort()
    count = len(took)
    if not count:
        return Phase(name, 0, refused, indefinite, 0.0, 0.0, 0.0)
    at = [took[count // 2], took[min(count - 1, count * 99 // 100)], took[-1]]
    return Phase(name, count, refused, indefinite, *(ns / 1e6 for ns in at))
