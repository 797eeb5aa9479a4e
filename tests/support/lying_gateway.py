"""Something between the gateway and whoever is told its address: it passes everything on, except what a test has planted.

Requests are read one by one; a reply that is planted is given instead of the gateway's. What begins with PSYNC or SYNC is a replication link from then on: its
bytes are passed on as they come, or not at all (``hold``).
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Self

from valkeep.runtime import ports

__all__ = ["LyingGateway", "bulk", "pairs", "with_field"]

Lie = Callable[[bytes], bytes | None]  # the gateway's reply → what is told instead; None: nothing, ever


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def pairs(*texts: str) -> bytes:
    return b"*%d\r\n" % len(texts) + b"".join(bulk(text) for text in texts)


class LyingGateway:
    """``with LyingGateway() as liar``: listens at ``liar.port``, and leads to the gateway at ``liar.to`` (default: a free port, where one is to
    listen). ``lies``: command ("CONFIG GET DATABASES", "INFO") →
    what becomes of its reply. ``hold``: a replication link gets nothing."""

    def __init__(self, to: int = 0) -> None:
        ours, theirs = ports.reserve(), ports.reserve()
        self.port, self.to = ours.port, to or theirs.port
        ours.release()
        theirs.release()
        self.lies: dict[str, Lie] = {}
        self.hold = False
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._open: list[socket.socket] = []
        self._ending = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._ending = True
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    @property
    def options(self) -> tuple[str, ...]:
        """Of `valkeep migrate run`."""
        return ("--listen", f"127.0.0.1:{self.to}", "--announce", f"127.0.0.1:{self.port}")

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ending:
                guest, _ = self._listening.accept()
                self._open.append(guest)
                threading.Thread(target=self._converse, args=(guest,), daemon=True).start()

    def _converse(self, guest: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, EOFError), guest, socket.create_connection(("127.0.0.1", self.to)) as gateway:
            self._open.append(gateway)
            asking, answering = guest.makefile("rb"), gateway.makefile("rb")
            while True:
                raw, words = _request(asking)
                gateway.sendall(raw)
                if words[0] in ("PSYNC", "SYNC"):
                    self._replicate(guest, gateway)
                    return
                reply = _reply(answering)
                lie = next((lie for name, lie in self.lies.items() if " ".join(words).startswith(name)), None)
                told = reply if lie is None else lie(reply)
                if told is not None:
                    guest.sendall(told)

    def _replicate(self, guest: socket.socket, gateway: socket.socket) -> None:
        back = threading.Thread(target=_pump, args=(guest, gateway), daemon=True)
        back.start()
        if self.hold:
            while gateway.recv(65536):
                pass
            guest.shutdown(socket.SHUT_RDWR)
        else:
            _pump(gateway, guest)


def _pump(a: socket.socket, b: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := a.recv(65536):
            b.sendall(piece)
        b.shutdown(socket.SHUT_WR)


def _line(stream: object) -> bytes:
    line: bytes = stream.readline()  # type: ignore[attr-defined]
    if not line.endswith(b"\r\n"):
        raise EOFError
    return line


def _request(stream: object) -> tuple[bytes, list[str]]:
    head = _line(stream)
    raw, words = head, []
    if not head.startswith(b"*"):
        return raw, [head.decode().strip().upper()]
    for _ in range(int(head[1:])):
        length = _line(stream)
        body: bytes = stream.read(int(length[1:]) + 2)  # type: ignore[attr-defined]
        raw += length + body
        words.append(body[:-2].decode("utf-8", "replace").upper())
    return raw, words


def _reply(stream: object) -> bytes:
    head = _line(stream)
    kind, count = head[:1], head[1:-2]
    if kind in (b"$", b"=", b"!") and int(count) >= 0:
        body: bytes = stream.read(int(count) + 2)  # type: ignore[attr-defined]
        return head + body
    if kind in (b"*", b"~", b">", b"%") and int(count) >= 0:
        many = int(count) * (2 if kind == b"%" else 1)
        return head + b"".join(_reply(stream) for _ in range(many))
    return head


def with_field(reply: bytes, name: str, value: str) -> bytes:
    """An INFO with another value."""
    text = reply.partition(b"\r\n")[2][:-2].decode()
    return bulk(re.sub(rf"(?m)^{name}:.*?\r?$", f"{name}:{value}\r", text))
