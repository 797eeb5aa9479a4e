"""When has the target applied what the source had at an offset? The answer for a verification that runs alone, without a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Self

from valkeep.client.connection import Connection
from valkeep.client.server_info import ServerInfo, parse_info
from valkeep.errors import ConnectionLost, UsageError
from valkeep.migrate.verify.shards import Shards

__all__ = ["Barrier", "Relation", "StandaloneBarrier"]

Barrier = Callable[[int], Awaitable[None]]
"""``await barrier(offset)`` returns when the target has applied everything up to the source's ``offset``; it may raise."""

PATIENCE = 60.0  # seconds that a replica may lag before the wait is given up
STILL = 0.3  # seconds that a target behind a gateway must have stood still …
LONG_ENOUGH = 2.0  # … or this long under steady writes
SHORT = 0.02  # and before each later look


class Relation(StrEnum):
    """How the target hangs off the source, as far as the barrier knows; ``how``: for people."""

    PIPELINE = "the pipeline's barrier"
    NATIVE = "the target replicates under the source's id: offsets are compared"
    FOREIGN = "the target replicates under another id (a gateway's): waiting for it proves nothing, so differences are looked at repeatedly"
    APART = "the target is not linked to the source: it is compared as it stands"

    @property
    def exact(self) -> bool:
        """Whether a difference behind the barrier is one."""
        return self is not Relation.FOREIGN

    @classmethod
    def of(cls, source: ServerInfo, target: ServerInfo) -> Relation:
        """Only a replica follows: a promoted target has the source's id as its second one, and goes its own way."""
        if target.role != "replica":
            return cls.APART
        return cls.NATIVE if source.replid == target.replid and source.replid != "?" else cls.FOREIGN


class StandaloneBarrier:
    """``relation``: what it found; ``close`` it."""

    def __init__(self, target: Connection, relation: Relation) -> None:
        self.relation = relation
        self._target = target
        self._stood = False

    @classmethod
    async def between(cls, source: Shards, target: Shards) -> Self:
        """Choose by what both sides are; no cluster follows anybody. ``UsageError`` when a server is on both."""
        ours = {member.info.run_id for member in source.members} - {""}
        for member in target.members:
            if member.info.run_id in ours:
                raise UsageError(
                    f"{source.first.endpoint.address} and {member.endpoint.address} are the same server"
                    if len(source) == len(target) == 1
                    else f"{member.endpoint.address} is on both sides",
                    remedy="give the migration's source and its target",
                )
        apart = source.cluster or target.cluster
        relation = Relation.APART if apart else Relation.of(source.first.info, target.first.info)
        return cls(await Connection.open(target.first.endpoint, client_name="valkeep-verify"), relation)

    async def close(self) -> None:
        await self._target.close()

    async def __call__(self, offset: int) -> None:
        match self.relation:
            case Relation.NATIVE:
                await self._reach(offset)
            case Relation.FOREIGN if self._stood:
                await asyncio.sleep(SHORT)  # what still differs then is looked at again, for seconds
            case Relation.FOREIGN:
                await self._stand_still()
                self._stood = True

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
