"""A story as one HTML file: no network, no build step, readable in ten years. Style and script are inlined from beside this module.

A run with a `Timeline` also gets its operations, drawn by ``timeline.js``; the log then stands below them and follows what they show. Without
scripts the page has rates and latencies as a picture, and everything else as tables.
"""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import Final

from valkeep.report.chart import draw, short
from valkeep.report.story import Grid, Panel, Story, Table, Tile
from valkeep.report.timeline import Timeline, overview, packed

__all__ = ["page"]

THINNED: Final = (
    "those that are lost, failed or unknown (where they are more than {half:,}, an even share of them), the slowest and the quickest of each moment, "
    "and an even share of the rest."
)

_TONES: Final = {
    "valid": "good", "GO": "good", "invalid": "bad", "NO-GO": "bad", "unknown": "warn", "CONDITIONAL-GO": "warn", "refused": "warn",
}  # fmt: skip


def page(story: Story, timeline: Timeline | None = None) -> str:
    """The whole document."""
    more = timeline is not None
    style = "".join(map(_beside, ("page.css", "timeline.css") if more else ("page.css",)))
    scripts = "".join(
        f"<script>\n{_beside(name)}</script>\n" for name in (("page.js", "unpack.js", "timeline.js") if more else ("page.js",))
    )
    parts = [_head(story), _tiles(story.tiles)]
    if timeline is not None:
        parts += [_timeline(timeline), _log(story, synced=True)]
    parts.append(_grids(story.grids))
    parts.append(_panels(story.panels))
    parts += [_table(table) for table in story.tables]
    if story.command:
        parts.append(f"<section><h2>{escape(story.command_title)}</h2><pre>{escape(story.command)}</pre></section>")
    if timeline is None:
        parts.append(_log(story))
    if story.footer:
        parts.append(f"<footer>{escape(story.footer)}</footer>")
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f"<title>{escape(story.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n{scripts}</body>\n</html>\n"
    )


def _beside(name: str) -> str:
    return (resources.files("valkeep.report") / name).read_text(encoding="utf-8")


def _timeline(timeline: Timeline) -> str:
    """The section that ``timeline.js`` brings to life; what it shows until then, it hides."""
    block, shown = packed(timeline)
    total = len(timeline.operations)
    said = (
        f"All {total:,} operations." if shown == total else f"{shown:,} of {total:,} operations: {THINNED.format(half=timeline.limit // 2)}"
    )
    faults = sum(bool(span.name) for span in timeline.faults)
    label = f"{said} {faults} faults, {len(timeline.marks)} steps of the recovery, from {timeline.start:.1f} s to {timeline.end:.1f} s"
    return (
        f'<section class="timeline" data-total="{total}" data-shown="{shown}"><h2>{escape(timeline.title)}</h2>'
        f'<p class="note">{escape(f"{said} {timeline.note}".strip())}</p><div class="tools"></div>'
        f'<div class="stage"><canvas tabindex="0" role="img" aria-label="{escape(label, quote=True)}"></canvas><div class="tip"></div></div>'
        f'<div class="legend"></div><div class="plain-form wide">{draw(overview(timeline))}</div>'
        f'<script type="text/plain" class="packed">{block}</script></section>'
    )


def _head(story: Story) -> str:
    tone = _TONES.get(story.verdict, "warn")
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in story.reasons)
    return (
        f'<header><h1>{escape(story.title)}</h1><span class="badge {tone}">{escape(story.verdict)}</span>'
        f'<p class="subtitle">{escape(story.subtitle)}</p></header><p class="sentence">{escape(story.sentence)}</p>'
        + (f'<ul class="reasons">{reasons}</ul>' if reasons else "")
    )


def _tiles(tiles: tuple[Tile, ...]) -> str:
    if not tiles:
        return ""
    cells = "".join(
        f'<div class="tile {tile.tone}"><div class="label">{escape(tile.label)}</div><div class="value">{escape(tile.value)}'
        + (f'<span class="unit">{escape(tile.unit)}</span>' if tile.unit else "")
        + f'</div><div class="note">{escape(tile.note)}</div></div>'
        for tile in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _panels(panels: tuple[Panel, ...]) -> str:
    """The first over the whole width, the others in pairs."""
    if not panels:
        return ""
    if len(panels) == 2:
        return "".join(_panel(panel, 1040) for panel in panels)
    rest = "".join(_panel(panel, 500) for panel in panels[1:])
    return _panel(panels[0], 1040) + (f'<div class="pair">{rest}</div>' if rest else "")


def _panel(panel: Panel, width: int) -> str:
    note = f'<p class="note">{escape(panel.note)}</p>' if panel.note else ""
    figure = draw(panel, width=width)
    return f'<section><h2>{escape(panel.title)}</h2>{note}<div class="{"wide" if width > 600 else "narrow"}">{figure}</div></section>'


def _grids(grids: tuple[Grid, ...]) -> str:
    """Side by side where there is room."""
    return f'<div class="pair">{"".join(map(_grid, grids))}</div>' if grids else ""


def _grid(grid: Grid) -> str:
    most = max((value for _, values in grid.rows for value in values if value is not None), default=0.0) or 1.0
    head = "".join(f"<th>{escape(column)}</th>" for column in grid.columns)
    rows = "".join(f"<tr><th>{escape(label)}</th>{''.join(_shaded(value, most) for value in values)}</tr>" for label, values in grid.rows)
    return (
        f'<section><h2>{escape(grid.title)}</h2><p class="note">{escape(grid.unit)}</p>'
        f'<div class="scroll"><table class="heat"><tr><th></th>{head}</tr>{rows}</table></div></section>'
    )


def _shaded(value: float | None, most: float) -> str:
    if value is None:
        return "<td>–</td>"
    return f'<td style="--part:{max(value, 0.0) / most:.3f}">{short(value)}</td>'


def _table(table: Table) -> str:
    def cells(row: tuple[str, ...], tag: str, tone: str = "") -> str:
        out = []
        for place, cell in enumerate(row):
            classes = " ".join(name for name in ("number" if place in table.numeric else "", tone if place == 0 else "") if name)
            out.append(f"<{tag}{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}>{escape(cell)}</{tag}>")
        return f"<tr>{''.join(out)}</tr>"

    rows = "".join(cells(row, "td", table.tones[place] if table.tones else "") for place, row in enumerate(table.rows))
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    head = cells(table.columns, "th") if any(table.columns) else ""
    return f'<section><h2>{escape(table.title)}</h2>{note}<div class="scroll"><table>{head}{rows}</table></div></section>'


def _log(story: Story, *, synced: bool = False) -> str:
    if not story.log:
        return ""
    lines = "".join(
        f'<div class="{escape(line.level)}" data-at="{line.at:.6f}" data-node="{escape(line.node, quote=True)}"><span>{line.at:8.3f} s</span>'
        f"{f'<b>{escape(line.node)}</b>' if synced or line.node else ''}<i>{escape(line.text)}</i></div>"
        for line in story.log
    )
    body = f'<summary>Log ({len(story.log)} lines)</summary><div class="log{" synced" if synced else ""}">{lines}</div>'
    return f"<section><details{' open' if synced else ''}>{body}</details></section>"
