"""A source that is a script: it speaks just enough of a primary's side for a gateway to replicate from it, and sends the exact bytes it was given.

What a real source would say next depends on its version; what this one says is written down in fixtures, so that snapshots and commands of
releases that no test machine has (Redis 8.2 … 8.4, or 2.8) reach real targets too. Nothing here uses Valkeep's own coders: RESP, checksums and
payloads are made by a few lines of this file, so a mistake of theirs cannot hide in the fixture.

Several connections are served at once: the replica's (PSYNC), and ordinary ones for INFO and for keys that are copied again. Those are answered from
``values``: what the source *would* hold at the end of everything it was told to send. That is consistent, because the offset that goes with an answer
is counted before the bytes are written.

What it does not do: execute anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import anycrc

__all__ = ["Place", "ScriptedPrimary", "Value", "command", "payload", "sealed", "until"]

Place = tuple[int, bytes]
Word = bytes | str | int

REPLID = "5c1e" * 10
MARK = b"7d21f0c4a96be83517d20fc49ab6e8357d12f04c"
ATTENDED = 0.02  # s between bare newlines while a copy is held back

_crc64 = anycrc.Model("CRC64-REDIS")


def crc(data: bytes) -> bytes:
    """Eight bytes, little-endian, as they end snapshots and payloads."""
    return int(_crc64.calc(data)).to_bytes(8, "little")


def sealed(snapshot: bytes) -> bytes:
    """A snapshot from its magic to its last record, ended as a server ends it."""
    return snapshot + b"\xff" + crc(snapshot + b"\xff")


def payload(body: bytes, version: int = 12) -> bytes:
    """What DUMP gives for ``body`` (type and value)."""
    body += version.to_bytes(2, "little")
    return body + crc(body)


def command(*words: Word) -> bytes:
    """One command of a replication stream. A single string is split at blanks: ``command("SET k v")``."""
    if len(words) == 1 and isinstance(words[0], str):
        words = tuple(words[0].split())
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


async def until(condition: Callable[[], object]) -> None:
    """Return when it holds; for what has no event of its own."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Value:
    """What DUMP and PEXPIRETIME say of a key."""

    payload: bytes
    expire_ms: int = -1


class ScriptedPrimary:
    """``async with ScriptedPrimary(snapshot) as primary``: serves ``primary.port``; ``await primary.send(…)`` goes on with the stream.

    ``framing``: ``"mark"`` or ``"length"``. ``chunk``: bytes written at once (0: as they are given). ``info``: lines of INFO that differ from a Redis 8.4.
    ``copied``: keys that were asked for; ``acked``: the last ACK; ``unknown``: commands nobody expected here. Clearing ``answers`` keeps back
    answers about keys until it is set again; clearing ``second_half`` stops in the middle of the snapshot.

    A replica that comes back goes on from ``backlog`` (everything that was sent, from offset ``backlog_begins`` on): ``full_syncs``, ``continued``: how often
    each was answered. ``continues``: False answers a full sync whatever is asked. ``replid``: its history's name; ``rename`` gives it another one.
    """

    def __init__(
        self,
        snapshot: bytes,
        *,
        offset: int = 1000,
        framing: str = "mark",
        chunk: int = 0,
        databases: int = 64,
        info: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.tls = tls
        self.offset = offset
        self.backlog = bytearray()
        self.backlog_begins = offset + 1
        self.full_syncs = 0
        self.continued = 0
        self.continues = True
        self.framing = framing
        self.chunk = chunk
        self.databases = databases
        self.info = {
            "redis_version": "8.4.0",
            "redis_mode": "standalone",
            "role": "master",
            "master_replid": REPLID,
            "repl_backlog_active": "1",
            "repl_backlog_size": "1048576",
            **(info or {}),
        }
        self.values: dict[Place, Value] = {}
        self.copied: list[Place] = []
        self.unknown: list[bytes] = []
        self.acked = -1
        self.port = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.second_half = asyncio.Event()
        self.second_half.set()
        self._heard = asyncio.Event()
        self._replica: asyncio.StreamWriter | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 26, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answers.set()
        self.second_half.set()
        assert self._server is not None
        self._server.close()
        await self.hang_up()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def hang_up(self) -> None:
        """Break every connection, as a killed server would."""
        for writer in list(self._writers):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, data: bytes, *, chunk: int | None = None) -> int:
        """Write the next bytes of the stream; returns the offset after them."""
        async with self._writing:
            self.offset += len(data)
            self.backlog += data
            after = self.offset
            assert self._replica is not None, "nobody replicates"
            await self._write(self._replica, data, self.chunk if chunk is None else chunk)
        return after

    def happen(self, data: bytes) -> None:
        """The stream goes on while no replica is there."""
        self.offset += len(data)
        self.backlog += data

    def rename(self, replid: str) -> None:
        """As after a failover: the same history has another id from here on."""
        self.info |= {"master_replid2": self.replid, "second_repl_offset": str(self.offset + 1), "master_replid": replid}

    @property
    def replid(self) -> str:
        return self.info["master_replid"]

    async def asked_for(self, count: int) -> None:
        """Return when so many keys were asked for."""
        while len(self.copied) < count:
            self._heard.clear()
            await self._heard.wait()

    # -- serving --------------------------------------------------------------------------------------------------------------------

    @staticmethod
    async def _write(writer: asyncio.StreamWriter, data: bytes, chunk: int) -> None:
        size = chunk or max(len(data), 1)
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            if chunk:
                await asyncio.sleep(0)  # the reader, in the same loop, sees each piece alone

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        database = 0
        queued: list[list[bytes]] | None = None
        try:
            while True:
                args = await self._read(reader)
                name = args[0].upper()
                if name == b"SELECT":
                    database = int(args[1])
                    writer.write(b"+OK\r\n")
                elif name == b"MULTI":
                    queued = []
                    writer.write(b"+OK\r\n")
                elif name == b"EXEC" and queued is not None:
                    if any(one[0].upper() == b"DUMP" for one in queued):
                        self._note_copies(database, queued)
                        await self.answers.wait()
                    writer.write(b"*%d\r\n" % len(queued) + b"".join(self._answer(one, database) for one in queued))
                    queued = None
                elif queued is not None:
                    queued.append(args)
                    writer.write(b"+QUEUED\r\n")
                elif name == b"PSYNC":
                    await self._psync(args, writer)
                else:
                    writer.write(self._answer(args, database))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> list[bytes]:
        """One command: an array of bulk strings, or an inline one."""
        line = await reader.readuntil(b"\n")
        if not line.startswith(b"*"):
            return line.split() or [b""]
        args = []
        for _ in range(int(line[1:])):
            size = int((await reader.readuntil(b"\n"))[1:])
            args.append((await reader.readexactly(size + 2))[:-2])
        return args

    def _note_copies(self, database: int, queued: list[list[bytes]]) -> None:
        self.copied += [(database, one[1]) for one in queued if one[0].upper() == b"DUMP"]
        self._heard.set()

    def _answer(self, args: list[bytes], database: int) -> bytes:
        match args[0].upper():
            case b"PING":
                return b"+PONG\r\n"
            case b"AUTH" | b"CLIENT":
                return b"+OK\r\n"
            case b"REPLCONF":
                if args[1].upper() == b"ACK":
                    self.acked = int(args[2])
                    self._heard.set()
                    return b""
                return b"+OK\r\n"
            case b"INFO":
                begins = {"repl_backlog_first_byte_offset": str(self.backlog_begins)}
                lines = {**begins, **self.info, "master_repl_offset": str(self.offset)}
                return _bulk("\r\n".join(f"{name}:{value}" for name, value in lines.items()).encode())
            case b"CONFIG":
                return b"*2\r\n" + _bulk(b"databases") + _bulk(b"%d" % self.databases)
            case b"TIME":
                return b"*2\r\n" + _bulk(b"1790000000") + _bulk(b"0")
            case b"DUMP":
                value = self.values.get((database, args[1]))
                return b"$-1\r\n" if value is None else _bulk(value.payload)
            case b"PEXPIRETIME" | b"PTTL":
                value = self.values.get((database, args[1]))
                return b":%d\r\n" % (-2 if value is None else value.expire_ms)
            case name:
                self.unknown.append(name)
                return b"-ERR unknown command in this script\r\n"

    async def _psync(self, args: list[bytes], writer: asyncio.StreamWriter) -> None:
        replid, wanted = args[1].decode(), int(args[2])
        known = replid in (self.replid, self.info.get("master_replid2"))
        if not (self.continues and known and self.backlog_begins <= wanted <= self.offset + 1):
            self.full_syncs += 1
            await self._full_resync(writer)
            return
        self.continued += 1
        async with self._writing:
            name = f" {self.replid}" if replid != self.replid else ""
            writer.write(f"+CONTINUE{name}\r\n".encode() + self.backlog[wanted - self.backlog_begins :])
            self._replica = writer

    async def _full_resync(self, writer: asyncio.StreamWriter) -> None:
        head = f"+FULLRESYNC {self.replid} {self.offset}\r\n\n\n".encode()
        if self.framing == "mark":
            data = head + b"$EOF:" + MARK + b"\r\n" + self.snapshot + MARK
        else:
            data = head + b"$%d\r\n" % len(self.snapshot) + self.snapshot
        middle = len(head) + len(self.snapshot) // 2
        await self._write(writer, data[:middle], self.chunk)
        await self.second_half.wait()
        await self._write(writer, data[middle:], self.chunk)
        self._replica = writer


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
