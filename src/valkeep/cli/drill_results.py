"""Where what drills found goes: the terminal, JSON, JUnit, a page, a folder for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.output import console, writable, write_json, write_whole
from valkeep.errors import ExitCode

if TYPE_CHECKING:
    from valkeep.drill.outcome import DrillOutcome, DrillsOutcome

__all__ = ["HtmlPath", "JunitPath", "ReportFolder", "exit_code", "keep"]

EVENTS = "events.jsonl"


def _writable_folder(path: Path | None) -> Path | None:
    """Asked before the work begins, as `writable` is."""
    if path is not None:
        writable(path / EVENTS)
    return path


HtmlPath = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="PATH",
        help="Write one self-contained page.",
        show_default=False,
        callback=writable,
    ),
]
JunitPath = Annotated[
    Path | None, typer.Option("--junit", metavar="PATH", help="Write JUnit XML for a CI server.", show_default=False, callback=writable)
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="DIR",
        help="Keep each drill's report, page and history there.",
        show_default=False,
        callback=_writable_folder,
    ),
]


def keep(outcome: DrillsOutcome, report: Path | None, html: Path | None, junit: Path | None, json: str | None) -> None:
    """Write it to wherever it was asked for, and tell the verdict on the terminal. ``html`` is for one drill."""
    from valkeep.drill.picture import drill_brief, drills_junit, drills_story
    from valkeep.report.brief import brief

    write_json(outcome.drills[0].to_json() if len(outcome.drills) == 1 else outcome.to_json(), json)
    if junit is not None:
        write_whole(junit, drills_junit(outcome))
    if html is not None:
        write_whole(html, _page(outcome.drills[0]))
    if report is not None:
        for one in outcome.drills:
            folder = report / one.name
            write_json(one.to_json(), str(folder / "drill.json"))
            write_whole(folder / "drill.html", _page(one))
            (folder / "history.vkh").write_bytes(b"".join(one.history.packed()))
    out = console(json)
    for one in outcome.drills:
        brief(drill_brief(one), out)
    if len(outcome.drills) > 1:
        brief(drills_story(outcome), out)


def exit_code(verdict: str) -> ExitCode:
    """Of what was judged: 0 valid, 1 invalid, 3 unknown."""
    return {"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(verdict, ExitCode.UNKNOWN)


def _page(outcome: DrillOutcome) -> str:
    from valkeep.drill.picture import drill_story, drill_timeline
    from valkeep.report.html import page

    return page(drill_story(outcome), drill_timeline(outcome))
