"""What a server wrote by itself in a stretch of its history: the keys in it, to be copied again.

Asked of the server's own backlog, by PSYNC, whatever it is by now: a replica passes on what it was a primary for. Nothing of it is applied anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from valkeep.client.replication import ReplicationLink
from valkeep.errors import ConnectionLost, RemoteProtocolError, ValkeepError
from valkeep.wire.commands import keys_of
from valkeep.wire.stream import CommandScanner

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.wire.commands import Place

__all__ = ["keys_in", "keys_written"]

SECONDS = 30.0


async def keys_written(server: Endpoint, replid: str, begin: int, end: int, databases: Collection[int]) -> frozenset[Place]:
    """The keys that the bytes behind ``begin`` up to ``end`` of this history write. ``databases``: those that have keys; in which one the stretch begins
    nobody knows. Raises ``ConnectionLost`` where the backlog has them no more, or they do not name their keys."""
    if begin >= end:
        return frozenset()
    stretch = _Stretch(end - begin)
    link = await ReplicationLink.open(server, stretch, role="the old server", since=(replid, begin))
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({link.lost, stretch.whole}, return_when=asyncio.FIRST_COMPLETED)
            if not stretch.whole.done():
                await link.lost
        return keys_in(stretch.data, databases)
    except (ValkeepError, TimeoutError) as error:
        raise ConnectionLost(
            f"{server.address} does not say any more what it wrote by itself from offset {begin} to {end}: {str(error) or 'it does not answer'}",
            remedy="the old server cannot be kept current; commit, or begin a new migration",
        ) from error
    finally:
        link.close()


def keys_in(data: bytes | bytearray, databases: Collection[int]) -> frozenset[Place]:
    """The keys that the whole commands in ``data`` write; those before its first SELECT may be in any of ``databases``. Raises ``RemoteProtocolError`` when one
    writes what has no key, or is not known."""
    scanner = CommandScanner(frozenset())
    view, position, selected = memoryview(data), 0, set(databases)
    found: set[Place] = set()
    while position < len(data):
        position = scanner.scan(view, position, len(data))
        parsed = scanner.command(view, position, len(data))
        if parsed is None:
            break
        args, position = parsed
        scanner.passed(args[0].upper())
        if args[0].upper() == b"SELECT":
            selected = {int(args[1])}
        for database in selected:
            keys = keys_of(args, database)
            if keys is None or keys.databases or keys.everything:
                raise RemoteProtocolError(
                    f"it holds {args[0].decode('ascii', 'replace')}, which names no keys", remedy="see who wrote there"
                )
            found.update(keys.written)
    return frozenset(found)


class _Stretch:
    """A `Receiver`: so many bytes, then ``whole``."""

    def __init__(self, size: int) -> None:
        self.data = bytearray()
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._size = size

    def continued(self, replid: str, offset: int) -> None: ...

    def full_resync(self, replid: str, offset: int) -> None: ...

    def snapshot(self, data: memoryview) -> None: ...

    def snapshot_end(self) -> None: ...

    def stream(self, data: memoryview) -> None:
        self.data += data[: self._size - len(self.data)]
        if len(self.data) >= self._size and not self.whole.done():
            self.whole.set_result(None)
