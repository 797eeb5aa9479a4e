"""Driving a gateway that runs in a process of its own (``gateway_process``)."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.memory import peak_of
from bench.waiting import Late, until

__all__ = ["GatewayProcess"]


class GatewayProcess:
    """Entering starts the interpreter and waits until everything is imported; ``begin`` lets it connect to the source: there a clock may start."""

    def __init__(self, source: str, version: str, field_ttl: str = "keep-field", *, metrics: bool = False) -> None:
        self.address: tuple[str, int] = ("", 0)
        self._given = {
            "source": source,
            "version": [int(part) for part in version.split(".")],
            "field_ttl": field_ttl,
            "metrics": _free_port() if metrics else 0,
        }
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._said: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._spool = tempfile.TemporaryDirectory(prefix="valkeep-bench-spool-")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("gateway_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError(f"the gateway's process did not start: {self._complaint()}")
        self._reader = threading.Thread(target=self._read, name="gateway events", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def peak(self) -> int:
        """Bytes of memory at most so far."""
        return peak_of(self._process.pid)

    def alive(self) -> bool:
        """True; raises what it said when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the gateway ended: {self._complaint()}; before: {self.story()}")
        return True

    def begin(self, timeout: float = 30.0) -> None:
        """Connect to the source; returns when targets may attach at ``address``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._given | {"spool": self._spool.name}) + "\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + timeout
        syncing = False
        while not (syncing and self.address[1]):
            event = self._next(deadline)
            text = str(event.get("text", ""))
            if text.startswith("the gateway listens on "):
                host, _, port = text.rpartition(" ")[2].rpartition(":")
                self.address = (host, int(port))
            syncing = syncing or text.startswith("the source starts a full sync")

    def received(self) -> int:
        """The source's offset that it has received up to (``metrics`` was asked for)."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._given['metrics']}/metrics", timeout=10) as reply:
            for line in reply.read().decode().splitlines():
                if line.startswith("valkeep_source_offset_bytes "):
                    return int(float(line.split()[1]))
        return 0

    def has_received(self, offset: int, timeout: float) -> None:
        until(lambda: self.received() >= offset, timeout, f"the gateway to receive offset {offset}", every=0.1)

    def story(self) -> str:
        """Its last notes and phases: why something did not happen."""
        with contextlib.suppress(queue.Empty):
            while (event := self._events.get_nowait()) is not None:
                self._said.append(event)
        return " | ".join(f"{event['event']} {event.get('name') or event.get('text') or ''}" for event in self._said[-8:])

    def close(self) -> None:
        """End it: its input ends, then SIGKILL."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._spool.cleanup()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _next(self, deadline: float) -> dict[str, Any]:
        try:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise Late("the gateway said nothing in time") from None
        if event is None:
            raise RuntimeError(f"the gateway ended: {self._complaint()}")
        return event

    def _complaint(self) -> str:
        self._process.kill()
        assert self._process.stderr is not None
        return " | ".join(self._process.stderr.read().strip().splitlines()[-3:])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
