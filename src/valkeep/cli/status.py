"""``valkeep status``: what the nodes of a standing topology say of themselves now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from valkeep.runtime.probe import Prober
    from valkeep.runtime.standing import Standing
    from valkeep.topology.view import NodeView, SentinelView, View

app = typer.Typer(add_completion=False, rich_markup_mode=None)

EVERY = 0.5


@app.command()
def status(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Which; default: all that are up.", show_default=False)] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Look twice a second until Ctrl-C.")] = False,
    json: JsonPath = None,
) -> ExitCode:
    """Roles, offsets, lag, links, slots, and what the sentinels believe. Exit code 1: something that should be there is not."""
    from valkeep.runtime.standing import all_standing, find

    if watch and json is not None:
        raise UsageError("--watch is for people, --json for programs", remedy="ask again and again: valkeep status --json -")
    standing = [find(name)] if name else all_standing()
    if watch:
        asyncio.run(_watch(standing))
        return ExitCode.GOOD
    seen = asyncio.run(_seen(standing))
    write_json({"topologies": seen}, json)
    out = console(json)
    for one in seen:
        out.print(_picture(one))
    if not seen:
        out.print("nothing is up; 'valkeep up sentinel' starts something")
    return ExitCode.GOOD if all(one["whole"] for one in seen) else ExitCode.JUDGED_BAD


async def _seen(standing: Iterable[Standing]) -> list[dict[str, Any]]:
    return [await _look(one) for one in standing]


async def _look(one: Standing) -> dict[str, Any]:
    if one.state != "ready":
        return {**_about(one), "whole": False, "missing": ["it is starting"], "nodes": [], "sentinels": []}
    async with one.prober() as prober:
        return await _asked(one, prober)


async def _watch(standing: list[Standing]) -> None:
    import contextlib

    from rich.console import Group
    from rich.live import Live

    if not standing:
        raise UsageError("nothing is up", remedy="valkeep up sentinel starts something")
    async with contextlib.AsyncExitStack() as stack:
        looks = [(one, await stack.enter_async_context(one.prober())) for one in standing if one.state == "ready"]
        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(Group(*[_picture(await _asked(one, prober)) for one, prober in looks]), refresh=True)
                await asyncio.sleep(EVERY)


def _about(one: Standing) -> dict[str, Any]:
    return {
        "name": one.name,
        "state": one.state,
        "topology": one.spec.described,
        "server": one.server,
        "runtime": one.runtime,
        "holder": one.pid,
    }


async def _asked(one: Standing, prober: Prober) -> dict[str, Any]:
    from valkeep.topology.plan import plan_for

    view = await prober.look()
    missing = plan_for(one.spec, view, one.addresses).missing
    names = {address: name for name, address in one.addresses.items()}
    pids = {node.name: node.pid for node in one.nodes}
    return {
        **_about(one),
        "whole": not missing,
        "missing": list(missing),
        "nodes": [
            {**_node(seen, view, names), "address": one.addresses[seen.name], "pid": pids[seen.name]} for seen in view.nodes.values()
        ],
        "sentinels": [{**_sentinel(seen, names), "address": one.addresses[seen.name]} for seen in view.sentinels.values()],
    }


def _node(seen: NodeView, view: View, names: dict[str, str]) -> dict[str, Any]:
    """``lag``: bytes that a replica is behind what its primary says, None where that is not known. ``link``: to its primary, or how many follow it."""
    if not seen.reached:
        return {"name": seen.name, "reached": False}
    leader = view.nodes.get(names.get(seen.primary, ""))
    lag = max(0, leader.offset - seen.offset) if leader is not None and leader.reached else None
    return {
        "name": seen.name,
        "reached": True,
        "role": seen.role,
        "follows": names.get(seen.primary, seen.primary) or None,
        "link_up": seen.link_up if seen.role == "replica" else None,
        "replicas_online": sorted(names.get(address, address) for address in seen.online) if seen.role == "primary" else None,
        "offset": seen.offset,
        "lag": lag,
        "slots": [list(span) for span in seen.ranges] if seen.members else None,
        "cluster_state": seen.state or None,
    }


def _sentinel(seen: SentinelView, names: dict[str, str]) -> dict[str, Any]:
    if not seen.reached:
        return {"name": seen.name, "reached": False}
    return {
        "name": seen.name,
        "reached": True,
        "primary": names.get(seen.primary, seen.primary),
        "calls_it_down": seen.down,
        "replicas_linked": sum(seen.replicas.values()),
        "sentinels_linked": sum(seen.sentinels.values()),
    }


def _picture(one: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    word = Text("whole", style="green") if one["whole"] else Text("not whole", style="bold red")
    title = Text.assemble((one["name"], "bold"), f"  {one['topology']} · {one['server']} · {one['runtime']} · ", word)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    clustered = any(node.get("slots") is not None for node in one["nodes"])
    for column in ("node", "address", "role", "offset", "lag", "link", *(["slots"] if clustered else [])):
        table.add_column(column, justify="right" if column in ("offset", "lag") else "left", no_wrap=column not in ("link", "slots"))
    for node in one["nodes"]:
        table.add_row(*_row(node, clustered=clustered))
    for seen in one["sentinels"]:
        table.add_row(*_sentinel_row(seen))
    missing = [Text(f"  missing: {what}", style="red") for what in one["missing"]]
    return Group(title, *([table] if one["nodes"] else []), *missing, Text(""))


def _row(node: dict[str, Any], *, clustered: bool) -> list[str]:
    if not node["reached"]:
        return [node["name"], node["address"], "", "", "", "does not answer"]
    if node["role"] == "primary":
        followed = ", ".join(node["replicas_online"])
        role, link = "primary", f"followed by {followed}" if followed else "followed by nobody"
    else:
        role, link = "replica", f"{'up' if node['link_up'] else 'down'}, to {node['follows']}"
    lag = "" if node["lag"] is None or role == "primary" else f"{node['lag']:,}"
    slots = " ".join(f"{first}-{last}" if first != last else str(first) for first, last in node["slots"] or ())
    state = "" if node["cluster_state"] in (None, "ok") else f" (cluster {node['cluster_state']})"
    return [node["name"], node["address"], role, f"{node['offset']:,}", lag, link, *([slots + state] if clustered else [])]


def _sentinel_row(seen: dict[str, Any]) -> list[str]:
    if not seen["reached"]:
        return [seen["name"], seen["address"], "sentinel", "", "", "does not answer"]
    opinion = f"says {seen['primary']}{' and calls it down' if seen['calls_it_down'] else ''}"
    return [
        seen["name"],
        seen["address"],
        "sentinel",
        "",
        "",
        f"{opinion}; sees {seen['replicas_linked']} replicas, {seen['sentinels_linked']} sentinels",
    ]
