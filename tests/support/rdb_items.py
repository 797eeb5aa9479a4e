"""One hand-made item of every record type and opcode, as bytes; written down from rdb.c, not with Valkeep's own encoder.

Packed encodings are opaque strings to a scanner, so that they hold nonsense here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

REDIS, VALKEY = 0, 1


def length(n: int) -> bytes:
    if n < 64:
        return bytes([n])
    if n < 16384:
        return bytes([0x40 | n >> 8, n & 0xFF])
    if n < 1 << 32:
        return b"\x80" + n.to_bytes(4, "big")
    return b"\x81" + n.to_bytes(8, "big")


def text(value: bytes) -> bytes:
    return length(len(value)) + value


def ms(time: int) -> bytes:
    return struct.pack("<q", time)


LZF = b"\xc3" + length(5) + length(300) + b"\x00a\xe0\xff\x00"  # five bytes that claim three hundred
NUMBERS = [b"\xc0\x81", b"\xc1\x39\x30", b"\xc2\x00\x00\x01\x00"]
ID = struct.pack(">QQ", 1700000000000, 7)


def stream(version: int, *, groups: int = 2) -> bytes:
    out = length(2) + (text(ID) + text(b"listpack one")) + (text(ID) + LZF)
    out += length(9) + length(1700000000000) + length(1 << 40)
    if version >= 2:
        out += length(1) + length(0) + length(0) + length(0) + length(100000)
    out += length(groups)
    for number in range(groups):
        out += text(b"group%d" % number) + length(1700000000000) + length(5)
        if version >= 2:
            out += length((1 << 64) - 1)
        out += length(2) + (ID + ms(1700000000001) + length(3)) * 2
        out += length(2)
        out += text(b"alice") + ms(1) + (ms(2) if version >= 3 else b"") + length(2) + ID + ID
        out += text(b"bob") + ms(1) + (ms(-1) if version >= 3 else b"") + length(0)
    return out


@dataclass(frozen=True)
class Item:
    name: str
    data: bytes
    type: int
    keys: int = 1
    dialect: int = -1
    expires: int = 0


def record(
    kind: int, name: str, value: bytes, *, dialect: int = -1, key: bytes | None = None, prefix: bytes = b"", expires: int = 0
) -> Item:
    return Item(name, prefix + bytes([kind]) + text(key if key is not None else name.encode()) + value, kind, 1, dialect, expires)


def opcode(kind: int, name: str, value: bytes, *, dialect: int = -1) -> Item:
    return Item(name, bytes([kind]) + value, kind, 0, dialect)


SMALL = [b"alpha", b"", b"x" * 70]
BIG = text(b"v" * 20000)
MODULE = (
    length(0x8123456789ABCDEF)
    + b"\x02"
    + length(3)
    + b"\x01"
    + length(1 << 50)
    + b"\x03abcd"
    + b"\x04abcdefgh"
    + b"\x05"
    + text(b"blob" * 30)
)
MODULE += b"\x05" + LZF + b"\x00"
META = b"\xf3" + length(2) + (b"clas" + b"\x02" + length(9) + b"\x05" + text(b"meta") + b"\x00") * 2

ITEMS: tuple[Item, ...] = (
    record(0, "string", text(b"hello")),
    record(0, "empty string", text(b"")),
    *(record(0, f"integer {size}", number) for size, number in enumerate(NUMBERS)),
    record(0, "lzf", LZF),
    record(0, "big string", BIG),
    record(0, "integer key", text(b"v"), key=None),
    Item("key that is an integer", b"\x00" + NUMBERS[1] + text(b"v"), 0),
    Item("key that is compressed", b"\x00" + LZF + text(b"v"), 0),
    record(0, "empty key", text(b"v"), key=b""),
    record(1, "list", length(3) + b"".join(map(text, SMALL))),
    record(1, "list of a 64-bit length", b"\x81" + (2).to_bytes(8, "big") + text(b"a") + LZF),
    record(2, "set", length(4) + b"".join(NUMBERS) + text(b"member")),
    record(2, "set without members", length(0)),
    record(
        3,
        "zset as text",
        length(5) + text(b"a") + b"\x033.5" + text(b"b") + b"\xfd" + text(b"c") + b"\xfe" + LZF + b"\xff" + text(b"") + b"\x010",
    ),
    record(4, "hash", length(2) + text(b"f") + text(b"v") + text(b"g") + BIG),
    record(5, "zset with doubles", length(2) + text(b"a") + struct.pack("<d", 1.5) + LZF + struct.pack("<d", -0.0)),
    record(7, "module", MODULE),
    *(record(kind, f"packed {kind}", text(b"packed encoding" * 5)) for kind in (9, 10, 11, 12, 13, 16, 17, 20)),
    record(14, "quicklist", length(2) + text(b"ziplist") + LZF),
    record(18, "quicklist 2", length(3) + b"\x02" + text(b"listpack") + b"\x01" + BIG + b"\x02" + LZF),
    record(15, "stream 1", stream(1)),
    record(19, "stream 2", stream(2)),
    record(21, "stream 3", stream(3)),
    record(21, "stream 3 without groups", stream(3, groups=0)),
    record(22, "7.4 rc hash", length(2) + length(0) + text(b"f") + text(b"v") + length(1700000000000) + text(b"g") + LZF, dialect=REDIS),
    record(23, "7.4 rc packed hash", text(b"listpack"), dialect=REDIS),
    record(
        24,
        "hash with ttl",
        ms(1700000000000) + length(2) + length(0) + text(b"f") + text(b"v") + length(70000) + text(b"g") + LZF,
        dialect=REDIS,
    ),
    record(25, "packed hash with ttl", ms(1700000000000) + text(b"listpack of triples"), dialect=REDIS),
    record(22, "hash 2", length(2) + text(b"f") + text(b"v") + ms(-1) + LZF + BIG + ms(1700000000000), dialect=VALKEY),
    record(0, "expiry in ms", text(b"v"), prefix=b"\xfc" + ms(1700000000000), expires=1),
    record(0, "expiry in s", text(b"v"), prefix=b"\xfd" + struct.pack("<i", 1700000000), expires=1),
    record(4, "expiry and idle", length(1) + text(b"f") + text(b"v"), prefix=b"\xfc" + ms(1) + b"\xf8" + length(100000), expires=1),
    record(2, "frequency", length(1) + text(b"m"), prefix=b"\xf9\x07"),
    record(0, "key metadata", text(b"v"), prefix=b"\xfc" + ms(1) + META, expires=1, dialect=REDIS),
    opcode(250, "aux", text(b"redis-ver") + text(b"8.0.2")),
    opcode(250, "aux with a number", text(b"ctime") + NUMBERS[2]),
    opcode(254, "select", length(3)),
    opcode(251, "resize", length(100000) + length(10)),
    opcode(247, "module aux", length(0x8123456789ABCDEF) + b"\x02\x01" + b"\x05" + text(b"data") + b"\x00"),
    opcode(245, "function", text(b"#!lua name=lib\n" * 9)),
    opcode(244, "slot info", length(16383) + length(70000) + length(3)),
    opcode(243, "slot import", text(b"j" * 40) + length(2) + length(0) + length(100) + length(200) + length(16383), dialect=VALKEY),
)


def items_of(dialect: int) -> list[Item]:
    return [item for item in ITEMS if item.dialect in (-1, dialect)]


def magic(dialect: int) -> bytes:
    return b"VALKEY080" if dialect == VALKEY else b"REDIS0012"
