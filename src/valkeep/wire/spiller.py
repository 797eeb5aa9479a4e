"""A digester that keeps what a verification needs, partitioned: rows with their expiries, and the names beside them.

``wire.rows`` draws the row; a name is ``<database: 4 bytes LE> <size: 4 bytes LE> <key>``, in the order of the rows of its partition. A partition is
chosen by the low bits of the key's digest, so that both sides put a key into the same one. The buffers are the caller's to write
away and clear, after each feed.
"""

from __future__ import annotations

from .digest import DROP_FIELD, EXACT, KEEP_FIELD, Digester
from .slots import SlotHash

__all__ = ["Spiller", "policy"]

_M = 0xFFFFFFFFFFFFFFFF
_DROP_FIELD = DROP_FIELD


def policy(name: str) -> int:
    """The digester's mode for a policy's name; "refuse" means that nothing was changed on the way."""
    return {"exact": EXACT, "refuse": EXACT, "keep-field": KEEP_FIELD, "drop-field": DROP_FIELD}[name]


class Spiller(Digester):
    """``rows``, ``names``: a buffer for each partition. ``libraries``: the code of each library of functions.

    ``owned``: 16384 bytes, not 0 for slots whose keys count; empty: all do. ``stream_database``: the database that the stream after this snapshot begins in
    (a replica says it; 0 else).
    """

    def __init__(self, key: bytes, field_ttl: int, partitions: int, owned: bytes = b"") -> None:
        super().__init__(key, field_ttl)
        self._owned = owned
        self._sharded = len(owned) > 0
        self._slots = SlotHash()
        self.rows = [bytearray() for _ in range(partitions)]
        self.names = [bytearray() for _ in range(partitions)]
        self.libraries: list[bytes] = []
        self.stream_database = 0
        self.forced_expiry = -2  # -2: take the expiry that the decoder tells; else this one (a payload has none of its own)
        self._mask = partitions - 1
        self._policy = field_ttl
        self._name = b""
        self._expiry = -1
        self._first = -1
        self._row = bytearray(48)
        self._words = memoryview(self._row).cast("Q")
        self._head = bytearray(8)
        self._bytes = memoryview(self._head)

    def aux(self, name: bytes, value: bytes) -> None:
        if name == b"repl-stream-db" and value.isdigit():
            self.stream_database = int(value)

    def function(self, code: bytes) -> None:
        self.libraries.append(code)
        Digester.function(self, code)

    def place(self, database: int, expire_ms: int) -> None:
        """The payloads decoded from here on belong to a key of that database with that expiry (-1: none)."""
        self.database = database
        self.forced_expiry = expire_ms

    def begin_key(self, key: bytes, expire_ms: int, kind: int, freq: int, idle: int) -> None:
        if self.forced_expiry != -2:
            expire_ms = self.forced_expiry
        self._name = key
        self._expiry = expire_ms
        self._first = -1
        Digester.begin_key(self, key, expire_ms, kind, freq, idle)

    # The next four only pass on. Under the limited API an inherited method asks at each call, by name, whether a Python class overrides it; a method of
    # the object's own class does not: a tenth less time in all.

    def string(self, value: bytes) -> None:
        Digester.string(self, value)

    def item(self, value: bytes) -> None:
        Digester.item(self, value)

    def member(self, value: bytes) -> None:
        Digester.member(self, value)

    def scored(self, member: bytes, score: float) -> None:
        Digester.scored(self, member, score)

    def field(self, name: bytes, value: bytes, expire_ms: int) -> None:
        if expire_ms >= 0 and self._policy != _DROP_FIELD and (self._first < 0 or expire_ms < self._first):
            self._first = expire_ms
        Digester.field(self, name, value, expire_ms)

    def end_key(self) -> None:
        before = self.keys
        Digester.end_key(self)
        self._fill = 0  # the row goes to its partition, and not to the digester's own buffer
        if self.keys == before:
            return
        if self._sharded and self._owned[self._slots.of(self._name, 0, len(self._name))] == 0:
            self.keys = before
            return
        self._keep()

    def _keep(self) -> None:
        words = self._words
        words[0] = self._key0
        words[1] = self._key1
        words[2] = self._a0
        words[3] = self._a1
        words[4] = self._expiry & _M
        words[5] = self._first & _M
        number = self.database
        size = len(self._name)
        for i in range(4):
            self._bytes[i] = number & 0xFF
            self._bytes[4 + i] = size & 0xFF
            number >>= 8
            size >>= 8
        part = self._key0 & self._mask
        rows = self.rows[part]
        rows += self._row
        names = self.names[part]
        names += self._head
        names += self._name
