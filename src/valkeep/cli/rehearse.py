"""``valkeep rehearse``: the whole story on servers of this machine, proven."""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.output import JsonPath, console, writable, write_json, write_whole
from valkeep.errors import ExitCode
from valkeep.migrate.transform.target import FieldTtl

if TYPE_CHECKING:
    from valkeep.drill.rehearsal.outcome import Rehearsal
    from valkeep.report.story import Story

app = typer.Typer(add_completion=False, rich_markup_mode=None)

HtmlPath = Annotated[
    Path | None,
    typer.Option("--html", metavar="PATH", help="Write one self-contained page with the timeline.", show_default=False, callback=writable),
]


@app.command()
def rehearse(
    source_server: Annotated[
        str,
        typer.Option(metavar="SPEC|PATH", help="What moves: redis-8.0, or a binary's path. Default: the newest Redis here, else Valkey."),
    ] = "",
    target_server: Annotated[
        str, typer.Option(metavar="SPEC|PATH", help="Where to: valkey-8.1, or a binary's path. Default: Valkey 9.1.", show_default=False)
    ] = "",
    field_ttl: Annotated[
        FieldTtl, typer.Option(help="TTLs on hash fields, for a Valkey before 9: keep the field, drop it, or refuse.")
    ] = FieldTtl.REFUSE,
    keys: Annotated[int, typer.Option(min=1000, help="Keys to move, of every type, in three databases.")] = 200_000,
    rate: Annotated[int, typer.Option(min=100, help="Writes per second, of all writers together.")] = 6500,
    seed: Annotated[int, typer.Option(help="The same seed makes the same data and the same operations.")] = 1,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the migration's report and the recorded history there.", show_default=False)
    ] = None,
    tables: Annotated[bool, typer.Option("--tables", help="Print the proof in detail, too.")] = False,
    html: HtmlPath = None,
    json: JsonPath = None,
) -> ExitCode:
    """Move a live Redis to a live Valkey on this machine, under load, and prove that nothing was lost.

    Starts a source with data and writers, shows what native replication does, migrates, cuts over, kills the new primary, promotes its
    replica, and judges every acked write. No Docker, no root, nothing left behind. Exit code 0: valid. 1: not. 3: unknown.
    """
    from valkeep.drill.rehearsal.picture import picture
    from valkeep.drill.rehearsal.rehearse import RehearsalOptions
    from valkeep.drill.rehearsal.rehearse import rehearse as run
    from valkeep.report.recording import Recording
    from valkeep.report.terminal import show, watch
    from valkeep.runtime.machine import in_ci

    options = RehearsalOptions(
        source_server=source_server,
        target_server=target_server,
        field_ttl=field_ttl.value,
        keys=keys,
        rate=rate,
        seed=seed,
        representative_only=in_ci(),
        report=report,
    )
    recording = Recording()
    with watch(report / "events.jsonl" if report else None, also=recording.emit, stamped=True) as emit:
        outcome = asyncio.run(run(options, emit))
    story = picture(outcome, recording)
    _keep(outcome, story, report, html, json)
    out = console(json)
    show(replace(story, command=story.command.replace("valkeep", _program(), 1)), out, tables=tables)
    if html is not None:
        out.print(f"\nThe page with the timeline: {html}", markup=False)
    return {"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(outcome.verdict, ExitCode.UNKNOWN)


def _program() -> str:
    """What to type for ``valkeep``: in a checkout it is on nobody's PATH."""
    started = Path(sys.argv[0])
    return str(started) if started.name == "valkeep" and not shutil.which("valkeep") else "valkeep"


def _keep(outcome: Rehearsal, story: Story, report: Path | None, html: Path | None, json: str | None) -> None:
    from valkeep.report.html import page
    from valkeep.report.storyfile import to_json

    result = outcome.to_json()
    write_json(result, json)
    if html is not None:
        write_whole(html, page(story))
    if report is not None:
        write_json(result, str(report / "rehearsal.json"))
        write_json(to_json(story), str(report / "story.json"))
        write_whole(report / "rehearsal.html", page(story))
        (report / "history.vkh").write_bytes(b"".join(outcome.history.packed()))
