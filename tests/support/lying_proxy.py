"""A server that lies: it stands in front of a real one and breaks its promises to clients, so that live checkers can be seen to notice.

    lost        acknowledges a write that it never passes on
    stale       answers a read with the value before the last one
    twice       passes a write on twice

It lies to clients of the load alone, known by their source address (127.x.2.x); whoever administrates or reads the final state hears the truth.
Every ``every``-th command that it could lie about is lied about; never inside of MULTI.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from valkeep.errors import ServerError
from valkeep.wire import resp

__all__ = ["LIES", "LyingProxy"]

LIES: Final = ("lost", "stale", "twice")
_SETTLED: Final = 0.05  # seconds
_ACKNOWLEDGED: Final = {b"SET": b"OK", b"SADD": 1}  # and RPUSH, INCR: one more than the last time


def encoded(value: Any) -> bytes:
    """A reply on the wire. Status replies become bulk strings, which mean the same to every client."""
    match value:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case ServerError():
            return f"-{value.message}\r\n".encode()
        case _:
            return b"*%d\r\n%b" % (len(value), b"".join(map(encoded, value)))


class LyingProxy:
    """``async with LyingProxy(server, "lost") as proxy``: ``proxy.address`` leads to ``server``; ``proxy.told``: lies so far. "" tells the truth."""

    def __init__(self, server: tuple[str, int], lie: str, *, every: int = 200) -> None:
        assert lie in (*LIES, "")
        self.server, self.lie, self.every = server, lie, every
        self.told = 0
        self._chances = 0
        self._counts: dict[bytes, int] = {}  # the last reply of RPUSH and INCR
        self._values: dict[bytes, tuple[bytes | None, bytes | None, float]] = {}  # key → value before, value now, since when
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.sockets[0].getsockname()
        return host, port

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        while self._tasks:  # not cancelled: they end by themselves when their sockets do
            for one in self._open:
                one.transport.abort()
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        lies = writer.get_extra_info("peername")[0].split(".")[2] == "2"
        self._open.add(writer)
        with contextlib.suppress(OSError):
            answers, upstream = await asyncio.open_connection(*self.server)
            self._open.add(upstream)
            try:
                await self._converse(reader, writer, answers, upstream, lies)
            finally:
                upstream.transport.abort()
        writer.transport.abort()
        await asyncio.sleep(0)

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        lies: bool,
    ) -> None:
        said, heard = resp.Parser(), resp.Parser()
        in_multi = False
        while data := await reader.read(1 << 16):
            said.feed(data)
            commands = [command if isinstance(command, list) else command.split() for command in said]
            plans: list[tuple[Sequence[bytes], str]] = []
            for command in commands:
                name = command[0].upper()
                in_multi = (in_multi or name == b"MULTI") and name not in (b"EXEC", b"DISCARD")
                plans.append((command, self._plan(name, command) if lies and not in_multi else ""))
            copies = {"lost": 0, "twice": 2}
            upstream.write(b"".join(resp.encode(*command) * copies.get(lie, 1) for command, lie in plans))
            replies: list[Any] = []
            while len(replies) < sum(copies.get(lie, 1) for _, lie in plans):
                got = await answers.read(1 << 16)
                if not got:
                    return
                heard.feed(got)
                replies += list(heard)
            rest = iter(replies)
            for command, lie in plans:
                true = [next(rest) for _ in range(copies.get(lie, 1))]
                writer.write(encoded(self._answer(command, lie, true)))
            await writer.drain()

    def _plan(self, name: bytes, command: Sequence[bytes]) -> str:
        """The lie to tell about this command, or ""."""
        match self.lie:
            case "lost":
                able = name in _ACKNOWLEDGED or (name in (b"RPUSH", b"INCR") and command[1] in self._counts)
            case "twice":
                able = name in (b"RPUSH", b"INCR")
            case "":
                able = False
            case _:
                before, _, since = self._values.get(command[1] if len(command) > 1 else b"", (None, None, 0.0))
                # a write of just now may be concurrent to the read, which makes the older value a true answer
                able = name == b"GET" and before is not None and time.monotonic() - since > _SETTLED
        self._chances += able
        if not able or self._chances % self.every:
            return ""
        self.told += 1
        return self.lie

    def _answer(self, command: Sequence[bytes], lie: str, true: Sequence[Any]) -> Any:
        name, key = command[0].upper(), command[1] if len(command) > 1 else b""
        if lie == "lost":
            return _ACKNOWLEDGED.get(name) or self._counts[key] + 1
        if lie == "stale":
            return self._values[key][0]
        if name in (b"RPUSH", b"INCR") and isinstance(true[-1], int):
            self._counts[key] = true[-1]
        if name == b"SET" and true[0] == b"OK":
            self._values[key] = (self._values.get(key, (None, None, 0.0))[1], command[2], time.monotonic())
        if name == b"DEL":
            self._values.pop(key, None)
        return true[0]
