"""Two ways measured in pairs, one right after the other, and what is known of their ratio.

The ratio of a pair is free of what the machine does slowly; the median of the ratios is free of what it does now and then. How far the true median
may be off is said by the sign test: each ratio lies above it or below with even chance, so the order statistics number k and n + 1 - k of the ratios
hold it between them with the chance that a fair coin falls from k to n - k times on one side. No distribution is assumed. Six pairs are the fewest
that reach 95%.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Final

__all__ = ["CONFIDENCE", "Interval", "Pairs", "alternating", "median_interval"]

CONFIDENCE: Final = 0.95
NATIVE: Final = "native"
THROUGH: Final = "through"


def alternating(pairs: int) -> Iterator[tuple[int, str]]:
    """(number of the pair, which way), the first of a pair being the second of the next. Pair 0 warms caches up and is not to be counted."""
    for pair in range(pairs + 1):
        for way in (NATIVE, THROUGH) if pair % 2 else (THROUGH, NATIVE):
            yield pair, way


@dataclass(frozen=True, slots=True)
class Interval:
    """The median lies from ``low`` to ``high`` with at least ``CONFIDENCE``; ``confidence``: what it is exactly, for this number of values."""

    low: float
    high: float
    confidence: float


def median_interval(values: Sequence[float]) -> Interval | None:
    """None: too few values for ``CONFIDENCE``."""
    ordered = sorted(values)
    found = None
    for rank in range(1, (len(ordered) + 1) // 2 + 1):
        inside = sum(comb(len(ordered), heads) for heads in range(rank, len(ordered) - rank + 1)) / 2 ** len(ordered)
        if inside < CONFIDENCE:
            break
        found = Interval(ordered[rank - 1], ordered[-rank], inside)
    return found


class Pairs:
    """Seconds of both ways, in the order of the pairs."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {NATIVE: [], THROUGH: []}

    def add(self, way: str, seconds: float) -> None:
        self.samples[way].append(seconds)

    @property
    def native(self) -> list[float]:
        return self.samples[NATIVE]

    @property
    def through(self) -> list[float]:
        return self.samples[THROUGH]

    @property
    def ratios(self) -> list[float]:
        return [one / other for one, other in zip(self.through, self.native, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios: what counts."""
        return median(self.ratios)

    @property
    def ratio_of_medians(self) -> float:
        """Blind to which measurements were neighbours; where it is far from ``ratio``, few pairs decide."""
        return median(self.through) / median(self.native)

    def said(self) -> str:
        """How sure the ratio is, for people."""
        interval = median_interval(self.ratios)
        sure = f"95% confidence {interval.low:.2f} to {interval.high:.2f}" if interval else "too few pairs for an interval"
        return f"{len(self.ratios)} pairs, {sure}; ratio of the medians {self.ratio_of_medians:.2f}"
