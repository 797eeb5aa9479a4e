"""A result in some twenty lines: verdict, what it is about, its tables without frames, and what lasted how long as a waterfall.

    sentinel-kill-primary  valid
    A killed primary costs its clients down-after and an election.

      ✓  unexplained = 0             0  every lost write has a cause
      ✓  1000 ≤ gap_ms ≤ 4000    1,712  down-after 1000 ms, then the election

    After kill primary: 2.29 s, in parts
      detect              ██████████████                  1,054 ms
      agree                             ██                  102 ms
      promote                             ████              323 ms

Of each panel the spans with a name are drawn; charts are for the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from valkeep.report.terminal import STYLES, VERDICTS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

    from valkeep.report.story import Panel, Story, Table

__all__ = ["brief", "waterfall"]

WIDE: Final = 48  # cells of a waterfall
_ASCII: Final = str.maketrans({"✓": "+", "✗": "x", "≤": "<=", "·": "-", "–": "-", "…": "...", "→": "->", "×": "x"})


def waterfall(panel: Panel, *, cell: str = "█", wide: int = WIDE) -> list[tuple[str, str, str]]:
    """(name, bar, duration) of each span, all on one scale; a part that lasted has at least one cell."""
    spans = [span for span in panel.spans if span.name]
    if not spans:
        return []
    low, high = min(span.start for span in spans), max(span.end for span in spans)
    scale = wide / max(high - low, 1e-9)
    rows = []
    for span in spans:
        first = min(int((span.start - low) * scale), wide - 1)
        last = max(round((span.end - low) * scale), first + 1)
        rows.append((span.name, " " * first + cell * (last - first), f"{(span.end - span.start) * 1000:,.0f} ms"))
    return rows


def brief(story: Story, console: Console) -> None:
    """Print it; a console that knows only ASCII gets it in ASCII."""
    from rich.padding import Padding
    from rich.text import Text

    modern = console.encoding.lower().startswith("utf")

    def say(*parts: tuple[str, str], wrap: bool = True) -> None:
        console.print(Text.assemble(*((_spelt(text, modern), style) for text, style in parts)), soft_wrap=not wrap or None)

    say(("", ""))
    say((story.title, "bold"), ("  ", ""), (story.verdict, VERDICTS.get(story.verdict, "bold yellow")))
    say((story.sentence, ""))
    say((story.subtitle, "dim"))
    for table in story.tables:
        say((f"\n{table.title}", "bold"))
        console.print(Padding(_cells(table, modern), (0, 0, 0, 2)))
    for panel in story.panels:
        rows = waterfall(panel, cell="█" if modern else "#")
        names = max((len(name) for name, _, _ in rows), default=0)
        if rows:
            say((f"\n{panel.title}", "bold"))
        for name, bar, took in rows:
            say((f"  {name:<{names}}  ", ""), (f"{bar:<{WIDE}}", "cyan"), (f"  {took:>10}", ""))
    if story.reasons:
        say(("", ""))
    for reason in story.reasons:
        say((f"  ✗ {reason}", "red" if story.verdict == "invalid" else "yellow"))
    if story.command:
        say((f"\n{story.command_title}:\n  ", ""), (story.command, "cyan"), wrap=False)


def _spelt(text: str, modern: bool) -> str:
    return text if modern else text.translate(_ASCII)


def _cells(table: Table, modern: bool) -> Grid:
    """Without a frame, and with a head where the columns do not speak for themselves."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, show_header=len(table.columns) > 4, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, column in enumerate(table.columns):
        whole = all(" " not in row[place] for row in table.rows)
        grid.add_column(Text(column), justify="right" if place in table.numeric else "left", no_wrap=whole, overflow="fold")
    for place, row in enumerate(table.rows):
        style = STYLES.get(table.tones[place] if table.tones else "", "")
        grid.add_row(*[Text(_spelt(cell, modern), style=style if at == 0 else "") for at, cell in enumerate(row)])
    return grid
