"""What happened, kept in memory for a picture: phases as spans, lag and rates as series, notes as log lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from valkeep.report.events import Event, Fault, Held, Lag, LedgerEntry, Note, Phase, Progress, VerdictEvent
from valkeep.report.rate import Rate
from valkeep.report.story import Chart, Line, Series, Span

__all__ = ["LABELS", "Recording", "is_news", "label", "spans_between", "thin"]

Point = tuple[float, float | None]

LEAST: Final = 0.05
"""Seconds: a rate is over no less."""

LABELS: Final = {
    "attach": "target told to follow",
    "snapshot-taken": "snapshot taken",
    "online": "target online",
    "drain-after-fence": "drain again",
    "wait-for-shards": "wait for the other shards",
    "wait-for-silence": "wait for silence",
    "verify-changed": "verify changes",
    "verify-full": "compare every key",
    "verify-snapshots": "compare two snapshots",
    "verify-round": "compare what was written",
    "verify-final": "compare what was written last",
    "verify-repair": "copy differing keys again",
}
"""Moments, for people; others are shown as they are."""

PERIODS: Final = {
    "attach": "snapshot",
    "snapshot-taken": "target loads",
    "online": "follow",
    "verified": "verify changes",
    "pause": "cut-over",
}
"""What lasts from a moment until the next one."""


def is_news(event: Event) -> bool:
    """Whether people are told. While a move waits for its cut-over, what is written meanwhile is compared every few seconds; that it is equal is no news."""
    match event:
        case Phase(name="verify-round") | VerdictEvent(verdict="valid", detail={"of": "verify-round"}):
            return False
        case _:
            return True


def label(step: str) -> str:
    """``cutover:drain-after-fence`` → ``drain again``."""
    name = step.rpartition(":")[2]
    return LABELS.get(name, name)


def thin(points: Sequence[Point], every: float) -> tuple[Point, ...]:
    """At most one point in ``every`` seconds: the highest."""
    out: list[Point] = []
    for at, value in points:
        if out and at - out[-1][0] < every:
            if (value or 0) > (out[-1][1] or 0):
                out[-1] = (out[-1][0], value)
        else:
            out.append((at, value))
    return tuple(out)


def period(step: str) -> str:
    """What lasts from this step until the next one."""
    name = step.rpartition(":")[2]
    return PERIODS.get(name, name)


def spans_between(
    steps: Sequence[tuple[str, float]], end: float, *, tone: str = "plain", least: float = 0.05, names: Callable[[str], str] = period
) -> tuple[Span, ...]:
    """Each step lasts until the next; what is shorter than ``least`` seconds is left out (the magnified panel has it)."""
    ends = [*[at for _, at in steps[1:]], end][: len(steps)]
    return tuple(Span(names(name), at, until, tone) for (name, at), until in zip(steps, ends, strict=True) if until - at >= least)


class Recording:
    """Subscribe ``emit``; then ask for spans, charts and lines."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.steps: list[tuple[str, float]] = []
        self.lag: list[tuple[float, Lag]] = []
        self.held: list[Held] = []
        self.rates: list[Rate] = []
        self.progress: dict[str, list[Progress]] = {}
        self.lines: list[Line] = []
        self.verdict = ""
        self.end = 0.0
        for event in events:
            self.emit(event)

    def emit(self, event: Event) -> None:
        self.end = max(self.end, event.at)
        if not is_news(event):
            return
        match event:
            case Phase(at=at, name=name, done=done, detail=detail):
                if not done:
                    self.steps.append((name, at))
                    self.lines.append(Line(at, "info", f"{name}{': ' if detail else ''}{detail}"))
            case Lag(at=at):
                self.lag.append((at, event))
            case Held():
                self.held.append(event)
            case Rate():
                self.rates.append(event)
            case Progress(phase=phase):
                self.progress.setdefault(phase, []).append(event)
            case Note(at=at, level=level, text=text):
                self.lines.append(Line(at, level, text))
            case Fault(at=at):
                self.lines.append(
                    Line(at, "warning", f"{'healed: ' if event.healed else ''}{event.name} {event.target}: {', '.join(event.nodes)}")
                )
            case LedgerEntry(at=at):
                if event.action in ("refused", "held"):
                    self.lines.append(Line(at, "warning", f"{event.action}: {event.what}: {event.why}"))
            case VerdictEvent(at=at, verdict=verdict, detail=detail):
                self.verdict = self.verdict if "of" in detail else verdict
                self.lines.append(Line(at, "info", f"{label(detail.get('of', 'verdict'))}: {verdict}"))
            case _:
                pass

    def charts_of_lag(self, every: float = 0.05) -> tuple[Chart, ...]:
        """Lag in bytes, in milliseconds where markers were measured, and what was held where something was."""
        charts = []
        in_ms = thin([(at, lag.milliseconds) for at, lag in self.lag if lag.milliseconds is not None], every)
        in_bytes = thin([(at, float(lag.bytes)) for at, lag in self.lag], every)
        if len(in_ms) > 1:
            charts.append(Chart("Lag of the target", "ms", (Series("lag", "lag", in_ms),), height=90))
        if len(in_bytes) > 1:
            charts.append(Chart("Lag of the target", "bytes", (Series("lag", "lag", in_bytes),), height=90))
        held = thin([(one.at, float(one.bytes)) for one in self.held], every)
        if len(held) > 1:
            charts.append(Chart("Held: something could not be sent", "bytes", (Series("held", "bad", held),), height=90))
        return tuple(charts)

    def chart_of_keys(self) -> Chart | None:
        """Keys per second in the phases that count keys."""
        series: list[Series] = []
        for phase, listed in self.progress.items():
            points: list[Point] = []
            since = listed[0]
            for one in listed[1:]:
                if one.keys < since.keys:
                    since = one
                elif one.at - since.at >= LEAST:  # several servers tell at almost the same time: between two words of theirs lies no rate
                    points.append((one.at, (one.keys - since.keys) / (one.at - since.at)))
                    since = one
            if len(points) > 1 and any(value for _, value in points):  # one point draws no line
                series.append(Series(phase, "target" if len(series) % 2 == 0 else "replica", tuple(points)))
        return Chart("Keys", "per second", tuple(series), area=True, height=110) if series else None
