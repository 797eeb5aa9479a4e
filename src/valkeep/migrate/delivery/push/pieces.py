"""One large value, brought to the target in pieces: RESTORE takes a value whole, and the target does nothing else meanwhile.

    string                     SETRANGE, a piece at a time
    list, set, zset, hash      RPUSH, SADD, ZADD, HSET of some hundred elements (fields' expiries by HPEXPIREAT), as the decoder tells them
    stream                     RESTORE whole: commands cannot say all of it (a pending entry whose entry was deleted). It is read from the spool as it is sent

The key is removed first and gets its expiry last, so that a copy that broke begins anew. A value above 512 MB that has to go whole is refused, because
servers refuse such arguments. LRU and LFU data of values that go in pieces do not cross.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from valkeep.client.bulk import Bulk
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.migrate.delivery.push.refusals import refused
from valkeep.wire import resp
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.decode import Decoder
from valkeep.wire.rdb.handler import Handler
from valkeep.wire.rdb.scan import ITEM, Prefix, Scanner, read_length, read_string

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.delivery.push.door import Door
    from valkeep.migrate.spool import Spool

__all__ = ["LargeValue"]

PIECE: Final = 1 << 20  # bytes
ELEMENTS: Final = 512  # in one command
LARGEST_ARGUMENT: Final = 512 << 20  # proto-max-bulk-len, as it is by default
_BY_KIND: Final = {
    opcodes.KIND_LIST: b"RPUSH",
    opcodes.KIND_SET: b"SADD",
    opcodes.KIND_ZSET: b"ZADD",
    opcodes.KIND_HASH: b"HSET",
}


class _Elements(Handler):
    """Makes commands of what the decoder tells. ``commands``: made so far, the caller takes them."""

    def __init__(self, key: bytes, kind: int) -> None:
        self.commands: list[list[bytes]] = []
        self._head = [_BY_KIND[kind], key]
        self._words: list[bytes] = []
        self._size = 0
        self._expiries: list[list[bytes]] = []

    def item(self, value: bytes) -> None:
        self._add(value)

    def member(self, value: bytes) -> None:
        self._add(value)

    def scored(self, member: bytes, score: float) -> None:
        self._add(b"%.17g" % score, member)

    def field(self, name: bytes, value: bytes, expire_ms: int) -> None:
        if expire_ms >= 0:
            self._expiries.append([b"HPEXPIREAT", self._head[1], b"%d" % expire_ms, b"FIELDS", b"1", name])
        self._add(name, value)

    def end_key(self) -> None:
        self.flush()

    def flush(self) -> None:
        if self._words:
            self.commands.append([*self._head, *self._words])
        self.commands += self._expiries
        self._words, self._expiries, self._size = [], [], 0

    def _add(self, *words: bytes) -> None:
        self._words += words
        self._size += sum(map(len, words))
        if len(self._words) >= ELEMENTS or self._size >= PIECE:
            self.flush()


class LargeValue:
    """The record that begins at ``start`` of the spool."""

    def __init__(self, spool: Spool, start: int, header: opcodes.Header, database: int, door: Door) -> None:
        self._spool = spool
        self._start = start
        self._header = header
        self._database = database
        self._door = door
        self._key = b""

    async def copy(self) -> int:
        """Returns the spool's offset behind the record. Raises ``ConnectionLost`` (without a code: try again) or ``Refused``."""
        prefix = await self._prefix()
        self._key = prefix.key
        kind = opcodes.kinds(self._header.dialect)[prefix.type]
        async with await self._door.reopen() as connection:
            await self._do(connection, [[b"SELECT", b"%d" % self._database], [b"UNLINK", prefix.key]])
            value = self._start + prefix.value_pos
            if prefix.type == opcodes.TYPE_STRING:
                after = await self._string(connection, value)
            elif kind in _BY_KIND:
                after = await self._elements(connection, kind)
            else:
                after = await self._whole(value, prefix.type)
            if prefix.expire_ms >= 0:
                await self._do(connection, [[b"PEXPIREAT", prefix.key, b"%d" % prefix.expire_ms]])
        return after

    async def key(self) -> bytes:
        return (await self._prefix()).key

    async def _prefix(self) -> Prefix:
        data = b""
        while True:
            data += await self._read(self._start + len(data), PIECE)
            prefix = Scanner(bytes(256), self._header.dialect, self._header.version).prefix(data, 0, len(data))
            if prefix is not None:
                return prefix

    async def _string(self, connection: Connection, value: int) -> int:
        head = await self._read(value, 16)
        while len(head) < 9:
            head += await self._read(value + len(head), 16)
        if head[0] >= 0xC0:
            return await self._compressed(connection, value)
        size, body = read_length(head, 0, len(head))
        at = 0
        while at < size:
            piece = await self._read(value + body + at, min(PIECE, size - at))
            await self._do(connection, [[b"SETRANGE", self._key, b"%d" % at, piece]])
            at += len(piece)
        return value + body + size

    async def _compressed(self, connection: Connection, value: int) -> int:
        """A string that its server compressed: unpacked in memory."""
        data = b""
        while True:
            data += await self._read(value + len(data), max(PIECE, len(data)))
            text, after = read_string(data, 0, len(data))
            if text is not None:
                break
        pieces = [[b"SETRANGE", self._key, b"%d" % at, text[at : at + PIECE]] for at in range(0, len(text), PIECE)]
        for piece in pieces:
            await self._do(connection, [piece])
        return value + after

    async def _elements(self, connection: Connection, kind: int) -> int:
        elements = _Elements(self._key, kind)
        decoder = Decoder(elements)
        magic = "VALKEY{:03d}" if self._header.dialect == opcodes.DIALECT_VALKEY else "REDIS{:04d}"
        decoder.feed(magic.format(self._header.version).encode())
        at, end = self._start, await self.end()
        while at < end:
            piece = await self._read(at, min(PIECE, end - at))
            at += len(piece)
            decoder.feed(piece)
            commands, elements.commands = elements.commands, []
            await self._do(connection, commands)
        return end

    async def _whole(self, value: int, kind: int) -> int:
        """RESTORE, in one command that is written as it is read."""
        after = await self.end()
        size = 1 + after - value + 10
        if size > LARGEST_ARGUMENT:
            raise Refused(
                f"the key {self._key[:60]!r} in database {self._database} has a stream of {size} bytes, which no single command carries",
                remedy="shorten it on the source (XTRIM), or use a target that can replicate (--deliver native)",
                code="VK-PUSH-LARGE",
            )
        bulk = Bulk(await self._door.reopen())
        try:
            bulk.write(resp.encode(b"SELECT", self._database))
            words = (b"RESTORE", self._key, b"0", b"REPLACE")
            bulk.write(b"*5\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words[:3]) + b"$%d\r\n" % size)
            piece = bytes((kind,))
            crc, at = 0, value
            while True:
                bulk.write(piece)
                crc = crc64(piece, crc)
                if at == after:
                    break
                piece = await self._read(at, min(PIECE, after - at))
                at += len(piece)
                await bulk.room()
            version = self._header.version.to_bytes(2, "little")
            bulk.write(version + crc64(version, crc).to_bytes(8, "little") + b"\r\n$7\r\nREPLACE\r\n")
            for _, reply in await bulk.answer(bulk.expect(2)):
                if isinstance(reply, ServerError):
                    raise refused(self._door.target.address, words, reply, f"snapshot, database {self._database}")
        finally:
            bulk.close()
        return after

    async def end(self) -> int:
        """Where the record ends."""
        scanner = Scanner(b"\1" * 256, self._header.dialect, self._header.version)
        at, data = self._start, b""
        scanner.take()
        while True:
            data += await self._read(at + len(data), PIECE)
            passed = scanner.scan(data, 0, len(data))
            at += passed
            if scanner.stop == ITEM:
                return at
            data = data[passed:]

    async def _read(self, at: int, size: int) -> bytes:
        while not (piece := self._spool.read(at, size)):
            if self._spool.sealed:
                raise ConnectionLost(
                    "the source's snapshot broke off", remedy="see the source's log, then start again", code="VK-SNAPSHOT-TRUNCATED"
                )
            await self._spool.grown(at)
        return piece

    async def _do(self, connection: Connection, commands: list[list[bytes]]) -> None:
        for command, reply in zip(commands, await connection.pipeline(commands, timeout=0), strict=True):
            if isinstance(reply, ServerError):
                raise refused(self._door.target.address, command, reply, f"snapshot, database {self._database}")
