"""The process that reads the target's snapshot and compares half of the partitions, so that two cores are used.

One request at a time. A request that was given up on leaves it in the middle of something: then ``renew`` it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost
from valkeep.migrate.verify.crossing import endpoint_to, pack
from valkeep.migrate.verify.lines import Worker
from valkeep.migrate.verify.look import Eye

__all__ = ["Begun", "Read", "TargetSide"]

ATTEMPTS = 5  # to be given a snapshot that was begun after we asked


@dataclass(frozen=True, slots=True)
class Begun:
    """A snapshot of the target that was begun at ``offset``, in its own count. ``scanned``: there is none, it is read by SCAN and DUMP."""

    offset: int
    scanned: bool
    about: int  # the request that reads it


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of the target. ``functions``: library → digest of its code; ``memory``: bytes, of the process at its peak."""

    keys: int
    bytes: int
    functions: dict[str, str]
    memory: int


class TargetSide:
    """``begin`` a snapshot, then ``read`` it; ``compare``."""

    def __init__(self, worker: Worker, target: Endpoint, directory: Path, read: str) -> None:
        self._worker = worker
        self._target = target
        self._read = read
        self._directory = directory

    @classmethod
    async def start(cls, target: Endpoint, directory: Path, read: str = "auto") -> Self:
        """``read``: "auto", or "scan" where no snapshot is to be asked for."""
        return cls(await Worker.start("side"), target, directory, read)

    async def renew(self) -> None:
        """A new process in place of this one."""
        with contextlib.suppress(ProcessLookupError):
            self._worker.process.kill()
        await self._worker.close()
        self._worker = await Worker.start("side")

    async def close(self) -> None:
        await self._worker.close()

    async def begin(self, target: Connection, eye: Eye, key: bytes, partitions: int) -> Begun:
        """Ask for the target's snapshot until it is one that was begun after now: a primary may hand out one that it makes for somebody else."""
        worker = self._worker
        for _ in range(ATTEMPTS):
            before = await server_info(target)
            least = await eye.offset()
            heard = await worker.hear(
                worker.ask(
                    "snapshot",
                    endpoint=endpoint_to(self._target),
                    key=pack(key),
                    partitions=partitions,
                    directory=str(self._directory),
                    read=self._read,
                )
            )
            if heard["say"] == "denied":
                return Begun(least, scanned=True, about=worker.ask("scan"))
            replid, offset = heard["replid"], heard["offset"]
            if replid != (await server_info(target)).replid:
                raise ConnectionLost(
                    f"{self._target.address} leads to one server now and to another then (replication ids {before.replid} and {replid})",
                    remedy="give the address of one server, not of a load balancer; after a failover verify again",
                )
            # a primary without a backlog takes a new id for its first replica, which is us: that snapshot is surely a new one
            if offset >= least or replid != before.replid:
                return Begun(offset, scanned=False, about=worker.ask("go"))
            worker.ask("drop")
        raise ConnectionLost(
            f"the target hands out snapshots of offset {offset}, older than its data at {least}",
            remedy="wait until its current BGSAVE has ended, then verify again",
        )

    async def read(self, begun: Begun, progress: Callable[[int, int], None]) -> Read:
        """All of it. ``progress(keys, bytes)`` some times a second."""
        while (heard := await self._worker.hear(begun.about))["say"] == "progress":
            progress(heard["keys"], heard["bytes"])
        return Read(heard["keys"], heard["bytes"], heard["functions"], heard["memory"])

    def compare(self, partitions: list[int], deadline: int, *, final: bool, out: str) -> int:
        """Begin to compare these partitions, see `compare.compare_partitions`; ``compared`` gives the counts."""
        return self._worker.ask("compare", directory=str(self._directory), partitions=partitions, deadline=deadline, final=final, out=out)

    async def compared(self, about: int) -> dict[str, int]:
        counts: dict[str, Any] = (await self._worker.hear(about))["counts"]
        return counts
