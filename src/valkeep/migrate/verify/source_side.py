"""The source's side of a full verification: followed by PSYNC from its snapshot on, or, where that is denied or not wanted, read by SCAN.

A source that is read by SCAN is not *followed*: what is written there after a key was read is not known. `Unfollowed` stands in the place of the
`Follower`, and knows of no written key; the package's head says what a comparison then can claim.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from valkeep.client.endpoint import Endpoint
from valkeep.client.replication_reader import ReplicationReader
from valkeep.migrate.verify.follow import Follower
from valkeep.migrate.verify.scan import read_by_scan
from valkeep.migrate.verify.side import PRESENT_AS, Progress, Snapshot, Spill, read_snapshot
from valkeep.migrate.verify.written import Written
from valkeep.wire.psync import ReplicationDenied

__all__ = ["Unfollowed", "follow"]


class Unfollowed:
    """As a `Follower`, of a source at ``offset`` that is read by SCAN; ``begin`` reading when the target may be read too."""

    followed = False
    replid = ""

    def __init__(self, offset: int, source: Endpoint, spill: Callable[[], Spill], progress: Progress, directory: Path) -> None:
        self.offset = offset
        self.snapshot: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self.written = Written(offset, 0, directory)  # nothing is ever noted there
        self._source = source
        self._spill = spill
        self._progress = progress
        self._task: asyncio.Task[Snapshot] | None = None

    def begin(self) -> None:
        self.snapshot = self._task = asyncio.create_task(read_by_scan(self._source, self._spill(), self._progress))
        self._task.add_done_callback(lambda done: done.cancelled() or done.exception())

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
    source: Endpoint, read: str, offset: int, spill: Callable[[], Spill], progress: Progress, directory: Path
) -> Follower | Unfollowed:
    """``read``: "auto" or "scan". ``offset``: the source's now. Raises what `ReplicationReader.open` raises, save that replication is denied."""
    if read != "scan":
        with contextlib.suppress(ReplicationDenied):
            link = await ReplicationReader.open(source, present_as=PRESENT_AS)
            return Follower(link, lambda chunks: read_snapshot(chunks, spill(), progress), directory)
    return Unfollowed(offset, source, spill, progress, directory)
