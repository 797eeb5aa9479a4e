"""Every operation of a run on one time axis, packed into the page: what ``unpack.js`` unpacks and ``timeline.js`` draws on a canvas.

    header (JSON): names, faults, marks, rates, percentiles        one deflated block, base64,
    columns: time, latency, client, function, node, key, value …   ~7 bytes an operation

A column is fixed-width little-endian integers stored by *planes*: first the lowest byte of every operation, then the next one. Most planes
are then all zeros or nearly constant, and deflate makes nothing of them; so each column may be as wide as is simple, and no code
on either side counts bits. What grows with time is stored as the difference to the one before: times to the previous operation, values to the
client's last value, results to the key's last result (both modulo 2^64).

More than `LIMIT` operations are thinned, and the page says so: what is lost, failed or unknown stays, and of each moment the slowest and the
quickest; the rest is evenly picked. Rates and percentiles are of all operations. Seconds on the run's clock everywhere, microseconds inside.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from valkeep.report.chart import nice_step
from valkeep.report.story import Chart, Mark, Panel, Series, Span

__all__ = ["FAIL", "INFO", "LIMIT", "OK", "Shown", "Timeline", "Trend", "overview", "packed", "thinned", "trend"]

LIMIT: Final = 100_000  # operations in one page
SLICES: Final = 2000  # moments whose extremes survive the thinning: more than a screen has columns
OK, FAIL, INFO = 0, 1, 2
_LOST, _HAS_VALUE, _HAS_RESULT = 4, 8, 16  # bits beside the outcome
_MASK: Final = (1 << 64) - 1
_TONES: Final = ("target", "replica", "lag", "source", "plain")


class Shown(NamedTuple):
    """One operation. ``invoked``, ``returned``: seconds; ``returned`` < ``invoked``: nothing came back. ``outcome``: OK, FAIL or INFO. ``lost``: acked, and
    not there at the end. ``value`` and ``result``: 64-bit, or None."""

    invoked: float
    returned: float
    client: str
    function: str
    key: str
    outcome: int
    node: str
    error: str = ""
    value: int | None = None
    result: int | None = None
    lost: bool = False

    @property
    def seconds(self) -> float | None:
        """From invocation to return."""
        return self.returned - self.invoked if self.returned >= self.invoked else None


@dataclass(frozen=True, slots=True)
class Trend:
    """Of all operations, in steps of ``step`` seconds from ``start``: acked per second by node, failed and unknown per second (by when they ended), and
    percentiles of the acked ones' latency in ms (by when they began; None where there was none)."""

    start: float
    step: float
    acked: dict[str, list[float]]
    failed: list[float]
    unknown: list[float]
    p50: list[float | None]
    p99: list[float | None]


@dataclass(frozen=True, slots=True)
class Timeline:
    """``start``, ``end``: the axis. ``operations``: by invocation; ``faults``: their bars, and without a name the shades
    through everything; ``marks``: the steps of the recovery."""

    start: float
    end: float
    operations: Sequence[Shown]
    trend: Trend
    faults: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()
    title: str = "Timeline"
    note: str = ""
    limit: int = field(default=LIMIT)


# --------------------------------------------------------------------------------------------------------------- what was measured


def trend(operations: Iterable[Shown], start: float, end: float) -> Trend:
    """In at most some 300 steps, none shorter than 50 ms: clients work in batches, which shorter ones would show as noise."""
    step = max(0.05, nice_step(max(end - start, 0.05), 300))
    count = max(1, math.ceil((end - start) / step - 1e-9))

    def place(at: float) -> int:
        return min(max(int((at - start) / step), 0), count - 1)

    acked: dict[str, list[float]] = {}
    failed, unknown = [0.0] * count, [0.0] * count
    latencies: list[list[float]] = [[] for _ in range(count)]
    for operation in operations:
        ended = place(max(operation.returned, operation.invoked))
        if operation.outcome == OK:
            line = acked.get(operation.node)
            if line is None:
                line = acked[operation.node] = [0.0] * count
            line[ended] += 1 / step
            latencies[place(operation.invoked)].append((operation.returned - operation.invoked) * 1000)
        else:
            (failed if operation.outcome == FAIL else unknown)[ended] += 1 / step
    for bucket in latencies:
        bucket.sort()
    p50 = [bucket[len(bucket) // 2] if bucket else None for bucket in latencies]
    p99 = [bucket[min(len(bucket) - 1, len(bucket) * 99 // 100)] if bucket else None for bucket in latencies]
    return Trend(start, step, dict(sorted(acked.items())), failed, unknown, p50, p99)


def overview(timeline: Timeline) -> Panel:
    """The same without its operations: what a page shows that may not run scripts."""
    found = timeline.trend

    def series(name: str, tone: str, values: Sequence[float | None]) -> Series:
        return Series(name, tone, tuple((found.start + (at + 0.5) * found.step, value) for at, value in enumerate(values)))

    rates = [series(node or "?", _TONES[place % len(_TONES)], line) for place, (node, line) in enumerate(found.acked.items())]
    rates += [
        series(name, tone, line) for name, tone, line in (("failed", "warn", found.failed), ("unknown", "bad", found.unknown)) if any(line)
    ]
    charts = (
        Chart("Acked operations, by node", "per second", tuple(rates), height=130),
        Chart("Latency", "ms", (series("p99", "warn", found.p99), series("p50", "target", found.p50)), height=110),
    )
    return Panel("Overview", timeline.start, timeline.end, "", timeline.faults, timeline.marks, charts)


# --------------------------------------------------------------------------------------------------------------------- thinning


def thinned(operations: Sequence[Shown], limit: int = LIMIT) -> Sequence[Shown]:
    """At most ``limit`` of them (and never fewer than the extremes of `SLICES` moments), in order."""
    if len(operations) <= limit:
        return operations
    special = [at for at, one in enumerate(operations) if one.lost or one.outcome != OK]
    kept = set(special if len(special) <= limit // 2 else _spread(special, limit // 2))
    low, high = operations[0].invoked, operations[-1].invoked
    width = max((high - low) / SLICES, 1e-9)
    slowest: dict[tuple[int, int, bool], tuple[float, int]] = {}
    quickest: dict[tuple[int, int, bool], tuple[float, int]] = {}
    for at, one in enumerate(operations):
        seconds = one.seconds if one.seconds is not None else math.inf
        kind = (int((one.invoked - low) / width), one.outcome, one.lost)
        if kind not in slowest or seconds > slowest[kind][0]:
            slowest[kind] = (seconds, at)
        if kind not in quickest or seconds < quickest[kind][0]:
            quickest[kind] = (seconds, at)
    kept |= {at for _, at in slowest.values()} | {at for _, at in quickest.values()}
    rest = [at for at in range(len(operations)) if at not in kept]
    kept |= set(_spread(rest, limit - len(kept)))
    return [operations[at] for at in sorted(kept)]


def _spread(places: list[int], count: int) -> list[int]:
    """``count`` of them, evenly."""
    if count <= 0:
        return []
    return [places[at * len(places) // count] for at in range(min(count, len(places)))]


# ---------------------------------------------------------------------------------------------------------------------- packing


class _Names:
    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


def packed(timeline: Timeline) -> tuple[str, int]:
    """The block as base64, and how many operations are in it."""
    shown = thinned(timeline.operations, timeline.limit)
    clients, functions, nodes, keys, errors = _Names(), _Names(), _Names(), _Names(), _Names()
    for name in sorted({one.client for one in shown}):  # c1 before c2
        clients(name)
    for node in timeline.trend.acked:  # the same order as in the rates: one colour each
        nodes(node)
    columns: dict[str, array[int]] = {
        name: array("I") for name in ("invoked", "latency", "client", "function", "node", "key", "error", "kind")
    }
    values, results = array("Q"), array("Q")
    last, last_value, last_result = 0, dict[int, int](), dict[int, int]()
    for one in shown:
        at = round((one.invoked - timeline.start) * 1e6)
        client, key = clients(one.client), keys(one.key)
        kind = one.outcome | (_LOST if one.lost else 0)
        if one.value is not None:
            kind |= _HAS_VALUE
            values.append((one.value - last_value.get(client, 0)) & _MASK)
            last_value[client] = one.value
        if one.result is not None:
            kind |= _HAS_RESULT
            results.append((one.result - last_result.get(key, 0)) & _MASK)
            last_result[key] = one.result
        seconds = one.seconds
        latency = 0 if seconds is None else min(round(seconds * 1e6) + 1, 0xFFFFFFFF)
        row = (max(at - last, 0), latency, client, functions(one.function), nodes(one.node), key, errors(one.error), kind)
        last = max(at, last)
        for column, number in zip(columns.values(), row, strict=True):
            column.append(number)
    everything = {**columns, "value": values, "result": results}
    header: dict[str, Any] = {
        "start": timeline.start, "end": timeline.end, "total": len(timeline.operations), "shown": len(shown),
        "columns": [[name, column.itemsize, len(column)] for name, column in everything.items()],
        "clients": list(clients.numbers), "functions": list(functions.numbers),
        "nodes": list(nodes.numbers), "keys": list(keys.numbers), "errors": list(errors.numbers),
        "spans": [{"name": span.name, "start": span.start, "end": span.end, "note": span.note, "band": span.band} for span in timeline.faults],
        "marks": [{"at": mark.at, "label": mark.label, "tone": mark.tone} for mark in timeline.marks],
        "trend": _rounded(timeline.trend),
    }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    parts = [struct.pack("<I", len(text)), text, *(_planes(column) for column in everything.values())]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(squeezer.compress(b"".join(parts)) + squeezer.flush()).decode(), len(shown)


def _planes(column: array[int]) -> bytes:
    ordered = column
    if struct.pack("=I", 1) != struct.pack("<I", 1):
        ordered = array(column.typecode, column)
        ordered.byteswap()
    raw = ordered.tobytes()
    return b"".join(raw[plane :: column.itemsize] for plane in range(column.itemsize))


def _rounded(found: Trend) -> dict[str, Any]:
    def short(line: Sequence[float | None]) -> list[float | None]:
        return [value if value is None else round(value, 3) for value in line]

    return {
        "start": found.start, "step": found.step, "acked": {node: short(line) for node, line in found.acked.items()}, "failed": short(found.failed),
        "unknown": short(found.unknown), "p50": short(found.p50), "p99": short(found.p99),
    }  # fmt: skip
