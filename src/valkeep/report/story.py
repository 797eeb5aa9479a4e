"""A job as a picture: what every report page shows, as plain values.

The pages know nothing of migrations or drills. Whoever has something to show makes a `Story`: a verdict and its sentence, a row of
numbers, panels that share one time axis (spans, marks and charts), tables and a log. ``html`` draws it; ``terminal`` prints its
tables. All times are seconds on the job's clock. ``tone`` is one of plain, good, warn, bad, and for series and spans also source,
target, replica, lag: the page's colours, in both its light and its dark form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Chart", "Grid", "Line", "Mark", "Panel", "Series", "Span", "Story", "Table", "Tile", "YOUR_OWN"]


YOUR_OWN: Final = "Next: your own source"


@dataclass(frozen=True, slots=True)
class Tile:
    """One number: ``value`` as shown, ``unit`` beside it, ``note`` under it."""

    label: str
    value: str
    unit: str = ""
    note: str = ""
    tone: str = "plain"


@dataclass(frozen=True, slots=True)
class Series:
    """``points``: (seconds, value), ascending; None breaks the line."""

    name: str
    tone: str
    points: tuple[tuple[float, float | None], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """``area``: filled down to zero. Several series share one scale from zero."""

    title: str
    unit: str
    series: tuple[Series, ...]
    area: bool = False
    height: int = 130


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted. ``band``: also shaded through all charts of the panel."""

    name: str
    start: float
    end: float
    tone: str = "plain"
    note: str = ""
    band: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment."""

    at: float
    label: str
    tone: str = "plain"


@dataclass(frozen=True, slots=True)
class Panel:
    """One time axis from ``start`` to ``end``. ``zero``: the axis counts from here (and is labelled in ms when short)."""

    title: str
    start: float
    end: float
    note: str = ""
    spans: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()
    charts: tuple[Chart, ...] = ()
    zero: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """``numeric``: columns that are aligned to the right. ``tones``: a tone for each row, or nothing."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    numeric: frozenset[int] = frozenset()
    tones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """One number in each cell, shaded by its share of the largest; None: not measured. ``rows``: (label, a value for each column)."""

    title: str
    unit: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log. ``level``: info, warning, error. ``node``: whose it is, where several wrote."""

    at: float
    level: str
    text: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """``sentence``: the outcome in one or two sentences; ``reasons``: why the verdict is not good. ``command``: what to run next, or
    again, as ``command_title`` says."""

    title: str
    subtitle: str
    verdict: str
    sentence: str
    tiles: tuple[Tile, ...] = ()
    panels: tuple[Panel, ...] = ()
    tables: tuple[Table, ...] = ()
    log: tuple[Line, ...] = ()
    reasons: tuple[str, ...] = ()
    command: str = ""
    footer: str = ""
    command_title: str = YOUR_OWN
    grids: tuple[Grid, ...] = ()
