"""Servers for measuring: started with the same settings, spoken to by plain sockets where the client's own time would count."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import valkey

from bench.gateway import GatewayProcess
from bench.waiting import Late, until
from valkeep.runtime.node import Node, Process
from valkeep.runtime.servers import find
from valkeep.wire.resp import NEED_MORE, Parser, encode

__all__ = ["Bench", "Wire", "detach", "server", "sync_native", "sync_through", "timer_wait"]

SETTINGS: Final = {
    "repl-diskless-sync-delay": "0",
    "client-output-buffer-limit": "replica 0 0 0",
    "repl-timeout": "3600",
}
LOAD_TIMEOUT: Final = 90.0


class Bench:
    """A server and an ordinary client to it."""

    def __init__(self, process: Process, client: Any) -> None:
        self.process = process
        self.client = client
        self.url = process.endpoint
        self.port = process.port

    def number(self, section: str, name: str) -> int:
        """One number of INFO."""
        return int(self.client.info(section)[name])

    def linked(self) -> bool:
        """Whether it is a replica that has loaded its primary's snapshot and takes its stream."""
        return bool(self.client.info("replication").get("master_link_status") == "up")


@contextlib.contextmanager
def server(spec: str, *, folder: Path | None = None, **more: str) -> Iterator[Bench]:
    """``folder``: holds a snapshot that it starts with (removed at the end). ``more``: settings, with _ for -."""
    settings = SETTINGS | {name.replace("_", "-"): value for name, value in more.items()}
    try:
        with (
            Node.start(find(spec), settings, directory=folder, timeout=LOAD_TIMEOUT) as process,
            valkey.Valkey(port=process.port, socket_timeout=LOAD_TIMEOUT) as client,
        ):
            until(lambda: not client.info("persistence")["loading"], LOAD_TIMEOUT, "the snapshot to be loaded")
            yield Bench(process, client)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class Wire:
    """A blocking socket that speaks RESP: for load and for markers."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = Parser()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes | memoryview) -> None:
        self._socket.sendall(data)

    def call(self, *args: bytes | str | int) -> Any:
        self.send(encode(*args))
        return self.reply()

    def reply(self) -> Any:
        while (value := self._parser.next()) is NEED_MORE:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server hung up")
            self._parser.feed(data)
        return value

    def blast(self, pieces: list[bytes], times: int = 1) -> None:
        """Send all of it without replies; returns when the server has executed everything."""
        self.send(encode(b"CLIENT", b"REPLY", b"OFF"))
        for _ in range(times):
            for piece in pieces:
                self.send(piece)
        self.send(encode(b"CLIENT", b"REPLY", b"ON"))
        if (answer := self.reply()) != b"OK":
            raise RuntimeError(f"the server answered {answer!r}")


def detach(target: Bench, *, flush: bool = True) -> None:
    """A primary again, and empty."""
    target.client.execute_command("REPLICAOF", "NO", "ONE")
    if flush:
        target.client.execute_command("FLUSHALL", "SYNC")


def timer_wait(target: Bench) -> float:
    """Seconds of the last full sync in which a Valkey 9 target had the whole snapshot and did not notice yet: it looks once a second.

    Other servers receive the snapshot in their main thread and notice at once: 0.
    """
    at: dict[str, float] = {}
    for line in target.process.log().splitlines():
        for what in ("Done downloading RDB", "detected RDB download completion"):
            if what in line:
                hours, minutes, seconds = line.split()[4].split(":")
                at[what] = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return (at["detected RDB download completion"] - at["Done downloading RDB"]) % 86400 if len(at) == 2 else 0.0


def sync_native(source: Bench, target: Bench) -> float:
    """Seconds of a full sync; the target stays attached."""
    full = source.number("stats", "sync_full")
    started = time.perf_counter()
    target.client.execute_command("REPLICAOF", "127.0.0.1", source.port)
    until(target.linked, LOAD_TIMEOUT, "a native full sync")
    seconds = time.perf_counter() - started
    assert source.number("stats", "sync_full") == full + 1, "that was not a full sync"
    _equal(source, target)
    return seconds


def sync_through(gateway: GatewayProcess, source: Bench, target: Bench) -> float:
    """The same through a gateway whose process stands at the start line. Its connection to the source is inside the clock."""
    started = time.perf_counter()
    gateway.begin()
    target.client.execute_command("REPLICAOF", *gateway.address)
    try:
        until(lambda: gateway.alive() and target.linked(), LOAD_TIMEOUT, "a full sync through the gateway")
    except Late as late:
        raise Late(
            f"{late}; the gateway: {gateway.story()}; the target: {_last_lines(target)}; the source: {_last_lines(source)}"
        ) from None
    seconds = time.perf_counter() - started
    _equal(source, target)
    return seconds


def _last_lines(one: Bench) -> str:
    return " | ".join(one.process.log().splitlines()[-4:])


def _equal(source: Bench, target: Bench) -> None:
    here, there = source.client.dbsize(), target.client.dbsize()
    if here != there:
        raise RuntimeError(f"the source has {here} keys and the target {there}")
