"""The source's side of a full verification: followed by PSYNC from its snapshot on, or not followed.

A source is not *followed* where PSYNC is denied or not wanted, and where it is a cluster: what is written there after a key was read is not known. `Unfollowed`
stands in the place of the `Follower`, and knows of no written key; the package's head says what a comparison then can claim.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from valkeep.client.replication_reader import ReplicationReader
from valkeep.migrate.verify.follow import Follower
from valkeep.migrate.verify.scan import read_by_scan
from valkeep.migrate.verify.shards import Member, Shards, uneven
from valkeep.migrate.verify.side import PRESENT_AS, Progress, Snapshot, Spill, read_snapshot
from valkeep.migrate.verify.written import Written
from valkeep.wire.psync import ReplicationDenied

__all__ = ["Unfollowed", "follow"]


class Unfollowed:
    """As a `Follower`, of a source at ``offset``; ``begin`` reading when the target may be read too. ``spill(member)``: where goes what is read of it.
    ``how``: how it was read, known when ``snapshot`` is: "psync" (a snapshot of each server), or "scan"."""

    followed = False
    replid = ""

    def __init__(
        self, offset: int, source: Shards, how: str, spill: Callable[[Member], Spill], progress: Progress, directory: Path
    ) -> None:
        self.offset = offset
        self.snapshot: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self.written = Written(offset, 0, directory)  # nothing is ever noted there
        self.how = how
        self._source = source
        self._spill = spill
        self._progress = progress
        self._task: asyncio.Task[Snapshot] | None = None

    def begin(self) -> None:
        self.snapshot = self._task = asyncio.create_task(self._read())
        self._task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _read(self) -> Snapshot:
        """Server by server."""
        keys = size = 0
        seconds = 0.0
        functions = {}
        for member in self._source.members:
            before = keys, size
            read = await self._read_one(
                member,
                self._spill(member),
                lambda keys, size, before=before: self._progress(before[0] + keys, before[1] + size),  # type: ignore[misc]
            )
            keys, size, seconds = keys + read.keys, size + read.bytes, seconds + read.seconds
            functions[member.endpoint.address] = read.functions
        return Snapshot(keys, size, seconds, uneven(functions), 0)

    async def _read_one(self, member: Member, spill: Spill, progress: Progress) -> Snapshot:
        if self.how != "scan":
            try:
                link = await ReplicationReader.open(member.endpoint, present_as=PRESENT_AS)
            except ReplicationDenied:
                self.how = "scan"
            else:
                try:
                    return await read_snapshot(link.snapshot(), spill, progress)
                finally:
                    await link.close()
        return await read_by_scan(member.endpoint, spill, progress, member.ranges)

    def raise_broken(self) -> None:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def sound(self) -> None:
        """There is nothing that could break between two readings."""

    async def tracked(self, offset: int) -> None:
        """As far as that goes without a stream."""

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._task


async def follow(
    source: Shards, read: str, offset: int, spill: Callable[[Member], Spill], progress: Progress, directory: Path
) -> Follower | Unfollowed:
    """``read``: "auto" or "scan". ``offset``: the source's now. Raises what `ReplicationReader.open` raises, save that replication is denied."""
    if source.cluster:
        return Unfollowed(offset, source, "scan" if read == "scan" else "psync", spill, progress, directory)
    if read != "scan":
        with contextlib.suppress(ReplicationDenied):
            link = await ReplicationReader.open(source.first.endpoint, present_as=PRESENT_AS)
            return Follower(link, lambda chunks: read_snapshot(chunks, spill(source.first), progress), directory)
    return Unfollowed(offset, source, "scan", spill, progress, directory)
