"""``valkeep up``: a topology that stands until it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from valkeep.runtime.standing import Standing
    from valkeep.topology.spec import TopologySpec

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def up(
    kind: Annotated[str, typer.Argument(metavar="standalone|sentinel|cluster", help="What should run.")],
    version: Annotated[
        str,
        typer.Option(metavar="SPEC|PATH", help="valkey-8.1, redis-7.0 or a binary's path. Default: the newest Valkey.", show_default=False),
    ] = "",
    runtime: Annotated[str, typer.Option(metavar="local|compose", help="Processes of this machine, or containers.")] = "local",
    replicas: Annotated[int | None, typer.Option(help="For each primary.", show_default="2, in a cluster 1, standalone 0")] = None,
    shards: Annotated[int | None, typer.Option(help="Primaries of a cluster.", show_default="3")] = None,
    sentinels: Annotated[int | None, typer.Option(help="Sentinels.", show_default="3")] = None,
    timeout_ms: Annotated[
        int | None,
        typer.Option(min=50, help="down-after or node-timeout. Stock: 30000 for Sentinel, 15000 for a cluster.", show_default="1000"),
    ] = None,
    persistence: Annotated[str, typer.Option(metavar="none|rdb|everysec|always", help="What the data nodes keep on disk.")] = "none",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the data nodes; repeatable.", show_default=False)
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Everything over TLS, with a certificate made for it.")] = False,
    acl: Annotated[bool, typer.Option("--acl", help="Users with no more rights than they need, and random passwords.")] = False,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the nodes' files there: an empty folder, or a new one.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What status and down call it. Default: its kind.", show_default=False)] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; valkeep down ends it.")] = False,
    json: JsonPath = None,
) -> ExitCode:
    """Start a topology, prove that it is ready, say how to connect, and hold it until Ctrl-C or valkeep down.

    Ready means proven: a canary was written to every shard and every replica acknowledged it. Nothing is left at the end, nor after a kill.
    """
    from valkeep.runtime.standing import RUNTIMES, hold

    if runtime not in RUNTIMES:
        raise UsageError(f"{runtime!r} is no runtime", remedy=f"one of {', '.join(RUNTIMES)}")
    spec = _spec(
        kind, {"replicas": replicas, "shards": shards, "sentinels": sentinels, "timeout_ms": timeout_ms}, persistence, settings or []
    )
    spec = replace(spec, server=_server(version), tls=tls, acl=acl)
    name = name or kind

    def told(standing: Standing) -> None:
        write_json(described(standing), json)
        _show(standing, json, detached=detach)

    if not detach:
        asyncio.run(hold(spec, name, runtime, told, folder))
        return ExitCode.GOOD
    return _detached(lambda ready: asyncio.run(hold(spec, name, runtime, ready, folder)), name, told)


def _spec(kind: str, sizes: dict[str, int | None], persistence: str, settings: list[str]) -> TopologySpec:
    from valkeep.topology.spec import Kind, Persistence, TopologySpec

    if kind not in [one.value for one in Kind]:
        raise UsageError(f"{kind!r} is no topology", remedy=f"one of {', '.join(one.value for one in Kind)}")
    if persistence not in [one.value for one in Persistence]:
        raise UsageError(f"{persistence!r} keeps nothing known", remedy=f"one of {', '.join(one.value for one in Persistence)}")
    spec: TopologySpec = {"standalone": TopologySpec.standalone, "sentinel": TopologySpec.sentinel, "cluster": TopologySpec.cluster}[kind]()
    spec = replace(spec, persistence=Persistence(persistence), **{what: size for what, size in sizes.items() if size is not None})  # type: ignore[arg-type]
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"{setting!r} sets nothing", remedy="say --set NAME=VALUE, for example --set min-replicas-to-write=1")
        spec = spec.with_settings(**{key: value})
    return spec


def _server(version: str) -> str:
    """``9.1`` means Valkey."""
    return f"valkey-{version}" if version[:1].isdigit() else version or "newest-valkey"


def _detached(holds: Any, name: str, told: Any) -> ExitCode:
    """A child holds, this process returns when it is ready. The child's errors come out here."""
    from valkeep.runtime.standing import find

    sys.stdout.flush()
    sys.stderr.flush()
    heard, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

        def ready(_: Standing) -> None:
            with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 - for its number
                for number in (0, 1, 2):
                    os.dup2(nothing.fileno(), number)
            os.write(tell, b"!")
            os.close(tell)

        holds(ready)
        return ExitCode.GOOD
    os.close(tell)
    try:
        came = os.read(heard, 1)
        if came:
            told(find(name))
            return ExitCode.GOOD
        return ExitCode(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise


def described(standing: Standing) -> dict[str, Any]:
    """What people and programs need to connect; no secrets."""
    from valkeep.runtime.access import APP, password_file
    from valkeep.topology.spec import MONITORED

    return {
        "name": standing.name,
        "kind": standing.spec.kind,
        "topology": standing.spec.described,
        "server": standing.server,
        "runtime": standing.runtime,
        "holder": standing.pid,
        "folder": standing.folder,
        "sentinel_name": MONITORED if standing.spec.sentinels else None,
        "user": APP if standing.spec.acl else None,
        "password_file": password_file(Path(standing.folder), APP) if standing.spec.acl else None,
        "ca": standing.authority or None,
        "nodes": [
            {"name": one.name, "role": one.role, "address": f"{one.host}:{one.port}", "url": _url(standing, one.name)}
            for one in standing.nodes
        ],
    }


def _url(standing: Standing, name: str) -> str:
    """Without the password."""
    from valkeep.runtime.access import APP

    scheme, login, query = "redis", "", ""
    if standing.authority:
        scheme, query = "rediss", f"?ca={standing.authority}"
    if standing.spec.acl:
        login = f"{APP}@"
    return f"{scheme}://{login}{standing.addresses[name]}{query}"


def _show(standing: Standing, json: str | None, *, detached: bool) -> None:
    about = described(standing)
    out = console(json)
    out.print(f"{standing.name} is ready: {about['topology']}, {about['server']}", markup=False, style="bold")
    width = max(len(node["url"]) for node in about["nodes"])
    for node in about["nodes"]:
        out.print(f"  {node['name']:4} {node['role']:9} {node['url']:{width}}", markup=False, soft_wrap=True)
    if about["sentinel_name"]:
        out.print(f"  the sentinels call the primary {about['sentinel_name']!r}", markup=False)
    if about["user"]:
        out.print(f"  the password of {about['user']} is in {about['password_file']}", markup=False, soft_wrap=True)
    out.print(f"  {_cli_line(standing, about)}", markup=False, soft_wrap=True)
    out.print(f"  valkeep status {standing.name}", markup=False)
    out.print(f"  valkeep down {standing.name}" if detached else "  Ctrl-C ends it", markup=False)


def _cli_line(standing: Standing, about: dict[str, Any]) -> str:
    first = standing.nodes[0]
    words = [f"valkey-cli -h {first.host} -p {first.port}"]
    words += ["-c"] if about["kind"] == "cluster" else []
    words += [f"--tls --cacert {about['ca']}"] if about["ca"] else []
    if about["user"]:
        words = [f'REDISCLI_AUTH="$(cat {about["password_file"]})"', *words, f"--user {about['user']}"]
    return " ".join(words)
