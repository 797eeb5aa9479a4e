"""Steps over the records of a snapshot (RDB) without decoding them: the gateway's hot path.

What a scanner is for: a snapshot goes from the source to the target as bytes, and only the few records that the target can't take are
looked into. So somebody has to know where each record begins and ends, and of which type it is, at the speed of the copy itself.

How: every type and opcode has a *layout*, a word over a small alphabet (see layouts.py). All layouts together are one program, and the
scanner is the machine that runs it: its whole state is a place in the program, at most three loop counters, and how many bytes of
a string are still to be skipped. So it can stop after any byte. Strings of whatever size stream through; what it holds back is

* a record's *header*: prefix opcodes (expiry, LFU/LRU, module metadata), type byte and key, because whoever forwards a header can't take
  it back, and the type decides; a caller presents an incomplete header again, with more bytes;
* inside a value, an incomplete length (at most 28 bytes).

No memory is ever reserved by what a length claims: strings above 1 TiB and counts above 2^48 are called broken at once, anything below
just never completes, and the caller notices the end of its input.

This module is long because it is one machine: its parts work on each other's positions, and calls between compiled modules would cost as much as
the work itself.

What it does not do: check CRCs, look into packed encodings (ziplist, listpack, intset: they are strings here), or judge whether a
type belongs to the snapshot's version.

Sources: valkey rdb.c/rdb.h 9.1, redis rdb.c 7.4 – 8.4, keymeta.c of 8.6; measured facts of the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from valkeep.errors import LocalProtocolError, RemoteProtocolError

from .layouts import ENTRIES, JUMPS, PROGRAM
from .opcodes import DIALECT_REDIS, DIALECT_VALKEY, HEADER_SIZE, Header, check_version, name_of, parse_header

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview

__all__ = [
    "ATTENTION",
    "END",
    "ITEM",
    "NEED_MORE",
    "Header",
    "Prefix",
    "Scanner",
    "parse_header",
    "parse_record_prefix",
    "read_length",
    "read_string",
]

NEED_MORE = 0
ATTENTION = 1
END = 2
ITEM = 3

REDIS = DIALECT_REDIS
VALKEY = DIALECT_VALKEY

_OP_EOF = 255
_OP_SELECTDB = 254
_OP_EXPIRETIME = 253
_OP_EXPIRETIME_MS = 252
_OP_FREQ = 249
_OP_IDLE = 248
_OP_KEY_META = 243
_FIRST_OPCODE = 242

_S, _L, _8, _G, _D, _M, _OPEN, _CLOSE = b"SL8GDM()"
_DONE = 0
_MAX_STRING = 1 << 40
_MAX_COUNT = 1 << 48
_MAX_KEY = 512 << 20  # bytes: what servers take; a key is held back until it is whole, so that a wrong length would hold back the snapshot
_MAX_META = 1 << 20  # bytes of a key's metadata: held back and read again with every piece, so that much more would cost the square


@dataclass(frozen=True, slots=True)
class Prefix:
    """A record up to its value. ``expire_ms``: −1 none; ``freq``, ``idle`` (seconds): −1 none; positions are those of the buffer read.

    ``meta_start``/``meta_length``: the span of a KEY_META prefix including its opcode byte, 0/0 without one. ``type_pos``: the type
    byte; the key's bytes as they stand (length included) are ``[type_pos + 1, value_pos)``.
    """

    expire_ms: int
    freq: int
    idle: int
    meta_start: int
    meta_length: int
    type: int
    key: bytes
    type_pos: int
    value_pos: int


class Scanner:
    """Steps over items; see the head of this file.

    ``attention``: 256 flags, 1 = stop before a record or opcode of this type. A flagged prefix opcode (248, 249, 252, 253, 243) stops
    before each record that has it. ``dialect``, ``version``: of the snapshot's header, which the caller has read.

    ``stop`` after :meth:`scan`: NEED_MORE, ATTENTION (``type`` says which), END, or ITEM after :meth:`take`.
    ``keys``: records passed; ``expires``: those of them with an expiry; ``database``: the last SELECTDB passed (a caller that flags
    SELECTDB sets it). ``offset``: bytes of the snapshot before the next one to be given; it begins with 9, and a caller that consumes
    flagged items itself tells so by :meth:`resume_after`.
    """

    def __init__(self, attention: bytes, dialect: int = REDIS, version: int = 12, version_unknown_ok: bool = False) -> None:
        if len(attention) != 256:
            raise LocalProtocolError(f"attention has {len(attention)} flags instead of 256", remedy="report this bug")
        if dialect not in ENTRIES:
            raise LocalProtocolError(f"unknown dialect {dialect!r}", remedy="report this bug")
        if not version_unknown_ok:
            check_version(Header(dialect, version))
        self.attention = attention
        self.program = PROGRAM
        self.jumps = JUMPS
        self.entries = ENTRIES[dialect]
        self.is_redis = dialect == REDIS
        self.stop = 0
        self.type = -1
        self.keys = 0
        self.expires = 0
        self.database = 0
        self.offset = HEADER_SIZE
        self.where = "snapshot byte"
        self._base = 0
        self._taking = False
        self._ip = 0
        self._depth = 0
        self._skip = 0
        self._number = 0
        self._is_record = False
        self._expire = -1
        self._freq = -1
        self._idle = -1
        self._meta = 0
        self._meta_end = 0
        self._type_pos = 0
        self._key_pos = 0
        self._count0 = 0
        self._count1 = 0
        self._count2 = 0

    def scan(self, data: Buffer, pos: int, end: int) -> int:
        """Consumes from ``pos``; returns where it stopped. ``data[pos:returned]`` may be passed on as it is.

        What is left, ``data[returned:end]``, has to be presented again, with more bytes after it.
        """
        if pos < 0 or end > len(data) or pos > end:
            raise LocalProtocolError(f"scan from {pos} to {end} in {len(data)} bytes", remedy="report this bug")
        self._base = pos
        after = self._run(data, pos, end)
        self.offset += after - pos
        self._base = after
        return after

    def resume_after(self, consumed: int = 0) -> None:
        """The caller has consumed the flagged item itself, ``consumed`` bytes of it: the next byte given begins an item."""
        self.offset += consumed
        self.type = -1
        self._taking = False

    def take(self) -> None:
        """The flagged item shall be stepped over after all, and alone: :meth:`scan` then passes over it and stops with ITEM behind it.

        So a caller can copy or drop an item that it flagged. Bytes passed meanwhile belong to this item only.
        """
        self._taking = True

    @property
    def inside(self) -> bool:
        """Whether the bytes passed so far end within an item."""
        return self._ip != 0

    def _run(self, data: Buffer, pos: int, end: int) -> int:
        self.stop = 0
        if self._ip:
            pos = self._value(data, pos, end)
            if self._busy():
                return pos
            self._passed()
            if self._stopped():
                return pos
        while pos < end:
            start = pos
            kind = data[pos]
            pos += 1
            expiring = 0
            if kind >= _FIRST_OPCODE:
                if kind == _OP_EOF:
                    self.stop = 2
                    self.type = kind
                    return start
                while kind >= _FIRST_OPCODE:
                    if self.attention[kind] and not self._taking:
                        self.stop = 1
                        self.type = kind
                        return start
                    after = self._prefix(data, pos, end, kind)
                    if after == 0:
                        break
                    if after - start > _MAX_META << 1:
                        self._broken(start, f"more than {_MAX_META << 1} bytes before a record")
                    if after < 0 or after >= end:
                        return start
                    if kind >= _OP_EXPIRETIME_MS:
                        expiring = 1
                    kind = data[after]
                    pos = after + 1
                    if kind >= _FIRST_OPCODE and (kind == _OP_EOF or self.entries[kind] != 0):
                        self._broken(after, f"opcode {kind} where a record should follow its expiry or other prefix")
                if kind >= _FIRST_OPCODE:  # an opcode that stands alone
                    pos = self._opcode(data, start, end, kind)
                    if pos < 0:
                        return start
                    if self._busy():
                        return pos
                    if self._stopped():
                        return pos
                    continue
            if self.attention[kind] and not self._taking:
                self.stop = 1
                self.type = kind
                return start
            entry = self.entries[kind]
            if entry == 0:
                self._unknown(pos - 1, kind)
            pos = self._string(data, pos, end)
            if pos < 0 or self._skip > end - pos:
                if self._skip > _MAX_KEY:
                    self._broken(start, f"a key of {self._skip} bytes")
                self._skip = 0
                return start
            pos += self._skip
            self._skip = 0
            self.expires += expiring
            if self.program[entry] == _S and self.program[entry + 1] == _DONE:  # one string: most records there are
                after = self._string(data, pos, end)
                if after >= 0 and self._skip <= end - after:
                    pos = after + self._skip
                    self._skip = 0
                    self.keys += 1
                    if self._taking:
                        self._taking = False
                        self.stop = 3
                        return pos
                    continue
                self._skip = 0
            self._is_record = True
            self._ip = entry
            self._depth = 0
            pos = self._value(data, pos, end)
            if self._busy():
                return pos
            self._passed()
            if self._stopped():
                return pos
        return pos

    def _busy(self) -> bool:
        return self._ip != 0

    def _stopped(self) -> bool:
        return self.stop != 0

    def _passed(self) -> None:
        if self._is_record:
            self.keys += 1
            self._is_record = False
        if self._taking:
            self._taking = False
            self.stop = 3

    def _opcode(self, data: Buffer, start: int, end: int, kind: int) -> int:
        """Over the opcode at ``start`` as far as the buffer goes; −1 = need more before anything of it can be passed."""
        pos = start + 1
        if kind == _OP_SELECTDB:
            pos = self._length(data, pos, end)
            if pos < 0:
                return -1
            if self._number > 0x7FFFFFFF:
                self._broken(start, f"database {self._number}")
            self.database = self._number
            self._passed()
            return pos
        self._is_record = False
        self._ip = self.entries[kind]
        self._depth = 0
        pos = self._value(data, pos, end)
        if self._ip == 0:
            self._passed()
        return pos

    def _prefix(self, data: Buffer, pos: int, end: int, kind: int) -> int:
        """Over the body of prefix opcode ``kind`` (``pos`` is after its byte): the new position, −1 = need more, 0 = it is no prefix."""
        if kind == _OP_EXPIRETIME_MS:
            if end - pos < 8:
                return -1
            self._expire = self._little(data, pos, 8)
            return pos + 8
        if kind == _OP_EXPIRETIME:
            if end - pos < 4:
                return -1
            self._expire = self._little(data, pos, 4)
            self._expire *= 1000
            return pos + 4
        if kind == _OP_FREQ:
            if pos >= end:
                return -1
            self._freq = data[pos]
            return pos + 1
        if kind == _OP_IDLE:
            pos = self._length(data, pos, end)
            if pos > 0:
                self._idle = self._number & 0x7FFFFFFFFFFFFFFF
            return pos
        if kind == _OP_KEY_META and self.is_redis:
            start = pos - 1
            pos = self._key_meta(data, pos, end)
            if pos > 0:
                self._meta = start
                self._meta_end = pos
            return pos
        if self.entries[kind] == 0:
            self._unknown(pos - 1, kind)
        return 0

    def _key_meta(self, data: Buffer, pos: int, end: int) -> int:
        """``n × (4 bytes class, tagged values)``; held back as a whole: it is part of the header."""
        pos = self._length(data, pos, end)
        if pos < 0:
            return -1
        classes = self._number
        if classes > 7:  # keymeta.h: KEY_META_ID_MODULE_LAST
            self._broken(pos, f"{classes} classes of key metadata, at most 7 are possible")
        start = pos
        while classes > 0:
            classes -= 1
            if end - pos < 4:
                return -1
            pos += 4
            while True:
                pos = self._tagged(data, pos, end)
                if pos >= 0 and self._skip > _MAX_META - (pos - start):
                    self._broken(start, f"more than {_MAX_META} bytes of key metadata")
                if pos < 0 or self._skip > end - pos:
                    self._skip = 0
                    return -1
                pos += self._skip
                self._skip = 0
                if self._number == 0:
                    break
        return pos

    def _value(self, data: Buffer, pos: int, end: int) -> int:
        """Runs the item's program from where it stands; ``_ip`` is 0 when it is finished. Returns what is passed."""
        ip = self._ip
        skip = self._skip
        while True:
            if skip > 0:
                if skip > end - pos:
                    self._skip = skip - (end - pos)
                    self._ip = ip
                    return end
                pos += skip
                skip = 0
            op = self.program[ip]
            if op == _S:
                after = self._string(data, pos, end)
                if after < 0:
                    break
                pos = after
                skip = self._skip
                ip += 1
            elif op == _CLOSE:
                if self._again():
                    ip = self.jumps[ip]
                else:
                    ip += 1
            elif op == _L:
                after = self._length(data, pos, end)
                if after < 0:
                    break
                pos = after
                ip += 1
            elif op == _8:
                skip = 8
                ip += 1
            elif op == _G:
                skip = 16
                ip += 1
            elif op == _OPEN:
                after = self._length(data, pos, end)
                if after < 0:
                    break
                if self._number > _MAX_COUNT:
                    self._broken(pos, f"{self._number} elements")
                pos = after
                if self._number == 0:
                    ip = self.jumps[ip]
                else:
                    self._enter()
                    ip += 1
            elif op == _DONE:
                self._ip = 0
                self._skip = 0
                return pos
            elif op == _D:
                if pos >= end:
                    break
                skip = data[pos]
                if skip > 252:
                    skip = 0
                pos += 1
                ip += 1
            else:  # _M
                after = self._tagged(data, pos, end)
                if after < 0:
                    break
                pos = after
                skip = self._skip
                if self._number == 0:
                    ip += 1
        self._ip = ip
        self._skip = 0
        return pos

    def _enter(self) -> None:
        if self._depth == 0:
            self._count0 = self._number
        elif self._depth == 1:
            self._count1 = self._number
        else:
            self._count2 = self._number
        self._depth += 1

    def _again(self) -> bool:
        """At a loop's end: whether another round follows."""
        if self._depth == 1:
            self._count0 -= 1
            if self._count0 > 0:
                return True
        elif self._depth == 2:
            self._count1 -= 1
            if self._count1 > 0:
                return True
        else:
            self._count2 -= 1
            if self._count2 > 0:
                return True
        self._depth -= 1
        return False

    def _tagged(self, data: Buffer, pos: int, end: int) -> int:
        """One tagged module value: leaves its tag in ``_number`` and the bytes that follow in ``_skip``. −1 = need more."""
        start = pos
        pos = self._length(data, pos, end)
        if pos < 0:
            return -1
        tag = self._number
        self._skip = 0
        if tag == 1 or tag == 2:  # signed, unsigned
            pos = self._length(data, pos, end)
        elif tag == 3:  # float
            self._skip = 4
        elif tag == 4:  # double
            self._skip = 8
        elif tag == 5:
            pos = self._string(data, pos, end)
        elif tag != 0:
            self._broken(start, f"a module value of kind {tag}")
        self._number = tag
        return pos

    def _string(self, data: Buffer, pos: int, end: int) -> int:
        """A string's header: its end, with the body's size left in ``_skip``; −1 = need more."""
        if pos >= end:
            return -1
        first = data[pos]
        if first < 0x40:  # 00LLLLLL
            self._skip = first
            return pos + 1
        if first < 0x80:  # 01LLLLLL LLLLLLLL
            if end - pos < 2:
                return -1
            self._skip = ((first & 0x3F) << 8) | data[pos + 1]
            return pos + 2
        if first < 0xC0:
            after = self._length(data, pos, end)
            if after < 0:
                return -1
            if self._number > _MAX_STRING:
                self._broken(pos, f"a string of {self._number} bytes")
            self._skip = self._number
            return after
        if first < 0xC3:  # C0 int8, C1 int16, C2 int32
            self._skip = 1 << (first & 0x3F)
            return pos + 1
        if first > 0xC3:
            self._broken(pos, f"unknown string encoding {first:#04x}")
        after = self._length(data, pos + 1, end)  # C3 LZF: packed size, plain size
        if after < 0:
            return -1
        packed = self._number
        after = self._length(data, after, end)
        if after < 0:
            return -1
        if packed > _MAX_STRING or self._number > _MAX_STRING or packed == 0:
            self._broken(pos, f"a compressed string of {packed} bytes, {self._number} unpacked")
        self._skip = packed
        return after

    def _length(self, data: Buffer, pos: int, end: int) -> int:
        """A length, left in ``_number``: the position after it; −1 = need more."""
        if pos >= end:
            return -1
        first = data[pos]
        if first < 0x40:  # 00LLLLLL
            self._number = first
            return pos + 1
        if first < 0x80:  # 01LLLLLL LLLLLLLL
            if end - pos < 2:
                return -1
            self._number = ((first & 0x3F) << 8) | data[pos + 1]
            return pos + 2
        size = 4  # 80, 4 bytes big-endian
        if first == 0x81:  # 81, 8 bytes big-endian
            size = 8
        elif first != 0x80:
            self._broken(pos, f"{first:#04x} where a length should stand")
        if end - pos <= size:
            return -1
        number = 0
        for i in range(size):
            number = (number << 8) | data[pos + 1 + i]
        self._number = number
        return pos + 1 + size

    def _little(self, data: Buffer, pos: int, size: int) -> int:
        """A little-endian time of 4 or 8 bytes."""
        number = 0
        for i in range(size, 0, -1):
            number = (number << 8) | data[pos + i - 1]
        if number > 0x7FFFFFFFFFFFFFFF:
            self._broken(pos, f"an expiry of {number}")
        return number

    def _bits64(self, data: Buffer, pos: int) -> int:
        """Eight bytes, little-endian, unsigned."""
        number = 0
        for i in range(8, 0, -1):
            number = (number << 8) | data[pos + i - 1]
        return number

    def _count(self, pos: int) -> int:
        """The length just read, as a number of elements."""
        if self._number > _MAX_COUNT:
            self._broken(pos, f"{self._number} elements")
        return self._number

    def _unknown(self, pos: int, kind: int) -> NoReturn:
        at = self.offset + pos - self._base
        raise RemoteProtocolError(
            f"{self.where} {at}: {name_of(REDIS if self.is_redis else VALKEY, kind)}, which this Valkeep can't step over",
            remedy="the snapshot is damaged, or its server is newer than this Valkeep: check the server's version",
        )

    def _broken(self, pos: int, text: str) -> NoReturn:
        at = self.offset + pos - self._base
        raise RemoteProtocolError(
            f"{self.where} {at}: {text}",
            remedy="the snapshot is damaged: check the link and the source's memory, and start again",
        )

    def prefix(self, data: Buffer, pos: int, end: int) -> Prefix | None:
        """See :func:`parse_record_prefix`; it does not move the scanner."""
        value_pos = self.head(data, pos, end)
        if value_pos < 0:
            return None
        expire, meta = self._expire, self._meta
        key, _ = self._read_string(data, self._type_pos + 1, value_pos)
        self._skip = 0
        assert key is not None  # head() has seen that it is all there
        return Prefix(expire, self._freq, self._idle, meta, self._meta_end - meta, data[self._type_pos], key, self._type_pos, value_pos)

    def head(self, data: Buffer, pos: int, end: int) -> int:
        """Over a record's prefix opcodes, type and key, which begin at ``pos``: where its value begins, or −1 when that is not all there. What was found is
        left in ``_expire``, ``_freq``, ``_idle``, ``_type_pos``; the key's bytes without their length begin at ``_key_pos``."""
        self._base = pos
        self._expire = self._freq = self._idle = -1
        self._meta = self._meta_end = 0
        while True:
            if pos >= end:
                return -1
            kind = data[pos]
            if kind < _FIRST_OPCODE:
                break
            after = self._prefix(data, pos + 1, end, kind) if kind != _OP_EOF else 0
            if after < 0:
                return -1
            if after == 0:
                self._broken(pos, f"opcode {kind} where a record should begin")
            pos = after
        self._type_pos = pos
        after = self._string(data, pos + 1, end)
        size = self._skip
        self._skip = 0
        if after < 0:
            return -1
        if size > end - after:
            if size > _MAX_KEY:
                self._broken(pos, f"a key of {size} bytes")
            return -1
        self._key_pos = after
        return after + size

    def whole(self, data: Buffer, pos: int, end: int, kind: int) -> int:
        """Over a whole value of type ``kind``, which begins at ``pos``: where it ends, or −1 when it is not all there. Not within :meth:`scan`."""
        self._base = pos
        entry = self.entries[kind]
        if entry == 0:
            self._unknown(pos, kind)
        self._ip = entry
        self._depth = 0
        self._skip = 0
        after = self._value(data, pos, end)
        busy = self._busy()
        self._ip = 0
        self._skip = 0
        return -1 if busy else after

    def _read_string(self, data: Buffer, pos: int, end: int) -> tuple[bytes | None, int]:
        after = self._string(data, pos, end)
        if after < 0 or self._skip > end - after:
            return None, -1
        until = after + self._skip
        body = bytes(data[after:until])
        first = data[pos]
        if first < 0xC0:
            return body, until
        if first < 0xC3:
            return b"%d" % int.from_bytes(body, "little", signed=True), until
        from ..lzf import decompress

        return decompress(body, self._number), until


def parse_record_prefix(data: Buffer, pos: int, end: int, dialect: int = REDIS) -> Prefix | None:
    """Reads a record's prefix opcodes, type and key; None = more bytes are needed."""
    return Scanner(bytes(256), dialect, 12, True).prefix(data, pos, end)


def read_length(data: Buffer, pos: int, end: int) -> tuple[int, int]:
    """A length and the position after it; ``(0, -1)`` = more bytes are needed."""
    reader = Scanner(bytes(256), REDIS, 12, True)
    reader._base = pos
    after = reader._length(data, pos, end)
    if after < 0:
        return 0, -1
    return reader._number, after


def read_string(data: Buffer, pos: int, end: int) -> tuple[bytes | None, int]:
    """A string, decoded (integers as decimal text, LZF unpacked), and the position after it; ``(None, -1)`` = more bytes are needed."""
    reader = Scanner(bytes(256), REDIS, 12, True)
    reader._base = pos
    return reader._read_string(data, pos, end)
