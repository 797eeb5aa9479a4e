"""What ``valkeep migrate abort`` does: a migration that runs is told to stop; of one that does not, what it changed is undone, from its state folder.

Here is decided who is asked. The source: at the place that the state file names, which may be the primary of a replica that was read, or each shard of a
cluster. The target: where it was given, or, where it was pushed to, at the first of its shards that answers. Who does not answer is left to `cutover.abort`,
which judges what may be undone without him.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost
from valkeep.migrate.control import Lock, ask, remove_socket
from valkeep.migrate.cutover import pushed
from valkeep.migrate.cutover.abort import Site, abort
from valkeep.migrate.elasticache.address import GroupAddress
from valkeep.migrate.spool import sweep
from valkeep.migrate.state import SHARDS, StateFile, default_directory, expect_target

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

    from valkeep.client.named_primary import Source
    from valkeep.migrate.state import MigrationState

__all__ = ["undo"]


async def undo(source: Source | None, target: Endpoint | GroupAddress, directory: Path | None, *, force: bool = False) -> list[str]:
    """What was done, in sentences. ``source``: None of a move from files. ``directory``: the state folder, None: the one of this source and target. ``force``:
    make the source writable although the target was promoted. Raises as `cutover.abort.abort`, and ``Refused`` where the folder is of another target's."""
    directory = directory or default_directory(source.display if source is not None else "file:", target.display)
    running = await ask(directory, "abort")
    if running is not None:
        return list(running["done"])
    with Lock(directory):
        remove_socket(directory)
        sweep(directory)
        state = StateFile(directory)
        found = state.read()
        if found is not None and not force:
            where, group = (found.target, target.display) if isinstance(target, GroupAddress) else (target.display, None)
            expect_target(found, where, group)
        async with contextlib.AsyncExitStack() as stack:
            sites = await _sites(source, state, found, stack)
            return await abort(sites, await _target(target, found, stack), state, force=force)


async def _sites(source: Source | None, state: StateFile, found: MigrationState | None, stack: AsyncExitStack) -> list[Site]:
    """The servers of the source that may be fenced: of a cluster its shards that were begun with, wherever their fence is."""
    if found is None or not found.source_shards:
        return [Site(await _reach(_fenced(source, found) or source, stack), state)]
    sites = []
    for name in found.source_shards:
        shard = StateFile(state.directory / SHARDS / name)
        left = shard.read()
        if left is not None:
            sites.append(Site(await _reach(_fenced(source, left), stack), shard))
    return sites


def _fenced(source: Source | None, left: MigrationState | None) -> Source | None:
    """Where its fence is, with the source's login; None where it has none."""
    if source is None or left is None or not left.fence_at:
        return None
    where = Endpoint.parse(left.fence_at)
    return source.at(where.host, where.port)


async def _target(target: Endpoint | GroupAddress, found: MigrationState | None, stack: AsyncExitStack) -> Connection | None:
    """The first server of it that answers."""
    if isinstance(target, Endpoint):
        places = [target] if found is None else pushed.places(target, found)
    else:
        places = [] if found is None else [Endpoint.parse(found.target)]
    for place in places:
        connection = await _reach(place, stack)
        if connection is not None:
            return connection
    return None


async def _reach(where: Source | None, stack: AsyncExitStack) -> Connection | None:
    """None where it does not answer."""
    if where is None:
        return None
    try:
        return await stack.enter_async_context(await Connection.open(await where.resolve()))
    except ConnectionLost:
        return None
