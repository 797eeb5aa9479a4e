"""``valkeep drill``: faults on real servers, recorded histories, judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.output import JsonPath, console, writable, write_json, write_whole
from valkeep.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from valkeep.drill.drill_outcome import DrillOutcome, DrillsOutcome
    from valkeep.drill.run import RunOptions
    from valkeep.drill.script import Drill

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Seed = Annotated[int, typer.Option(help="The same seed makes the same operations and the same choices.")]
Server = Annotated[
    str,
    typer.Option(metavar="SPEC|PATH", help="What runs: valkey-8.1, or a binary's path. Default: the newest Valkey.", show_default=False),
]
Network = Annotated[
    str,
    typer.Option(metavar="HOW", help="How nodes are connected: namespace, proxy or none. Default: the best there is.", show_default=False),
]
TimeoutMs = Annotated[
    int | None,
    typer.Option(min=50, help="down-after or node-timeout. Stock: 30000 for Sentinel, 15000 for a cluster.", show_default="1000"),
]
HtmlPath = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="PATH",
        help="Write one self-contained page with every operation on a timeline.",
        show_default=False,
        callback=writable,
    ),
]
JunitPath = Annotated[
    Path | None, typer.Option("--junit", metavar="PATH", help="Write JUnit XML for a CI server.", show_default=False, callback=writable)
]


@app.command("list")
def list_drills(json: JsonPath = None) -> ExitCode:
    """The drills: what each teaches, what it runs on, and what has to come of it."""
    from valkeep.drill.catalogue import drills
    from valkeep.drill.script import schedule_text

    known = drills()
    write_json(
        {
            "drills": [
                {
                    "name": drill.name,
                    "teaches": drill.teaches,
                    "topology": drill.topology.described,
                    "schedule": schedule_text(drill.steps),
                    "expects": [str(one) for one in drill.expects],
                }
                for drill in known.values()
            ]
        },
        json,
    )
    out = console(json)
    for drill in known.values():
        out.print(f"{drill.name}", markup=False, style="bold")
        out.print(f"  {drill.teaches}", markup=False)
        out.print(f"  {drill.topology.described}; expects {', '.join(map(str, drill.expects))}", markup=False, style="dim")
    return ExitCode.GOOD


@app.command()
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Which drills; 'valkeep drill list' shows all.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every drill, one after the other.")] = False,
    seed: Seed = 1,
    client: Annotated[
        str,
        typer.Option(metavar="C", help="Who writes: recorder, valkey-py, redis-py or glide. Default: the recorder.", show_default=False),
    ] = "",
    topology: Annotated[
        str, typer.Option(metavar="T", help="Other sizes: sentinel:1+4+5 (primary, replicas, sentinels), cluster:5+5.", show_default=False)
    ] = "",
    timeout_ms: TimeoutMs = None,
    server: Server = "",
    network: Network = "",
    schedule: Annotated[
        str,
        typer.Option(metavar="STEPS", help="Other steps: 'kill:primary@2 heal:all@4'; see docs/reference/faults.md.", show_default=False),
    ] = "",
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep each drill's report, page and history there.", show_default=False)
    ] = None,
    html: HtmlPath = None,
    junit: JunitPath = None,
    json: JsonPath = None,
) -> ExitCode:
    """Run drills on real servers of this machine and judge every operation.

    No Docker, no root, nothing left behind. Exit code 0: all valid. 1: some invalid. 3: some unknown.
    """
    from valkeep.drill.catalogue import drills, find
    from valkeep.drill.run import RunOptions, fitted
    from valkeep.drill.script import parse_schedule
    from valkeep.runtime import network as networks

    if everything == bool(names):
        raise UsageError("name drills, or say --all", remedy="valkeep drill run sentinel-kill-primary; 'valkeep drill list' shows all")
    options = RunOptions(
        seed=seed,
        timeout_ms=timeout_ms,
        schedule=parse_schedule(schedule) if schedule else None,
        driver=client,
        server=server,
        topology=topology,
        network=network,
    )
    chosen = list(drills(timeout_ms).values()) if everything else [find(name, timeout_ms) for name in names or ()]
    if html is not None and len(chosen) > 1:
        raise UsageError("--html is for one drill", remedy="--report DIR keeps a page for each")
    if not everything:
        for drill in chosen:
            fitted(drill, options)
    networks.prepare(networks.choose(frozenset(), network))
    outcome = _watched(chosen, options, report, alone=len(chosen) == 1)
    _keep(outcome, report, html, junit, json)
    return {"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(outcome.verdict, ExitCode.UNKNOWN)


def _watched(chosen: Sequence[Drill], options: RunOptions, report: Path | None, *, alone: bool) -> DrillsOutcome:
    from valkeep.drill.drill_outcome import DrillsOutcome
    from valkeep.drill.run import run_drill, run_drills
    from valkeep.report.terminal import watch

    with watch(report / "events.jsonl" if report else None, stamped=True) as emit:
        if alone:
            one = asyncio.run(run_drill(chosen[0], options, emit))
            return DrillsOutcome((one,), one.phases["total"])
        return asyncio.run(run_drills(chosen, options, emit))


def _keep(outcome: DrillsOutcome, report: Path | None, html: Path | None, junit: Path | None, json: str | None) -> None:
    from valkeep.drill.drill_picture import drill_brief, drills_junit, drills_story
    from valkeep.report.brief import brief
    from valkeep.report.terminal import show

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
        show(drills_story(outcome), out, tables=True)


def _page(outcome: DrillOutcome) -> str:
    from valkeep.drill.drill_picture import drill_story, drill_timeline
    from valkeep.report.html import page

    return page(drill_story(outcome), drill_timeline(outcome))
