"""One side of a full verification: a server's snapshot becomes rows and names in partition files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from valkeep.errors import ValkeepError
from valkeep.migrate.keyread import Seen
from valkeep.migrate.verify.assembled import Assembled
from valkeep.migrate.verify.mode import Mode
from valkeep.topology.slots import SLOTS, slots_of
from valkeep.wire.digest import Digester
from valkeep.wire.rdb.decode import Decoder, decode_payload
from valkeep.wire.spiller import Spiller, policy

__all__ = [
    "PRESENT_AS",
    "Progress",
    "Snapshot",
    "Spill",
    "digest_written",
    "names_path",
    "partitions_for",
    "read_snapshot",
    "rows_path",
    "written_path",
]

PRESENT_AS = "9.1.0"  # what we say we are: a Valkey 9 then sends what it has, and not what an older replica could load
FLUSH = 64 << 10  # bytes of a partition's buffer that go to its file at once
NAMES_AT_ONCE = 10_000  # digested before the source's stream is read on
DECODED = -2  # `Spiller.place`: the expiry is the one that the decoder tells
KEYS_PER_PARTITION = 250_000  # some 12 MB of rows a side when compared

Progress = Callable[[int, int], None]
"""Called with keys and bytes so far, some times a second."""


def rows_path(directory: Path, side: str, partition: int) -> Path:
    return directory / f"{side}-{partition:03d}.rows"


def names_path(directory: Path, side: str, partition: int) -> Path:
    return directory / f"{side}-{partition:03d}.names"


def written_path(directory: Path, partition: int) -> Path:
    return directory / f"written-{partition:03d}.keys"


def partitions_for(keys: int) -> int:
    """A power of two from 4 to 256, so that a partition is small in memory, and files are few."""
    count = 4
    while count < 256 and count * KEYS_PER_PARTITION < keys:
        count *= 2
    return count


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read. ``functions``: library → digest of its code. ``stream_database``: where the stream begins (a replica's says it)."""

    keys: int
    bytes: int
    seconds: float
    functions: dict[str, str]
    stream_database: int


class Spill:
    """The partition files of one side, and the decoder that fills them."""

    def __init__(
        self,
        directory: Path,
        side: str,
        key: bytes,
        partitions: int,
        mode: Mode,
        *,
        more: bool = False,
        ranges: Iterable[Sequence[int]] = (),
    ) -> None:
        """``more``: what comes is added to the files: another server of the same side. ``ranges``: only keys of these slots count; none: all do."""
        slots = frozenset(slots_of((first, last) for first, last in ranges))
        self.spiller = Spiller(key, policy(mode), partitions, bytes(slot in slots for slot in range(SLOTS)) if slots else b"")
        self.bytes = 0
        self._decoder = Decoder(self.spiller)
        self._assembled = Assembled()
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if more else os.O_TRUNC)
        self._rows = [os.open(rows_path(directory, side, one), flags, 0o600) for one in range(partitions)]
        self._names = [os.open(names_path(directory, side, one), flags, 0o600) for one in range(partitions)]

    def feed(self, data: bytes) -> None:
        self._decoder.feed(data)
        self.bytes += len(data)
        self._flush(FLUSH)

    def page(self, database: int, keys: Sequence[tuple[bytes, Seen]]) -> None:
        """Keys as DUMP and PEXPIRETIME showed them, in place of a snapshot's records."""
        assembled = self._assembled
        if not keys:
            return
        if not assembled.version:
            self.feed(assembled.begin(keys[0][1].payload))
        self.feed(assembled.page(database, keys))
        for place, key, seen in assembled.odd:
            self.spiller.place(place, seen.expire_ms)
            decode_payload(seen.payload, self.spiller, key)
            self.spiller.place(place, DECODED)
        assembled.odd.clear()

    def finish_pages(self) -> None:
        """No more pages come."""
        self._flush(0)

    def _flush(self, least: int) -> None:
        for buffers, files in ((self.spiller.rows, self._rows), (self.spiller.names, self._names)):
            for buffer, file in zip(buffers, files, strict=True):
                if len(buffer) > least:
                    _write(file, buffer)
                    buffer.clear()

    def finish(self) -> None:
        """The last byte was fed. RemoteProtocolError when the snapshot is not complete."""
        self._decoder.close()
        self._flush(0)

    def close(self) -> None:
        for file in (*self._rows, *self._names):
            with contextlib.suppress(OSError):
                os.close(file)
        self._rows, self._names = [], []


def _write(file: int, buffer: bytearray) -> None:
    done = 0
    with memoryview(buffer) as view:
        while done < len(view):
            try:
                done += os.write(file, view[done:])
            except OSError as error:
                raise ValkeepError(
                    f"the verification's temporary files can't be written: {error.strerror or error}",
                    remedy="give a folder with more room (--workdir, or TMPDIR): 56 bytes and the name for each key and side",
                ) from None


def library_name(code: bytes) -> str:
    """``#!lua name=mylib`` → ``mylib``; "" where there is none."""
    for word in code.split(b"\n", 1)[0].split():
        if word.lower().startswith(b"name="):
            return word[5:].decode("utf-8", "backslashreplace")
    return ""


def libraries(codes: list[bytes]) -> dict[str, str]:
    return {library_name(code): blake2b(code, digest_size=16).hexdigest() for code in codes}


async def read_snapshot(chunks: AsyncIterator[bytes], spill: Spill, progress: Progress) -> Snapshot:
    """Read all of it into ``spill``, and close that. Raises what the link or the decoder raises."""
    begun = told = time.monotonic()
    try:
        async for chunk in chunks:
            spill.feed(chunk)
            now = time.monotonic()
            if now - told > 0.25:
                progress(spill.spiller.keys, spill.bytes)
                told = now
        spill.finish()
    finally:
        spill.close()
    spiller = spill.spiller
    progress(spiller.keys, spill.bytes)
    return Snapshot(spiller.keys, spill.bytes, time.monotonic() - begun, libraries(spiller.libraries), spiller.stream_database)


async def digest_written(names: Iterable[tuple[int, bytes]], directory: Path, key: bytes, partitions: int) -> None:
    """The keys that were written meanwhile, as digests in a file for each partition: no row of theirs is judged."""
    digester = Digester(key)
    buffers = [bytearray() for _ in range(partitions)]
    for number, (database, name) in enumerate(names):
        digest = digester.key_digest(database, name)
        buffers[digest[0] & (partitions - 1)] += digest
        if number % NAMES_AT_ONCE == 0:
            await asyncio.sleep(0)
    for number, buffer in enumerate(buffers):
        written_path(directory, number).write_bytes(buffer)
