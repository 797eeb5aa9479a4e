"""A snapshot put together of what DUMP gave, key by key: the same bytes that a server would have written, for the same readers.

    DUMP       <type> <value> <version, 2 bytes LE> <CRC64>
    snapshot   [FC <expiry, ms, 8 bytes LE>] <type> <key> <value>

All payloads of one server are of one version, which becomes the snapshot's. The payloads' checksums are not looked at (the connection has its own), the
snapshot's is right. A payload that begins with metadata (opcode 243, Redis 8.6 and later) has no such form: ``odd`` keeps it for its owner.
"""

from __future__ import annotations

from collections.abc import Sequence

from valkeep.errors import RemoteProtocolError
from valkeep.migrate.keyread import Seen
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb.dump import SEAL
from valkeep.wire.rdb.encode import length
from valkeep.wire.rdb.opcodes import OP_EOF, OP_EXPIRETIME_MS, OP_KEY_META, OP_SELECTDB

__all__ = ["Assembled"]

_EXPIRES = bytes([OP_EXPIRETIME_MS])
_EMPTY = b"\x06\x00"
_LENGTHS = [length(size) for size in range(256)]


class Assembled:
    """``begin``, then ``page`` and ``functions`` as they come, then ``end``; each returns bytes. ``version``: 0 until ``begin``."""

    def __init__(self) -> None:
        self.version = 0
        self.odd: list[tuple[int, bytes, Seen]] = []
        self._mark = b""
        self._crc = 0
        self._database = -1

    def begin(self, payload: bytes) -> bytes:
        """The header, of the version of this payload (any key's, or that of functions); b"": of one that every reader knows, for an empty snapshot."""
        self._mark = payload[-SEAL : 2 - SEAL] or _EMPTY
        self.version = int.from_bytes(self._mark, "little")
        return self._out(b"VALKEY%03d" % self.version if self.version >= 80 else b"REDIS%04d" % self.version)

    def functions(self, payload: bytes) -> bytes:
        """What FUNCTION DUMP gave."""
        self._expect(payload)
        return self._out(payload[:-SEAL])

    def page(self, database: int, keys: Sequence[tuple[bytes, Seen]]) -> bytes:
        """Raises ``RemoteProtocolError`` when the payloads are not all of one version."""
        parts: list[bytes] = []
        if database != self._database:
            self._database = database
            parts.append(bytes([OP_SELECTDB]) + length(database))
        add, mark = parts.append, self._mark
        for key, seen in keys:
            payload = seen.payload
            if payload[-SEAL : 2 - SEAL] != mark:
                self._expect(payload)
            if payload[0] == OP_KEY_META:
                self.odd.append((database, key, seen))
                continue
            if seen.expire_ms >= 0:
                add(_EXPIRES + seen.expire_ms.to_bytes(8, "little"))
            size = len(key)
            add(payload[:1])
            add(_LENGTHS[size] if size < 256 else length(size))
            add(key)
            add(payload[1:-SEAL])
        return self._out(b"".join(parts))

    def end(self) -> bytes:
        """The end mark and the checksum."""
        mark = self._out(bytes([OP_EOF]))
        return mark + (self._crc.to_bytes(8, "little") if self.version >= 5 else b"")

    def _expect(self, payload: bytes) -> None:
        version = int.from_bytes(payload[-SEAL : 2 - SEAL], "little")
        if version != self.version:
            raise RemoteProtocolError(
                f"the server's payloads are of RDB version {self.version}, and now of {version}",
                remedy="give the address of one server, not of a load balancer; after an upgrade or a failover begin again",
            )

    def _out(self, data: bytes) -> bytes:
        self._crc = crc64(data, self._crc)
        return data
