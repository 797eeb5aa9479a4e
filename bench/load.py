"""Load at a steady rate, from a process of its own: ``python bench/load.py PORT RATE`` until its standard input ends.

Writes go out in small pieces on a fixed schedule (open loop): a server that is slow for a moment gets what was due meanwhile at once, as from many clients.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["Steady"]

TICK: Final = 0.002


class Steady:
    """``with Steady(port, rate) as load: …``; ``load.achieved``: writes per second, known afterwards."""

    def __init__(self, port: int, rate: int) -> None:
        self._command = [sys.executable, str(Path(__file__)), str(port), str(rate)]
        self.achieved = 0.0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "running\n":
            self._process.kill()
            self._process.wait()
            raise RuntimeError("the load did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self.achieved = float(self._process.stdout.read() or 0)
            self._process.wait(10)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()


def main(port: int, rate: int) -> None:
    from valkeep.wire.resp import encode

    wire = socket.create_connection(("127.0.0.1", port), timeout=60)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire.sendall(encode(b"CLIENT", b"REPLY", b"OFF"))
    each = max(1, round(rate * TICK))
    value = b"v" * 64
    pieces = [b"".join(encode(b"SET", b"key:%d" % (first + at), value) for at in range(each)) for first in range(0, 100_000, each)]
    print("running", flush=True)
    started = time.perf_counter()
    sent = 0
    while True:
        due = int((time.perf_counter() - started) * rate)
        while sent + each <= due:
            wire.sendall(pieces[sent // each % len(pieces)])
            sent += each
        wait = (sent + each) / rate - (time.perf_counter() - started)
        if select.select([sys.stdin], [], [], max(0.0, wait))[0]:
            break
    took = time.perf_counter() - started
    wire.close()
    print(sent / took)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
