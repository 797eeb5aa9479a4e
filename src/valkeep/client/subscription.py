"""Messages of channels, over a connection of its own (RESP2: a connection that subscribes can do nothing else).

A subscriber that hears nothing can not tell a quiet channel from a server that hangs. So it asks: after ``ping_every`` seconds without a word it
sends a PING, and after as long again without an answer the subscription has ended with ``ConnectionLost``. What was published while nobody was
subscribed is gone: who follows a state by messages reads the state *after* subscribing (as `sentinel.SentinelDirectory.watch` does).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, ServerError, ValkeepError

__all__ = ["Message", "Subscription"]


@dataclass(frozen=True, slots=True)
class Message:
    """``channel``: where it was published. ``pattern``: what it matched, None where the channel itself was subscribed to."""

    channel: bytes
    payload: bytes
    pattern: bytes | None = None


class Subscription:
    """``async with await Subscription.open(endpoint, ["news"]) as messages``, then ``async for`` or `next`. Messages keep their order; none is dropped."""

    def __init__(self, connection: Connection, ping_every: float) -> None:
        self._connection = connection
        self._ping_every = ping_every
        self._said: asyncio.Queue[Value] = asyncio.Queue()
        self._early: deque[Value] = deque()

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        channels: Sequence[str | bytes] = (),
        patterns: Sequence[str | bytes] = (),
        *,
        timeout: float = 5.0,
        ping_every: float = 2.0,
        source_address: str = "",
    ) -> Subscription:
        """Connect and subscribe; returns when the server has confirmed all of it. Raises as `Connection.open` does, and ``ServerError`` (NOPERM)."""
        subscription = cls(await Connection.open(endpoint, timeout, source_address=source_address), ping_every)
        try:
            async with asyncio.timeout(timeout):
                await subscription._subscribe(channels, patterns)
        except TimeoutError:
            await subscription.close()
            raise ConnectionLost(
                f"{endpoint.address} did not confirm the subscription within {timeout:g} s", remedy="is the server stopped or overloaded?"
            ) from None
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def next(self) -> Message:
        """The next message, however long it takes. Raises ``ConnectionLost`` when the server has gone or hangs."""
        while True:
            try:
                async with asyncio.timeout(self._ping_every):
                    value = await self._hear()
            except TimeoutError:
                value = await self._prod()
            match value:
                case [b"message", bytes(channel), bytes(payload)]:
                    return Message(channel, payload)
                case [b"pmessage", bytes(pattern), bytes(channel), bytes(payload)]:
                    return Message(channel, payload, pattern)

    async def close(self) -> None:
        """Closing twice is fine."""
        await self._connection.close()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        return await self.next()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---------------------------------------------------------------------------------------------------------------- inside

    async def _subscribe(self, channels: Sequence[str | bytes], patterns: Sequence[str | bytes]) -> None:
        self._connection.listen(self._said.put_nowait)
        for name, wanted in (("SUBSCRIBE", channels), ("PSUBSCRIBE", patterns)):
            if wanted:
                self._connection.say(name, *wanted)
        early: list[Value] = []  # a channel may speak before the next one is confirmed
        confirmed = 0
        while confirmed < len(channels) + len(patterns):
            value = await self._hear()
            if isinstance(value, ServerError):
                raise value
            if value[0] in (b"subscribe", b"psubscribe"):
                confirmed += 1
            else:
                early.append(value)
        self._early.extend(early)

    async def _prod(self) -> Value:
        self._connection.say("PING")
        try:
            async with asyncio.timeout(self._ping_every):
                return await self._hear()
        except TimeoutError:
            await self.close()
            raise ConnectionLost(
                f"{self._connection.endpoint.address} has said nothing for {2 * self._ping_every:g} s and does not answer PING",
                remedy="is the server stopped, overloaded or out of reach? Subscribe again, and read what the messages would have told",
            ) from None

    async def _hear(self) -> Value:
        value = self._early.popleft() if self._early else await self._said.get()
        if isinstance(value, ValkeepError) and not isinstance(value, ServerError):
            raise value.saying(definite=True)
        return value
