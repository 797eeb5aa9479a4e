"""Ports for nodes: below the range that the kernel gives to outgoing connections, reserved across processes.

Asking the kernel for a free port and starting a server on it later is a race that parallel test runs lose. So a port is *reserved*:
a lock on a file named after it in the temporary folder, held until the node has gone, and released by the kernel when the holder is
killed. ``port + 10000`` (the cluster bus) is reserved and checked with it.

    12000 … 21999   nodes                22000 … 31999   their cluster buses                32768 …   the kernel's own
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from valkeep.errors import ValkeepError

__all__ = ["BUS", "FIRST", "LAST", "Reservation", "reserve"]

FIRST, LAST, BUS = 12000, 21999, 10000


class Reservation:
    """A port that is ours until `release`. ``port``: as asked for, or the first free one."""

    def __init__(self, port: int, lock: IO[str]) -> None:
        self.port = port
        self._lock = lock

    def release(self) -> None:
        """Give the port back; the lock file stays (removing it would let two holders lock two files of one name)."""
        self._lock.close()


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"valkeep-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _free(port: int, host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _take(port: int, host: str) -> Reservation | None:
    lock = (_folder() / str(port)).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    if _free(port, host) and (port + BUS > 65535 or _free(port + BUS, host)):
        return Reservation(port, lock)
    lock.close()
    return None


def _order() -> Iterator[int]:
    """Every port once, each process from a place of its own, so that parallel runs seldom meet."""
    span = LAST - FIRST + 1
    start = os.getpid() * 61 % span
    return (FIRST + (start + step) % span for step in range(span))


def reserve(port: int | None = None, host: str = "127.0.0.1") -> Reservation:
    """Reserve ``port`` (or any). Raises when it is taken."""
    for candidate in [port] if port is not None else _order():
        taken = _take(candidate, host)
        if taken is not None:
            return taken
    what = f"port {port}" if port is not None else f"every port from {FIRST} to {LAST}"
    raise ValkeepError(f"{what} on {host} is in use", remedy="end the process that listens there (ss -ltnp), or name another port")
