"""What a measurement came to: a figure beside its target, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from bench.pairs import Pairs, median_interval

__all__ = ["Failure", "Figure", "table"]


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` in ``unit`` ("x": a ratio to native replication). ``least``: the target is a lower bound, else an upper one; ``target`` None: for
    information. ``said``: how it came about, for people. ``samples``: what was measured, by name, in order of the pairs. ``pairs``: where the value is their
    ratio."""

    name: str
    value: float
    unit: str
    target: float | None = None
    least: bool = False
    said: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    pairs: Pairs | None = None

    @classmethod
    def ratio(cls, name: str, pairs: Pairs, target: float, said: str) -> Self:
        """The median of the pairs' ratios against a target, with how sure it is."""
        return cls(name, pairs.ratio, "x", target, said=f"{said} ({pairs.said()})", samples=pairs.samples, pairs=pairs)

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "target": self.target,
            "bound": "at least" if self.least else "at most",
            "met": self.met,
            "said": self.said,
            **self._sureness(),
            "samples": {name: [round(value, 4) for value in values] for name, values in self.samples.items()},
        }

    def _sureness(self) -> dict[str, Any]:
        if self.pairs is None:
            return {}
        interval = median_interval(self.pairs.ratios)
        return {
            "interval": {"low": round(interval.low, 4), "high": round(interval.high, 4), "confidence": round(interval.confidence, 4)}
            if interval
            else None,
            "ratio_of_medians": round(self.pairs.ratio_of_medians, 4),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A measurement that did not come to an end."""

    name: str
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "met": None, "failed": self.why}


def _amount(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 20 else f"{value:.2f}"
    return f"{number} {unit}" if unit != "x" else f"{number} x"


def table(results: Sequence[Figure | Failure]) -> str:
    """One line each: figure, target, met or not, and how it came about."""
    rows = [("what", "figure", "target", "", "how")]
    for one in results:
        if isinstance(one, Failure):
            rows.append((one.name, "-", "-", "FAILED", one.why))
            continue
        bound = "" if one.target is None else f"{'≥' if one.least else '≤'} {_amount(one.target, one.unit)}"
        verdict = {None: "", True: "met", False: "NOT MET"}[one.met]
        rows.append((one.name, _amount(one.value, one.unit), bound, verdict, one.said))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3].ljust(widths[3]), row[4]]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * len(widths) + len(rows[0][4])))
    return "\n".join(lines)
