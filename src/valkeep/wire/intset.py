"""Intset: a small set of integers, sorted, all of one width; read, and built for writers.

::

    <4 bytes LE: width 2, 4 or 8> <4 bytes LE: number of members> member*           members little-endian, signed, ascending

Hostile input: the size must be what width and number make; members must ascend (so that none is there twice).

Source: intset.c, intsetValidateIntegrity.
"""

from __future__ import annotations

from valkeep.errors import LocalProtocolError, RemoteProtocolError

from .listpack import decimal, signed64

__all__ = ["Reader", "build", "members"]

HEADER = 8  # bytes


class Reader:
    """Walks over the members of one intset after another: `open`, then `next` until None."""

    __slots__ = ("count", "index", "last", "view", "width")

    def __init__(self) -> None:
        self.view = memoryview(b"")
        self.width = 0
        self.count = 0
        self.index = 0
        self.last = 0

    def open(self, blob: bytes) -> None:
        """Begin with `blob`, whose header is checked."""
        size = len(blob)
        self.index = 0
        if size < HEADER:
            raise self.broken(f"has only {size} bytes")
        self.view = memoryview(blob)
        self.width = self.bits(0, 4)
        self.count = self.bits(4, 4)
        if self.width != 2 and self.width != 4 and self.width != 8:
            raise self.broken(f"has members of the impossible width {self.width}")
        if (size - HEADER) % self.width != 0 or (size - HEADER) // self.width != self.count:
            raise self.broken(f"says it has {self.count} members of {self.width} bytes, and has {size} bytes in all")

    def broken(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"an intset {what} (member {self.index})",
            remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools",
        )

    def bits(self, pos: int, width: int) -> int:
        """`width` bytes at `pos`, little-endian, unsigned."""
        number = 0
        while width > 0:
            width -= 1
            number = number << 8 | self.view[pos + width]
        return number

    def next(self) -> bytes | None:
        """The next member, None after the last one."""
        if self.index >= self.count:
            return None
        pos = HEADER + self.index * self.width
        if self.width == 8:
            number = signed64(self.bits(pos, 8))
        else:
            number = self.bits(pos, self.width)
            bit = 8 * self.width - 1
            number -= number >> bit << bit << 1
        if self.index > 0 and number <= self.last:
            raise self.broken("has members that do not ascend")
        self.last = number
        self.index += 1
        return decimal(number)


def members(blob: bytes) -> list[bytes]:
    """All members of the intset `blob`."""
    reader = Reader()
    reader.open(blob)
    found = []
    value = reader.next()
    while value is not None:
        found.append(value)
        value = reader.next()
    return found


def build(numbers: list[int]) -> bytes:
    """The intset of `numbers` (distinct, 64 bits signed), in the smallest width."""
    ordered = sorted(numbers)
    if len(set(ordered)) != len(ordered):
        raise LocalProtocolError("an intset was built of numbers that are not distinct", remedy="a bug in Valkeep: please report it")
    width = 2
    for number in ordered:
        while not -(1 << (8 * width - 1)) <= number < 1 << (8 * width - 1):
            width *= 2
            if width > 8:
                raise LocalProtocolError(f"{number} does not fit an intset", remedy="a bug in Valkeep: please report it")
    body = b"".join(number.to_bytes(width, "little", signed=True) for number in ordered)
    return width.to_bytes(4, "little") + len(ordered).to_bytes(4, "little") + body
