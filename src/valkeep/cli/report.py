"""``valkeep report DIR``: a report folder, shown again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from valkeep.cli.output import JsonPath, console, write_json, write_whole
from valkeep.cli.rehearse import HtmlPath
from valkeep.errors import ExitCode

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What was given as --report to a migration or a rehearsal.")],
    html: HtmlPath = None,
    json: JsonPath = None,
) -> ExitCode:
    """Show a migration's report folder: verdict, numbers, steps, ledger, findings; with --html as a page.

    Exit code 0 whatever the verdict: showing it went well.
    """
    from valkeep.report.folder import tell
    from valkeep.report.html import page
    from valkeep.report.storyfile import to_json
    from valkeep.report.terminal import show

    story = tell(folder)
    write_json(to_json(story), json)
    if html is not None:
        write_whole(html, page(story))
    out = console(json)
    show(story, out, tables=True)
    if html is not None:
        out.print(f"\nThe page: {html}", markup=False)
    return ExitCode.GOOD
