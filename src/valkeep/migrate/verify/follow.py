"""Following the source: its snapshot into rows, then its stream into written keys, for as long as the session lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from valkeep.client.replication_reader import ReplicationReader
from valkeep.errors import ConnectionLost
from valkeep.migrate.verify.side import Snapshot
from valkeep.migrate.verify.written import Written

__all__ = ["Follower", "Spoiled"]

STREAM_WAIT = 30.0  # seconds that the stream may lag behind the source's own offset

_Read = Callable[[AsyncIterator[bytes]], Awaitable[Snapshot]]


class Spoiled(Exception):
    """Something happened on the source that no comparison of keys can judge."""


class Follower:
    """One link to the source. ``snapshot``: resolves when it was read; ``written``: from then on, what the stream wrote. ``offset``: of the snapshot."""

    followed = True

    def __init__(self, link: ReplicationReader, read: _Read, directory: Path) -> None:
        self.link = link
        self.replid, self.offset = link.replid, link.offset
        self.snapshot: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._written: Written | None = None
        self._broken: BaseException | None = None
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._follow(read, directory))

    async def _follow(self, read: _Read, directory: Path) -> None:
        link = self.link
        try:
            snapshot = await read(link.snapshot())
            written = self._written = Written(link.offset, snapshot.stream_database, directory)
            self.snapshot.set_result(snapshot)
            async for data in link.stream():
                written.feed(data)
                self._moved.set()
        except BaseException as error:
            self._broken = error
            self._moved.set()
            if not self.snapshot.done():
                stopped = ConnectionLost("the verification was stopped", remedy="verify again")
                self.snapshot.set_exception(error if isinstance(error, Exception) else stopped)
                self.snapshot.exception()  # whoever waits sees it; nobody may
            if isinstance(error, asyncio.CancelledError):
                raise

    def begin(self) -> None:
        """It has begun: the source's moment is the one at which it forked."""

    @property
    def written(self) -> Written:
        if self._written is None:
            self.raise_broken()
            raise ConnectionLost("the source's stream is not followed yet", remedy="begin with a full verification")
        return self._written

    def raise_broken(self) -> None:
        """The reason, when the link is what failed."""
        if self._broken is not None and not isinstance(self._broken, asyncio.CancelledError):
            raise self._broken from None

    def sound(self) -> None:
        """Raises when the link broke, or ``Spoiled`` when something has happened that no key can tell."""
        self.raise_broken()
        if self.written.everything:
            raise Spoiled(self.written.everything)

    async def tracked(self, offset: int) -> None:
        """Until the stream has been read up to ``offset``; then as ``sound``."""
        written = self.written
        try:
            async with asyncio.timeout(STREAM_WAIT):
                while written.position < offset and self._broken is None:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise ConnectionLost(
                f"the source's stream has come to offset {written.position} and not to {offset} within {STREAM_WAIT:.0f} s",
                remedy="see whether the network between Valkeep and the source keeps up with the writes",
            ) from None
        self.sound()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._task
        await self.link.close()
