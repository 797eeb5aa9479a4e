"""A TCP proxy that misbehaves on request: it delays, cuts, refuses, and says when certain bytes come by.

It runs in an event loop of its own thread, so that a test drives it by plain calls. ``when`` is what makes faults exact: an action runs in the
proxy's thread at the moment the bytes arrive, *before* (or after) they are passed on, so a process can be killed between a request and its effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["Proxy"]

PIECE = 1 << 16
TO_SERVER, TO_CLIENT = "to-server", "to-client"


@dataclass
class _Watch:
    pattern: bytes
    direction: str
    before: Callable[[], object] | None
    after: Callable[[], object] | None
    drop: bool
    done: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """``with Proxy(("127.0.0.1", port)) as proxy``: ``proxy.port`` leads there. ``delay``: seconds added to each piece, each way (may be changed).

    ``mangle``: what becomes of each piece that the server sends.
    """

    host = "127.0.0.1"

    def __init__(self, server: tuple[str, int], *, delay: float = 0.0, source_address: str = "") -> None:
        self.server = server
        self.delay = delay
        self.port = 0
        self.accepted = 0
        self.mangle: Callable[[bytes], bytes] | None = None
        self._source_address = source_address
        self._watches: list[_Watch] = []
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._refusing = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, scheme: str = "redis") -> str:
        return f"{scheme}://{self.host}:{self.port}"

    def cut(self) -> None:
        """Reset every connection there is; new ones are served."""
        self._run(self._cut())

    def refuse(self, refusing: bool = True) -> None:
        """From now on hang up on whoever connects; ``False``: serve again."""
        self._refusing = refusing

    def when(
        self,
        pattern: bytes,
        *,
        before: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
        direction: str = TO_SERVER,
        drop: bool = False,
    ) -> threading.Event:
        """Once, at the next piece that contains ``pattern``: ``before`` runs, the piece is passed on (``drop``: it is not), ``after`` runs.

        The event is set when that is over. A pattern that is split over two pieces is not seen: requests of Valkeep are one write each.
        """
        watch = _Watch(pattern, direction, before, after, drop)
        self._watches.append(watch)
        return watch.done

    # -- inside -------------------------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._listener = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._refusing:
                return
            local = (self._source_address, 0) if self._source_address else None
            there, out = await asyncio.open_connection(*self.server, local_addr=local)
            pair = (writer, out)
            self._pairs.add(pair)
            try:
                await asyncio.gather(self._pass(reader, out, TO_SERVER), self._pass(there, writer, TO_CLIENT))
            finally:
                self._pairs.discard(pair)
                _reset(out)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            _reset(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                if self.delay:
                    await asyncio.sleep(self.delay)
                watch = next((one for one in self._watches if one.direction == direction and one.pattern in data), None)
                if watch is not None:
                    self._watches.remove(watch)
                    if watch.before is not None:
                        watch.before()
                if self.mangle is not None and direction == TO_CLIENT:
                    data = self.mangle(data)
                if watch is None or not watch.drop:
                    writer.write(data)
                    await writer.drain()
                if watch is not None:
                    if watch.after is not None:
                        watch.after()
                    watch.done.set()
        with contextlib.suppress(OSError):
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
