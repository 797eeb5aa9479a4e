"""What the two converters of field expiry share: the modes, a writer, and listpacks of field, value, expiry. See convert.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from valkeep.errors import LocalProtocolError, Refused, RemoteProtocolError

from ..listpack import AT_END, AT_INTEGER, AT_STRING, Reader
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
_LARGEST_EXPIRY = (1 << 48) - 2  # ebuckets.h EB_EXPIRE_TIME_MAX
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

    def _entry(self, pack: Reader) -> None:
        """The listpack entry that ``pack`` is at, as a string of the snapshot."""
        if pack.state == AT_STRING:
            self._length(pack.stop - pack.start)
            self._copy(pack.view, pack.start, pack.stop)
        else:
            self._number(pack.number)

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
    """A listpack of field, value, expiry; counted, checked and written in one of the plain forms or as a listpack of pairs."""

    def __init__(self) -> None:
        self._pack = Reader()
        self._ahead = Reader()
        self.fields = 0
        self.with_ttl = 0
        self.dropped = 0
        self._kept_bytes = 0

    def open(self, blob: bytes, drop: bool) -> None:
        """Walks over all of it, so that nothing is written of a broken one."""
        pack = self._pack
        pack.open(blob)
        fields = with_ttl = kept = 0
        while True:
            start = pack.pos
            if pack.advance() == AT_END:
                break
            if pack.advance() == AT_END:
                self._broken("ends after a field")
            stop = pack.pos
            if pack.advance() != AT_INTEGER or pack.number < 0 or pack.number > _LARGEST_EXPIRY:
                self._broken(f"has no expiry with field {fields}")
            fields += 1
            if pack.number > 0:
                with_ttl += 1
                if drop:
                    continue
            kept += stop - start
        self.fields = fields
        self.with_ttl = with_ttl
        self.dropped = with_ttl if drop else 0
        self._kept_bytes = kept
        pack.open(blob)
        self._ahead.open(blob)

    def _broken(self, text: str) -> NoReturn:
        raise RemoteProtocolError(
            f"a hash's listpack of fields with expiry {text}",
            remedy="the snapshot or payload is damaged: take it again, and check the source with its own tools",
        )

    def write_plain(self, out: Writer, with_expiry: bool) -> None:
        """The kept fields, as of form 4 (or HASH_2), without their number."""
        pack = self._pack
        ahead = self._ahead
        while ahead.advance() != AT_END:
            ahead.advance()
            ahead.advance()
            pack.advance()
            if self.dropped and ahead.number != 0:
                pack.advance()
            else:
                out._entry(pack)
                pack.advance()
                out._entry(pack)
                if with_expiry:
                    if ahead.number == 0:
                        out._little(_NONE, 8)
                    else:
                        out._little(ahead.number, 8)
            pack.advance()

    def write_packed(self, out: Writer) -> None:
        """The kept fields as one string: a listpack of field, value."""
        pack = self._pack
        kept = 2 * (self.fields - self.dropped)
        size = 7 + self._kept_bytes
        out._length(size)
        out._little(size, 4)
        out._little(min(kept, 0xFFFF), 2)
        while True:
            start = pack.pos
            if pack.advance() == AT_END:
                break
            pack.advance()
            stop = pack.pos
            pack.advance()
            if self.dropped == 0 or pack.number == 0:
                out._copy(pack.view, start, stop)
        out._byte(0xFF)
