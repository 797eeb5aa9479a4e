"""Ziplist: the packed sequence of strings and integers of Redis 2.4 to 6.2, read, and built for fixtures.

Small lists, sorted sets and hashes, and the nodes of quicklists, until listpacks took their place in 7.0. One ziplist::

    <4 bytes LE: size of all of it> <4 bytes LE: place of the last entry> <2 bytes LE: number of entries, 65535 = count them> entry* FF

and one entry is the size of the entry before it, its encoding, its data::

    PPPPPPPP            (below FE)                  size of the entry before; 0 for the first
    FE <4 bytes LE>                                 the same, for 254 and more (allowed for less)
    00LLLLLL <string>                               string of up to 63 bytes                             # ziplist.c ZIP_STR_06B
    01LLLLLL LLLLLLLL <string>                      string of up to 16383 bytes, length big-endian       # ZIP_STR_14B
    10000000 <4 bytes BE> <string>                  string                                               # ZIP_STR_32B
    11000000 <2>  11010000 <4>  11100000 <8>        integer, little-endian, signed                       # ZIP_INT_16B, 32B, 64B
    11110000 <3>  11111110 <1>                      integer, little-endian, signed                       # ZIP_INT_24B, 8B
    1111XXXX            (XXXX 0001 to 1101)         integer 0 to 12: XXXX - 1                            # ZIP_INT_IMM
    11111111                                        the end

Hostile input: as in listpack.py; the sizes of the entries before, the place of the last entry and the number of entries must be right.

Source: ziplist.c of Redis 2.6 to 6.2, ziplistValidateIntegrity.
"""

from __future__ import annotations

from valkeep.errors import RemoteProtocolError

from .listpack import decimal, signed64

__all__ = ["Reader", "build", "entries"]

HEADER = 10  # bytes
COUNT_UNKNOWN = 65535


class Reader:
    """Walks over the entries of one ziplist after another: `open`, then `next` until None."""

    __slots__ = ("blob", "count", "index", "pos", "previous", "size", "view")

    def __init__(self) -> None:
        self.blob = b""
        self.view = memoryview(b"")
        self.size = 0
        self.count = 0
        self.index = 0
        self.pos = 0
        self.previous = 0

    def open(self, blob: bytes) -> None:
        """Begin with `blob`, whose header is checked."""
        size = len(blob)
        self.index = 0
        self.pos = 0
        if size < HEADER + 1:
            raise self.broken(f"has only {size} bytes")
        self.blob = blob
        self.view = memoryview(blob)
        self.size = size
        total = self.little(0, 4)
        if total != size:
            raise self.broken(f"says it has {total} bytes, and has {size}")
        if self.view[size - 1] != 0xFF:
            raise self.broken("does not end with FF")
        self.count = self.little(8, 2)
        self.pos = HEADER
        self.previous = 0

    def broken(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"a ziplist {what} (entry {self.index}, byte {self.pos})",
            remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools",
        )

    def little(self, pos: int, width: int) -> int:
        """`width` bytes (up to 7) at `pos`, little-endian, unsigned."""
        number = 0
        while width > 0:
            width -= 1
            number = number << 8 | self.view[pos + width]
        return number

    def bits64(self, pos: int) -> int:
        """8 bytes at `pos`, little-endian, unsigned."""
        number = 0
        i = 8
        while i > 0:
            i -= 1
            number = number << 8 | self.view[pos + i]
        return number

    def next(self) -> bytes | None:
        """The next entry, None after the last one."""
        pos = self.pos
        last = self.size - 1  # the place of FF
        if pos >= last:
            if pos > last:
                raise self.broken("runs past its end")
            if self.count != COUNT_UNKNOWN and self.count != self.index:
                raise self.broken(f"says it has {self.count} entries, and has {self.index}")
            if self.little(4, 4) != pos - self.previous:
                raise self.broken("names a wrong place for its last entry")
            return None
        start = pos
        previous = self.view[pos]
        pos += 1
        if previous == 0xFE:
            if last - pos < 4:
                raise self.broken("ends inside an entry")
            previous = self.little(pos, 4)
            pos += 4
        elif previous == 0xFF:
            raise self.broken("has its end in the middle")
        if previous != self.previous:
            raise self.broken(f"says the entry before has {previous} bytes, and it has {self.previous}")
        if pos >= last:
            raise self.broken("ends inside an entry")
        first = self.view[pos]
        pos += 1
        left = last - pos  # bytes up to FF, after the first byte of the encoding
        if first < 0xC0:
            length = first & 0x3F
            if first >= 0x80:
                if first != 0x80:
                    raise self.broken(f"has an entry with the unknown encoding {first:02X}")
                if left < 4:
                    raise self.broken("ends inside an entry")
                length = self.view[pos]
                for i in range(1, 4):
                    length = length << 8 | self.view[pos + i]
                pos += 4
            elif first >= 0x40:
                if left < 1:
                    raise self.broken("ends inside an entry")
                length = length << 8 | self.view[pos]
                pos += 1
            if length > last - pos:
                raise self.broken("has an entry that runs past its end")
            self.pos = pos + length
            self.previous = self.pos - start
            self.index += 1
            return self.blob[pos : pos + length]
        width = 0
        if first == 0xC0:
            width = 2
        elif first == 0xD0:
            width = 4
        elif first == 0xE0:
            width = 8
        elif first == 0xF0:
            width = 3
        elif first == 0xFE:
            width = 1
        elif not 0xF1 <= first <= 0xFD:
            raise self.broken(f"has an entry with the unknown encoding {first:02X}")
        if left < width:
            raise self.broken("ends inside an entry")
        if width == 0:
            number = (first & 0x0F) - 1
        elif width == 8:
            number = signed64(self.bits64(pos))
        else:
            number = self.little(pos, width)
            bit = 8 * width - 1
            number -= number >> bit << bit << 1
        self.pos = pos + width
        self.previous = self.pos - start
        self.index += 1
        return decimal(number)


def entries(blob: bytes) -> list[bytes]:
    """All entries of the ziplist `blob`."""
    reader = Reader()
    reader.open(blob)
    found = []
    value = reader.next()
    while value is not None:
        found.append(value)
        value = reader.next()
    return found


def build(values: list[bytes]) -> bytes:
    """The ziplist of `values`, for fixtures: the encodings that a server would choose."""
    body = bytearray()
    previous = 0
    tail = HEADER
    for value in values:
        entry = previous.to_bytes(1, "little") if previous < 254 else b"\xfe" + previous.to_bytes(4, "little")
        entry += _integer(value) or _string(value)
        tail = HEADER + len(body)
        body += entry
        previous = len(entry)
    size = HEADER + len(body) + 1
    count = min(len(values), COUNT_UNKNOWN)
    return size.to_bytes(4, "little") + tail.to_bytes(4, "little") + count.to_bytes(2, "little") + bytes(body) + b"\xff"


def _string(value: bytes) -> bytes:
    length = len(value)
    if length < 64:
        return bytes([length]) + value
    if length < 16384:
        return bytes([0x40 | length >> 8, length & 0xFF]) + value
    return b"\x80" + length.to_bytes(4, "big") + value


def _integer(value: bytes) -> bytes:
    """The entry of `value` as an integer; empty when it is not the shortest decimal form of one of 64 bits."""
    if not 0 < len(value) <= 20 or not value.lstrip(b"-").isdigit() or b"%d" % int(value) != value:
        return b""
    number = int(value)
    if 0 <= number <= 12:
        return bytes([0xF1 + number])
    for width, first in ((1, 0xFE), (2, 0xC0), (3, 0xF0), (4, 0xD0), (8, 0xE0)):
        if -(1 << (8 * width - 1)) <= number < 1 << (8 * width - 1):
            return bytes([first]) + number.to_bytes(width, "little", signed=True)
    return b""
