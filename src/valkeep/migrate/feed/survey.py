"""What files hold: all of it is read once before anything is begun, and nothing is decoded or kept.

So a file that is damaged in its middle, or was cut off, is known before a target has lost its data, and preflight has a complete census of the snapshot.
What a log makes of its keys nobody knows without applying it; it is checked for its form, and its end is found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from valkeep.client.server_info import text_of, version_of
from valkeep.errors import RemoteProtocolError, ValkeepError
from valkeep.migrate.feed import Origin
from valkeep.migrate.feed.aof import LogReader
from valkeep.migrate.feed.files import PIECE, DataFiles, Part
from valkeep.migrate.preflight.formats import writers
from valkeep.migrate.preflight.snapshot import SnapshotCounter
from valkeep.report.events import Emit, Progress
from valkeep.wire.rdb.opcodes import HEADER_SIZE, OP_AUX, parse_header
from valkeep.wire.rdb.scan import read_string

if TYPE_CHECKING:
    from valkeep.migrate.preflight.facts import Census

__all__ = ["Survey", "Surveyed", "survey"]

ANY_REDIS = (99, 0)
_AUX_BYTES = 1 << 16
_TELL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One file. ``snapshot``: bytes of the snapshot at its beginning; ``log``: bytes behind it that count; ``tail``: bytes at its end that do not, because the
    last command, or transaction, is not whole; ``commands``: whole ones in its log."""

    part: Part
    snapshot: int
    log: int
    tail: int
    commands: int


@dataclass(frozen=True, slots=True)
class Survey:
    """``kind``: of the server that wrote the snapshot, "" where there is none; ``version``: its own, or the first one that writes this format; ``product``:
    for people; ``rdb_version``: 0 where there is no snapshot. ``keys``: of the snapshot, by database. ``used_memory``: bytes that its server used;
    0: unknown."""

    parts: tuple[Surveyed, ...]
    kind: str = ""
    version: tuple[int, ...] = ()
    product: str = "an append-only file"
    rdb_version: int = 0
    census: Census | None = None
    keys: Mapping[int, int] = field(default_factory=dict)
    used_memory: int = 0

    @property
    def snapshot(self) -> Surveyed | None:
        """The part that begins with the snapshot: the first, or none."""
        return self.parts[0] if self.parts[0].snapshot else None

    @property
    def commands(self) -> int:
        return sum(one.commands for one in self.parts)

    @property
    def log(self) -> int:
        """Bytes of commands."""
        return sum(one.log for one in self.parts)

    @property
    def torn(self) -> Surveyed | None:
        """The last file, when its end does not count."""
        return self.parts[-1] if self.parts[-1].tail else None

    @property
    def origin(self) -> Origin:
        """The log may have been written by a later release than the snapshot: nothing in it is taken for known."""
        return Origin(self.product, self.version, ANY_REDIS if self.log else self.version, False, sum(self.keys.values()))


async def survey(files: DataFiles, emit: Emit, clock: Callable[[], float]) -> Survey:
    """Read everything. Raises ``RemoteProtocolError`` where it is damaged, with the file and the place, and what ``Part.read`` raises."""
    look = _Look(files, emit, clock)
    parts: list[Surveyed] = []
    found = Survey(())
    for part in files.parts:
        size = 0
        if part.snapshot:
            found = await look.snapshot(part)
            size = found.parts[0].snapshot
        log, commands = await look.log(part, size)
        parts.append(Surveyed(part, size, log, part.size - size - log, commands))
        if parts[-1].tail and part is not files.parts[-1]:
            raise RemoteProtocolError(
                f"{part.path} ends at byte {part.size} in the middle of a command or a transaction that begins at byte {size + log}, "
                f"and {files.parts[len(parts)].path.name} goes on: no server loads that",
                remedy="copy the whole folder again; only the last file of a multi-part AOF may be cut off",
                code="VK-FILE-DAMAGED",
            )
    return Survey(tuple(parts), found.kind, found.version, found.product, found.rdb_version, found.census, found.keys, found.used_memory)


class _Look:
    def __init__(self, files: DataFiles, emit: Emit, clock: Callable[[], float]) -> None:
        self._emit = emit
        self._clock = clock
        self._total = sum(part.size for part in files.parts)
        self._read = 0
        self._keys = 0
        self._told = clock()

    async def snapshot(self, part: Part) -> Survey:
        began = time.monotonic()
        counter = SnapshotCounter()
        try:
            while not counter.done and counter.bytes < part.size:
                counter.feed(await self._piece(part, counter.bytes))
                self._keys = counter.keys
        except RemoteProtocolError as error:
            raise _damaged(part, counter.bytes - PIECE, error, error.code or "VK-FILE-DAMAGED") from None
        if not counter.done or counter.size > part.size:
            raise RemoteProtocolError(
                f"{part.path} ends at byte {part.size}, after {counter.keys} keys, in the middle of its snapshot",
                remedy="it was cut off while it was written or copied: copy it again, or take an older one",
                code="VK-SNAPSHOT-TRUNCATED",
            )
        aux = _aux(part.read(0, _AUX_BYTES))
        kind, version, product = _writer(part.read(0, HEADER_SIZE), aux)
        used = aux.get("used-mem", "")
        return Survey(
            (Surveyed(part, counter.size, 0, 0, 0),),
            kind,
            version,
            product,
            counter.version or 0,
            counter.census(time.monotonic() - began),
            dict(counter.databases),
            int(used) if used.isdigit() else 0,
        )

    async def log(self, part: Part, begins: int) -> tuple[int, int]:
        """Bytes that count, and commands in them."""
        reader = LogReader()
        at = begins
        while at < part.size:
            data = await self._piece(part, at)
            at += len(data)
            try:
                reader.feed(data)
            except RemoteProtocolError as error:
                raise _damaged(part, begins + _whole_before(part, begins, at - len(data)), error, "VK-FILE-DAMAGED") from None
        return reader.whole, reader.commands

    async def _piece(self, part: Part, at: int) -> bytes:
        data = part.read(at, min(PIECE, part.size - at))
        self._read += len(data)
        if self._clock() - self._told > _TELL_SECONDS:
            self._told = self._clock()
            self._emit(Progress(self._told, "census", keys=self._keys, bytes=self._read, total_bytes=self._total))
        await asyncio.sleep(0)
        return data


def _whole_before(part: Part, begins: int, good: int) -> int:
    """How much of the log counts before the damage that is in the piece at ``good``: read again, that piece byte by byte."""
    reader = LogReader()
    at = begins
    while at < good:
        data = part.read(at, min(PIECE, good - at))
        reader.feed(data)
        at += len(data)
    try:
        for byte in part.read(good, PIECE):
            reader.feed(bytes((byte,)))
    except RemoteProtocolError:
        pass
    return reader.whole


def _damaged(part: Part, at: int, error: ValkeepError, code: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"{part.path} is damaged, or no server's file, behind byte {max(at, 0)}: {error.message.rpartition(' commands: ')[2]}",
        remedy="copy it again, or take an older one; what the servers' own tools say (valkey-check-rdb, valkey-check-aof) helps to find the place",
        code=code,
    )


def _aux(head: bytes) -> dict[str, str]:
    """The fields at a snapshot's beginning."""
    found: dict[str, str] = {}
    position = HEADER_SIZE
    while position < len(head) and head[position] == OP_AUX:
        name, position = read_string(head, position + 1, len(head))
        value, position = read_string(head, position, len(head)) if name is not None else (None, -1)
        if name is None or value is None:
            break
        found[text_of(name)] = text_of(value)
    return found


def _writer(head: bytes, aux: Mapping[str, str]) -> tuple[str, tuple[int, ...], str]:
    """Kind, version and name of the server that wrote it: as it says, or as its format says."""
    header = parse_header(head)
    assert header is not None  # the snapshot was read
    for field_name, kind, product in (("valkey-ver", "valkey", "Valkey"), ("redis-ver", "redis", "Redis")):
        if version := version_of(aux.get(field_name, "")):
            return kind, version, f"{product} {'.'.join(map(str, version))}"
    kind = "valkey" if head.startswith(b"VALKEY") else "redis"
    first, who = writers(kind, header.version)
    return kind, first, who or f"a snapshot of version {header.version}"
