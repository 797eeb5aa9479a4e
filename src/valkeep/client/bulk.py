"""A connection that is given blocks of commands and counts their replies: where a future for each reply would cost more than the work itself.

A copy sends millions of commands, of which nearly all are answered ``+OK``. Whole runs of that (and of ``+QUEUED``) are counted without being parsed. What is
kept of a block's replies is what somebody may want to look at: errors, and lists (what EXEC answers), each with its place in the block.

Like `Subscription`, it takes over an open `Connection`, logged in and all. The bytes may be written before it is known how many replies they will have
(``write``, then ``expect``). A connection that breaks, or whose peer says nothing for as long as we have patience, ends everything with
``ConnectionLost(definite=False)``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from valkeep.errors import ConnectionLost, RemoteProtocolError, ServerError, ValkeepError
from valkeep.wire import resp

if TYPE_CHECKING:
    from valkeep.client.connection import Connection

__all__ = ["Bulk", "Odd"]

Odd = tuple[int, resp.Value]
"""A reply worth a look, and its place among the block's replies."""

PATIENCE_SECONDS: Final = 120.0  # a server may be busy with one large command, such as FLUSHALL
_HIGH_WATER: Final = 1 << 20
_OK: Final = b"+OK\r\n"
_OKS: Final = _OK * (1 << 16)


class Bulk(asyncio.Protocol):
    """``in_flight``: blocks whose replies have not all come. ``patience``: seconds that a peer may let us wait."""

    def __init__(self, connection: Connection, patience: float = PATIENCE_SECONDS) -> None:
        self.endpoint = connection.endpoint
        self.patience = patience
        self.lost: ValkeepError | None = None
        self._parser = resp.Parser()
        self._plain = True  # nothing but +OK has come so far, and the parser is not used
        self._rest = b""
        self._expected: deque[tuple[int, asyncio.Future[list[Odd]]]] = deque()
        self._got = 0  # replies of the first block that is not complete
        self._odd: list[Odd] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport = connection.hand_over(self)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    @property
    def in_flight(self) -> int:
        return len(self._expected)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send commands, or parts of them. Raises ``ConnectionLost`` when it has broken."""
        if self.lost is not None:
            raise self.lost.saying()
        self._transport.write(data)

    def expect(self, replies: int) -> asyncio.Future[list[Odd]]:
        """What was written since the last call has so many replies: the odd ones among them, when all have come."""
        future: asyncio.Future[list[Odd]] = asyncio.get_running_loop().create_future()
        if self.lost is not None:
            future.set_exception(self.lost.saying())
            future.exception()  # retrieved: whoever asked may not wait for it
            return future
        self._expected.append((replies, future))
        self._settle()
        return future

    async def answer(self, replies: asyncio.Future[list[Odd]]) -> list[Odd]:
        """Wait for what ``expect`` gave. Raises ``ConnectionLost``."""
        try:
            async with asyncio.timeout(self.patience):
                return await replies
        except TimeoutError:
            raise self._too_late() from None

    async def room(self) -> None:
        """Return when the peer reads what was written. Raises ``ConnectionLost``."""
        try:
            async with asyncio.timeout(self.patience):
                await self._writable.wait()
        except TimeoutError:
            raise self._too_late() from None
        if self.lost is not None:
            raise self.lost.saying()

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._fail(ConnectionLost(f"the connection to {self.endpoint.address} was closed here", remedy="open a new one", definite=False))

    # --- asyncio calls these

    def data_received(self, data: bytes) -> None:
        if self._plain:
            data = self._rest + data
            count = len(data) // len(_OK)
            whole = count * len(_OK)
            if data[:whole] == _OKS[:whole] and _OK.startswith(data[whole:]):
                self._rest = data[whole:]
                self._got += count
                self._settle()
                return
            self._plain, self._rest = False, b""
        self._parser.feed(data)
        try:
            while (value := self._parser.next()) is not resp.NEED_MORE:
                if isinstance(value, (ServerError, list)):
                    self._odd.append((self._got, value))
                self._got += 1
                if self._expected and self._got >= self._expected[0][0]:
                    self._settle()
        except RemoteProtocolError as error:
            self._fail(error.saying(f"{self.endpoint.address}: {error.message}", definite=False))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        why = f": {exc.strerror or exc}" if isinstance(exc, OSError) else ""
        self._fail(
            ConnectionLost(
                f"{self.endpoint.address} closed the connection{why}",
                remedy="see the server's log: it stopped, restarted or dropped this client (CLIENT KILL, a proxy)",
                definite=False,
            )
        )

    # --- inside

    def _settle(self) -> None:
        while self._expected and self._got >= self._expected[0][0]:
            replies, future = self._expected.popleft()
            odd = [one for one in self._odd if one[0] < replies] if self._odd else []
            self._odd = [(place - replies, value) for place, value in self._odd[len(odd) :]] if self._odd else []
            self._got -= replies
            if not future.done():
                future.set_result(odd)

    def _too_late(self) -> ConnectionLost:
        error = ConnectionLost(
            f"{self.endpoint.address} has said nothing for {self.patience:g} s", remedy="is it stopped or overloaded?", definite=False
        )
        self._fail(error)
        return error

    def _fail(self, error: ValkeepError) -> None:
        if self.lost is not None:
            return
        self.lost = error
        waiting, self._expected = self._expected, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error.saying())
                future.exception()  # retrieved: whoever asked may be gone
        self._writable.set()
        self._transport.abort()
