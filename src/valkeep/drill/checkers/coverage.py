"""Slot coverage: for how long some of the 16384 slots were served by nobody, and whether all were at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from valkeep.drill.checkers.judgement import Findings, Judgement

__all__ = ["Coverage", "SlotSample", "check_coverage"]


class SlotSample(NamedTuple):
    """One look at the cluster. ``at``: ns. ``uncovered``: slots that no reachable primary serves; ``disputed``: slots that two say they own."""

    at: int
    uncovered: int
    disputed: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """``uncovered_ms``: how long any slot was uncovered, all times together; ``longest_ms``: at one time; ``most``: slots at one moment."""

    uncovered_ms: float
    longest_ms: float
    most: int

    def to_json(self) -> dict[str, object]:
        return {"uncovered_ms": self.uncovered_ms, "longest_ms": self.longest_ms, "most": self.most}


def check_coverage(samples: Sequence[SlotSample]) -> tuple[Coverage, Judgement]:
    """Ascending in time; what a sample says holds until the next. Invalid where the last one is not whole, unknown without samples."""
    if not samples:
        return Coverage(0.0, 0.0, 0), Judgement("coverage", "unknown", 0, 0, {}, (), "nobody looked at the slots")
    findings = Findings("coverage", len(samples))
    total, longest, since = 0, 0, -1
    for sample in samples:
        if sample.uncovered and since < 0:
            since = sample.at
        elif not sample.uncovered and since >= 0:
            total, longest, since = total + sample.at - since, max(longest, sample.at - since), -1
    last = samples[-1]
    if since >= 0:
        total, longest = total + last.at - since, max(longest, last.at - since)
        findings.add("uncovered", b"", f"{last.uncovered} slots are served by nobody at the end")
    if last.disputed:
        findings.add("disputed", b"", f"{last.disputed} slots are claimed by two primaries at the end")
    found = Coverage(total / 1e6, longest / 1e6, max(sample.uncovered for sample in samples))
    note = (
        f"slots were uncovered for {found.uncovered_ms:.0f} ms, {found.most} at most"
        if found.most
        else "all slots were served all the time"
    )
    return found, findings.judgement(note)
