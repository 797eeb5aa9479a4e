"""Both sides' libraries of functions, followed until they are the same or differ for good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from valkeep.migrate.verify.follow import Follower
from valkeep.migrate.verify.functions import functions_differ
from valkeep.migrate.verify.shards import Shards
from valkeep.migrate.verify.source_side import Unfollowed

__all__ = ["Libraries"]

LOOKS = 5  # at libraries that differ or change …
PAUSE_SECONDS = 0.5  # … and between two of them, where one proves nothing


class Libraries:
    """As the snapshots have them, or (when they changed since, or differ) as the servers say now.

    ``servers``: source and target. ``reached``: the source's offset, to be waited for by ``barrier`` before the target is asked; ``exact``: that proves that
    the target has what the source had.
    """

    def __init__(
        self,
        servers: tuple[Shards, Shards],
        reached: Callable[[], Awaitable[int]],
        barrier: Callable[[int], Awaitable[None]],
        *,
        exact: bool,
    ) -> None:
        self._source, self._target = servers
        self._reached = reached
        self._barrier = barrier
        self._exact = exact
        self._found: tuple[dict[str, str], dict[str, str]] = {}, {}  # library → digest of its code

    def __len__(self) -> int:
        return len(self._found[0])

    def read(self, mine: dict[str, str], theirs: dict[str, str]) -> None:
        """What the snapshots had."""
        self._found = mine, theirs

    async def differing(self, follower: Follower | Unfollowed) -> dict[str, str]:
        """As `functions.functions_differ`. Where they change faster than they can be looked at, ``written.functions`` of the follower stays set."""
        written = follower.written
        for _ in range(LOOKS):
            mine, theirs = self._found
            if mine == theirs and not written.functions:
                break
            written.functions = False
            try:
                mine = await self._source.libraries()
                await self._barrier(await self._reached())
                theirs = await self._target.libraries()
                await follower.tracked(await self._reached())
            except BaseException:
                written.functions = True  # still to be looked at
                raise
            self._found = mine, theirs
            if mine != theirs and not self._exact:
                await asyncio.sleep(PAUSE_SECONDS)
        return functions_differ(*self._found)
