"""A feed whose bytes a test gives: a snapshot at once, then what is said, also after it is started again behind some offset."""

from __future__ import annotations

import asyncio
from typing import Any

from valkeep.client.replication import Receiver
from valkeep.migrate.feed import Origin, Position

__all__ = ["REPLID", "ScriptedFeed"]

ORIGIN = Origin("Redis 8.4.0", (8, 4), (8, 4), False)
REPLID = "ab" * 20


class ScriptedFeed:
    """All of a `Feed` but ``read``. ``begin``: the offset of the ``snapshot``; ``since``: where it was asked to go on."""

    def __init__(self, snapshot: bytes, begin: int) -> None:
        self.since: Position | None = None
        self.received = begin
        self.length = 0
        self.receiver: Any = None
        self._snapshot = snapshot
        self._begin = begin

    async def look(self) -> Origin:
        return ORIGIN

    async def start(self, receiver: Receiver, listening_port: int, since: Position | None = None) -> None:
        self.receiver, self.since = receiver, since
        if since is None:
            self.received = self._begin
            receiver.full_resync(REPLID, self._begin)
            receiver.snapshot(memoryview(self._snapshot))
            receiver.snapshot_end()
        else:
            self.received = since.offset
            receiver.continued(since.replid, since.offset)

    async def run(self) -> None:
        await asyncio.Event().wait()

    def acknowledge(self) -> None: ...

    async def close(self) -> None: ...

    def say(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self.received += len(data)
        self.receiver.stream(memoryview(data))
