"""What a snapshot holds, as one row of 32 bytes a key: so that two servers can be compared without asking them a command per key.

A row is ``<16 bytes: digest of database and key> <16 bytes: digest of the logical value>``. Equal keys on both sides have equal rows however their
values are encoded: as listpack or hash table, compressed or not, in whatever order a table happens to be walked.

    key digest     H(database, key)
    string         H(kind, expiry, value)
    list           H(kind, expiry, n, chain)            chain: c = H(c, item), item by item
    stream         H(kind, expiry, n, chain)            the entries, then length, last id, max deleted id, entries added, then the groups
    set            H(kind, expiry, n, sum)              sum: of H(member), as two sums modulo 2^64
    zset           H(kind, expiry, n, sum)              of H(member, score); the score by the bits of its double, -0 as 0
    hash           H(kind, expiry, n, sum)              of H(field, value, field expiry)

H is SipHash-1-3 with 128 bits, keyed by the caller with a random key for each comparison. *Sums and not XOR*: with XOR two equal faults cancel
out, and without a secret key a set could be built whose sum is that of another; with one, a sum is as good as its parts. The input of H is words
of 8 bytes; a string is its length and its bytes padded with zeros, so that no two inputs have the same words.

Not in the digest, because it may differ between healthy servers: LRU and LFU, consumers' times, delivery times, consumers that own nothing (an
XREADGROUP that finds nothing makes one, and that is not replicated), and metadata of modules. Empty lists, sets, zsets and hashes have no row:
servers drop such keys when they load them.

``field_ttl`` makes the digest that of the value *after* the transformation: EXACT, or KEEP_FIELD (field expiry ignored), or DROP_FIELD (fields
that expire are left out; a hash without other fields has no row).

In compiled code strings are read through a C pointer, within the length of the bytes object; everything else is bounds-checked. The module is
long because SipHash has to be in it: only there does the C compiler put its rounds into the digester's calls.

Source: the SipHash paper and its reference code (128-bit variant: v1 ^= 0xEE, 0xEE and 0xDD before the final rounds).
"""

# ruff: noqa: ARG002 - a handler is told more than a digest needs

from __future__ import annotations

from struct import Struct

from valkeep.errors import LocalProtocolError

from .rdb.handler import Handler
from .rdb.opcodes import KIND_HASH, KIND_MODULE, KIND_STREAM

__all__ = ["DROP_FIELD", "EXACT", "KEEP_FIELD", "ROW", "Digester", "siphash13"]

EXACT = 0
KEEP_FIELD = 1
DROP_FIELD = 2

ROW = 32  # bytes

_KEEP = 1
_DROP = 2
_HASH = KIND_HASH
_STREAM = KIND_STREAM
_MODULE = KIND_MODULE
_M = 0xFFFFFFFFFFFFFFFF
_SCRATCH = 2048 * 32

_C0 = 0x736F6D6570736575  # "somepseudorandomlygeneratedbytes"
_C1 = 0x646F72616E646F6D
_C2 = 0x6C7967656E657261
_C3 = 0x7465646279746573

_DOUBLE = Struct("<d")


class Sip:
    """SipHash-1-3, 128 bits, over words: ``_start``, ``_word`` and ``_string``, ``_finish``; the result is in ``_h0``, ``_h1``."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 16:
            raise LocalProtocolError(f"a SipHash key has 16 bytes, not {len(key)}", remedy="report this bug")
        self._k0 = int.from_bytes(key[:8], "little")
        self._k1 = int.from_bytes(key[8:], "little")
        self._v0 = 0
        self._v1 = 0
        self._v2 = 0
        self._v3 = 0
        self._words = 0
        self._h0 = 0
        self._h1 = 0

    def _start(self) -> None:
        self._v0 = _C0 ^ self._k0
        self._v1 = _C1 ^ self._k1 ^ 0xEE
        self._v2 = _C2 ^ self._k0
        self._v3 = _C3 ^ self._k1
        self._words = 0

    def _word(self, m: int) -> None:
        self._v3 ^= m
        self._rounds(1)
        self._v0 ^= m
        self._words += 1

    def _rounds(self, n: int) -> None:
        v0 = self._v0
        v1 = self._v1
        v2 = self._v2
        v3 = self._v3
        while n > 0:
            n -= 1
            v0 = (v0 + v1) & _M
            v2 = (v2 + v3) & _M
            v1 = ((v1 << 13) & _M | v1 >> 51) ^ v0
            v3 = ((v3 << 16) & _M | v3 >> 48) ^ v2
            v0 = (v0 << 32) & _M | v0 >> 32
            v2 = (v2 + v1) & _M
            v0 = (v0 + v3) & _M
            v1 = ((v1 << 17) & _M | v1 >> 47) ^ v2
            v3 = ((v3 << 21) & _M | v3 >> 43) ^ v0
            v2 = (v2 << 32) & _M | v2 >> 32
        self._v0 = v0
        self._v1 = v1
        self._v2 = v2
        self._v3 = v3

    def _string(self, data: bytes) -> None:
        """The length as a word, then the bytes, eight a word, the last one padded with zeros."""
        size = len(data)
        self._word(size)
        p = data
        i = 0
        v0 = self._v0
        v1 = self._v1
        v2 = self._v2
        v3 = self._v3
        while i < size:
            if size - i >= 8:
                m = p[i + 7]
                m = m << 8 | p[i + 6]
                m = m << 8 | p[i + 5]
                m = m << 8 | p[i + 4]
                m = m << 8 | p[i + 3]
                m = m << 8 | p[i + 2]
                m = m << 8 | p[i + 1]
                m = m << 8 | p[i]
            else:
                m = 0
                left = size - i
                while left > 0:
                    left -= 1
                    m = m << 8 | p[i + left]
            i += 8
            v3 ^= m
            v0 = (v0 + v1) & _M
            v2 = (v2 + v3) & _M
            v1 = ((v1 << 13) & _M | v1 >> 51) ^ v0
            v3 = ((v3 << 16) & _M | v3 >> 48) ^ v2
            v0 = (v0 << 32) & _M | v0 >> 32
            v2 = (v2 + v1) & _M
            v0 = (v0 + v3) & _M
            v1 = ((v1 << 17) & _M | v1 >> 47) ^ v2
            v3 = ((v3 << 21) & _M | v3 >> 43) ^ v0
            v2 = (v2 << 32) & _M | v2 >> 32
            v0 ^= m
            self._words += 1
        self._v0 = v0
        self._v1 = v1
        self._v2 = v2
        self._v3 = v3

    def _finish(self) -> None:
        self._word((self._words & 0x1F) << 59)  # the length in bytes, modulo 256, in the highest byte
        self._v2 ^= 0xEE
        self._rounds(3)
        self._h0 = self._v0 ^ self._v1 ^ self._v2 ^ self._v3
        self._v1 ^= 0xDD
        self._rounds(3)
        self._h1 = self._v0 ^ self._v1 ^ self._v2 ^ self._v3


def siphash13(key: bytes, words: list[int]) -> bytes:
    """The 16 bytes of SipHash-1-3-128 of a message of 64-bit words, little-endian."""
    sip = Sip(key)
    sip._start()
    for word in words:
        sip._word(word)
    sip._finish()
    return sip._h0.to_bytes(8, "little") + sip._h1.to_bytes(8, "little")


class Digester(Handler):
    """Makes a row of each record it is told; see the head of this file.

    ``key``: 16 random bytes, the same for both sides. ``drain`` after every feed of the decoder: rows are kept until then.
    ``keys``: rows made; ``absent``: records without a row. ``functions``: how many libraries, and ``functions_digest`` over all of them.
    """

    def __init__(self, key: bytes, field_ttl: int = EXACT) -> None:
        if field_ttl not in (EXACT, KEEP_FIELD, DROP_FIELD):
            raise LocalProtocolError(f"unknown field_ttl {field_ttl}", remedy="report this bug")
        self._sip = Sip(key)
        self._field_ttl = field_ttl
        self.database = 0
        self.keys = 0
        self.absent = 0
        self.functions = 0
        self._functions0 = 0
        self._functions1 = 0
        self._scratch = bytearray(_SCRATCH)
        self._view = memoryview(self._scratch)
        self._fill = 0
        self._rows = bytearray()
        self._kind = -1
        self._expire = 0
        self._count = 0
        self._key0 = 0
        self._key1 = 0
        self._a0 = 0
        self._a1 = 0
        self._consumer = b""

    def drain(self) -> bytes:
        """The rows made since the last call, one after the other."""
        self._rows += self._scratch[: self._fill]
        self._fill = 0
        rows = bytes(self._rows)
        self._rows.clear()
        return rows

    def key_digest(self, database: int, key: bytes) -> bytes:
        """The first half of the row of that key: to find its name again in a second pass."""
        self._hash_key(database, key)
        return self._sip._h0.to_bytes(8, "little") + self._sip._h1.to_bytes(8, "little")

    @property
    def functions_digest(self) -> bytes:
        return self._functions0.to_bytes(8, "little") + self._functions1.to_bytes(8, "little")

    # ---- what the decoder tells

    def select(self, database: int) -> None:
        self.database = database

    def function(self, code: bytes) -> None:
        sip = self._sip
        sip._start()
        sip._string(code)
        sip._finish()
        self.functions += 1
        self._functions0 = (self._functions0 + sip._h0) & _M
        self._functions1 = (self._functions1 + sip._h1) & _M

    def begin_key(self, key: bytes, expire_ms: int, kind: int, freq: int, idle: int) -> None:
        self._hash_key(self.database, key)
        self._key0 = self._sip._h0
        self._key1 = self._sip._h1
        self._kind = kind
        self._expire = expire_ms & _M
        self._count = 0
        self._a0 = 0
        self._a1 = 0

    def string(self, value: bytes) -> None:
        sip = self._sip
        sip._start()
        sip._word(self._kind)
        sip._word(self._expire)
        sip._string(value)
        sip._finish()
        self._a0 = sip._h0
        self._a1 = sip._h1
        self._count = 1

    def item(self, value: bytes) -> None:
        self._link()
        self._sip._string(value)
        self._chain()

    def member(self, value: bytes) -> None:
        self._sip._start()
        self._sip._string(value)
        self._add()

    def scored(self, member: bytes, score: float) -> None:
        if score == 0.0:
            score = 0.0  # and not -0.0
        bits = _DOUBLE.pack(score)
        self._sip._start()
        self._sip._string(member)
        self._sip._string(bits)
        self._add()

    def field(self, name: bytes, value: bytes, expire_ms: int) -> None:
        if expire_ms == -1 or self._field_ttl != _DROP:
            if self._field_ttl == _KEEP:
                expire_ms = -1
            self._sip._start()
            self._sip._string(name)
            self._sip._string(value)
            self._sip._word(expire_ms & _M)
            self._add()

    def stream_entry(self, ms: int, seq: int, fields: list[bytes]) -> None:
        self._link()
        self._sip._word(ms)
        self._sip._word(seq)
        self._sip._word(len(fields))
        for value in fields:
            self._sip._string(value)
        self._chain()

    def stream_meta(
        self,
        length: int,
        last_ms: int,
        last_seq: int,
        first_ms: int,
        first_seq: int,
        max_deleted_ms: int,
        max_deleted_seq: int,
        entries_added: int,
    ) -> None:
        self._link()
        self._sip._word(length)
        self._sip._word(last_ms)
        self._sip._word(last_seq)
        self._sip._word(max_deleted_ms)
        self._sip._word(max_deleted_seq)
        self._sip._word(entries_added)
        self._chain()

    def group(self, name: bytes, last_ms: int, last_seq: int, entries_read: int) -> None:
        self._link()
        self._sip._string(name)
        self._sip._word(last_ms)
        self._sip._word(last_seq)
        self._sip._word(entries_read & _M)
        self._chain()

    def pending(self, ms: int, seq: int, delivery_ms: int, delivery_count: int) -> None:
        self._link()
        self._sip._word(ms)
        self._sip._word(seq)
        self._sip._word(delivery_count)
        self._chain()

    def consumer(self, name: bytes, seen_ms: int, active_ms: int) -> None:
        self._consumer = name

    def owned(self, ms: int, seq: int) -> None:
        self._link()
        self._sip._string(self._consumer)
        self._sip._word(ms)
        self._sip._word(seq)
        self._chain()

    def module(self, module_id: int) -> None:
        self._link()
        self._sip._word(module_id)
        self._chain()

    def module_part(self, opcode: int, data: bytes) -> None:
        if self._kind == _MODULE:
            self._link()
            self._sip._word(opcode)
            self._sip._string(data)
            self._chain()

    def end_key(self) -> None:
        if self._count == 0 and self._kind <= _HASH:
            self.absent += 1
        else:
            if self._kind > 0:
                sip = self._sip
                sip._start()
                sip._word(self._kind)
                sip._word(self._expire)
                sip._word(self._count)
                sip._word(self._a0)
                sip._word(self._a1)
                sip._finish()
                self._a0 = sip._h0
                self._a1 = sip._h1
            self.keys += 1
            self._put(self._key0)
            self._put(self._key1)
            self._put(self._a0)
            self._put(self._a1)
            if self._fill == _SCRATCH:
                self._rows += self._scratch
                self._fill = 0
        self._kind = -1

    # ---- parts

    def _hash_key(self, database: int, key: bytes) -> None:
        sip = self._sip
        sip._start()
        sip._word(database)
        sip._string(key)
        sip._finish()

    def _link(self) -> None:
        self._sip._start()
        self._sip._word(self._a0)
        self._sip._word(self._a1)

    def _chain(self) -> None:
        self._sip._finish()
        self._a0 = self._sip._h0
        self._a1 = self._sip._h1
        self._count += 1

    def _add(self) -> None:
        self._sip._finish()
        self._a0 = (self._a0 + self._sip._h0) & _M
        self._a1 = (self._a1 + self._sip._h1) & _M
        self._count += 1

    def _put(self, value: int) -> None:
        for i in range(8):
            self._view[self._fill + i] = value & 0xFF
            value >>= 8
        self._fill += 8
