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

import textwrap
from typing import TYPE_CHECKING, Final

from valkeep.report.terminal import STYLES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from valkeep.report.story import Panel, Story, Table

__all__ = ["brief", "waterfall"]

WIDE: Final = 48  # cells of a waterfall
NARROW: Final = 12  # and where the terminal has no room
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
        tones = iter([*[""] * (len(table.columns) > 4), *table.tones])
        for first, rest in _lines(table, modern, console.width):
            tone = next(tones, "") if first else ""
            say((first, STYLES.get(tone, "")), (rest.rstrip(), ""), wrap=False)
    for panel in story.panels:
        names = max((len(span.name) for span in panel.spans), default=0)
        wide = max(NARROW, min(WIDE, console.width - names - 16))  # margins, and ten places of time
        rows = waterfall(panel, cell="█" if modern else "#", wide=wide)
        if rows:
            say((f"\n{panel.title}", "bold"))
        for name, bar, took in rows:
            say((f"  {name:<{names}}  ", ""), (f"{bar:<{wide}}", "cyan"), (f"  {took:>10}", ""))
    if story.reasons:
        say(("", ""))
    for reason in story.reasons:
        say((f"  ✗ {reason}", "red") if story.verdict == "invalid" else (f"  ? {reason}", "yellow"))
    if story.command:
        say((f"\n{story.command_title}:\n  ", ""), (story.command, "cyan"), wrap=False)


def _spelt(text: str, modern: bool) -> str:
    return text if modern else text.translate(_ASCII)


def _lines(table: Table, modern: bool, width: int) -> Iterator[tuple[str, str]]:
    """(first cell, the rest) of each line, padded: nothing is ever cut; only a last column of prose is folded into ``width``."""
    head = [table.columns] if len(table.columns) > 4 else []  # fewer speak for themselves
    cells = [[_spelt(cell, modern) for cell in row] for row in (*head, *table.rows)]
    widths = [max((len(row[place]) for row in cells), default=0) for place in range(len(table.columns))]
    last = len(widths) - 1
    room = width - 2 - sum(widths[:last]) - 2 * last
    for row in cells:
        padded = [
            cell.rjust(widths[place]) if place in table.numeric else cell.ljust(widths[place]) for place, cell in enumerate(row[:last])
        ]  # fmt: skip
        prose = last not in table.numeric and room >= 20
        folded = (
            (textwrap.wrap(row[last], room) or [""]) if prose else [row[last].rjust(widths[last]) if last in table.numeric else row[last]]
        )
        first, *rest = [*padded, folded[0]]
        yield f"  {first}", "".join(f"  {cell}" for cell in rest)
        for more in folded[1:]:
            yield "", " " * (width - room) + more
