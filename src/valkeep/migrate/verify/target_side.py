"""The process that reads the target's snapshots and compares half of the partitions, so that two cores are used.

One request at a time. A request that was given up on leaves it in the middle of something: then ``renew`` it.

Of a cluster it reads one shard after the other: one fork at a time (shards often share a machine), and a number of open files that does not grow with the
shards. Each snapshot is asked for when the one before it has been read, since a server gives up on a reader that keeps it waiting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost
from valkeep.migrate.verify.crossing import endpoint_to, pack
from valkeep.migrate.verify.lines import Worker
from valkeep.migrate.verify.shards import Member, Shards, uneven

__all__ = ["Read", "TargetSide"]

ATTEMPTS = 5  # to be given a snapshot that was begun after we asked


@dataclass(frozen=True, slots=True)
class _Begun:
    """A snapshot of a server that was begun at ``offset``, in its own count. ``scanned``: there is none, it is read by SCAN and DUMP."""

    offset: int
    scanned: bool
    about: int  # the request that reads it


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of the target. ``offset``: of its snapshot, in its own count (0 for a cluster, which has none); ``scanned``: it, or a part of it, was
    read by SCAN and DUMP. ``functions``: library → digest of its code, see `shards.uneven`; ``memory``: bytes, of the process at its peak."""

    offset: int
    scanned: bool
    keys: int
    bytes: int
    functions: dict[str, str]
    memory: int


class TargetSide:
    """``read`` all of it; ``compare``."""

    def __init__(self, worker: Worker, directory: Path, how: str) -> None:
        self._worker = worker
        self._how = how
        self._directory = directory

    @classmethod
    async def start(cls, directory: Path, how: str = "auto") -> Self:
        """``how``: "auto", or "scan" where no snapshot is to be asked for."""
        return cls(await Worker.start("side"), directory, how)

    async def renew(self) -> None:
        """A new process in place of this one."""
        with contextlib.suppress(ProcessLookupError):
            self._worker.process.kill()
        await self._worker.close()
        self._worker = await Worker.start("side")

    async def close(self) -> None:
        await self._worker.close()

    async def read(
        self, target: Shards, key: bytes, partitions: int, forked: Callable[[], Awaitable[None]], progress: Callable[[int, int], None]
    ) -> Read:
        """Server by server. ``forked()`` is awaited when a server has made its snapshot, and before that is read: nothing that is written there later is
        in it. ``progress(keys, bytes)`` some times a second."""
        keys = size = memory = offset = 0
        scanned = False
        functions = {}
        for member in target.members:
            begun = await self._begin(member, key, partitions, more=member is not target.first)
            await forked()
            while (heard := await self._worker.hear(begun.about))["say"] == "progress":
                progress(keys + heard["keys"], size + heard["bytes"])
            keys, size, memory = keys + heard["keys"], size + heard["bytes"], heard["memory"]
            functions[member.endpoint.address] = heard["functions"]
            scanned |= begun.scanned
            offset = begun.offset
        return Read(0 if target.cluster else offset, scanned, keys, size, uneven(functions), memory)

    async def _begin(self, member: Member, key: bytes, partitions: int, *, more: bool) -> _Begun:
        """Ask for a server's snapshot until it is one that was begun after now: a primary may hand out one that it makes for somebody else."""
        worker, target = self._worker, member.connection
        for _ in range(ATTEMPTS):
            before = await server_info(target)
            least = await member.eye.offset()
            heard = await worker.hear(
                worker.ask(
                    "snapshot",
                    endpoint=endpoint_to(member.endpoint),
                    ranges=member.ranges,
                    key=pack(key),
                    partitions=partitions,
                    directory=str(self._directory),
                    read=self._how,
                    more=more,
                )
            )
            if heard["say"] == "denied":
                return _Begun(least, scanned=True, about=worker.ask("scan"))
            replid, offset = heard["replid"], heard["offset"]
            if replid != (await server_info(target)).replid:
                raise ConnectionLost(
                    f"{member.endpoint.address} leads to one server now and to another then (replication ids {before.replid} and {replid})",
                    remedy="give the address of one server, not of a load balancer; after a failover verify again",
                )
            # a primary without a backlog takes a new id for its first replica, which is us: that snapshot is surely a new one
            if offset >= least or replid != before.replid:
                return _Begun(offset, scanned=False, about=worker.ask("go"))
            worker.ask("drop")
        raise ConnectionLost(
            f"the target hands out snapshots of offset {offset}, older than its data at {least}",
            remedy="wait until its current BGSAVE has ended, then verify again",
        )

    def compare(self, partitions: list[int], deadline: int, *, final: bool, out: str) -> int:
        """Begin to compare these partitions, see `compare.compare_partitions`; ``compared`` gives the counts."""
        return self._worker.ask("compare", directory=str(self._directory), partitions=partitions, deadline=deadline, final=final, out=out)

    async def compared(self, about: int) -> dict[str, int]:
        counts: dict[str, Any] = (await self._worker.hear(about))["counts"]
        return counts
