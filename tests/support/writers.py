"""Closed-loop writers against a source, and the judge of what they were told: no acknowledged write may be missing.

Each writer has a connection of its own and sends the next command when the reply to the last one is there. It appends its own increasing numbers to
its own list, and sets a key of its own for each: order, loss and doubling can all be seen afterwards. What it notes is what a server *said*:

    acked      +OK or an integer: the server has the write, and everybody who takes over must have it
    refused    an error reply: surely not done
    unknown    the connection broke before the reply came

Judged with ordinary commands (valkey-py). The judge itself is tested by planted losses (`test_cutover_kill.py`).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Self

__all__ = ["Writer", "Writers", "lost"]


class Writer:
    def __init__(self, port: int, name: str, stop: threading.Event, pace: float) -> None:
        self.port = port
        self.pace = pace
        self.name = name
        self.acked: list[int] = []
        self.unknown: set[int] = set()
        self.refused = 0
        self.waiting_since = 0.0
        self.longest_gap = 0.0
        self._stop = stop
        self._last_ack = 0.0
        self.thread = threading.Thread(target=self._work, name=f"writer {name}", daemon=True)

    def _work(self) -> None:
        number = 0
        connection: socket.socket | None = None
        while not self._stop.is_set():
            number += 1
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self.port), timeout=30.0)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._write(connection, number)
                self._stop.wait(self.pace)
            except OSError:
                self.unknown.add(number)
                if connection is not None:
                    connection.close()
                    connection = None
                self._stop.wait(0.02)
        if connection is not None:
            connection.close()

    def _write(self, connection: socket.socket, number: int) -> None:
        """One transaction: both writes or none."""
        text = b"%d" % number
        name = self.name.encode()
        request = b"".join(
            (
                b"*1\r\n$5\r\nMULTI\r\n",
                _command(b"RPUSH", b"list:" + name, text),
                _command(b"SET", b"key:%b:%b" % (name, text), text),
                b"*1\r\n$4\r\nEXEC\r\n",
            )
        )
        self.waiting_since = time.monotonic()
        connection.sendall(request)
        reply = b""
        while not _complete(reply):
            piece = connection.recv(4096)
            if not piece:
                raise ConnectionError("hung up")
            reply += piece
        now = time.monotonic()
        self.waiting_since = 0.0
        if b"\n-" in b"\n" + reply:
            self.refused += 1
            return
        self.acked.append(number)
        if self._last_ack:
            self.longest_gap = max(self.longest_gap, now - self._last_ack)
        self._last_ack = now


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _complete(reply: bytes) -> bool:
    """Four replies: +OK, two times +QUEUED or an error, and what EXEC says (an array of an integer and +OK, or an error)."""
    lines = reply.split(b"\r\n")[:-1]
    if len(lines) < 4:
        return False
    return not lines[3].startswith(b"*") or len(lines) >= 4 + int(lines[3][1:])


class Writers:
    """``with Writers(port, 4) as writers``: they write until the end of the block. ``pace``: seconds between two commands of one.
    ``prefix``: of their names, and so of their keys."""

    def __init__(self, port: int, count: int = 4, pace: float = 0.01, prefix: str = "") -> None:
        self._stop = threading.Event()
        self.writers: Sequence[Writer] = [Writer(port, f"{prefix}{number}", self._stop, pace) for number in range(count)]

    def __enter__(self) -> Self:
        for writer in self.writers:
            writer.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for writer in self.writers:
            writer.thread.join(40)
            assert not writer.thread.is_alive(), "a writer is blocked"

    @property
    def acked(self) -> int:
        return sum(len(writer.acked) for writer in self.writers)

    @property
    def refused(self) -> int:
        return sum(writer.refused for writer in self.writers)

    @property
    def held(self) -> int:
        """Writers that have waited for a reply for more than 20 ms just now."""
        now = time.monotonic()
        return sum(1 for writer in self.writers if (since := writer.waiting_since) and now - since > 0.02)

    def acknowledged(self) -> dict[str, list[int]]:
        """What was acknowledged so far, by writer."""
        return {writer.name: list(writer.acked) for writer in self.writers}

    def wait_for_acks(self, more: int, timeout: float = 60.0) -> None:
        """Return when every writer got so many acknowledgements more."""
        wanted = [len(writer.acked) + more for writer in self.writers]
        deadline = time.monotonic() + timeout
        while any(len(writer.acked) < goal for writer, goal in zip(self.writers, wanted, strict=True)):
            assert time.monotonic() < deadline, (
                f"no writer got further within {timeout} s: {[len(w.acked) for w in self.writers]} of {wanted}"
            )
            time.sleep(0.005)


def lost(acknowledged: dict[str, list[int]], client: Any) -> list[str]:
    """What a server (``client``: valkey-py) lacks, has twice or in another order, of what was acknowledged; empty when it has everything."""
    wrong: list[str] = []
    for name, numbers in acknowledged.items():
        there = [int(one) for one in client.lrange(f"list:{name}", 0, -1)]
        held = set(there)
        wrong += [f"list:{name} lacks {number}" for number in numbers if number not in held]
        if len(held) != len(there):
            wrong.append(f"list:{name} has elements twice")
        if there != sorted(there):
            wrong.append(f"list:{name} is in another order")
        pipe = client.pipeline(transaction=False)
        for number in numbers:
            pipe.get(f"key:{name}:{number}")
        for number, value in zip(numbers, pipe.execute(), strict=True):
            if value != b"%d" % number:
                wrong.append(f"key:{name}:{number} is {value!r}")
    return wrong
