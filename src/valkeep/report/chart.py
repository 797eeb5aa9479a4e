"""A panel as one SVG: lanes of spans, marks, and charts under each other on one time axis.

    ┌───────────────────────────────────────────────┐
    │ [sync     ][verify][cut]                      │  spans, each in the first lane where it fits
    │ 6k ┤  ▁▂▇▇▇▇▇▇▇▇▇▇▇▇│ ▇▇▇▇▇▇▇▇│  ▇▇▇▇▇          │  charts; bands (a pause, a failover) run through all of them
    │ 0  ┤──────────┬─────────┬─────────┬───────    │
    └───────────────────────────────────────────────┘

Colours are CSS variables, so that one file serves light and dark. Pure: values in, text out.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

from valkeep.report.story import Chart, Panel, Series, Span

__all__ = ["draw", "nice_step", "short"]

LEFT, RIGHT = 54, 24
LANE, LANE_GAP = 22, 4
MARK_ROW = 15
MAX_POINTS: Final = 1500  # of one series; more would only make the file bigger


@dataclass(frozen=True, slots=True)
class Axis:
    start: float
    end: float
    zero: float
    width: int

    def x(self, at: float) -> float:
        return LEFT + (at - self.start) / (self.end - self.start) * (self.width - LEFT - RIGHT)

    @property
    def in_ms(self) -> bool:
        return self.end - self.start < 3.0


def nice_step(span: float, about: int) -> float:
    """1, 2 or 5 times a power of ten, so that ``span`` has about so many steps."""
    raw = span / max(about, 1)
    if raw <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)


def short(value: float) -> str:
    """12500 → 12.5k; for axes."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def draw(panel: Panel, *, width: int = 1040) -> str:
    """A ``<figure>`` with the SVG, its data for the cross-hair and its tool tip."""
    axis = Axis(panel.start, max(panel.end, panel.start + 1e-6), panel.zero, width)
    out: list[str] = []
    y = 4.0
    y = _spans(out, panel.spans, axis, y)
    top = y
    y = _marks_height(panel, axis, y)
    chart_parts: list[str] = []
    for chart in panel.charts:
        y = _chart(chart_parts, chart, axis, y)
    bottom = y
    for span in panel.spans:
        if span.band:
            left, right = axis.x(max(span.start, axis.start)), axis.x(min(span.end, axis.end))
            out.append(
                f'<rect class="band" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1.5):.1f}" height="{bottom - top:.1f}"/>'
            )
    out += chart_parts
    _marks(out, panel, axis, top, bottom)
    y = _ticks(out, axis, bottom)
    out.append(f'<line class="cross" y1="{top:.0f}" y2="{bottom:.0f}"/>')
    body = "".join(out)
    label = escape(panel.title, quote=True)
    return (
        f'<figure data-panel><svg viewBox="0 0 {width} {y:.0f}" role="img" aria-label="{label}">{body}</svg>'
        f'<div class="tip"></div><script type="application/json">{_data(panel, axis)}</script></figure>{_legend(panel)}'
    )


def _spans(out: list[str], spans: tuple[Span, ...], axis: Axis, y: float) -> float:
    lanes: list[float] = []
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if not span.name or span.end < axis.start or span.start > axis.end:  # without a name: only a band
            continue
        left, right = axis.x(max(span.start, axis.start)), axis.x(min(span.end, axis.end))
        right = max(right, left + 3)
        fits = right - left > len(span.name) * 6.4 + 10
        needs = right if fits else right + len(span.name) * 6.4 + 8
        lane = next((at for at, taken in enumerate(lanes) if taken <= left + 0.5), len(lanes))
        if lane == len(lanes):
            lanes.append(0.0)
        lanes[lane] = needs
        row = y + lane * (LANE + LANE_GAP)
        outside = needs > axis.width  # the label would leave the picture: put it to the left
        text_x, anchor = (left + 6, "start") if fits else (left - 4, "end") if outside else (right + 4, "start")
        note = f": {span.note}" if span.note else ""
        out.append(
            f'<g class="span"><title>{escape(span.name + note)} ({span.end - span.start:.3f} s)</title>'
            f'<rect x="{left:.1f}" y="{row:.1f}" width="{right - left:.1f}" height="{LANE}" fill="var(--{span.tone})" fill-opacity=".28"/>'
            f'<rect x="{left:.1f}" y="{row:.1f}" width="3" height="{LANE}" fill="var(--{span.tone})"/>'
            f'<text x="{text_x:.1f}" y="{row + 15:.1f}" text-anchor="{anchor}">{escape(span.name)}</text></g>'
        )
    return y + len(lanes) * (LANE + LANE_GAP) + (6 if lanes else 0)


def _mark_rows(panel: Panel, axis: Axis) -> list[tuple[int, float, str, str]]:
    """(row, x, label, tone): labels that would overlap get rows of their own."""
    rows: list[float] = []
    placed = []
    for mark in sorted(panel.marks, key=lambda one: one.at):
        if not axis.start <= mark.at <= axis.end:
            continue
        x, wide = axis.x(mark.at), len(mark.label) * 6.2 + 8
        left = x - wide if x + wide > axis.width else x
        row = next((at for at, taken in enumerate(rows) if taken <= left), len(rows))
        if row == len(rows):
            rows.append(0.0)
        rows[row] = left + wide
        placed.append((row, x, mark.label, mark.tone))
    return placed


def _marks_height(panel: Panel, axis: Axis, y: float) -> float:
    placed = _mark_rows(panel, axis)
    return y + (max((row for row, *_ in placed), default=-1) + 1) * MARK_ROW


def _marks(out: list[str], panel: Panel, axis: Axis, top: float, bottom: float) -> None:
    for row, x, label, tone in _mark_rows(panel, axis):
        wide = len(label) * 6.2 + 8
        anchor, shift = ("end", -4) if x + wide > axis.width else ("start", 4)
        text_y = top + row * MARK_ROW + 10
        out.append(
            f'<g class="mark"><line x1="{x:.1f}" x2="{x:.1f}" y1="{text_y - 9:.1f}" y2="{bottom:.1f}" stroke="var(--{tone})"/>'
            f'<text x="{x + shift:.1f}" y="{text_y:.1f}" text-anchor="{anchor}" style="fill:var(--{tone})">{escape(label)}</text></g>'
        )


def _chart(out: list[str], chart: Chart, axis: Axis, y: float) -> float:
    values = [value for series in chart.series for at, value in series.points if value is not None and axis.start <= at <= axis.end]
    peak = max(values, default=0.0) or 1.0
    step = nice_step(peak, 3)
    high = math.ceil(peak / step) * step
    top, bottom = y + 22, y + 22 + chart.height
    unit = f" ({chart.unit})" if chart.unit else ""
    out.append(f'<text class="title" x="{LEFT}" y="{y + 14:.0f}">{escape(chart.title + unit)}</text>')
    level = 0.0
    while level <= high * 1.0001:
        row = bottom - level / high * chart.height
        kind = "axis" if level == 0 else "grid"
        out.append(f'<line class="{kind}" x1="{LEFT}" x2="{axis.width - RIGHT}" y1="{row:.1f}" y2="{row:.1f}"/>')
        out.append(f'<text x="{LEFT - 7}" y="{row + 4:.1f}" text-anchor="end">{short(level)}</text>')
        level += step
    for series in chart.series:
        _line(out, series, chart, axis, top, bottom, high)
    return bottom + 10


def _line(out: list[str], series: Series, chart: Chart, axis: Axis, top: float, bottom: float, high: float) -> None:
    for run in _runs(_thinned(series.points), axis):
        places = [(axis.x(at), bottom - min(value, high) / high * (bottom - top)) for at, value in run]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        if chart.area:
            filled = f"{path}L{places[-1][0]:.1f} {bottom:.1f}L{places[0][0]:.1f} {bottom:.1f}Z"
            out.append(f'<path d="{filled}" fill="var(--{series.tone})" fill-opacity=".22"/>')
        out.append(f'<path d="{path}" fill="none" stroke="var(--{series.tone})" stroke-width="1.6" stroke-linejoin="round"/>')


def _runs(points: list[tuple[float, float | None]], axis: Axis) -> list[list[tuple[float, float]]]:
    """Unbroken pieces inside the axis."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None or not axis.start <= at <= axis.end:
            if runs[-1]:
                runs.append([])
        else:
            runs[-1].append((at, value))
    return [run for run in runs if run]


def _thinned(points: tuple[tuple[float, float | None], ...]) -> list[tuple[float, float | None]]:
    """At most ``MAX_POINTS``: of each group the first, so that breaks stay."""
    if len(points) <= MAX_POINTS:
        return list(points)
    every = math.ceil(len(points) / MAX_POINTS)
    return [point for place, point in enumerate(points) if place % every == 0 or point[1] is None]


def _ticks(out: list[str], axis: Axis, bottom: float) -> float:
    step = nice_step(axis.end - axis.start, max(4, axis.width // 110))
    at = axis.zero + math.ceil((axis.start - axis.zero) / step) * step
    while at <= axis.end + 1e-9:
        x, value = axis.x(at), round(at - axis.zero, 9)
        label = f"{value * 1000:g} ms" if axis.in_ms else f"{value:g} s" if step >= 1 else f"{value:.1f} s"
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom - 10:.1f}" y2="{bottom - 5:.1f}"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 9:.1f}" text-anchor="middle">{label}</text>')
        at += step
    return bottom + 16


def _legend(panel: Panel) -> str:
    seen: dict[str, str] = {}
    for chart in panel.charts:
        if len(chart.series) > 1:
            seen |= {series.name: series.tone for series in chart.series}
    items = "".join(f'<span><i style="background:var(--{tone})"></i>{escape(name)}</span>' for name, tone in seen.items())
    return f'<div class="legend">{items}</div>' if items else ""


def _data(panel: Panel, axis: Axis) -> str:
    series = []
    for chart in panel.charts:
        for one in chart.series:
            points = [
                (round(at, 4), value if value is None else round(value, 2))
                for at, value in _thinned(one.points)
                if axis.start <= at <= axis.end
            ]
            gaps = sorted(later[0] - earlier[0] for earlier, later in pairwise(points))
            near = max(gaps[len(gaps) // 2] * 2 if gaps else 0.0, (axis.end - axis.start) / 200)
            series.append({"name": one.name, "tone": one.tone, "unit": chart.unit, "near": near, "points": points})
    data = {
        "start": axis.start, "end": axis.end, "zero": axis.zero, "ms": axis.in_ms, "width": axis.width, "left": LEFT, "right": axis.width - RIGHT,
        "spans": [{"name": span.name, "start": span.start, "end": span.end} for span in panel.spans], "series": series,
    }  # fmt: skip
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
