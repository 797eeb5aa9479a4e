"""``valkeep migrate status``: every migration on this machine, and what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from valkeep.migrate.status import MigrationStatus

__all__ = ["status"]

EVERY = 0.5


def status(
    state: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder that was given to --state; repeatable. Default: the usual place.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look twice a second until Ctrl-C.")] = False,
    json: JsonPath = None,
) -> ExitCode:
    """Every migration of this user on this machine: does it run, how far is it, what is to be done. Changes nothing."""
    from valkeep.migrate.status import statuses

    if watch and json is not None:
        raise UsageError("--watch is for people, --json for programs", remedy="ask again and again: valkeep migrate status --json -")
    for folder in state or ():
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder", remedy="give the one that was given to --state")
    if watch:
        asyncio.run(_watch(state or []))
        return ExitCode.GOOD
    found = asyncio.run(statuses(state or []))
    write_json({"schema": 1, "migrations": [one.to_json() for one in found]}, json)
    console(json).print(_picture(found))
    return ExitCode.GOOD


async def _watch(folders: Sequence[Path]) -> None:
    from rich.live import Live

    from valkeep.migrate.status import statuses

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(_picture(await statuses(folders)), refresh=True)
            await asyncio.sleep(EVERY)


def _picture(found: Sequence[MigrationStatus]) -> RenderableType:
    from rich.text import Text

    if not found:
        return Text("no migration is known here; `valkeep migrate run` starts one")
    return Text("\n").join([Text("\n").join([Text(line) for line in _lines(one)]) for one in found])


def _gateway(live: dict[str, Any]) -> list[str]:
    whose = f"shard {live['shard']}: " if "shard" in live else ""
    offset = f"source offset {live['source_offset']:,} of {live['source_replid'][:8]}…"
    lines = [f"  {whose}gateway {live['gateway']}; {live['keys']:,} keys; {offset}"]
    behind = live["source_offset"] - live["translated"]
    if behind > 0:
        lines.append(f"  {behind:,} bytes of it wait here")
    for target in live["targets"]:
        how = f"{target['lag']:,} bytes behind" if target["online"] else "loads the snapshot"
        lines.append(f"  target {target['target']}: {how}")
    return lines


def _lines(one: MigrationStatus) -> list[str]:
    pair = " → ".join(part for part in (one.source, one.target) if part) or str(one.folder)
    lines = [pair]
    if one.running:
        who = f", process {one.pid}" if one.pid else ""
        lines.append(f"  runs{who}: {one.live['doing'] if one.live is not None else one.step}")
    else:
        lines.append(f"  does not run: {one.step}")
    if one.live is not None:
        for live in one.live.get("shards", [one.live]):
            lines += _gateway(live)
    lines.append(f"  state: {one.folder}")
    if one.todo:
        lines.append(f"  next: {one.todo}")
    return lines
