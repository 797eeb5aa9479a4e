"""The connections that carry the snapshot: blocks of commands go to whichever has room, and every reply is looked at.

Keys of a snapshot are different keys, so their order does not matter, and each block names its database. What is in flight is bounded: so many blocks for each
connection, and as many waiting. A connection that breaks is opened again and is sent what it had not acknowledged once more: RESTORE … REPLACE twice is
RESTORE once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from valkeep.client.bulk import Bulk, Odd
from valkeep.errors import ConnectionLost, ServerError
from valkeep.migrate.delivery.push.refusals import refused
from valkeep.wire import resp

if TYPE_CHECKING:
    from valkeep.migrate.delivery.push.door import Door

__all__ = ["Block", "Lanes"]

LANES = 3
WINDOW = 3  # blocks in flight on each


@dataclass(frozen=True, slots=True)
class Block:
    """``commands``, as bytes, of ``database``; so many of them are in ``count``."""

    database: int
    commands: bytes
    count: int


class Lanes:
    """``async with Lanes(door) as lanes``: ``put`` blocks, then ``finish``. What goes wrong is raised by these."""

    def __init__(self, door: Door, lanes: int = LANES) -> None:
        self._door = door
        self._queue: asyncio.Queue[Block | None] = asyncio.Queue(maxsize=lanes)
        self._count = lanes
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work(), name=f"push lane {number}") for number in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def put(self, block: Block | None) -> None:
        """Returns when there is room for it."""
        if not self._queue.full() and not any(worker.done() for worker in self._workers):
            self._queue.put_nowait(block)
            await asyncio.sleep(0)
            return
        putting = asyncio.ensure_future(self._queue.put(block))
        try:
            await asyncio.wait({putting, *self._workers}, return_when=asyncio.FIRST_COMPLETED)
            self._raise()
            await putting
        finally:
            putting.cancel()

    async def finish(self) -> None:
        """Return when everything that was put is in the target."""
        for _ in self._workers:
            await self.put(None)
        await asyncio.wait(self._workers, return_when=asyncio.FIRST_EXCEPTION)
        self._raise()

    def _raise(self) -> None:
        for worker in self._workers:
            if worker.done() and not worker.cancelled() and (error := worker.exception()) is not None:
                raise error

    async def _work(self) -> None:
        pending: deque[tuple[Block, asyncio.Future[list[Odd]]]] = deque()
        bulk = Bulk(await self._door.reopen())
        try:
            ended = False
            while not ended or pending:
                try:
                    while pending and (ended or len(pending) >= WINDOW):
                        block, answer = pending[0]
                        self._judge(block, await bulk.answer(answer))
                        pending.popleft()
                    if ended:
                        continue
                    taken = await self._queue.get()
                    if taken is None:
                        ended = True
                        continue
                    pending.append((taken, self._send(bulk, taken)))
                    await bulk.room()
                except ConnectionLost:
                    bulk.close()
                    bulk = Bulk(await self._door.reopen())
                    pending = deque((block, self._send(bulk, block)) for block, _ in pending)
        finally:
            bulk.close()

    @staticmethod
    def _send(bulk: Bulk, block: Block) -> asyncio.Future[list[Odd]]:
        if bulk.lost is None:
            bulk.write(resp.encode(b"SELECT", block.database))
            bulk.write(block.commands)
        return bulk.expect(block.count + 1)

    def _judge(self, block: Block, odd: list[Odd]) -> None:
        for place, reply in odd:
            if isinstance(reply, ServerError):
                parser = resp.Parser()
                parser.feed(block.commands)
                command = next((one for number, one in enumerate(parser, 1) if number == place), [b"SELECT", b"%d" % block.database])
                assert isinstance(command, list)
                raise refused(self._door.target.address, command, reply, f"snapshot, database {block.database}")
