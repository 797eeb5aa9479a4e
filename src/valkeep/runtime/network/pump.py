"""The proxy's process: takes connections for nodes, passes bytes on, and can stop or delay them for each pair of sender and receiver.

It has a process of its own so that neither a busy event loop nor the interpreter's lock of Valkeep can stall the servers. It imports
the standard library only, and ends when the pipe from its parent does.

Who sends is known by the source address (see `addresses`), so one listening socket for each node serves all its callers. On the way to
the node the caller's address is kept (``bind`` before ``connect``): the node sees who really calls.

A direction that is *cut* is not read any more. Bytes that were under way wait in the kernel's buffers, as they would wait to be sent
again on a real wire, and arrive after the heal, if both ends still are there. The end of a connection is news like any other, and does
not cross a cut either. A new connection is accepted (nothing here can drop a SYN) and gets silence until the heal.

A *late* direction passes through a queue of (when it is due, bytes); at most ``_HELD`` bytes are in it.

JSON lines, one reply (``{}`` or ``{"error": …}``) for each::

    {"doors": [[[host, port], [host, port]], …]}            listen there, pass on to here
    {"cut": [[sender, …], [receiver, …]]}                   addresses without ports
    {"late": [[address, …], seconds]}
    {"heal": true}
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import socket
import sys
from collections import deque
from typing import Any, Final

__all__ = ["Exchange"]

_HELD: Final = 8 << 20  # bytes under way in one late direction
_BUFFER: Final = 1 << 20  # bytes written and not yet taken by the receiver's kernel
_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h: a port is chosen at connect, so that one address serves many connections


class _End(asyncio.Protocol):
    """One of the two sockets of a connection. What it receives goes to ``peer``, unless the direction ``frm`` → ``to`` is cut."""

    def __init__(self, exchange: Exchange, frm: str, to: str) -> None:
        self.exchange, self.frm, self.to = exchange, frm, to
        self.transport: asyncio.Transport | None = None
        self.peer: _End | None = None
        self.peer_full = False
        self.ended: BaseException | bool | None = None  # True: orderly; an exception: reset
        self.late: deque[tuple[float, bytes]] = deque()
        self.late_bytes = 0
        self.timer: asyncio.TimerHandle | None = None

    # --- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_BUFFER)
        self.exchange.ends.add(self)
        self.settle()

    def data_received(self, data: bytes) -> None:
        delay = self.exchange.delay(self.frm, self.to)
        if delay or self.late:
            now = self.exchange.loop.time()
            self.late.append((max(now + delay, self.late[-1][0] if self.late else 0.0), data))
            self.late_bytes += len(data)
            self.settle()
        elif self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        self.settle()
        return True  # the socket stays open until the peer's end has taken everything

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ended = exc or True
        self.exchange.ends.discard(self)
        self.settle()

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.peer_full = True
            self.peer.settle()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.peer_full = False
            self.peer.settle()

    # --- the rest

    def settle(self) -> None:
        """Read or do not, and pass on what is due and the end: whatever the present cuts, queues and buffers allow."""
        transport, peer = self.transport, self.peer
        if transport is None:
            return
        passes = self.exchange.passes(self.frm, self.to)
        if not transport.is_closing():
            if peer is not None and passes and not self.peer_full and self.late_bytes < _HELD:
                transport.resume_reading()
            else:
                transport.pause_reading()
        if not passes or peer is None or peer.transport is None:
            return
        self._pass_late(peer.transport)
        if self.ended is not None and not self.late:
            if isinstance(self.ended, BaseException):
                peer.transport.abort()
            else:
                peer.transport.close()
            transport.close()

    def _pass_late(self, onward: asyncio.Transport) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        now = self.exchange.loop.time()
        hurried = not self.exchange.delay(self.frm, self.to)  # healed: all at once
        while self.late and (hurried or self.late[0][0] <= now):
            _, data = self.late.popleft()
            self.late_bytes -= len(data)
            onward.write(data)
        if self.late:
            self.timer = self.exchange.loop.call_at(self.late[0][0], self.settle)


class Exchange:
    """All connections, and what is cut and late among their addresses."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.cuts: set[tuple[str, str]] = set()
        self.slow: dict[str, float] = {}
        self.ends: set[_End] = set()
        self.healed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def passes(self, frm: str, to: str) -> bool:
        return (frm, to) not in self.cuts

    def delay(self, frm: str, to: str) -> float:
        """Seconds for one way."""
        return max(self.slow.get(frm, 0.0), self.slow.get(to, 0.0)) if self.slow else 0.0

    async def open(self, listen: tuple[str, int], target: tuple[str, int]) -> None:
        """Take connections at ``listen`` for the node at ``target``."""
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(listen)
        door.listen(511)
        door.setblocking(False)
        self._keep(self._answer(door, target))

    def cut(self, senders: list[str], receivers: list[str]) -> None:
        self.cuts |= {(sender, receiver) for sender in senders for receiver in receivers}
        self._settle()

    def make_late(self, addresses: list[str], seconds: float) -> None:
        self.slow |= dict.fromkeys(addresses, seconds)

    def heal(self) -> None:
        self.cuts.clear()
        self.slow.clear()
        self.healed.set()
        self.healed = asyncio.Event()
        self._settle()

    def _settle(self) -> None:
        for end in list(self.ends):
            end.settle()

    def _keep(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, door: socket.socket, target: tuple[str, int]) -> None:
        with door:
            while True:
                try:
                    caller, (host, _) = await self.loop.sock_accept(door)
                except OSError:  # out of file descriptors, or the caller has gone again
                    await asyncio.sleep(0.05)
                    continue
                self._keep(self._connect(caller, host, target))

    async def _connect(self, caller: socket.socket, host: str, target: tuple[str, int]) -> None:
        while not (self.passes(host, target[0]) and self.passes(target[0], host)):
            await self.healed.wait()
        if delay := self.delay(host, target[0]):
            await asyncio.sleep(2 * delay)  # a handshake takes a round trip
        onward = socket.socket()
        onward.setblocking(False)
        try:
            if sys.platform == "linux":
                onward.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            onward.bind((host, 0))
            await self.loop.sock_connect(onward, target)
        except OSError:
            onward.close()
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, as a closed port would give
            caller.close()
            return
        near, far = _End(self, host, target[0]), _End(self, target[0], host)
        near.peer, far.peer = far, near
        await self.loop.create_connection(lambda: far, sock=onward)
        await self.loop.create_connection(lambda: near, sock=caller)
        far.settle()


async def _obey(exchange: Exchange, order: dict[str, Any]) -> None:
    for what, detail in order.items():
        match what:
            case "doors":
                for listen, target in detail:
                    await exchange.open((listen[0], listen[1]), (target[0], target[1]))
            case "cut":
                exchange.cut(*detail)
            case "late":
                exchange.make_late(*detail)
            case "heal":
                exchange.heal()
            case _:
                raise ValueError(f"no such order: {what}")


async def _main() -> None:
    exchange = Exchange()
    reader = asyncio.StreamReader(limit=1 << 22)
    await exchange.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    exchange.loop.set_exception_handler(lambda _loop, _context: None)  # connections that break are what this is for
    while line := await reader.readline():
        reply: dict[str, str] = {}
        try:
            await _obey(exchange, json.loads(line))
        except (OSError, ValueError) as error:
            reply["error"] = str(error)
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    gc.freeze()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
