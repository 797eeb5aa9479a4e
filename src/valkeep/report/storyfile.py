"""A story as JSON and back, so that a report folder can be shown again exactly as it was."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from valkeep.errors import RemoteProtocolError
from valkeep.report.story import YOUR_OWN, Chart, Grid, Line, Mark, Panel, Series, Span, Story, Table, Tile

__all__ = ["from_json", "to_json"]


def to_json(story: Story) -> dict[str, Any]:
    """Plain lists and dictionaries."""
    data = asdict(story)
    for table in data["tables"]:
        table["numeric"] = sorted(table["numeric"])
    return {"schema": 1, **data}


def from_json(data: dict[str, Any]) -> Story:
    """Raises ``RemoteProtocolError`` when it is no story of this version."""
    try:
        texts = {name: str(data[name]) for name in ("title", "subtitle", "verdict", "sentence", "command", "footer")}
        return Story(
            tiles=tuple(Tile(**tile) for tile in data["tiles"]),
            panels=tuple(_panel(panel) for panel in data["panels"]),
            tables=tuple(_table(table) for table in data["tables"]),
            log=tuple(Line(**line) for line in data["log"]),
            reasons=tuple(data["reasons"]),
            grids=tuple(_grid(grid) for grid in data.get("grids", ())),
            command_title=str(data.get("command_title", YOUR_OWN)),
            **texts,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteProtocolError(
            f"story.json can't be read: {type(error).__name__}: {error}", remedy="it was written by another version"
        ) from error


def _panel(data: dict[str, Any]) -> Panel:
    charts = tuple(Chart(**(chart | {"series": tuple(_series(one) for one in chart["series"])})) for chart in data["charts"])
    spans, marks = tuple(Span(**span) for span in data["spans"]), tuple(Mark(**mark) for mark in data["marks"])
    return Panel(**(data | {"charts": charts, "spans": spans, "marks": marks}))


def _series(data: dict[str, Any]) -> Series:
    return Series(**(data | {"points": tuple((at, value) for at, value in data["points"])}))


def _table(data: dict[str, Any]) -> Table:
    rows = tuple(tuple(row) for row in data["rows"])
    return Table(
        **(data | {"columns": tuple(data["columns"]), "rows": rows, "numeric": frozenset(data["numeric"]), "tones": tuple(data["tones"])})
    )


def _grid(data: dict[str, Any]) -> Grid:
    return Grid(**(data | {"columns": tuple(data["columns"]), "rows": tuple((label, tuple(values)) for label, values in data["rows"])}))
