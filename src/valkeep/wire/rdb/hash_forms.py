"""What the two converters of field expiry share: the modes, a writer, and listpacks of field, value, expiry. See convert.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from valkeep.errors import LocalProtocolError, Refused, RemoteProtocolError

from .opcodes import DIALECT_REDIS, DIALECT_VALKEY, name_of
from .scan import Scanner

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview

__all__ = ["DROP_FIELD", "KEEP_FIELD", "TO_HASH_2", "TO_REDIS_EX", "Packed", "Writer", "absolute", "form_of", "relative", "too_large"]

TO_HASH_2 = 0
KEEP_FIELD = 1
DROP_FIELD = 2
TO_REDIS_EX = 3

_SCRATCH = 1 << 16
_HEAD = 6  # of a listpack: size, number of entries
_EMPTY = 7  # a listpack without entries
_LARGEST_EXPIRY = (1 << 48) - 1  # ebuckets.h EB_EXPIRE_TIME_MAX
_NONE = 0xFFFFFFFFFFFFFFFF  # -1 as 64 bits
LARGEST_BLOB = 64 << 20


def form_of(kind: int, dialect: int, mode: int) -> int:
    """The source's form as a number of its own, checked against the mode: 22 to 25 as under REDIS, 122 HASH_2."""
    if dialect == DIALECT_VALKEY and kind == 22 and mode in (KEEP_FIELD, DROP_FIELD, TO_REDIS_EX):
        return 122
    if dialect == DIALECT_REDIS and 22 <= kind <= 25 and mode in (TO_HASH_2, KEEP_FIELD, DROP_FIELD):
        return kind
    raise LocalProtocolError(f"no conversion of {name_of(dialect, kind)} in mode {mode}", remedy="report this bug")


def absolute(read: Scanner, pos: int, is_relative: bool, least: int) -> int:
    """The field expiry in ``read._number``: ms since 1970, 0 = none."""
    ttl = read._number
    if ttl == 0:
        return 0
    if ttl > _LARGEST_EXPIRY or least > _LARGEST_EXPIRY + 1:
        read._broken(pos, f"a field expiry of {ttl} after {least}")
    if is_relative:
        ttl += least
        ttl -= 1
    if ttl > _LARGEST_EXPIRY or ttl == 0:
        read._broken(pos, f"a field expiry of {ttl}")
    return ttl


def relative(expiry: int) -> int:
    """A field expiry of HASH_2 as it stands in form 24 after a least expiry of 1; one of 0 becomes 1, which has passed as well."""
    if expiry == _NONE:
        return 0
    if expiry > _LARGEST_EXPIRY:
        raise Refused(f"a field expires at {expiry} ms, Redis knows none after {_LARGEST_EXPIRY}", remedy="shorten it on the source")
    return expiry if expiry > 0 else 1


def too_large(what: str, size: int) -> NoReturn:
    raise Refused(
        f"{what} of {size} bytes is more than the {LARGEST_BLOB} that can be converted in memory",
        remedy="raise hash-max-listpack-entries and -value no further than their defaults, or rewrite the key on the source",
    )


class Writer:
    """Appends to a bytearray by way of a scratch buffer, so that compiled code writes bytes without calling Python for each."""

    def __init__(self) -> None:
        self._scratch = bytearray(_SCRATCH)
        self._view = memoryview(self._scratch)
        self._fill = 0
        self._out = bytearray()

    def _flush(self) -> None:
        self._out += self._scratch[: self._fill]
        self._fill = 0

    def _copy(self, data: Buffer, pos: int, end: int) -> None:
        while pos < end:
            size = end - pos
            if size > _SCRATCH - self._fill:
                if self._fill:
                    self._flush()
                if size > _SCRATCH:
                    size = _SCRATCH
            fill = self._fill
            self._fill = fill + size
            if size < 48:
                while size > 0:
                    self._view[fill] = data[pos]
                    fill += 1
                    pos += 1
                    size -= 1
            else:
                self._view[fill : fill + size] = data[pos : pos + size]
                pos += size

    def _byte(self, value: int) -> None:
        if self._fill == _SCRATCH:
            self._flush()
        self._view[self._fill] = value
        self._fill += 1

    def _little(self, value: int, size: int) -> None:
        while size > 0:
            self._byte(value & 0xFF)
            value >>= 8
            size -= 1

    def _big(self, value: int, size: int) -> None:
        while size > 0:
            size -= 1
            self._byte((value >> (8 * size)) & 0xFF)

    def _length(self, value: int) -> None:
        if value < 0x40:
            self._byte(value)
        elif value < 0x4000:
            self._byte(0x40 | value >> 8)
            self._byte(value & 0xFF)
        elif value < 0x100000000:
            self._byte(0x80)
            self._big(value, 4)
        else:
            self._byte(0x81)
            self._big(value, 8)

    def _text(self, data: Buffer, pos: int, end: int) -> None:
        """A string."""
        self._length(end - pos)
        self._copy(data, pos, end)

    def _number(self, number: int) -> None:
        """A string that is an integer."""
        if -0x80 <= number <= 0x7F:
            self._byte(0xC0)
            self._little(number & 0xFF, 1)
        elif -0x8000 <= number <= 0x7FFF:
            self._byte(0xC1)
            self._little(number & 0xFFFF, 2)
        elif -0x80000000 <= number <= 0x7FFFFFFF:
            self._byte(0xC2)
            self._little(number & 0xFFFFFFFF, 4)
        else:
            digits = b"%d" % number
            self._length(len(digits))
            self._copy(digits, 0, len(digits))


class Packed:
    """A listpack of field, value, expiry; counted, checked and written in one of the plain forms or as a listpack of pairs.

    It reads listpacks where they stand, in the buffer; ``listpack.Reader`` wants each as an object of its own, which costs more than reading it.
    """

    def __init__(self) -> None:
        self.fields = 0
        self.with_ttl = 0
        self.dropped = 0
        self._kept_bytes = 0
        self._first = 0
        self._last = 0
        self._start = 0
        self._stop = 0
        self._is_number = False
        self._number = 0

    def open(self, data: Buffer, pos: int, end: int, drop: bool) -> None:
        """The listpack is ``data[pos:end]``. Walks over all of it, so that nothing is written of a broken one."""
        size = 0
        if end - pos >= _EMPTY:
            size = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16 | (data[pos + 3] & 0x7F) << 24
        if size != end - pos or size < _EMPTY or data[end - 1] != 0xFF:
            self._broken("has another size than it says, or no end")
        count = data[pos + 4] | data[pos + 5] << 8
        pos += _HEAD
        last = end - 1
        self._first = pos
        self._last = last
        fields = 0
        with_ttl = 0
        kept = 0
        while pos < last:
            start = pos
            pos = self._next(data, pos)
            pos = self._next(data, pos)
            stop = pos
            pos = self._next(data, pos)
            if not self._is_number or self._number < 0 or self._number > _LARGEST_EXPIRY:
                self._broken(f"has no expiry with field {fields}")
            fields += 1
            if self._number > 0:
                with_ttl += 1
                if drop:
                    continue
            kept += stop - start
        if count not in (3 * fields, 0xFFFF):
            self._broken(f"says it has {count} entries, and has {3 * fields}")
        self.fields = fields
        self.with_ttl = with_ttl
        self.dropped = with_ttl if drop else 0
        self._kept_bytes = kept

    def _next(self, data: Buffer, pos: int) -> int:
        """Over the entry at ``pos``: its end. It is ``_number``, or ``data[_start:_stop]``. For the encodings see listpack.py."""
        left = self._last - pos
        if left < 2:
            self._broken("ends inside a field")
        first = data[pos]
        head = 1
        length = 0
        width = 0
        self._is_number = True
        if first < 0x80:
            self._number = first
        elif first < 0xC0:
            self._is_number = False
            length = first & 0x3F
        elif first < 0xE0:
            head = 2
            self._number = (first & 0x1F) << 8 | data[pos + 1]
            if self._number >= 4096:
                self._number -= 8192
        elif first < 0xF0:
            self._is_number = False
            head = 2
            length = (first & 0x0F) << 8 | data[pos + 1]
        elif first == 0xF0:
            self._is_number = False
            head = 5
            if left > 5:
                length = data[pos + 1] | data[pos + 2] << 8 | data[pos + 3] << 16 | (data[pos + 4] & 0x7F) << 24
        elif first <= 0xF4:
            width = first - 0xEF if first < 0xF4 else 8
            head = 1 + width
        else:
            self._broken(f"has an entry with the unknown encoding {first:02X}")
        size = head + length
        if size >= left:
            self._broken("has an entry that runs past its end")
        if width > 0:
            self._number = self._signed(data, pos + 1, width)
        self._start = pos + head
        self._stop = pos + size
        pos += size
        if size < 128:
            if data[pos] != size:
                self._broken("has an entry whose backward length is wrong")
            return pos + 1
        return self._backward(data, pos, size)

    def _signed(self, data: Buffer, pos: int, width: int) -> int:
        """``width`` bytes, little-endian, signed."""
        width -= 1
        number = data[pos + width]
        if number > 127:
            number -= 256
        while width > 0:
            width -= 1
            number = number * 256 + data[pos + width]
        return number

    def _backward(self, data: Buffer, pos: int, size: int) -> int:
        """Over the backward length of an entry of ``size`` bytes, 128 at least: 7 bits a byte, all but the first with bit 7 set.

        Some releases begin 16383 and its like (all bits set) with a byte of zero.     # listpack.c lpEncodeBacklen
        """
        value = -1
        if pos < self._last and data[pos] < 0x80 and (data[pos] > 0 or size in (0x3FFF, 0x1FFFFF, 0xFFFFFFF)):
            value = data[pos]
            pos += 1
        while 0 <= value < size and pos < self._last and data[pos] > 0x7F:
            value = value << 7 | (data[pos] & 0x7F)
            pos += 1
        if value != size:
            self._broken("has an entry whose backward length is wrong")
        return pos

    def _broken(self, text: str) -> NoReturn:
        raise RemoteProtocolError(
            f"a hash's listpack of fields with expiry {text}",
            remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools",
        )

    def write_plain(self, data: Buffer, out: Writer, with_expiry: bool) -> None:
        """The kept fields, as of form 4 (or HASH_2), without their number."""
        pos = self._first
        while pos < self._last:
            pos = self._next(data, pos)
            start = self._start
            stop = self._stop
            is_number = self._is_number
            number = self._number
            pos = self._next(data, pos)
            value_start = self._start
            value_stop = self._stop
            value_is_number = self._is_number
            value = self._number
            pos = self._next(data, pos)
            if self.dropped and self._number != 0:
                continue
            if is_number:
                out._number(number)
            else:
                out._text(data, start, stop)
            if value_is_number:
                out._number(value)
            else:
                out._text(data, value_start, value_stop)
            if with_expiry:
                out._little(_NONE if self._number == 0 else self._number, 8)

    def write_packed(self, data: Buffer, out: Writer) -> None:
        """The kept fields as one string: a listpack of field, value."""
        size = _EMPTY + self._kept_bytes
        kept = 2 * (self.fields - self.dropped)
        out._length(size)
        out._little(size, 4)
        out._little(min(kept, 0xFFFF), 2)
        pos = self._first
        while pos < self._last:
            start = pos
            pos = self._next(data, pos)
            pos = self._next(data, pos)
            stop = pos
            pos = self._next(data, pos)
            if self.dropped == 0 or self._number == 0:
                out._copy(data, start, stop)
        out._byte(0xFF)
