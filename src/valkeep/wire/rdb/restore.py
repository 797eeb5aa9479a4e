"""A snapshot's records as RESTORE commands, byte for byte: the hot path of delivery by push.

A target that cannot replicate from us is written to as by any client. What a record's value is in a snapshot is just what RESTORE takes as its payload,
without the key in the middle and with a seal behind (`dump`)::

    FC <expiry> 00 <key> <value>            the record, in the snapshot
    └─ prefix   │  │     │
    *6 $7 RESTORE $n <key> $n <expiry> $n [00 <value> <version: 2 bytes> <CRC64: 8 bytes>] $7 REPLACE $6 ABSTTL

So nothing is decoded: the scanner finds where the value ends, the bytes are copied once, and the checksum goes over the copy. With REPLACE a command may be
sent twice, and with ABSTTL late: the result is the same.

Commands are put together in one buffer of a given size, which the caller takes and sends. Small payloads are summed here, byte by byte by a table; larger ones
by `checksum`, whose call costs as much as 250 bytes.

A shard of a cluster gets the records only whose key lies in one of its slots (``owned``); the others are stepped over.

What it does not do: items that are no records (SELECTDB, AUX, functions) stop it, and so does a value that is too large for one command. The snapshot is one
that we wrote ourselves, for the target's own version, so the payload's version is the snapshot's.

Source: cluster.c restoreCommand and createDumpPayload.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from valkeep.errors import LocalProtocolError

from ..checksum import crc64
from ..slots import SlotHash
from .scan import Scanner

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview

__all__ = ["FULL", "ITEM", "LARGE", "NEED_MORE", "Restorer"]

NEED_MORE = 0
FULL = 1
ITEM = 2
LARGE = 3

_FIRST_OPCODE = 242
_IDLE, _FREQ, _EXPIRETIME, _EXPIRETIME_MS = 248, 249, 253, 252
_OVERHEAD = 256  # bytes of a command beside key and value, and more
_SMALL = 8 if __file__.endswith(".py") else 256  # bytes of payload that are summed here
_POLYNOMIAL = 0x95AC9329AC4BC9B5  # 0xAD93D23594C935A9, reflected
_SLOTS = 16384


def _table() -> array[int]:
    table = array("Q")
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


class Restorer:
    """Makes commands of records under ``dialect``, sealed as ``version``. ``room``: bytes of one block of commands; a larger single command gets more.
    ``large``: bytes of a value above which it stops before the record, whoever owns it. ``owned``: 16384 bytes, not 0 for slots whose records are wanted;
    empty: all are.

    ``stop`` after :meth:`run`: NEED_MORE, FULL, ITEM (``type`` says which opcode stands at the returned position) or LARGE. ``commands``: in the
    block so far; ``keys``: records done in all.
    """

    def __init__(self, dialect: int, version: int, room: int, large: int, owned: bytes = b"") -> None:
        if owned and len(owned) != _SLOTS:
            raise LocalProtocolError(f"{len(owned)} slots", remedy="report this bug")
        self.stop = 0
        self.type = -1
        self.commands = 0
        self.keys = 0
        self._scanner = Scanner(bytes(256), dialect, version)
        self._version = version
        self._room = room
        self._large = large
        self._out = bytearray(room)
        self._view = memoryview(self._out)
        self._size = room
        self._used = 0
        self._crcs = _table()
        self._owned = owned
        self._sharded = len(owned) > 0
        self._slots = SlotHash()

    def take(self) -> bytes:
        """The block, which begins anew."""
        block = bytes(memoryview(self._out)[: self._used])
        self._used = 0
        self.commands = 0
        if self._size > self._room:
            self._allocate(self._room)
        return block

    def run(self, data: Buffer, pos: int, end: int) -> int:
        """Make commands of the records from ``pos`` on; returns the position of the first one that is not in the block. What is behind it has to be presented
        again. Raises ``RemoteProtocolError``."""
        if pos < 0 or end > len(data) or pos > end:
            raise LocalProtocolError(f"records from {pos} to {end} in {len(data)} bytes", remedy="report this bug")
        scanner = self._scanner
        self.stop = 0
        while pos < end:
            kind = data[pos]
            if kind >= _FIRST_OPCODE and kind != _EXPIRETIME_MS and kind != _EXPIRETIME and kind != _IDLE and kind != _FREQ:
                self.type = kind
                self.stop = 2
                return pos
            value = scanner.head(data, pos, end)
            if value < 0:
                return pos
            after = scanner.whole(data, value, end, data[scanner._type_pos])
            if (after if after >= 0 else end) - value > self._large:
                self.stop = 3
                return pos
            if after < 0:
                return pos
            if self._sharded and self._owned[self._slot(data, value)] == 0:
                pos = after
                continue
            need = after - pos + _OVERHEAD
            if data[scanner._type_pos + 1] == 0xC3:  # a compressed key
                need += scanner._number
            if need > self._size - self._used:
                if self.commands > 0:
                    self.stop = 1
                    return pos
                self._allocate(need)
            self._command(data, value, after)
            pos = after
        return pos

    def _slot(self, data: Buffer, value: int) -> int:
        """Of the key before ``value``."""
        scanner = self._scanner
        if data[scanner._type_pos + 1] < 0xC0:
            return self._slots.of(data, scanner._key_pos, value - scanner._key_pos)
        text, _ = scanner._read_string(data, scanner._type_pos + 1, value)
        scanner._skip = 0
        assert text is not None  # the scanner has seen that it is all there
        return self._slots.of(text, 0, len(text))

    def _command(self, data: Buffer, value: int, after: int) -> None:
        scanner = self._scanner
        words = 5
        if scanner._expire >= 0:
            words += 1
        if scanner._freq >= 0 or scanner._idle >= 0:
            words += 2
        self._view[self._used] = 42  # *
        self._used += 1
        self._digits(words)
        self._put(b"\r\n$7\r\nRESTORE")
        self._key(data, value)
        expire = scanner._expire  # 0 would mean none
        if expire < 0:
            expire = 0
        elif expire == 0:
            expire = 1
        self._put(b"\r\n$")
        self._digits(self._width(expire))
        self._put(b"\r\n")
        self._digits(expire)
        size = after - value + 11
        self._put(b"\r\n$")
        self._digits(size)
        self._put(b"\r\n")
        start = self._used
        self._view[start] = data[scanner._type_pos]
        self._used = start + 1
        self._copy(data, value, after - value)
        self._seal(start)
        self._put(b"\r\n$7\r\nREPLACE\r\n")
        if scanner._expire >= 0:
            self._put(b"$6\r\nABSTTL\r\n")
        if scanner._freq >= 0:
            self._put(b"$4\r\nFREQ\r\n$")
            self._digits(self._width(scanner._freq))
            self._put(b"\r\n")
            self._digits(scanner._freq)
            self._put(b"\r\n")
        elif scanner._idle >= 0:
            self._put(b"$8\r\nIDLETIME\r\n$")
            self._digits(self._width(scanner._idle))
            self._put(b"\r\n")
            self._digits(scanner._idle)
            self._put(b"\r\n")
        self.commands += 1
        self.keys += 1

    def _key(self, data: Buffer, value: int) -> None:
        """The key as an argument; integers and compressed keys as what they stand for."""
        scanner = self._scanner
        pos = scanner._key_pos
        size = value - pos
        first = data[scanner._type_pos + 1]
        self._put(b"\r\n$")
        if first < 0xC0:
            self._digits(size)
            self._put(b"\r\n")
            self._copy(data, pos, size)
        else:
            text, _ = scanner._read_string(data, scanner._type_pos + 1, value)
            scanner._skip = 0
            assert text is not None  # the scanner has seen that it is all there
            self._digits(len(text))
            self._put(b"\r\n")
            self._put(text)

    def _seal(self, start: int) -> None:
        """Version and checksum behind the payload that begins at ``start``."""
        view = self._view
        end = self._used
        view[end] = self._version & 0xFF
        view[end + 1] = self._version >> 8
        end += 2
        crc = 0
        if end - start <= _SMALL:
            for i in range(start, end):
                crc = self._crcs[(crc ^ view[i]) & 0xFF] ^ (crc >> 8)
        else:
            crc = crc64(memoryview(self._out)[start:end])
        for i in range(8):
            view[end + i] = crc & 0xFF
            crc >>= 8
        self._used = end + 8

    def _put(self, text: bytes) -> None:
        size = len(text)
        at = self._used
        for i in range(size):
            self._view[at + i] = text[i]
        self._used = at + size

    def _copy(self, data: Buffer, pos: int, size: int) -> None:
        at = self._used
        if size < 32:
            for i in range(size):
                self._view[at + i] = data[pos + i]
        else:
            self._view[at : at + size] = data[pos : pos + size]
        self._used = at + size

    def _width(self, number: int) -> int:
        """How many digits it has."""
        width = 1
        number //= 10
        while number > 0:
            width += 1
            number //= 10
        return width

    def _digits(self, number: int) -> None:
        at = self._used + self._width(number)
        first = self._used
        self._used = at
        while at > first:
            at -= 1
            self._view[at] = 48 + number % 10
            number //= 10

    def _allocate(self, size: int) -> None:
        self._out = bytearray(size)
        self._view = memoryview(self._out)
        self._size = size
