"""Hashes with field expiry that are whole in the buffer; see convert.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from valkeep.errors import LocalProtocolError

from ..lzf import decompress
from .hash_forms import LARGEST_BLOB, Packed, Writer, absolute, form_of, relative, too_large
from .opcodes import DIALECT_VALKEY, name_of
from .scan import ATTENTION, NEED_MORE, Scanner

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview

__all__ = ["Change", "RecordConverter"]

_MODE_HASH_2 = 0
_MODE_KEEP = 1
_MODE_DROP = 2
_MODE_EX = 3


_SMALL_RECORD = 1 << 16
_LARGEST_BLOB = LARGEST_BLOB
_NONE = 0xFFFFFFFFFFFFFFFF  # -1 as 64 bits

Change = tuple[bytes, int, int, int]
"""One converted record that lost something: (key, database, fields with expiry, fields dropped)."""


class RecordConverter(Writer):
    """Converts whole records: prefix opcodes, type, key, value. Small ones, in one compiled call each.

    After :meth:`convert`: ``key_start``/``key_end`` (the key's bytes in the buffer as they stand), ``fields``, ``fields_with_ttl``, ``fields_dropped``,
    ``empty`` (all were dropped: nothing was written). ``records``: converted since the start.
    ``changes``: see :data:`Change`; the caller drains it. Conversions that lose nothing are only counted.
    """

    def __init__(self, dialect: int, mode: int) -> None:
        Writer.__init__(self)
        form_of(22, dialect, mode)
        self._dialect = dialect
        self._valkey = dialect == DIALECT_VALKEY
        self._mode = mode
        self._read = Scanner(bytes(256), dialect, 12, True)
        self._packed = Packed()
        self.stop = 0
        self.key_start = 0
        self.key_end = 0
        self.fields = 0
        self.fields_with_ttl = 0
        self.fields_dropped = 0
        self.empty = False
        self.records = 0
        self.changes: list[Change] = []
        self._expiry = 0
        self._pair_start = 0
        self._pair_end = 0

    def convert(self, data: Buffer, pos: int, end: int, out: bytearray) -> int:
        """Converts the record at ``pos`` and appends it to ``out``; returns its end, or ``pos`` when it is not whole in the buffer."""
        if pos < 0 or end > len(data) or pos > end:
            raise LocalProtocolError(f"convert from {pos} to {end} in {len(data)} bytes", remedy="report this bug")
        self._out = out
        after = self._convert(data, pos, end)
        self._flush()
        self._out = bytearray()
        return after

    def translate(self, scanner: Scanner, data: Buffer, pos: int, end: int, out: bytearray) -> int:
        """Scans from ``pos``, appends what may pass as it is and what could be converted to ``out``; returns the new position.

        ``stop`` afterwards, as the scanner's: NEED_MORE, END, ITEM, or ATTENTION for a flagged item that is not a hash with field expiry, or
        is one that is not whole in this buffer although 64 KiB of it are there: that is one for :class:`HashConverter`.
        """
        if pos < 0 or end > len(data) or pos > end:
            raise LocalProtocolError(f"translate from {pos} to {end} in {len(data)} bytes", remedy="report this bug")
        self._out = out
        while True:
            after = scanner.scan(data, pos, end)
            self._copy(data, pos, after)
            pos = after
            self.stop = scanner.stop
            if self.stop != ATTENTION or scanner.type < 22 or scanner.type > (22 if self._valkey else 25):
                break
            self._read.offset = scanner.offset
            after = self._convert(data, pos, end)
            if after == pos:
                if end - pos < _SMALL_RECORD:
                    self.stop = NEED_MORE
                break
            scanner.resume_after(after - pos)
            if self.fields_with_ttl > 0 and self._mode != _MODE_HASH_2 and self._mode != _MODE_EX:
                self._changed(data, scanner.database)
            pos = after
        self._flush()
        self._out = bytearray()
        return pos

    def _changed(self, data: Buffer, database: int) -> None:
        read = self._read
        key, _ = read._read_string(data, self.key_start, self.key_end)
        read._skip = 0
        if key is not None:
            self.changes.append((key, database, self.fields_with_ttl, self.fields_dropped))

    def _convert(self, data: Buffer, pos: int, end: int) -> int:
        read = self._read
        read._base = pos
        start = pos
        while True:
            if pos >= end:
                return start
            kind = data[pos]
            if kind < 242:
                break
            after = read._prefix(data, pos + 1, end, kind)
            if after < 0:
                return start
            if after == 0:
                read._broken(pos, f"opcode {kind} where a record should begin")
            pos = after
        kind_pos = pos
        form = kind
        if self._valkey:
            form += 100
        if form != 122 and (form < 22 or form > 25):
            raise LocalProtocolError(f"{name_of(self._dialect, kind)} is no hash with field expiry", remedy="report this bug")
        self.key_start = pos + 1
        pos = read._string(data, pos + 1, end)
        if pos < 0 or read._skip > end - pos:
            read._skip = 0
            return start
        pos += read._skip
        read._skip = 0
        self.key_end = pos
        if form == 23 or form == 25:
            return self._convert_packed(data, start, kind_pos, end, form)
        return self._convert_plain(data, start, kind_pos, end, form)

    def _head(self, data: Buffer, start: int, kind_pos: int, out_type: int) -> None:
        self._copy(data, start, kind_pos)
        self._byte(out_type)
        self._copy(data, self.key_start, self.key_end)

    def _counted(self, fields: int, with_ttl: int, dropped: int) -> None:
        self.fields = fields
        self.fields_with_ttl = with_ttl
        self.fields_dropped = dropped
        self.empty = fields == dropped
        self.records += 1

    def _convert_packed(self, data: Buffer, start: int, kind_pos: int, end: int, form: int) -> int:
        read = self._read
        pos = self.key_end
        if form == 25:
            if end - pos < 8:
                return start
            pos += 8
        after = read._string(data, pos, end)
        size = read._skip
        read._skip = 0
        if after < 0 or size > end - after:
            return start
        first = data[pos]
        if first >= 0xC0 and first != 0xC3:
            read._broken(pos, "an integer where a listpack should stand")
        if size > _LARGEST_BLOB or (first == 0xC3 and read._number > _LARGEST_BLOB):
            too_large("a listpack hash", size)
        if first == 0xC3:
            blob = decompress(bytes(data[after : after + size]), read._number)
            self._pack(data, start, kind_pos, blob, 0, len(blob))
        else:
            self._pack(data, start, kind_pos, data, after, after + size)
        return after + size

    def _pack(self, data: Buffer, start: int, kind_pos: int, blob: Buffer, pos: int, end: int) -> None:
        """The record with the listpack ``blob[pos:end]``."""
        packed = self._packed
        packed.open(blob, pos, end, self._mode == _MODE_DROP)
        self._counted(packed.fields, packed.with_ttl, packed.dropped)
        if not self.empty:
            if self._mode == _MODE_HASH_2:
                self._head(data, start, kind_pos, 22)
                self._length(packed.fields)
                packed.write_plain(blob, self, True)
            else:
                self._head(data, start, kind_pos, 16)
                packed.write_packed(blob, self)

    def _convert_plain(self, data: Buffer, start: int, kind_pos: int, end: int, form: int) -> int:
        """Forms 24, 22 and HASH_2: once over the value to see that it is whole and to count, once more to write."""
        read = self._read
        pos = self.key_end
        least = 0
        if form == 24:
            if end - pos < 8:
                return start
            least = read._bits64(data, pos)
            pos += 8
        pos = read._length(data, pos, end)
        if pos < 0:
            return start
        fields = read._count(pos)
        if fields > end - pos:
            return start  # a field has two bytes at least
        body = pos
        with_ttl = 0
        left = fields
        while left > 0:
            left -= 1
            pos = self._over(data, pos, end, form, least)
            if pos < 0:
                return start
            if self._expiry != _NONE:
                with_ttl += 1
                if self._mode == _MODE_EX:
                    relative(self._expiry)
        dropped = 0
        if self._mode == _MODE_DROP:
            dropped = with_ttl
        self._counted(fields, with_ttl, dropped)
        if self.empty:
            return pos
        stop = pos
        pos = body
        self._head(data, start, kind_pos, self._out_type())
        if self._mode == _MODE_EX:
            self._little(1, 8)
        self._length(fields - dropped)
        left = fields
        while left > 0:
            left -= 1
            pos = self._over(data, pos, end, form, least)
            if self._mode == _MODE_DROP and self._expiry != _NONE:
                continue
            if self._mode == _MODE_EX:
                self._length(relative(self._expiry))
            self._copy(data, self._pair_start, self._pair_end)
            if self._mode == _MODE_HASH_2:
                self._little(self._expiry, 8)
        return stop

    def _out_type(self) -> int:
        if self._mode == _MODE_HASH_2:
            return 22
        if self._mode == _MODE_EX:
            return 24
        return 4

    def _over(self, data: Buffer, pos: int, end: int, form: int, least: int) -> int:
        """Over one field: its end, −1 = not whole. Leaves where field and value stand, and the expiry (_NONE = none)."""
        read = self._read
        self._expiry = _NONE
        if form != 122:
            start = pos
            pos = read._length(data, pos, end)
            if pos < 0:
                return -1
            expiry = absolute(read, start, form == 24, least)
            if expiry != 0:
                self._expiry = expiry
        self._pair_start = pos
        pos = read._string(data, pos, end)
        if pos < 0 or read._skip > end - pos:
            read._skip = 0
            return -1
        pos = read._string(data, pos + read._skip, end)
        if pos < 0 or read._skip > end - pos:
            read._skip = 0
            return -1
        pos += read._skip
        read._skip = 0
        self._pair_end = pos
        if form == 122:
            if end - pos < 8:
                return -1
            self._expiry = read._bits64(data, pos)
            if self._expiry != _NONE and self._expiry >> 63:
                read._broken(pos, "a negative field expiry")
            pos += 8
        return pos
