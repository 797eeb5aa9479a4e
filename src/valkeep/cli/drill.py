"""``valkeep drill``: faults on real servers, recorded histories, judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from valkeep.cli.drill_observe import observe
from valkeep.cli.drill_results import EVENTS, HtmlPath, JunitPath, ReportFolder, exit_code, keep
from valkeep.cli.output import JsonPath, console, writable, write_json, write_whole
from valkeep.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from valkeep.drill.outcome import DrillsOutcome
    from valkeep.drill.run import RunOptions
    from valkeep.drill.script import Drill
    from valkeep.report.events import Emit
    from valkeep.report.story import Story

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Row = TypeVar("Row")


class Fsync(StrEnum):
    """Of appendfsync; "no" promises nothing and is left out."""

    EVERYSEC = "everysec"
    ALWAYS = "always"


class Runtime(StrEnum):
    """What makes a topology real."""

    LOCAL = "local"
    COMPOSE = "compose"


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


@app.command("list", short_help="what each drill teaches, and what has to come of it")
def list_drills(json: JsonPath = None) -> ExitCode:
    """The drills: what each teaches, what it runs on, and what has to come of it."""
    from valkeep.drill.catalogue import drills, random_drills
    from valkeep.drill.script import schedule_text

    known = drills() | random_drills()
    write_json(
        {
            "drills": [
                {
                    "name": drill.name,
                    "teaches": drill.teaches,
                    "topology": drill.topology.described,
                    "schedule": schedule_text(drill.steps),
                    "random": drill.random,
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


@app.command(short_help="faults on real servers of this machine, judged")
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which drills; 'valkeep drill list' shows all.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every drill, one after the other.")] = False,
    seed: Seed = 1,
    client: Annotated[
        str,
        typer.Option(
            metavar="C", help="Who writes: recorder, valkeep, valkey-py, redis-py or glide. Default: the recorder.", show_default=False
        ),
    ] = "",
    topology: Annotated[
        str, typer.Option(metavar="T", help="Other sizes: sentinel:1+4+5 (primary, replicas, sentinels), cluster:5+5.", show_default=False)
    ] = "",
    timeout_ms: TimeoutMs = None,
    server: Server = "",
    network: Network = "",
    tls: Annotated[bool, typer.Option("--tls", help="Everything over TLS, with a certificate made for this run.")] = False,
    acl: Annotated[bool, typer.Option("--acl", help="Users with no more rights than they need, and random passwords.")] = False,
    runtime: Annotated[
        Runtime, typer.Option(help="Processes of this machine, or containers from the shipped Compose files.")
    ] = Runtime.LOCAL,
    schedule: Annotated[
        str,
        typer.Option(metavar="STEPS", help="Other steps: 'kill:primary@2 heal:all@4'; see docs/reference/faults.md.", show_default=False),
    ] = "",
    mix: Annotated[
        str,
        typer.Option(help="Other operations: mixed, append, registers, scripts, streams or pubsub.", show_default=False),
    ] = "",
    rate: Annotated[
        int | None, typer.Option(min=10, max=100_000, metavar="N", help="Operations/s of all clients together.", show_default="15000")
    ] = None,
    shrink: Annotated[
        int,
        typer.Option(
            min=0, metavar="RUNS", help="Look for the smallest schedule that still fails, in so many runs at most.", show_default=False
        ),
    ] = 0,
    report: ReportFolder = None,
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
        runtime=runtime.value,
        tls=tls,
        acl=acl,
        mix=mix,
        rate=rate,
    )
    chosen = list(drills(timeout_ms).values()) if everything else [find(name, timeout_ms) for name in names or ()]
    if html is not None and len(chosen) > 1:
        raise UsageError("--html is for one drill", remedy="--report DIR keeps a page for each")
    if shrink and len(chosen) > 1:
        raise UsageError("--shrink is for one drill", remedy="run the one that failed again, with its seed")
    if not everything:
        for drill in chosen:
            fitted(drill, options)
    if runtime is Runtime.LOCAL:
        networks.prepare(networks.choose(frozenset(), network))
    outcome = _watched(chosen, options, report, alone=len(chosen) == 1)
    if shrink and outcome.verdict == "invalid":
        outcome = _shrunk(chosen[0], outcome, options, report, shrink)
    keep(outcome, report, html, junit, json)
    return exit_code(outcome.verdict)


app.command(short_help="the same load on your own topology, while you break it")(observe)


@app.command(short_help="a recorded history in Jepsen's form")
def export(
    report: Annotated[Path, typer.Argument(metavar="DIR", help="A drill's folder, as 'valkeep drill run --report' keeps it.")],
    edn: Annotated[Path, typer.Option("--edn", metavar="PATH", help="Where to write the history in Jepsen's form.", callback=writable)],
) -> ExitCode:
    """A recorded history in Jepsen's form, for its checkers and for Elle."""
    import json as reader

    from valkeep.drill.history import History
    from valkeep.drill.jepsen import NemesisEvent
    from valkeep.drill.jepsen import edn as lines

    try:
        history = History.unpacked((report / "history.vkh").read_bytes())
        told = reader.loads((report / "drill.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{report} is no folder of a drill: {error}", remedy="valkeep drill run NAME --report DIR keeps one: DIR/NAME"
        ) from error
    origin = told["origin_ns"]
    faults = [
        NemesisEvent(origin + round(fault[moment] * 1e9), f"{word}-{fault['name']}", fault["nodes"])
        for fault in told["faults"]
        for word, moment in (("start", "start"), ("stop", "end"))
    ]
    write_whole(edn, "".join(lines(history, faults)))
    return ExitCode.GOOD


@app.command(short_help="what each setting costs every day, and saves in a partition")
def matrix(
    min_replicas: Annotated[
        list[int] | None, typer.Option(min=0, max=2, help="Values of min-replicas-to-write.", show_default="0 1")
    ] = None,
    wait: Annotated[list[int] | None, typer.Option(min=0, max=2, help="Replicas that each write waits for.", show_default="0 1 2")] = None,
    fsync: Annotated[list[Fsync] | None, typer.Option(help="Values of appendfsync.", show_default="everysec always")] = None,
    timeout_ms: Annotated[
        list[int] | None, typer.Option(min=50, help="Values of down-after-milliseconds.", show_default="500 1000 5000")
    ] = None,
    seed: Seed = 1,
    server: Server = "",
    html: HtmlPath = None,
    json: JsonPath = None,
) -> ExitCode:
    """What each setting costs every day and saves on the day of a partition: every combination, measured (36 runs, some 12 minutes).

    Each option can be given several times; fewer values make fewer runs.
    """
    from valkeep.drill.comparison import matrix_json, matrix_story
    from valkeep.drill.matrix import Axes, run_matrix
    from valkeep.drill.run import RunOptions
    from valkeep.topology.spec import Persistence

    standard = Axes()
    axes = Axes(
        tuple(min_replicas or standard.min_replicas),
        tuple(wait or standard.wait),
        tuple(Persistence(one.value) for one in fsync) if fsync else standard.fsync,
        tuple(timeout_ms or standard.timeout_ms),
    )
    rows, seconds = _compared(lambda emit: run_matrix(axes, RunOptions(seed=seed, server=server), emit))
    story = matrix_story(
        rows, subtitle="1 primary + 2 replicas + 3 sentinels; the primary is cut off with a client on its side", seconds=seconds
    )
    return _told(story, matrix_json(rows, seconds=seconds, seed=seed), html, json)


@app.command(short_help="the same drills with every client library")
def clients(
    client: Annotated[
        list[str] | None,
        typer.Option(metavar="C", help="recorder, valkeep, valkey-py, redis-py or glide. Default: all.", show_default=False),
    ] = None,
    drill: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Which drills. Default: kills and planned failovers.", show_default=False)
    ] = None,
    timeout_ms: TimeoutMs = None,
    seed: Seed = 1,
    server: Server = "",
    html: HtmlPath = None,
    json: JsonPath = None,
) -> ExitCode:
    """The same drills with every client library: how long it could not write, what its application was shown, what it did twice."""
    from valkeep.drill.comparison import clients_json, clients_story
    from valkeep.drill.run import RunOptions
    from valkeep.drill.scorecard import CLIENTS, DRILLS, run_clients

    options = RunOptions(seed=seed, server=server, timeout_ms=timeout_ms)
    rows, seconds = _compared(lambda emit: run_clients(client or CLIENTS, drill or DRILLS, options, emit))
    return _told(
        clients_story(rows, subtitle="one operation in flight for each of many connections, as applications have it", seconds=seconds),
        clients_json(rows, seconds=seconds, seed=seed),
        html,
        json,
    )


def _compared(work: Callable[[Emit], Coroutine[None, None, Sequence[Row]]]) -> tuple[Sequence[Row], float]:
    """Run ``work`` while a person watches; its rows, and how long it took."""
    import time

    from valkeep.report.terminal import watch
    from valkeep.runtime import network as networks

    networks.prepare(networks.choose(frozenset()))
    begun = time.monotonic()
    with watch() as emit:
        rows = asyncio.run(work(emit))
    return rows, time.monotonic() - begun


def _told(story: Story, value: dict[str, object], html: Path | None, json: str | None) -> ExitCode:
    from valkeep.report.brief import brief
    from valkeep.report.html import page

    write_json(value, json)
    if html is not None:
        write_whole(html, page(story))
    brief(story, console(json))
    return exit_code(story.verdict)


def _watched(chosen: Sequence[Drill], options: RunOptions, report: Path | None, *, alone: bool) -> DrillsOutcome:
    from valkeep.drill.outcome import DrillsOutcome
    from valkeep.drill.run import run_drill, run_drills
    from valkeep.report.terminal import watch

    with watch(report / EVENTS if report else None, stamped=True) as emit:
        if alone:
            one = asyncio.run(run_drill(chosen[0], options, emit))
            return DrillsOutcome((one,), one.phases["total"])
        return asyncio.run(run_drills(chosen, options, emit))


def _shrunk(drill: Drill, failed: DrillsOutcome, options: RunOptions, report: Path | None, runs: int) -> DrillsOutcome:
    """The outcome of the smallest schedule that still fails, in place of the one that failed first."""
    from valkeep.drill.outcome import DrillsOutcome
    from valkeep.drill.run import shrink_drill
    from valkeep.drill.script import schedule_text
    from valkeep.report.events import Note
    from valkeep.report.terminal import watch

    with watch(report / EVENTS if report else None, stamped=True) as emit:
        shrunk, outcome = asyncio.run(shrink_drill(drill, failed.drills[0], options, emit, runs=runs))
        before, after = failed.drills[0].schedule, schedule_text(shrunk.steps)
        least = "nothing can be left out" if shrunk.complete else "the runs are used up"
        emit(Note(0.0, "info", f"shrunk in {shrunk.runs} runs ({least}): {after or 'no fault at all'}; was {before}"))
    return DrillsOutcome((outcome,), failed.seconds)
