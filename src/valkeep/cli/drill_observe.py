"""``valkeep drill observe``: the load of a drill on a topology of somebody else, and its verdict. It never breaks anything."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.drill_results import EVENTS, HtmlPath, JunitPath, ReportFolder, exit_code, keep
from valkeep.cli.output import JsonPath
from valkeep.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.drill.script import Expectation

__all__ = ["observe"]

PasswordFile = Annotated[str | None, typer.Option(metavar="PATH", help="The URL's password is in this file.", show_default=False)]
PasswordEnv = Annotated[str | None, typer.Option(metavar="NAME", help="… in this environment variable.", show_default=False)]


def observe(
    url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="A sentinel, any node of a cluster, a primary or a replica: redis://[[user]:password@]host[:port]."
        ),
    ],
    allow_remote: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The URL's host and port once more: yes, write to this topology.", show_default=False)
    ] = "",
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long it is written to; break it meanwhile.")] = 60,
    rate: Annotated[int, typer.Option(min=10, max=100_000, help="Operations/s of all clients together.")] = 1000,
    mix: Annotated[str, typer.Option(help="Which operations: mixed, append, registers, scripts, streams or pubsub.")] = "mixed",
    monitored: Annotated[
        str,
        typer.Option(metavar="NAME", help="Which of the primaries that the sentinel watches. Default: its only one.", show_default=False),
    ] = "",
    password_file: PasswordFile = None,
    password_env: PasswordEnv = None,
    node_user: Annotated[
        str | None, typer.Option(metavar="USER", help="Of the data nodes, where it is not the sentinels'.", show_default=False)
    ] = None,
    node_password_file: Annotated[
        str | None, typer.Option(metavar="PATH", help="The data nodes' password, where it is not the sentinels'.", show_default=False)
    ] = None,
    node_password_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="… in this environment variable.", show_default=False)
    ] = None,
    most_gap_ms: Annotated[
        float | None, typer.Option(min=0, metavar="MS", help="Invalid when clients got no ack for longer.", show_default=False)
    ] = None,
    most_lost: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Invalid when more acked writes are gone.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same operations.")] = 1,
    report: ReportFolder = None,
    html: HtmlPath = None,
    junit: JunitPath = None,
    json: JsonPath = None,
) -> ExitCode:
    """Write to your own running topology while you break it, and judge what it did with every operation.

    No fault is injected. It says what it writes and where before it does, and deletes its keys at the end, also after Ctrl-C.
    Exit code 0: valid. 1: invalid. 3: unknown.
    """
    from valkeep.drill.observing import Observation
    from valkeep.drill.observing import observe as observed
    from valkeep.drill.outcome import DrillsOutcome
    from valkeep.report.terminal import watch

    endpoint = _allowed(_endpoint(url, password_file, password_env), allow_remote)
    login = None
    if node_user is not None or node_password_file is not None or node_password_env is not None:
        login = replace(endpoint, username=node_user, password=None)
        if node_password_file is not None or node_password_env is not None:
            login = login.with_password_from(file=node_password_file, env=node_password_env)
    options = Observation(endpoint, login, monitored, seconds, rate, mix, seed, tuple(_expected(most_gap_ms, most_lost)))
    with watch(report / EVENTS if report else None, stamped=True) as emit:
        outcome = asyncio.run(observed(options, emit))
    keep(DrillsOutcome((outcome,), outcome.phases["total"]), report, html, junit, json)
    return exit_code(outcome.verdict)


def _endpoint(url: str, password_file: str | None, password_env: str | None) -> Endpoint:
    from valkeep.client.endpoint import Endpoint

    parsed = Endpoint.parse(url)
    if parsed.db:
        raise UsageError(f"{parsed.display} names database {parsed.db}, and drills write to database 0", remedy=f"leave /{parsed.db} out")
    if password_file is None and password_env is None:
        return parsed
    return parsed.with_password_from(file=password_file, env=password_env)


def _allowed(endpoint: Endpoint, allowed: str) -> Endpoint:
    """Nothing is sent to a server that was not named twice, but to those of `valkeep up`."""
    from valkeep.runtime.standing import all_standing

    if allowed == endpoint.address:
        return endpoint
    if allowed:
        raise UsageError(f"--allow-remote names {allowed}, and the URL {endpoint.address}", remedy=f"--allow-remote {endpoint.address}")
    if endpoint.address in {address for standing in all_standing() for address in standing.addresses.values()}:
        return endpoint
    raise UsageError(
        f"{endpoint.address} is not ours, and this writes to it and to every node that it leads to",
        remedy=f"if it may be written to: --allow-remote {endpoint.address}. Nothing was sent to it. 'valkeep up' starts one to try it on",
    )


def _expected(gap_ms: float | None, lost: int | None) -> list[Expectation]:
    from valkeep.drill.script import Expectation

    bounds = {"gap_ms": gap_ms, "lost": lost}
    return [Expectation(measure, None, float(bound), "as asked for") for measure, bound in bounds.items() if bound is not None]
