"""A channel's snapshot, brought to the target as commands while it still arrives on the spool.

    SELECTDB            which database the next blocks name
    records             RESTORE … REPLACE (`wire.rdb.restore`), in blocks, over several connections (`lanes`)
    values above LARGE  a RESTORE of that size would block the target, and is refused above its proto-max-bulk-len: in pieces (`pieces`)
    functions           FUNCTION LOAD REPLACE
    AUX, hints          say nothing to a target that is written to

Memory: a few blocks for each connection, and the record under way up to LARGE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from valkeep.errors import ConnectionLost, Refused, RemoteProtocolError, ServerError
from valkeep.migrate.delivery.push.lanes import Block, Lanes
from valkeep.migrate.delivery.push.pieces import LargeValue
from valkeep.migrate.delivery.push.refusals import refused
from valkeep.migrate.transform.crossing import NO_DATABASE
from valkeep.topology.slots import key_slot
from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.restore import FULL, ITEM, LARGE, Restorer
from valkeep.wire.rdb.scan import read_length, read_string

if TYPE_CHECKING:
    from valkeep.migrate.delivery.push.door import Door
    from valkeep.migrate.spool import Spool

__all__ = ["SnapshotLoad"]

PIECE = 1 << 20  # bytes read from the spool at a time
BLOCK = 1 << 18  # bytes of commands in one block
LARGE_VALUE = 64 << 20


class SnapshotLoad:
    """One snapshot into one target. ``progress``: takes the bytes of the spool that were made into commands. ``keys``: records. ``large``: bytes
    above which a value goes in pieces. ``owned``: the slots of a shard (16384 bytes, not 0 for its own); empty: it gets all of it."""

    def __init__(self, spool: Spool, door: Door, progress: Callable[[int], None], large: int = LARGE_VALUE, owned: bytes = b"") -> None:
        self.keys = 0
        self._spool = spool
        self._door = door
        self._progress = progress
        self._large = large
        self._owned = owned
        self._position = 0  # in the spool, of the first byte of the buffer
        self._buffer = bytearray()
        self._database = 0

    async def run(self) -> None:
        """Return when all of it is in the target. Raises ``ConnectionLost`` or ``Refused``."""
        while (header := opcodes.parse_header(self._buffer)) is None:
            await self._more()
        self._drop(opcodes.HEADER_SIZE)
        restorer = Restorer(header.dialect, header.version, BLOCK, self._large, self._owned)
        async with Lanes(self._door) as lanes:
            while True:
                with memoryview(self._buffer) as view:
                    position = restorer.run(view, 0, len(view))
                self._drop(position)
                if restorer.stop == FULL:
                    await self._send(lanes, restorer)
                elif restorer.stop == LARGE:
                    self.keys += await self._in_pieces(header)
                elif restorer.stop == ITEM:
                    if restorer.type == opcodes.OP_EOF:
                        break
                    if restorer.type == opcodes.OP_SELECTDB:
                        await self._send(lanes, restorer)
                    while not await self._item(restorer.type):
                        await self._more()
                else:
                    await self._more()
            await self._send(lanes, restorer)
            await lanes.finish()
        self.keys += restorer.keys

    async def _send(self, lanes: Lanes, restorer: Restorer) -> None:
        if count := restorer.commands:
            await lanes.put(Block(self._database, restorer.take(), count))
            self._progress(self._position)

    async def _in_pieces(self, header: opcodes.Header) -> bool:
        """The record at the buffer's beginning; whether it is for this target."""
        self._buffer.clear()
        while True:
            try:
                value = LargeValue(self._spool, self._position, header, self._database, self._door)
                ours = not self._owned or self._owned[key_slot(await value.key())] != 0
                after = await (value.copy() if ours else value.end())
                break
            except ConnectionLost as error:
                if not error.passing:
                    raise  # else it begins anew, with a DEL
        self._position = after
        self._progress(after)
        return ours

    async def _item(self, kind: int) -> bool:
        """Step over the item at the buffer's beginning, which is no record; False when it is not all there."""
        buffer, end = self._buffer, len(self._buffer)
        if kind == opcodes.OP_SELECTDB:
            number, after = read_length(buffer, 1, end)
            if after < 0:
                return False
            if number and self._owned:
                why, remedy = NO_DATABASE
                raise Refused(f"the source has keys in database {number}; {why}", remedy=remedy, code="VK-DATABASES")
            self._database = number
        elif kind == opcodes.OP_RESIZEDB:
            _, after = read_length(buffer, 1, end)
            if after >= 0:
                _, after = read_length(buffer, after, end)
        elif kind == opcodes.OP_AUX:
            _, after = read_string(buffer, 1, end)
            if after >= 0:
                _, after = read_string(buffer, after, end)
        elif kind == opcodes.OP_FUNCTION2:
            code, after = read_string(buffer, 1, end)
            if code is not None:
                await self._function(code)
        else:
            raise RemoteProtocolError(
                f"snapshot byte {self._position}: {opcodes.name_of(0, kind)} was not expected here",
                remedy="this is a bug of Valkeep: report it",
            )
        if after < 0:
            return False
        self._drop(after)
        return True

    async def _function(self, code: bytes) -> None:
        while True:
            try:
                async with await self._door.reopen() as connection:
                    await connection.call("FUNCTION", "LOAD", "REPLACE", code, timeout=0)
                    return
            except ServerError as error:
                raise refused(self._door.target.address, [b"FUNCTION LOAD", code[:60]], error, "snapshot") from error
            except ConnectionLost as error:
                if not error.passing:
                    raise

    async def _more(self) -> None:
        """More bytes into the buffer: as many again as there are, so that a large record is not looked at too often."""
        at = self._position + len(self._buffer)
        want = max(PIECE, len(self._buffer))
        while not (piece := self._spool.read(at, want)):
            if self._spool.sealed:
                raise ConnectionLost(
                    "the source's snapshot broke off", remedy="see the source's log, then start again", code="VK-SNAPSHOT-TRUNCATED"
                )
            await self._spool.grown(at)
        self._buffer += piece

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._position += count
