"""Listpack: a sequence of strings and integers in one piece of memory, read and built.

Redis 5 brought it for streams; since 7.0 small hashes, sorted sets and list nodes are listpacks, since 7.2 small sets. One listpack::

    <4 bytes LE: size of all of it> <2 bytes LE: number of entries, 65535 = count them> entry* FF

and one entry is its encoding, its data, and its length backwards (`BACKLEN`), so that it can be walked from either end::

    0XXXXXXX                                        integer 0 to 127                                     # listpack.c LP_ENCODING_7BIT_UINT
    10LLLLLL <string>                               string of up to 63 bytes                             # LP_ENCODING_6BIT_STR
    110XXXXX XXXXXXXX                               integer, 13 bits signed, big-endian                  # LP_ENCODING_13BIT_INT
    1110LLLL LLLLLLLL <string>                      string of up to 4095 bytes, length big-endian        # LP_ENCODING_12BIT_STR
    11110000 <4 bytes LE> <string>                  string                                               # LP_ENCODING_32BIT_STR
    11110001 <2>  11110010 <3>  11110011 <4>  11110100 <8>   integer, little-endian, signed              # LP_ENCODING_16BIT_INT …
    11111111                                        the end                                              # LP_EOF

A string that is the shortest decimal form of a 64 bit integer is stored as that integer, so that readers give back its digits.

Hostile input: every read is checked against the end of the blob, the backward length must agree, the end must be where the header says, and
the number of entries too. Nothing is allocated but the one entry that is returned. Errors are RemoteProtocolError.

Source: listpack.c of Redis 5.0 to 8.4, lpValidateIntegrity and lpEncodeGetType.
"""

from __future__ import annotations

from valkeep.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["AT_END", "AT_INTEGER", "AT_STRING", "Builder", "Reader", "build", "decimal", "entries"]

HEADER = 6  # bytes
COUNT_UNKNOWN = 65535

AT_END = 0
AT_INTEGER = 1
AT_STRING = 2

_BYTE = tuple(bytes([number]) for number in range(256))
_SMALL = tuple(b"%d" % number for number in range(1024))
# The same constants as C integers: a public name of the module is looked up in its dictionary each time.
_AT_END = AT_END
_AT_STRING = AT_STRING
_AT_INTEGER = AT_INTEGER
_HEADER = HEADER
_COUNT_UNKNOWN = COUNT_UNKNOWN


def decimal(number: int) -> bytes:
    """The decimal digits of a signed 64 bit integer."""
    if 0 <= number < 1024:
        return _SMALL[number]
    return b"%d" % number


def signed64(number: int) -> int:
    """The unsigned 64 bits of `number` read as two's complement."""
    if number >> 63:
        low = ~number & 0x7FFFFFFFFFFFFFFF
        return -low - 1
    return number


class Reader:
    """Walks over the entries of one listpack after another: `open`, then `advance` until AT_END.

    After `advance` said AT_STRING: blob[start:stop] is the string. After AT_INTEGER: `number`. `value()` gives bytes for both.
    """

    __slots__ = ("blob", "count", "index", "number", "pos", "size", "start", "state", "stop", "view")

    def __init__(self) -> None:
        self.blob = b""
        self.view: bytes | memoryview = b""
        self.size = 0
        self.count = 0
        self.index = 0
        self.pos = 0
        self.start = 0
        self.stop = 0
        self.number = 0
        self.state = _AT_END

    def open(self, blob: bytes) -> None:
        """Begin with `blob`, whose header is checked."""
        size = len(blob)
        if size < _HEADER + 1:
            raise self.broken(f"has only {size} bytes")
        self.blob = blob
        self.view = blob
        self.size = size
        total = self.little(0, 4)
        if total != size:
            raise self.broken(f"says it has {total} bytes, and has {size}")
        if self.view[size - 1] != 0xFF:
            raise self.broken("does not end with FF")
        self.count = self.view[4] | self.view[5] << 8
        self.index = 0
        self.pos = _HEADER
        self.state = _AT_END

    def broken(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"a listpack {what} (entry {self.index}, byte {self.pos})",
            remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools",
        )

    def advance(self) -> int:
        """To the next entry: AT_STRING, AT_INTEGER, or AT_END after the last one."""
        pos = self.pos
        last = self.size - 1  # the place of FF
        if pos >= last:
            if pos > last:
                raise self.broken("runs past its end")
            if self.count != _COUNT_UNKNOWN and self.count != self.index:
                raise self.broken(f"says it has {self.count} entries, and has {self.index}")
            self.state = _AT_END
            return _AT_END
        first = self.view[pos]
        left = last - pos  # bytes up to FF, with this one
        head = 1
        length = 0
        self.state = _AT_INTEGER
        if first < 0x80:
            self.number = first
        elif first < 0xC0:
            length = first & 0x3F
            self.state = _AT_STRING
        elif first < 0xE0:
            if left < 2:
                raise self.broken("ends inside an entry")
            head = 2
            number = (first & 0x1F) << 8 | self.view[pos + 1]
            if number >= 4096:
                number -= 8192
            self.number = number
        elif first < 0xF0:
            if left < 2:
                raise self.broken("ends inside an entry")
            head = 2
            length = (first & 0x0F) << 8 | self.view[pos + 1]
            self.state = _AT_STRING
        elif first == 0xF0:
            if left < 5:
                raise self.broken("ends inside an entry")
            head = 5
            length = self.little(pos + 1, 4)
            self.state = _AT_STRING
        elif first <= 0xF4:
            width = 8 if first == 0xF4 else first - 0xEF
            head = 1 + width
            if left < head:
                raise self.broken("ends inside an entry")
            if width == 8:
                self.number = signed64(self.bits64(pos + 1))
            else:
                number = self.little(pos + 1, width)
                bit = 8 * width - 1
                self.number = number - (number >> bit << bit << 1)
        elif first == 0xFF:
            raise self.broken("has its end in the middle")
        else:
            raise self.broken(f"has an entry with the unknown encoding {first:02X}")
        if length > left - head:
            raise self.broken("has an entry that runs past its end")
        self.start = pos + head
        self.stop = pos + head + length
        self.pos = self.stop
        self.backward(head + length)
        self.index += 1
        return self.state

    def backward(self, length: int) -> None:
        """Step over the backward length of an entry of `length` bytes, which must be that length.

        BACKLEN: 7 bits a byte, the lowest bits in the last byte; all bytes but the first have bit 7 set.
        16383 and its like are one byte longer in some releases: `<` where `<=` would do.     # listpack.c lpEncodeBacklen
        """
        pos = self.pos
        last = self.size - 1
        if length < 128:
            if pos >= last or self.view[pos] != length:
                raise self.broken("has an entry whose backward length is wrong")
            self.pos = pos + 1
            return
        width = 2
        while width < 5 and length >> (7 * width):
            width += 1
        if length == (1 << (7 * width)) - 1 and pos < last and self.view[pos] == 0:
            width += 1
        if last - pos < width:
            raise self.broken("ends inside an entry")
        value = self.view[pos] & 0x7F
        ok = self.view[pos] < 0x80
        for i in range(1, width):
            value = value << 7 | self.view[pos + i] & 0x7F
            ok = ok and self.view[pos + i] >= 0x80
        if not ok or value != length:
            raise self.broken("has an entry whose backward length is wrong")
        self.pos = pos + width

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

    def value(self) -> bytes:
        """The entry that `advance` came to, as bytes."""
        if self.state == _AT_STRING:
            return self.blob[self.start : self.stop]
        if self.state == _AT_INTEGER:
            return decimal(self.number)
        raise LocalProtocolError("a listpack reader that is not at an entry was asked for one", remedy="a bug in Valkeep: please report it")

    def next(self) -> bytes | None:
        """`advance` and `value`: the next entry, None after the last one."""
        if self.advance() == _AT_END:
            return None
        return self.value()

    def integer(self) -> int:
        """The next entry, which must be an integer."""
        if self.advance() != _AT_INTEGER:
            raise self.broken("has a string or its end where an integer must be")
        return self.number


def entries(blob: bytes) -> list[bytes]:
    """All entries of the listpack `blob`."""
    reader = Reader()
    reader.open(blob)
    found = []
    value = reader.next()
    while value is not None:
        found.append(value)
        value = reader.next()
    return found


class Builder:
    """Builds one listpack after another: `append` and `append_integer`, then `finish`, which also begins anew.

    `size`: bytes that `finish` would return now. `count`: entries so far.
    """

    __slots__ = ("count", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0
        self.size = HEADER + 1

    def append(self, value: bytes) -> None:
        """Append a string, as the integer that it is the shortest decimal form of, where it is one."""
        length = len(value)
        if 0 < length <= 20 and self.append_digits(value, length):
            return
        parts = self.parts
        if length < 64:
            parts.append(_BYTE[0x80 | length])
            head = 1
        elif length < 4096:
            parts.append(_BYTE[0xE0 | length >> 8])
            parts.append(_BYTE[length & 0xFF])
            head = 2
        else:
            parts.append(_BYTE[0xF0])
            self.append_little(length, 4)
            head = 5
        parts.append(value)
        self.append_backward(head + length)
        self.count += 1

    def append_digits(self, value: bytes, length: int) -> bool:
        """Append `value` as an integer if it is one: -?[1-9][0-9]* or 0, within 64 bits signed."""
        first = value[0]
        negative = first == 0x2D
        i = 1 if negative else 0
        if i == length:
            return False
        first = value[i]
        if first < 0x30 or first > 0x39 or (first == 0x30 and length > 1):
            return False
        if length - i > 19:
            return False
        magnitude = 0  # unsigned 64 bits hold every number of 19 digits
        while i < length:
            first = value[i]
            if first < 0x30 or first > 0x39:
                return False
            magnitude = magnitude * 10 + (first - 0x30)
            i += 1
        if negative:
            if magnitude > 9223372036854775808:
                return False
            magnitude -= 1  # so that -2**63 can be negated in 64 bits
            number = magnitude
            self.append_integer(-number - 1)
            return True
        if magnitude > 9223372036854775807:
            return False
        number = magnitude
        self.append_integer(number)
        return True

    def append_integer(self, number: int) -> None:
        """Append a signed 64 bit integer, in its shortest encoding."""
        parts = self.parts
        if 0 <= number < 128:
            parts.append(_BYTE[number])
            self.append_backward(1)
        elif -4096 <= number < 4096:
            number &= 0x1FFF
            parts.append(_BYTE[0xC0 | number >> 8])
            parts.append(_BYTE[number & 0xFF])
            self.append_backward(2)
        else:
            width = 8
            if -32768 <= number < 32768:
                width = 2
            elif -8388608 <= number < 8388608:
                width = 3
            elif -2147483648 <= number < 2147483648:
                width = 4
            parts.append(_BYTE[0xF4 if width == 8 else 0xEF + width])
            self.append_little(number, width)
            self.append_backward(1 + width)
        self.count += 1

    def append_little(self, number: int, width: int) -> None:
        while width > 0:
            self.parts.append(_BYTE[number & 0xFF])
            number >>= 8
            width -= 1

    def append_backward(self, length: int) -> None:
        """The backward length of an entry of `length` bytes."""
        if length < 128:
            self.parts.append(_BYTE[length])
            self.size += length + 1
            return
        width = 2
        while width < 5 and length >= (1 << (7 * width)) - 1:
            width += 1
        self.size += length + width
        shift = 7 * (width - 1)
        self.parts.append(_BYTE[length >> shift])
        while shift > 0:
            shift -= 7
            self.parts.append(_BYTE[length >> shift & 0x7F | 0x80])

    def finish(self) -> bytes:
        """The listpack; the builder is empty again."""
        if self.size > 0xFFFFFFFF:
            raise LocalProtocolError(
                f"a listpack of {self.size} bytes was built (bound: 4 GiB)", remedy="use a plain encoding for this record"
            )
        count = min(self.count, COUNT_UNKNOWN)
        blob = self.size.to_bytes(4, "little") + count.to_bytes(2, "little") + b"".join(self.parts) + b"\xff"
        self.clear()
        return blob

    def clear(self) -> None:
        """Forget what was appended."""
        self.parts.clear()
        self.count = 0
        self.size = HEADER + 1


def build(values: list[bytes]) -> bytes:
    """The listpack of `values`."""
    builder = Builder()
    for value in values:
        builder.append(value)
    return builder.finish()
