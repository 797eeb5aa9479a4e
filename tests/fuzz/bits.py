"""What mutations are made of: numbers at the edges, lengths that lie, bytes that were damaged, packed blobs good and bad."""

from __future__ import annotations

from random import Random

from valkeep.wire import intset, listpack, ziplist, zipmap
from valkeep.wire.checksum import crc64

EDGES = sorted(
    {
        max(0, (1 << power) + step)
        for power in (0, 1, 3, 4, 5, 6, 7, 8, 12, 13, 14, 16, 20, 24, 30, 31, 32, 40, 48, 53, 62, 63)
        for step in (-1, 0, 1)
    }
    | {(1 << 64) - 1, (1 << 64) - 2, 252, 253, 254, 100, 1000, 16384}
)
"""Numbers of up to 64 bits that are wrong by one somewhere."""

TEXTS = (
    b"", b"a", b"0", b"-1", b"-0", b"00", b"127", b"-32768", b"65535", b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616",
    b"\xff\x00" * 20, b"x" * 63, b"x" * 64, b"y" * 300, b"3.5", b"inf", b"nan", b"1_0", b"key",
)  # fmt: skip
_BYTES = (
    0,
    1,
    0x0A,
    0x0D,
    0x20,
    0x24,
    0x2A,
    0x2D,
    0x30,
    0x39,
    0x3F,
    0x40,
    0x7F,
    0x80,
    0x81,
    0xC0,
    0xC3,
    0xE0,
    0xF0,
    0xF1,
    0xF4,
    0xFC,
    0xFE,
    0xFF,
)


def interesting(rng: Random, near: int = -1) -> int:
    """A number of up to 64 bits; ``near``: the right one, which sometimes is missed by little."""
    if near >= 0 and rng.random() < 0.4:
        return max(0, rng.choice((near - 1, near + 1, near * 2, near // 2, near + 256, near)))
    return rng.choice(EDGES) if rng.random() < 0.8 else rng.getrandbits(rng.randrange(1, 65))


def length_bytes(number: int, rng: Random | None = None) -> bytes:
    """An RDB length; with ``rng`` sometimes in a longer form than needed."""
    form = rng.choice((0, 0, 0, 1, 2)) if rng is not None else 0
    if form == 0 and number < 64:
        return bytes([number])
    if form == 0 and number < 16384:
        return bytes([0x40 | number >> 8, number & 0xFF])
    if form < 2 and number < 1 << 32:
        return b"\x80" + number.to_bytes(4, "big")
    return b"\x81" + (number & (1 << 64) - 1).to_bytes(8, "big")


def mangled(rng: Random, data: bytes) -> bytes:
    """One to four bytes, or spans, flipped, left out, put in, doubled or replaced by numbers at the edges."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice(_BYTES)
        elif kind == 2 and at < len(out):
            out[at] = (out[at] + rng.choice((1, -1))) & 0xFF
        elif kind == 3:
            del out[at : at + rng.choice((1, 2, 4, 8, 16, 64))]
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.choice((1, 1, 2, 4, 8)))
        elif kind == 5:
            out[at:at] = out[at : at + rng.choice((1, 4, 16, 64))]
        elif kind == 6:
            size = rng.choice((1, 2, 4, 8))
            out[at : at + size] = (rng.choice(EDGES) & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("little", "big")))
        else:
            start = rng.randrange(len(out) + 1)
            out[at : at + 8] = out[start : start + 8]
    return bytes(out)


def text(rng: Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(TEXTS)
    if kind == 1:
        return b"%d" % rng.randint(-(1 << rng.randrange(1, 66)), 1 << rng.randrange(1, 66))
    if kind == 2:
        return rng.randbytes(rng.randrange(20))
    return b"key%d" % rng.randrange(5)


def texts(rng: Random, most: int = 8) -> list[bytes]:
    return [text(rng) for _ in range(rng.randrange(1, most))]


PACKED = ("listpack", "ziplist", "intset", "zipmap")


def packed(rng: Random, name: str) -> bytes:
    """A good packed blob of that kind."""
    if name == "intset":
        numbers = {rng.randint(-(1 << bits), 1 << bits) for bits in (rng.choice((3, 14, 30, 62)),) for _ in range(rng.randrange(1, 9))}
        return intset.build(sorted(numbers))
    if name == "zipmap":
        return zipmap.build([(value[:252], rng.choice(TEXTS)) for value in texts(rng)])
    values = texts(rng)
    while len(values) % rng.choice((1, 2, 3)):
        values.append(b"%d" % rng.randrange(1 << 41))
    return listpack.build(values) if name == "listpack" else ziplist.build(values)


def blob(rng: Random) -> bytes:
    """A packed blob, mostly good."""
    good = packed(rng, rng.choice(PACKED))
    return good if rng.random() < 0.6 else mangled(rng, good)


def sealed_payload(body: bytes, version: int) -> bytes:
    """A DUMP payload: body, version, checksum."""
    whole = body + (version & 0xFFFF).to_bytes(2, "little")
    return whole + crc64(whole).to_bytes(8, "little")


def cut(rng: Random, data: bytes) -> list[bytes]:
    """The same bytes in pieces: two, several, or one byte each (short ones)."""
    kind = rng.randrange(3)
    if kind == 0 and len(data) <= 400:
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(rng.randrange(len(data) + 1) for _ in range(1 if kind == 1 else rng.randrange(1, 12)))
    return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True) if stop > start]
