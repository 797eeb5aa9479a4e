"""The feed of files: a snapshot and a log from the disk, to a gateway that is used to a server's.

Offsets are ours: they begin at 0 behind the snapshot and count the bytes of commands that were given. Annotations are left out, and each file
begins with a ``SELECT 0``, because that is where a server begins with each of them. A log without a snapshot gets an empty one
before it.

A key can't be read again: there is no server that could be asked. What the stream alone can't say is therefore the end (`NotInFile`), and the remedy
is a server that reads the files.

What it does not do: it follows no file that grows (`files.DataFiles.expect_unchanged`), and gives nothing that was not surveyed before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from valkeep.errors import LocalProtocolError, ValkeepError
from valkeep.migrate.feed import Position, ReplicationGap
from valkeep.migrate.feed.aof import LogReader
from valkeep.migrate.feed.files import PIECE
from valkeep.wire.rdb.encode import SnapshotWriter
from valkeep.wire.rdb.opcodes import DIALECT_REDIS
from valkeep.wire.resp import encode

if TYPE_CHECKING:
    from valkeep.client.replication import Receiver
    from valkeep.migrate.feed import Origin
    from valkeep.migrate.feed.survey import Survey, Surveyed
    from valkeep.migrate.transform.copies import Copy
    from valkeep.wire.commands import Place

__all__ = ["FileFeed", "NotInFile", "commands_of", "place_of"]

_SELECT = encode(b"SELECT", b"0")
_EMPTY_VERSION = 6  # of the snapshot that a log without one gets: every reader knows it


class NotInFile(ValkeepError):
    """Only a server could say what is needed."""

    code = "VK-FILE-COMMAND"


class FileFeed:
    """A `Feed`. ``read_all``: set when everything was given to the receiver."""

    def __init__(self, survey: Survey) -> None:
        self.received = 0
        self.read_all = asyncio.Event()
        self._survey = survey
        self._receiver: Receiver | None = None
        self._closed = asyncio.Event()

    @property
    def length(self) -> int:
        return self._survey.parts[0].snapshot

    async def look(self) -> Origin:
        return self._survey.origin

    async def start(self, receiver: Receiver, listening_port: int, since: Position | None = None) -> None:
        del listening_port
        if since is not None:
            raise ReplicationGap("a file is read from its beginning", remedy="start again")
        self._receiver = receiver
        receiver.full_resync("0" * 40, 0)

    async def run(self) -> None:
        receiver = self._receiver
        if receiver is None:
            raise LocalProtocolError("a feed was run before it was started", remedy="this is a bug of Valkeep: please report it")
        first = self._survey.parts[0]
        at = 0
        if not first.snapshot:
            receiver.snapshot(memoryview(SnapshotWriter(DIALECT_REDIS, _EMPTY_VERSION).finish()))
        try:
            while at < first.snapshot:
                data = first.part.read(at, min(PIECE, first.snapshot - at))
                receiver.snapshot(memoryview(data))
                at += len(data)
                await asyncio.sleep(0)
            receiver.snapshot_end()
        except ValkeepError as error:
            raise error.saying(f"{first.part.path}, at byte {at} or a little later: {error.message}") from error
        async for piece in commands_of(self._survey):
            self.received += len(piece)
            receiver.stream(memoryview(piece))
        self.read_all.set()
        await self._closed.wait()

    def acknowledge(self) -> None:
        """Nobody wants to know."""

    async def read(self, places: Sequence[Place]) -> list[Copy]:
        """Raises ``NotInFile``, always."""
        database, key = places[0]
        raise NotInFile(
            f"key {key.decode('utf-8', 'backslashreplace')[:80]!r} in database {database} would have to be read again, and there is no server to ask",
            remedy="load the files into a server of their own version, and migrate from there: --source URL",
        )

    async def close(self) -> None:
        self._closed.set()


async def commands_of(survey: Survey) -> AsyncIterator[bytes]:
    """The log of all files, in order and without annotations, in pieces that begin and end anywhere."""
    for one in survey.parts:
        if one.log:
            yield _SELECT
            async for piece, _ in _pieces(one):
                yield piece


async def place_of(survey: Survey, offset: int) -> str:
    """In which file, near which byte, this offset of the feed is; reads up to there."""
    at = 0
    for one in survey.parts:
        if not one.log:
            continue
        at += len(_SELECT)
        async for piece, near in _pieces(one):
            at += len(piece)
            if at > offset:
                return f"{one.part.path}, near byte {near - (at - offset)}"
    return "the end of the log"


async def _pieces(one: Surveyed) -> AsyncIterator[tuple[bytes, int]]:
    """Each with the place in the file up to which it goes, or a little later."""
    reader = LogReader()
    at = one.snapshot
    end = at + one.log
    while at < end:
        data = one.part.read(at, min(PIECE, end - at))
        at += len(data)
        for piece in reader.feed(data):
            yield piece, at
        await asyncio.sleep(0)
