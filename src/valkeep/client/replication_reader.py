"""A server's snapshot and stream for a reader that takes its time: what it has not taken waits in the server, not here.

A receiver of a `ReplicationLink` that queues what comes, and stops the link's reading while there is a megabyte of it. ACKs say what has come, taken or
not: nobody's cut-over waits for this replica. A server that asks (``REPLCONF GETACK``) is answered at once: its clients may be waiting for all its replicas
(``WAIT``; a Valkey's ``CLUSTER SETSLOT``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from valkeep.client.endpoint import Endpoint
from valkeep.client.replication import HungUp, NotNow, ReplicationLink
from valkeep.errors import ConnectionLost

__all__ = ["ReplicationReader"]

ENOUGH = 1 << 20  # bytes that wait to be taken
PATIENCE = 60.0  # seconds
PAUSE = 0.2  # seconds between two attempts
_ASKED = b"\r\nGETACK\r\n"


class _Queue:
    """The `Receiver`: what has come and was not taken. None ends the snapshot."""

    def __init__(self) -> None:
        self.link: ReplicationLink | None = None
        self.replid = ""
        self.offset = 0
        self.news = asyncio.Event()
        self._pieces: deque[bytes | None] = deque()
        self._size = 0
        self._tail = b""  # of the stream so far, in which a question may have begun

    def full_resync(self, replid: str, offset: int) -> None:
        self.replid, self.offset = replid, offset
        self.news.set()

    def continued(self, replid: str, offset: int) -> None:
        self.full_resync(replid, offset)

    def snapshot(self, data: memoryview) -> None:
        self._put(bytes(data))

    def snapshot_end(self) -> None:
        self._put(None)

    def stream(self, data: memoryview) -> None:
        piece = bytes(data)
        if self.link is not None and (_ASKED in piece or _ASKED in self._tail + piece[: len(_ASKED)]):
            self.link.acknowledge()
        self._tail = (self._tail + piece[-len(_ASKED) :])[1 - len(_ASKED) :]
        self._put(piece)

    def ended(self, _: asyncio.Future[None]) -> None:
        """The link is over; ``more`` raises why."""
        self.news.set()

    def _put(self, piece: bytes | None) -> None:
        self._pieces.append(piece)
        self._size += len(piece or b"")
        if self._size >= ENOUGH and self.link is not None:
            self.link.pause()
        self.news.set()

    async def take(self) -> bytes | None:
        """The next piece. Raises why the link ended, once everything that came before was taken."""
        while not self._pieces:
            await self.more()
        piece = self._pieces.popleft()
        self._size -= len(piece or b"")
        if self._size < ENOUGH and self.link is not None:
            self.link.resume()
        return piece

    async def more(self) -> None:
        """Return when there may be news. Raises why the link ended."""
        assert self.link is not None
        if self.link.lost.done():
            await self.link.lost
            raise ConnectionLost(f"the replication link to {self.link.name} was closed here", remedy="open a new one")
        self.news.clear()
        await self.news.wait()


class ReplicationReader:
    """``open`` gets as far as the server's answer to PSYNC, which is when it has forked or will; then ``snapshot``, then ``stream``.

    ``replid``, ``offset``: of the snapshot.
    """

    def __init__(self, queue: _Queue, link: ReplicationLink) -> None:
        self._queue = queue
        self._link = link

    @classmethod
    async def open(cls, endpoint: Endpoint, *, present_as: str, patience: float = PATIENCE, timeout: float = 5.0) -> ReplicationReader:
        """``present_as``: see `ReplicationLink.open`. ``patience``: seconds for which a server may say "not now". ``timeout``: until connected.

        Raises ``Refused`` (password; ``ReplicationDenied`` where PSYNC is not permitted), ``ConnectionLost``; all definite: nothing was changed anywhere.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while True:
            queue = _Queue()
            link = queue.link = await ReplicationLink.open(endpoint, queue, present_as=present_as, timeout=timeout)
            link.lost.add_done_callback(queue.ended)
            reader = cls(queue, link)
            try:
                while not queue.replid:
                    await queue.more()
            except (NotNow, HungUp) as error:
                await reader.close()
                if loop.time() >= until:
                    raise error.saying(f"{error.message} (for {patience:.0f} s)" if patience else error.message) from None
            except BaseException:
                await reader.close()
                raise
            else:
                return reader
            await asyncio.sleep(PAUSE)

    @property
    def replid(self) -> str:
        return self._queue.replid

    @property
    def offset(self) -> int:
        return self._queue.offset

    async def snapshot(self) -> AsyncIterator[bytes]:
        """The snapshot's bytes. Ends after the last one; anything else is an error."""
        while (piece := await self._queue.take()) is not None:
            yield piece

    async def stream(self) -> AsyncIterator[bytes]:
        """The stream's bytes, for ever. Ask for them when ``snapshot`` has ended."""
        while (piece := await self._queue.take()) is not None:
            yield piece

    async def close(self) -> None:
        """Hang up."""
        self._link.close()
        await asyncio.shield(self._link.closed)
