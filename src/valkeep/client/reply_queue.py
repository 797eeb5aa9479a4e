"""The requests of one connection that wait for their replies, and the bytes of those that were not written yet.

Redis answers in order, so a request needs no number: ``send`` appends futures to a queue and the requests' bytes to a block, and the n-th reply
completes the n-th future. All that is sent in one turn of the event loop leaves in one write (``flush`` runs at the loop's next turn), which is
what makes 50 concurrent callers cheap.

When the connection breaks, or somebody breaks it (``fail``: a reply that came too late would be taken for another's), everything in flight ends with
the reason and ``definite=False`` – it may have happened – and what comes after that, which is never written, with ``definite=True``.

What it does not do: it knows no commands, no passwords and no time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from valkeep.client.refusals import hung_up
from valkeep.client.transport import tls_failed
from valkeep.errors import ConnectionLost, RemoteProtocolError, ServerError, ValkeepError
from valkeep.wire import resp

__all__ = ["ReplyQueue"]

_HIGH_WATER: Final = 1 << 20  # bytes in the transport's buffer above which calls wait for the peer


class _Together:
    """The replies to a block of requests, completed at once: a future for each would be most of a pipeline's cost."""

    __slots__ = ("count", "future", "values")

    def __init__(self, future: asyncio.Future[list[resp.Value]], count: int) -> None:
        self.future = future
        self.values: list[resp.Value] = []
        self.count = count

    def take(self, value: resp.Value) -> bool:
        """The next reply; whether it was the last one."""
        self.values.append(value)
        if len(self.values) < self.count:
            return False
        if not self.future.done():  # its caller may have been cancelled
            self.future.set_result(self.values)
        return True

    def done(self) -> bool:
        return self.future.done()

    def set_exception(self, error: ValkeepError) -> None:
        self.future.set_exception(error)


class ReplyQueue(asyncio.Protocol):
    """The queue of replies waited for, and the block of bytes not yet written."""

    def __init__(self, where: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.where = where
        self.parser = resp.Parser()
        self.spoke = False  # whether the peer ever sent a byte
        self.waiting: deque[asyncio.Future[resp.Value] | _Together] = deque()
        self.block: list[bytes] = []
        self.flushing = False
        self.transport: asyncio.Transport | None = None
        self.lost: ValkeepError | None = None
        self.hear: Callable[[resp.Value], None] | None = (
            None  # takes what answers nothing, once the peer was asked to send such (`Connection.listen`)
        )
        self.greeting: ServerError | None = None  # an error that nobody asked for: why the server is about to hang up
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.writable = asyncio.Event()
        self.writable.set()

    # --- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        parser = self.parser
        waiting = self.waiting
        self.spoke = True
        parser.feed(data)
        try:
            while True:
                value = parser.next()
                if value is resp.NEED_MORE:
                    return
                if type(value) is resp.Push and self.hear is None:
                    continue
                if waiting:
                    first = waiting[0]
                    if isinstance(first, _Together):
                        if not first.take(value):
                            continue
                    elif not first.done():  # its caller may have been cancelled
                        first.set_result(value)
                    waiting.popleft()
                elif self.hear is not None:
                    self.hear(value)
                elif isinstance(value, ServerError):
                    self.greeting = value
                else:
                    raise RemoteProtocolError(
                        f"{self.where} sent a reply that nobody waits for: {str(value)[:60]}",
                        remedy="no proxy may stand in between that adds replies",
                    )
        except RemoteProtocolError as error:
            self.fail(error.saying(f"{self.where}: {error.message}", definite=False))

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.greeting is not None:
            self.fail(hung_up(self.where, self.greeting))
        elif isinstance(exc, ssl.SSLError):
            self.fail(tls_failed(self.where, exc))
        else:
            why = f": {exc.strerror or exc}" if isinstance(exc, OSError) else ""
            self.fail(
                ConnectionLost(
                    f"{self.where} closed the connection{why}",
                    remedy="see the server's log: it stopped, restarted or dropped this client (timeout, CLIENT KILL, output-buffer limit)",
                    definite=False,
                )
            )
        if not self.closed.done():
            self.closed.set_result(None)
        self.writable.set()
        if self.hear is not None:
            self.hear(self.lost)

    # --- the connection calls these

    @property
    def in_flight(self) -> int:
        """Requests whose replies have not come."""
        return sum(one.count - len(one.values) if isinstance(one, _Together) else 1 for one in self.waiting)

    def fail(self, error: ValkeepError) -> None:
        """End everything in flight with ``error``; the first reason stays the reason."""
        if self.lost is None:
            self.lost = error
        waiting, self.waiting = self.waiting, deque()
        self.block.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(self.lost.saying(definite=False))
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def send(self, block: bytes, replies: int) -> list[asyncio.Future[resp.Value]]:
        if self.lost is not None:
            raise self.lost.saying(definite=True)
        futures: list[asyncio.Future[resp.Value]] = [self.loop.create_future() for _ in range(replies)]
        self.waiting.extend(futures)
        self.write(block)
        return futures

    def send_together(self, block: bytes, replies: int) -> asyncio.Future[list[resp.Value]]:
        """As ``send``, with one future for all replies (at least one)."""
        if self.lost is not None:
            raise self.lost.saying(definite=True)
        future: asyncio.Future[list[resp.Value]] = self.loop.create_future()
        self.waiting.append(_Together(future, replies))
        self.write(block)
        return future

    def write(self, block: bytes) -> None:
        self.block.append(block)
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        self.flushing = False
        if self.block and self.transport is not None and self.lost is None:
            block = self.block[0] if len(self.block) == 1 else b"".join(self.block)
            self.block.clear()
            self.transport.write(block)
