"""A connection that carries one block of commands at a time, made for recording.

Three things are different from `client.connection`: a block costs one future, not one for each reply (which is what 20,000 operations
a second are made of); a connection that breaks in the middle of a block gives the replies that came, because those operations are known
and only the rest is not; and it can be bound to an address of this machine, so that a partition can tell clients apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from valkeep.client.endpoint import Endpoint
from valkeep.client.refusals import harmless, login_refused
from valkeep.client.transport import open_transport, unanswered
from valkeep.errors import ConnectionLost, RemoteProtocolError, ServerError
from valkeep.wire import resp

__all__ = ["Link"]


class Link(asyncio.Protocol):
    """``lost``: "" while it is open, else why it is not: TIMEOUT, LOST or CLOSED. ``heard`` gets values that answer nothing (messages)."""

    def __init__(self, heard: Callable[[Any], None] | None = None) -> None:
        self.lost = ""
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._parser = resp.Parser()
        self._replies: list[Any] = []
        self._wanted = 0
        self._answered: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def open(
        cls, endpoint: Endpoint, name: str, seconds: float, source: str = "", heard: Callable[[Any], None] | None = None
    ) -> Self:
        """Connect from ``source`` and log in, all within ``seconds``. Raises ``ConnectionLost`` or ``Refused``, both definite."""
        link: Self | None = None
        try:
            async with asyncio.timeout(seconds):
                _, link = await open_transport(endpoint, lambda: cls(heard), source)
                await link._login(endpoint, name)
        except TimeoutError:
            if link is not None:
                link.close()
            raise unanswered(endpoint, seconds) from None
        except BaseException:
            if link is not None:
                link.close()
            raise
        return link

    async def _login(self, endpoint: Endpoint, name: str) -> None:
        commands: list[tuple[bytes | str, ...]] = []
        if endpoint.password is not None:
            commands.append(("AUTH", *([endpoint.username] if endpoint.username else []), endpoint.password.reveal()))
        commands += [("PING",), ("CLIENT", "SETNAME", name)]
        replies = await self.ask(resp.encode_many(commands), len(commands), 0)
        for (word, *_), reply in zip(commands, replies, strict=False):
            if isinstance(reply, ServerError) and word != "CLIENT" and not harmless(str(word), reply):
                raise login_refused(endpoint, str(word), ServerError(reply.kind, ""))  # its text may quote the password
        if len(replies) < len(commands):
            raise ConnectionLost(f"{endpoint.address} hung up during the login", remedy="see the server's log")

    async def ask(self, block: bytes, replies: int, seconds: float) -> list[Any]:
        """Send the block and wait for that many replies; error replies are values. Fewer come back when the connection broke first
        (``lost`` says why). ``seconds``: then it is broken from this side; 0: for ever. Must not be asked when it is lost."""
        assert self._transport is not None
        assert self._answered is None
        self._replies, self._wanted = [], replies
        self._answered = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._late) if seconds > 0 else None
        self._transport.write(block)
        try:
            await self._answered
        finally:
            self._answered = None
            if timer is not None:
                timer.cancel()
        return self._replies

    def close(self) -> None:
        """Hang up; closing twice is fine."""
        self._end("CLOSED")

    async def gone(self) -> None:
        """Returns when the connection is lost."""
        await asyncio.shield(self._gone)

    def _late(self) -> None:
        if self._answered is not None and not self._answered.done():  # a process that stood still finds its replies and its timers at once
            self._end("TIMEOUT")

    def _end(self, why: str) -> None:
        if not self.lost:
            self.lost = why
            self._gone.set_result(None)
            if self._transport is not None:
                self._transport.abort()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    # --- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        parser, replies = self._parser, self._replies
        parser.feed(data)
        try:
            while (value := parser.next()) is not resp.NEED_MORE:
                if self._answered is not None and len(replies) < self._wanted:
                    replies.append(value)
                elif self._heard is not None:
                    self._heard(value)
        except RemoteProtocolError:
            self._end("GARBLED")
            return
        if self._answered is not None and len(replies) == self._wanted and not self._answered.done():
            self._answered.set_result(None)

    def connection_lost(self, _: BaseException | None) -> None:
        self._end("LOST")
