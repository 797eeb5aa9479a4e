"""The stream, written to the target exactly once, and the link by which the gateway knows of it.

One batch at a time is under way (`batches`): bytes go out as they come, the batch is closed when nothing more waits or it is large enough, and its EXEC is
answered before the next one begins. So what the marker in the target says is all there is to know after a connection broke:

    the marker is that of the batch    it was executed, only its answers are lost: the keys it wrote are copied again, because an error may have been among them
    it is the one before               nothing of it was executed: the stream goes on from there
    anything else                      somebody else wrote it: the delivery ends

A cluster of which another node is away refuses whole batches (CLUSTERDOWN). That is as if the connection had broken, for as long as ``DOWN_SECONDS``.

Before the marker is read the broken connection's client is killed on the target: what was still on its way would otherwise be executed after the look.

**Every reply is looked at.** An error ends the delivery, with the command, its key and its offset; nothing is skipped. Renewals that found no key (`expiry`)
make it be copied again; until that copy is in the target, ``acknowledged`` stays before the renewal, so that nobody takes the target for up to date.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from valkeep.client.bulk import Bulk, Odd
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.migrate import marker
from valkeep.migrate.delivery.push import expiry
from valkeep.migrate.delivery.push.batches import Batching, Closed, Cut, Whole
from valkeep.migrate.delivery.push.door import PAUSE_SECONDS
from valkeep.migrate.delivery.push.refusals import DOWN_SECONDS, is_down, refused
from valkeep.migrate.marker import Marker
from valkeep.wire import resp
from valkeep.wire.commands import Place, keys_of

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.delivery.push.door import Door
    from valkeep.migrate.gateway.channel import Channel
    from valkeep.migrate.gateway.gateway import Gateway

__all__ = ["PushLink"]

PIECE: Final = 1 << 18  # bytes of the stream at a time
COPIED_AT_ONCE: Final = 500  # keys
STOP_SECONDS: Final = 5.0


class PushLink:
    """A `link.Link`. ``loaded(bytes)`` tells the snapshot's progress, ``run`` carries the stream. ``recopied``: keys that were copied again.
    ``cut``: what of the stream this server gets; None: all."""

    def __init__(self, gateway: Gateway, channel: Channel, door: Door, *, renewals: bool, cut: Cut | None = None) -> None:
        self.channel: Channel | None = channel
        self.peer = door.target.address
        self.refused = ""
        self.acknowledged = -1
        self.sent = -1
        self.snapshot_sent = 0
        self.online = False
        self.recopied = 0
        self.gateway = gateway
        self._channel = channel
        self._door = door
        self._cut = cut if cut is not None else Whole(channel.replid)
        self._renewals = renewals
        self._marked = Marker(channel.replid, channel.begins)
        self._under_way: Closed | None = None
        self._reached = -1  # as ``acknowledged``, but for copies that are under way
        self._closed = ""
        self._heard = asyncio.Event()
        self._stopping = False
        self._between = asyncio.Event()  # no batch is under way
        self._between.set()
        self._copying: dict[asyncio.Task[None], int] = {}  # -> the offset that is not acknowledged before

    @property
    def lag(self) -> int:
        return max(0, self._channel.said - max(self.acknowledged, self._channel.begins))

    @property
    def marked(self) -> Marker:
        """What the target's marker says, by its last answer."""
        return self._marked

    def loaded(self, position: int) -> None:
        self.snapshot_sent = position

    async def acknowledged_up_to(self, offset: int) -> None:
        """See `link.Link`."""
        while self.acknowledged < offset:
            if self._closed:
                text = f"the delivery to the target {self.peer} ended at offset {self.acknowledged} of {offset}: {self._closed}"
                raise ConnectionLost(text, remedy="see the target's log, then start again", code="VK-TARGET-LOST")
            self._heard.clear()
            await self._heard.wait()

    def close(self, reason: str = "") -> None:
        """See `link.Link`."""
        if self._closed:
            return
        self._closed = reason or "closed by us"
        self.online = False
        for task in self._copying:
            task.cancel()
        self._heard.set()
        self.gateway.left(self, self._closed)

    async def stop(self) -> None:
        """Return when no batch is under way, and none will be any more. Raises ``TimeoutError``."""
        self._stopping = True
        async with asyncio.timeout(STOP_SECONDS):
            await self._between.wait()

    # -- the stream --------------------------------------------------------------------------------------------------------------------

    async def run(self, begin: Marker | None) -> None:
        """Carry the stream, until it is cancelled. ``begin``: where the target is already; None: the snapshot was loaded just now. Raises what ended it."""
        bulk: Bulk | None = None
        client = 0
        try:
            while True:
                try:
                    if self.online:
                        await self._look(client)
                    bulk, client = await self._connect()
                    if not self.online:
                        await self._begin(bulk, begin)
                    await self._carry(bulk)
                except ConnectionLost as error:
                    if not error.passing:
                        raise
                if bulk is not None:
                    bulk.close()
        finally:
            if bulk is not None:
                bulk.close()

    async def _begin(self, bulk: Bulk, begin: Marker | None) -> None:
        if begin is None:
            begin = self._marked
            bulk.write(resp.encode(b"SET", self._cut.key, begin.value))
            self._judge_plain(await bulk.answer(bulk.expect(1)))
        self._marked = begin
        self.online = True
        self._acknowledge(begin.offset)

    async def _connect(self) -> tuple[Bulk, int]:
        """A connection, and the target's number for it."""
        connection = await self._door.reopen()
        client = await connection.call("CLIENT", "ID")
        assert isinstance(client, int)
        return Bulk(connection), client

    async def _look(self, client: int) -> None:
        """After a connection broke: what became of the batch is asked of the target."""
        async with await self._door.reopen() as connection:
            with contextlib.suppress(ServerError):  # it is gone already
                await connection.call("CLIENT", "KILL", "ID", client)
            found = await self._read_marker(connection)
        closed, self._under_way = self._under_way, None
        if found != self._marked:
            if closed is None or found.offset != closed.end:
                raise self._foreign(found.value)
            self._marked = found
            self._recopy(tuple(dict.fromkeys(self._written(closed))), closed.start)
        self._between.set()
        self._acknowledge(self._marked.offset)

    async def _read_marker(self, connection: Connection) -> Marker:
        loop = asyncio.get_running_loop()
        until = loop.time() + DOWN_SECONDS
        while True:
            try:
                value = await marker.read(connection, self._cut.key)
                break
            except ServerError as error:
                if not is_down(error) or loop.time() > until:
                    raise refused(self.peer, [b"GET", self._cut.key], error, "the marker") from error
            await asyncio.sleep(PAUSE_SECONDS)
        found = None if value is None else Marker.parse(value)
        if found is None or found.replid != self._channel.replid:
            raise self._foreign(value)
        return found

    def _foreign(self, value: bytes | None) -> Refused:
        said = "is gone" if value is None else f"says {value[:80].decode('ascii', 'backslashreplace')}"
        return Refused(
            f"the marker {self._cut.key.decode()} in the target {self.peer} {said}, and should say {self._marked.value.decode()}: somebody else writes there",
            remedy="find who (CLIENT LIST on the target), stop them, then start again with --wipe-target",
            code="VK-PUSH-MARKER",
        )

    async def _carry(self, bulk: Bulk) -> None:
        """Batch after batch from the marker on; never returns."""
        spool = self._channel.stream
        batches = self._cut.batches(self._marked.offset, self._marked.database, renewals=self._renewals)
        buffer, out = bytearray(), bytearray()
        read = self._marked.offset
        while True:
            piece = spool.read(read, PIECE)
            if not piece:
                if batches.may_close:
                    await self._finish(bulk, batches, out)
                    continue
                if batches.idle and not buffer:
                    self._acknowledge(batches.offset)  # what came since was talk
                if spool.sealed:
                    raise ConnectionLost("the gateway ends", remedy="see why", code="VK-TARGET-LOST")
                await spool.grown(read)
                continue
            read += len(piece)
            buffer += piece
            while buffer:
                if self._stopping and not batches.commands:
                    await asyncio.Event().wait()  # whoever stopped us ends us
                self._between.clear()
                full = batches.full
                if full and batches.may_close:
                    await self._finish(bulk, batches, out)
                    continue
                with memoryview(buffer) as view:
                    consumed = batches.feed(view, out, only_this=full)
                del buffer[:consumed]
                self._write(bulk, out)
                self.sent = batches.offset
                await bulk.room()
                if not consumed:
                    break
            if not batches.commands:
                self._between.set()

    def _write(self, bulk: Bulk, out: bytearray) -> None:
        if out:
            bulk.write(bytes(out))
            out.clear()

    async def _finish(self, bulk: Bulk, batches: Batching, out: bytearray) -> None:
        """Close the batch, and look at what became of it."""
        closed = self._under_way = batches.close(out)
        self._write(bulk, out)
        odd = await bulk.answer(bulk.expect(closed.replies))
        self._judge(closed, odd)
        self._under_way = None
        self._marked = Marker(self._channel.replid, closed.end, batches.database)
        self._between.set()
        self._acknowledge(closed.end)

    def _acknowledge(self, offset: int) -> None:
        self._reached = max(self._reached, offset)
        self.acknowledged = max(self.acknowledged, min([offset, *self._copying.values()]))
        self._heard.set()
        self.gateway.heard(self)

    # -- replies -----------------------------------------------------------------------------------------------------------------------

    def _judge_plain(self, odd: list[Odd]) -> None:
        for _, reply in odd:
            if isinstance(reply, ServerError):
                raise refused(self.peer, [b"SET", self._cut.key], reply, "the marker")

    def _judge(self, closed: Closed, odd: list[Odd]) -> None:
        """Raises ``Refused`` for the first error."""
        answers = self._cut.answers(closed, odd)
        for place, answer in answers.items():
            if isinstance(answer, ServerError):
                if (place == 0 or not closed.scripted) and is_down(answer):  # nothing of it was executed; the marker says so, too
                    raise ConnectionLost(f"the cluster of {self.peer} is not complete", remedy="it is waited for")
                raise self._refused(closed, place, answer)
        lost = [(one.database, one.key) for one in closed.renewals if expiry.renewal_found_nothing(answers[one.place])]
        if lost:
            self._recopy(tuple(dict.fromkeys(lost)), closed.start)

    def _refused(self, closed: Closed, place: int, error: ServerError) -> Refused:
        command = next((command for number, _, command in self._commands(closed) if number == place), [])
        return refused(self.peer, command, error, f"stream offset {closed.start} to {closed.end}")

    def _commands(self, closed: Closed) -> Iterator[tuple[int, int, list[bytes]]]:
        """The batch's commands, read from the spool again."""
        data, at = bytearray(), closed.start
        while at < closed.end and (piece := self._channel.stream.read(at, closed.end - at)):
            data += piece
            at += len(piece)
        return self._cut.commands_in(bytes(data), closed.database)

    def _written(self, closed: Closed) -> Iterator[Place]:
        for _, database, command in self._commands(closed):
            keys = keys_of(command, database)
            if keys is not None:
                yield from keys.written

    def _recopy(self, places: tuple[Place, ...], start: int) -> None:
        """Have these keys copied again, in the background; what follows ``start`` is not acknowledged before."""
        if not places:
            return
        task = asyncio.create_task(self._copied(places), name="push copies again")
        self._copying[task] = start
        task.add_done_callback(self._copies_end)

    async def _copied(self, places: tuple[Place, ...]) -> None:
        for first in range(0, len(places), COPIED_AT_ONCE):
            some = places[first : first + COPIED_AT_ONCE]
            await self.gateway.recopy(some)
            self.recopied += len(some)
        end = self._channel.ends
        while self._reached < end and not self._closed:
            self._heard.clear()
            await self._heard.wait()

    def _copies_end(self, task: asyncio.Task[None]) -> None:
        del self._copying[task]
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.gateway.fail(error)
        elif not self._closed:
            self._acknowledge(self._reached)
