"""Numbers from the moments at which writes were acked: rates, gaps. Times in ns, ascending."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Gap", "longest_gap", "rate", "rates"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Two acked writes with none between them."""

    start: int
    end: int

    @property
    def ms(self) -> float:
        return (self.end - self.start) / 1e6


def longest_gap(acks: Sequence[int], low: int, high: int) -> Gap:
    """The longest gap that overlaps [``low``, ``high``]; one that no later ack ends, ends at ``high``."""
    first = max(0, bisect_left(acks, low) - 1)
    last = min(len(acks), bisect_right(acks, high) + 1)
    window = list(acks[first:last])
    if len(window) < 2:
        return Gap(low, high)
    if window[-1] < high:
        window.append(high)
    start, end = max(pairwise(window), key=lambda pair: pair[1] - pair[0])
    return Gap(start, end)


def rate(acks: Sequence[int], low: int, high: int) -> float:
    """Acked writes per second in [``low``, ``high``)."""
    return (bisect_left(acks, high) - bisect_left(acks, low)) / max((high - low) / 1e9, 1e-9)


def rates(acks: Sequence[int], origin: int, bucket_ms: int = 50) -> list[tuple[float, float]]:
    """(seconds since ``origin`` of a bucket's middle, acked writes per second in it), from the first to the last ack, without holes."""
    if not acks:
        return []
    width = bucket_ms * 1_000_000
    first, last = (acks[0] - origin) // width, (acks[-1] - origin) // width
    counts = [0] * (last - first + 1)
    for at in acks:
        counts[(at - origin) // width - first] += 1
    return [((first + place + 0.5) * width / 1e9, count * 1000 / bucket_ms) for place, count in enumerate(counts)]
