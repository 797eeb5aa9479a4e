"""``valkeep migrate cutover`` and ``abort``: a person decides about a migration that runs, or that was killed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valkeep.cli.endpoint import Source, SourcePasswordEnv, SourcePasswordFile, Target, TargetPasswordEnv, TargetPasswordFile, source_of
from valkeep.cli.migrate_elasticache import target_named
from valkeep.cli.migrate_options import State
from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ConnectionLost, ExitCode

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.named_primary import Source as AnySource
    from valkeep.migrate.elasticache.address import GroupAddress

__all__ = ["abort", "cutover"]


def cutover(source: Source, target: Target, state: State = None, json: JsonPath = None) -> ExitCode:
    """Cut over a migration that waits for it (`valkeep migrate run --cutover manual`)."""
    from valkeep.errors import Refused
    from valkeep.migrate.control import ask
    from valkeep.migrate.state import default_directory

    here, there = source_of(source), target_named(target)
    directory = state or default_directory(here.display, there.display)
    answer = asyncio.run(ask(directory, "cutover"))
    if answer is None:
        raise Refused(
            f"no migration runs in {directory}",
            remedy="`valkeep migrate status` lists those that run here, with the --source and --target to say (of a cluster the nodes that run was given)",
        )
    done = f"cut over: {answer['promoted']} is the primary now; write pause {answer['write_pause_ms']} ms"
    console(json).print(done, markup=False)
    write_json(answer, json, changed=done)
    return ExitCode.GOOD


def abort(
    target: Target,
    source: Source = "",
    state: State = None,
    force: Annotated[bool, typer.Option("--force", help="Make the source writable although the target was promoted.")] = False,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    json: JsonPath = None,
) -> ExitCode:
    """Undo what a migration changed: the source accepts writes again, the target is detached. Also after a kill -9.

    Without --source: a move from files (`valkeep migrate run --read PATH`).
    """
    here = source_of(source, source_password_file, source_password_env) if source else None
    there = target_named(target, target_password_file, target_password_env)
    done = asyncio.run(_abort(here, there, state, force))
    for line in done:
        console(json).print(line, markup=False)
    write_json({"done": done}, json, changed="; ".join(done))
    return ExitCode.GOOD


async def _abort(source: AnySource | None, target: Endpoint | GroupAddress, state: Path | None, force: bool) -> list[str]:
    from valkeep.client.connection import Connection
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.control import Lock, ask, remove_socket
    from valkeep.migrate.cutover import abort as undo
    from valkeep.migrate.cutover import pushed
    from valkeep.migrate.elasticache.address import GroupAddress
    from valkeep.migrate.spool import sweep
    from valkeep.migrate.state import SHARDS, StateFile, default_directory, expect_target

    directory = state or default_directory(source.display if source is not None else "file:", target.display)
    running = await ask(directory, "abort")
    if running is not None:
        return list(running["done"])
    with Lock(directory):
        remove_socket(directory)
        sweep(directory)
        file = StateFile(directory)
        found = file.read()
        if found is not None and found.fence_at and source is not None:  # a source that is a replica is fenced at its primary
            where = Endpoint.parse(found.fence_at)
            source = source.at(where.host, where.port)
        if isinstance(target, GroupAddress):
            there = Endpoint.parse(found.target) if found is not None else None
            if found is not None and not force:
                expect_target(found, found.target, target.display)
        else:
            there = target
            if found is not None and not force:
                expect_target(found, target.display)
        async with contextlib.AsyncExitStack() as stack:

            async def reach(where: AnySource | None) -> Connection | None:
                if where is None:
                    return None
                try:
                    return await stack.enter_async_context(await Connection.open(await where.resolve()))
                except ConnectionLost:
                    return None

            shards = []
            for name in found.source_shards if found is not None else ():
                shard = StateFile(directory / SHARDS / name)
                of_shard = shard.read()
                if of_shard is not None:
                    fenced = Endpoint.parse(of_shard.fence_at) if of_shard.fence_at else None
                    shards.append(undo.Site(await reach(source and fenced and source.at(fenced.host, fenced.port)), shard))
            if shards:
                source = None  # what is undone there is undone at its shards
            asked = pushed.places(there, found) if there is not None and found is not None else [there]
            answers = (connection for place in asked if (connection := await reach(place)) is not None)
            return await undo.abort(await reach(source), await anext(answers, None), file, force=force, shards=shards)
