"""Hashes with field expiry that come in pieces; see convert.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from valkeep.errors import LocalProtocolError

from ..lzf import decompress
from .hash_forms import DROP_FIELD, LARGEST_BLOB, TO_REDIS_EX, Packed, Writer, absolute, form_of, relative, too_large
from .scan import Scanner

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview

__all__ = ["HashConverter"]

_MODE_HASH_2 = 0
_MODE_KEEP = 1
_MODE_DROP = 2
_MODE_EX = 3

# where a converter stands in a value
_LEAST = 0
_COUNT = 1
_TTL = 2
_FIELD = 3
_VALUE = 4
_EXPIRY = 5
_BLOB = 6
_BODY = 7
_END = 8

_LARGEST_BLOB = LARGEST_BLOB
_NONE = 0xFFFFFFFFFFFFFFFF  # -1 as 64 bits


class HashConverter(Writer):
    """Converts the value part of one hash, in pieces.

    ``source_type``, ``dialect``: what comes. ``out_type``: the type byte that goes before the key, known at once. ``count_known``: False under
    DROP_FIELD, where the output is only the kept fields and values: the caller puts ``fields - fields_dropped`` before them, as a length, and
    leaves the record out when that is zero.
    """

    def __init__(self, source_type: int, dialect: int, mode: int) -> None:
        Writer.__init__(self)
        self._form = form_of(source_type, dialect, mode)
        self._mode = mode
        self.out_type = (22, 16 if source_type in (23, 25) else 4, 4, 24)[mode]
        self.count_known = mode != DROP_FIELD
        self.fields = 0
        self.fields_with_ttl = 0
        self.fields_dropped = 0
        self.done = False
        self._read = Scanner(bytes(256), dialect, 12, True)
        self._read.where = "a hash's value, byte"
        self._read.offset = 0
        self._state = _BLOB if self._form == 23 else _COUNT
        if self._form in (24, 25):
            self._state = _LEAST
        self._holds = self._form == 122 and mode in (DROP_FIELD, TO_REDIS_EX)
        self._held = bytearray()
        self._least = 1
        self._left = 0
        self._expiry = 0
        self._skip = 0
        self._keep = True
        self._plain_size = 0

    def feed(self, data: Buffer, pos: int, end: int, out: bytearray) -> int:
        """Consumes from ``pos`` and appends to ``out``; returns the new position. What is left (at most 19 bytes) has to be presented again.

        ``done`` afterwards: the value ended at the returned position.
        """
        if pos < 0 or end > len(data) or pos > end:
            raise LocalProtocolError(f"convert from {pos} to {end} in {len(data)} bytes", remedy="report this bug")
        self._out = out
        self._read._base = pos
        after = self._step(data, pos, end)
        self._read.offset += after - pos
        self._flush()
        self._out = bytearray()
        return after

    def _step(self, data: Buffer, pos: int, end: int) -> int:
        read = self._read
        while self._state != _END:
            if self._skip > 0:
                size = end - pos
                if size == 0:
                    return pos
                if size > self._skip:
                    size = self._skip
                if self._state == _BODY or self._holds:
                    if len(self._held) + size > _LARGEST_BLOB:
                        self._too_big(len(self._held) + size)
                    self._held += data[pos : pos + size]
                elif self._keep:
                    self._copy(data, pos, pos + size)
                pos += size
                self._skip -= size
                continue
            state = self._state
            if _FIELD <= state <= _VALUE:
                after = read._string(data, pos, end)
                if after < 0:
                    return pos
                self._skip = read._skip
                read._skip = 0
                if self._holds:
                    self._held += data[pos:after]
                elif self._keep:
                    self._copy(data, pos, after)
                pos = after
                self._state = state + 1
            elif state == _TTL:
                after = read._length(data, pos, end)
                if after < 0:
                    return pos
                self._expiry = self._absolute(read, pos)
                pos = after
                if self._expiry != 0:
                    self.fields_with_ttl += 1
                    if self._mode == _MODE_DROP:
                        self.fields_dropped += 1
                self._keep = self._expiry == 0 or self._mode != _MODE_DROP
                self._state = _FIELD
            elif state == _EXPIRY:
                if self._form == 122:
                    if end - pos < 8:
                        return pos
                    self._after_hash_2(read._bits64(data, pos))
                    pos += 8
                elif self._mode == _MODE_HASH_2:
                    self._little(_NONE if self._expiry == 0 else self._expiry, 8)
                self.fields += 1
                self._left -= 1
                self._next_field()
            elif state == _LEAST:
                if end - pos < 8:
                    return pos
                self._least = read._bits64(data, pos)
                pos += 8
                self._state = _COUNT if self._form == 24 else _BLOB
            elif state == _COUNT:
                after = read._length(data, pos, end)
                if after < 0:
                    return pos
                self._left = read._count(pos)
                pos = after
                if self._mode == _MODE_EX:
                    self._little(1, 8)
                if self._mode != _MODE_DROP:
                    self._length(self._left)
                self._next_field()
            elif state == _BLOB:
                after = read._string(data, pos, end)
                if after < 0:
                    return pos
                if read._skip > _LARGEST_BLOB or (data[pos] == 0xC3 and read._number > _LARGEST_BLOB):
                    self._too_big(max(read._skip, read._number))
                self._plain_size = read._number if data[pos] == 0xC3 else 0
                self._skip = read._skip
                read._skip = 0
                if data[pos] >= 0xC0 and data[pos] != 0xC3:
                    read._broken(pos, "an integer where a listpack should stand")
                pos = after
                self._state = _BODY
            else:  # _BODY, complete
                self._whole_blob()
                self._state = _END
        self.done = True
        return pos

    def _next_field(self) -> None:
        if self._left == 0:
            self._state = _END
        elif self._form == 122:
            self._state = _FIELD
        else:
            self._state = _TTL

    def _absolute(self, read: Scanner, pos: int) -> int:
        """The expiry that was read, in ms since 1970, 0 = none."""
        return absolute(read, pos, self._form == 24, self._least)

    def _after_hash_2(self, expiry: int) -> None:
        if expiry != _NONE:
            if expiry >> 63:
                self._read._broken(0, "a negative field expiry")
            self.fields_with_ttl += 1
        if self._holds:
            if self._mode == _MODE_EX:
                self._length(relative(expiry))
            if self._mode == _MODE_DROP and expiry != _NONE:
                self.fields_dropped += 1
            else:
                held = bytes(self._held)
                self._copy(held, 0, len(held))
            self._held.clear()

    def _whole_blob(self) -> None:
        blob = bytes(self._held)
        self._held.clear()
        if self._plain_size:
            blob = decompress(blob, self._plain_size)
        packed = Packed()
        packed.open(blob, 0, len(blob), self._mode == _MODE_DROP)
        self.fields = packed.fields
        self.fields_with_ttl = packed.with_ttl
        self.fields_dropped = packed.dropped
        if self._mode == _MODE_KEEP:
            packed.write_packed(blob, self)
        else:
            if self._mode == _MODE_HASH_2:
                self._length(packed.fields)
            packed.write_plain(blob, self, self._mode == _MODE_HASH_2)

    def _too_big(self, size: int) -> NoReturn:
        too_large("a listpack hash" if self._form < 26 and self._form % 2 else "one field of a hash", size)
