"""When has the target applied what the source had at an offset? The answer for a verification that runs alone, without a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from valkeep.client.connection import Connection
from valkeep.client.server_info import ServerInfo, parse_info, server_info
from valkeep.errors import ConnectionLost, UsageError

__all__ = ["Barrier", "StandaloneBarrier"]

Barrier = Callable[[int], Awaitable[None]]
"""``await barrier(offset)`` returns when the target has applied everything up to the source's ``offset``; it may raise."""

PATIENCE = 60.0  # seconds that a replica may lag before the wait is given up
STILL = 0.3  # seconds that a target behind a gateway must have stood still …
LONG_ENOUGH = 2.0  # … or this long under steady writes
SHORT = 0.02  # and before each later look


class StandaloneBarrier:
    """``exact``: waiting proves that the target is there (offsets are of one history). ``how``: for people."""

    def __init__(self, target: Connection, *, exact: bool, how: str, wait: str) -> None:
        self._target = target
        self.exact = exact
        self.how = how
        self._wait = wait
        self._stood = False

    @classmethod
    async def between(cls, source: Connection, target: Connection) -> StandaloneBarrier:
        """Look at both servers and choose. ``UsageError`` when they are one server."""
        one, other = await server_info(source), await server_info(target)
        if one.run_id and one.run_id == other.run_id:
            raise UsageError(
                f"{source.endpoint.address} and {target.endpoint.address} are the same server",
                remedy="give the migration's source and its target",
            )
        kind = _relation(one, other)
        if kind == "native":
            return cls(target, exact=True, how="the target replicates under the source's id: offsets are compared", wait=kind)
        if kind == "foreign":
            how = "the target replicates under another id (a gateway's): waiting for it proves nothing, so differences are looked at repeatedly"
            return cls(target, exact=False, how=how, wait=kind)
        return cls(target, exact=True, how="the target is not linked to the source: it is compared as it stands", wait=kind)

    async def __call__(self, offset: int) -> None:
        if self._wait == "native":
            await self._reach(offset)
        elif self._wait == "foreign" and not self._stood:
            await self._stand_still()
            self._stood = True
        elif self._wait == "foreign":
            await asyncio.sleep(SHORT)  # what still differs then is looked at again, for seconds

    async def _applied(self) -> int:
        info = parse_info(await self._target.call("INFO", "replication"))
        return int(info.get("slave_repl_offset") or info.get("master_repl_offset") or 0)

    async def _reach(self, offset: int) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        pause = 0.0005
        while (there := await self._applied()) < offset:
            if loop.time() > until:
                raise ConnectionLost(
                    f"the target has applied the stream up to {there} and not to {offset} after {PATIENCE:.0f} s",
                    remedy="see INFO replication of the target: is its link up, and does it keep up with the writes?",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    async def _stand_still(self) -> None:
        loop = asyncio.get_running_loop()
        begun = since = loop.time()
        there = await self._applied()
        while loop.time() - since < STILL and loop.time() - begun < LONG_ENOUGH:
            await asyncio.sleep(0.03)
            now = await self._applied()
            if now != there:
                there, since = now, loop.time()


def _relation(source: ServerInfo, target: ServerInfo) -> str:
    """native | foreign | apart. Only a replica follows: a promoted target has the source's id as its second one, and goes its own way."""
    if target.role != "replica":
        return "apart"
    return "native" if source.replid == target.replid and source.replid != "?" else "foreign"
