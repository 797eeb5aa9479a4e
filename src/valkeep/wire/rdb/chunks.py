"""The resumable half of the RDB decoder: chunks in, units read speculatively, the primitives that units are made of.

The snapshot is cut into *units*: an opcode with its operands, a type and a key, one element of a collection, one packed blob. A unit is read
speculatively from where the last one ended (`mark`). When it is not all there, the position goes back to `mark`, the rest of the chunk is
held, and `need` says how many bytes must be there before another try makes sense; so a blob of 512 MB that comes in chunks is
looked at twice, and one that comes byte by byte is too.

What is held follows the bytes that were received, never a length that was claimed: at most one unit, and `max_blob` bounds that.

What this does not do: know what units there are. `decode.Decoder` is the subclass that does, and keeps the state between them.
"""

from __future__ import annotations

from valkeep.errors import LocalProtocolError, ProtocolError, Refused, RemoteProtocolError

from .. import lzf
from ..checksum import crc64
from ..listpack import decimal, signed64
from .opcodes import ENC_LZF

__all__ = ["Chunks", "MAX_BLOB"]

MAX_BLOB = 512 << 20  # bytes: proto-max-bulk-len as servers come


class Chunks:
    """`feed` it chunks; `unit`, which the subclass has, reads one unit after the other through the primitives.

    `finished`: the subclass has seen the end; `unused`: what came behind it. `offset`: bytes of whole units so far. `failed`: an error was
    raised, nothing can go on. Primitives return False (or None) when a unit is not all there, after setting `missing`.
    """

    __slots__ = (
        "base", "crc", "encoding", "error", "failed", "finished", "held", "keep_crc", "mark", "max_blob", "missing", "need", "number", "pos",
        "raw", "size", "summed", "unused", "view",
    )  # fmt: skip

    def __init__(self, max_blob: int = MAX_BLOB) -> None:
        self.max_blob = max_blob
        self.finished = False
        self.failed = False
        self.unused = b""
        self.error: ProtocolError | Refused | None = None
        # the window: raw[0] is byte `base` of the snapshot; `mark`: where the unit begins; `summed`: how far the CRC has come
        self.raw = b""
        self.view = memoryview(b"")
        self.size = 0
        self.base = 0
        self.pos = 0
        self.mark = 0
        self.summed = 0
        self.crc = 0
        self.keep_crc = True
        self.held = bytearray()
        self.need = 0
        self.missing = 0
        # what `length` has read
        self.number = 0
        self.encoding = -1

    @property
    def offset(self) -> int:
        return self.base + self.mark

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Decode as much of the snapshot as is there with `data`."""
        if self.failed:
            raise LocalProtocolError("bytes were fed to a decoder that has failed", remedy="begin again with a new decoder")
        if self.finished:
            self.unused += bytes(data)
            return
        if self.held:
            self.held += data
            if len(self.held) < self.need:
                return
            self.raw = bytes(self.held)
            self.held = bytearray()
        else:
            self.raw = bytes(data)
        self.view = memoryview(self.raw)
        self.size = len(self.raw)
        self.pos = 0
        self.mark = 0
        self.summed = 0
        try:
            finished = self.run()
        except BaseException as error:
            self.failed = True
            if isinstance(error, RemoteProtocolError) and error is not self.error:
                raise error.saying(f"{self.place()}: {error.message}") from None  # say where
            raise
        self.sum(self.mark)
        if finished:
            self.unused = self.raw[self.mark :]
        else:
            self.held += self.view[self.mark : self.size]
            self.need = self.size - self.mark + self.missing
        self.base += self.mark
        self.mark = 0
        self.pos = 0
        self.raw = b""
        self.view = memoryview(b"")

    def close(self) -> None:
        """There are no more bytes. RemoteProtocolError when the snapshot is not complete."""
        if not self.finished and not self.failed:
            raise self.broken(f"the snapshot ends after {self.offset + len(self.held)} bytes, before it is complete")

    def run(self) -> bool:
        """Units until one is not all there (False) or the end has been seen (True)."""
        while not self.finished:
            self.missing = 1
            if not self.unit():
                self.pos = self.mark
                return False
            self.mark = self.pos
        return True

    def unit(self) -> bool:
        """Read one unit. False: it is not all there, nothing was told to anybody, and `missing` more bytes are needed at least."""
        raise NotImplementedError

    def sum(self, stop: int) -> None:
        """Take raw[:stop] into the CRC."""
        if self.keep_crc and stop > self.summed:
            self.crc = crc64(self.raw if self.summed == 0 and stop == self.size else self.view_of(self.summed, stop), self.crc)
            self.summed = stop

    def view_of(self, start: int, stop: int) -> memoryview:
        return memoryview(self.raw)[start:stop]

    def broken(self, what: str) -> RemoteProtocolError:
        error = RemoteProtocolError(
            f"{self.place()}: {what}",
            remedy="the snapshot or payload is damaged, or its writer is newer than this release of Valkeep: take it again, check the source's log",
        )
        self.error = error
        return error

    def place(self) -> str:
        """Where we are, for messages."""
        return f"RDB byte {self.base + self.pos}"

    # --- what units are made of: each returns False (or None) when it is not all there -----------------------------------------------------------

    def length(self) -> bool:
        """Read a length into `number`."""
        if not self.length_or_encoding():
            return False
        if self.encoding >= 0:
            raise self.broken("a string encoding stands where a length must be")
        return True

    def length_or_encoding(self) -> bool:
        """Read a length into `number` (then `encoding` is −1), or a special string encoding into `encoding`."""
        pos = self.pos
        if pos >= self.size:
            return False
        first = self.view[pos]
        self.encoding = -1
        if first < 0x40:
            self.number = first
            self.pos = pos + 1
            return True
        if first < 0x80:
            if self.size - pos < 2:
                return False
            self.number = (first & 0x3F) << 8 | self.view[pos + 1]
            self.pos = pos + 2
            return True
        if first >= 0xC0:
            self.encoding = first & 0x3F
            self.pos = pos + 1
            return True
        if first > 0x81:
            raise self.broken(f"a length begins with {first:02X}, which none does")
        width = 4 if first == 0x80 else 8
        if self.size - pos <= width:
            self.missing = width + 1 - (self.size - pos)
            return False
        number = 0
        for i in range(1, width + 1):
            number = number << 8 | self.view[pos + i]
        self.number = number
        self.pos = pos + 1 + width
        return True

    def room(self, width: int) -> bool:
        """Whether `width` bytes are there."""
        if self.size - self.pos >= width:
            return True
        self.missing = width - (self.size - self.pos)
        return False

    def bits(self, width: int) -> int:
        """The next `width` bytes (they are there), little-endian, unsigned."""
        pos = self.pos + width
        self.pos = pos
        number = 0
        while width > 0:
            width -= 1
            pos -= 1
            number = number << 8 | self.view[pos]
        return number

    def bits_big(self) -> int:
        """The next 8 bytes (they are there), big-endian, unsigned."""
        number = 0
        pos = self.pos
        for i in range(8):
            number = number << 8 | self.view[pos + i]
        self.pos = pos + 8
        return number

    def plain(self, number: int) -> bytes | None:
        """The next `number` bytes."""
        if number > self.max_blob:
            raise self.broken(f"a string claims to be {number} bytes long, more than the {self.max_blob} that are allowed")
        size = number
        if not self.room(size):
            return None
        start = self.pos
        self.pos = start + size
        return self.raw[start : self.pos]

    def text(self) -> bytes | None:
        """A string in any encoding."""
        if not self.length_or_encoding():
            return None
        if self.encoding < 0:
            return self.plain(self.number)
        if self.encoding < ENC_LZF:
            width = 1 << self.encoding
            if not self.room(width):
                return None
            number = signed64(self.bits(width))
            if width < 8:
                bit = 8 * width - 1
                number -= number >> bit << bit << 1
            return decimal(number)
        if self.encoding > ENC_LZF:
            raise self.broken(f"the string encoding {self.encoding} is not known")
        if not self.length():
            return None
        packed = self.number
        if packed == 0:
            raise self.broken("a compressed string has no bytes")  # the oldest servers' decompressor would read past it
        if not self.length():
            return None
        if self.number > self.max_blob:
            raise self.broken(f"a compressed string claims {self.number} bytes, more than the {self.max_blob} that are allowed")
        size = self.number
        data = self.plain(packed)
        return None if data is None else lzf.decompress(data, size)
