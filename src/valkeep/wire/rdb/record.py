"""Records as values: what a key is to its user, whatever the encoding. For tests, single keys and small snapshots: all of it is in memory.

The values, by kind::

    string   bytes
    list     list[bytes], head first
    set      set[bytes]
    zset     dict[bytes, float]
    hash     dict[bytes, Field]: value, and expiry in ms or -1
    stream   Stream
    module   Module: its id, and its parts as `Handler.module_part` has them
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .decode import MAX_BLOB, Decoder, decode_payload
from .handler import Handler
from .opcodes import KIND_HASH, KIND_LIST, KIND_MODULE, KIND_SET, KIND_STREAM, KIND_STRING, KIND_ZSET

__all__ = [
    "Collect", "Consumer", "Entry", "Field", "Group", "Id", "Module", "Pending", "Record", "Stream", "payload_record", "snapshot_records",
]  # fmt: skip


class Id(NamedTuple):
    """Of a stream's entry."""

    ms: int
    seq: int


ZERO = Id(0, 0)


class Field(NamedTuple):
    """The value of a hash's field. `expire_ms` −1: none."""

    value: bytes
    expire_ms: int = -1


class Entry(NamedTuple):
    """Of a stream. `fields`: name, value, name, value …"""

    id: Id
    fields: list[bytes]


class Pending(NamedTuple):
    """An entry that was delivered and not acknowledged."""

    id: Id
    delivery_ms: int
    delivery_count: int


@dataclass(slots=True)
class Consumer:
    """Of a group. `owned`: the ids of the pending entries that are its own, in order."""

    name: bytes
    seen_ms: int
    active_ms: int
    owned: list[Id] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """Of a stream. `entries_read` −1: not known. `pending`: of all consumers, in order of ids."""

    name: bytes
    last: Id
    entries_read: int
    pending: list[Pending] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)


@dataclass(slots=True)
class Stream:
    """A stream with its groups. `length` is the number of entries that its writer says it has."""

    entries: list[Entry] = field(default_factory=list)
    length: int = 0
    last: Id = ZERO
    first: Id = ZERO
    max_deleted: Id = ZERO
    entries_added: int = 0
    groups: list[Group] = field(default_factory=list)


@dataclass(slots=True)
class Module:
    """The opaque value of a module's type."""

    module_id: int
    parts: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """One key as it crosses. `expire_ms`, `freq`, `idle`: −1 none."""

    database: int
    key: bytes
    expire_ms: int
    kind: int
    value: Any
    freq: int = -1
    idle: int = -1


_EMPTY = {KIND_STRING: bytes, KIND_LIST: list, KIND_SET: set, KIND_ZSET: dict, KIND_HASH: dict, KIND_STREAM: Stream}


class Collect(Handler):
    """Keeps everything: `dialect`, `version`, `auxiliary`, `functions`, `module_auxes`, `records`, `crc` (None until the end)."""

    def __init__(self) -> None:
        self.dialect = 0
        self.version = 0
        self.auxiliary: dict[bytes, bytes] = {}
        self.functions: list[bytes] = []
        self.module_auxes: list[Module] = []
        self.metadata: list[tuple[int, list[tuple[int, bytes]]]] = []
        self.slot_imports: list[tuple[bytes, list[tuple[int, int]]]] = []
        self.records: list[Record] = []
        self.crc: int | None = None
        self.database = 0
        self._value: Any = None
        self._opaque = Module(0)

    def begin(self, dialect: int, version: int) -> None:
        self.dialect = dialect
        self.version = version

    def aux(self, name: bytes, value: bytes) -> None:
        self.auxiliary[name] = value

    def select(self, database: int) -> None:
        self.database = database

    def function(self, code: bytes) -> None:
        self.functions.append(code)

    def module_aux(self, module_id: int, when: int) -> None:  # noqa: ARG002
        self._opaque = Module(module_id)
        self.module_auxes.append(self._opaque)

    def slot_import(self, job: bytes, ranges: list[tuple[int, int]]) -> None:
        self.slot_imports.append((job, ranges))

    def key_meta(self, class_spec: int, parts: list[tuple[int, bytes]]) -> None:
        self.metadata.append((class_spec, parts))

    def begin_key(self, key: bytes, expire_ms: int, kind: int, freq: int, idle: int) -> None:
        self._value = None if kind == KIND_MODULE else _EMPTY[kind]()
        self.records.append(Record(self.database, key, expire_ms, kind, self._value, freq, idle))

    def string(self, value: bytes) -> None:
        self.records[-1].value = value

    def item(self, value: bytes) -> None:
        self._value.append(value)

    def member(self, value: bytes) -> None:
        self._value.add(value)

    def scored(self, member: bytes, score: float) -> None:
        self._value[member] = score

    def field(self, name: bytes, value: bytes, expire_ms: int) -> None:
        self._value[name] = Field(value, expire_ms)

    def stream_entry(self, ms: int, seq: int, fields: list[bytes]) -> None:
        self._value.entries.append(Entry(Id(ms, seq), fields))

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
        stream = self._value
        stream.length = length
        stream.last = Id(last_ms, last_seq)
        stream.first = Id(first_ms, first_seq)
        stream.max_deleted = Id(max_deleted_ms, max_deleted_seq)
        stream.entries_added = entries_added

    def group(self, name: bytes, last_ms: int, last_seq: int, entries_read: int) -> None:
        self._value.groups.append(Group(name, Id(last_ms, last_seq), entries_read))

    def pending(self, ms: int, seq: int, delivery_ms: int, delivery_count: int) -> None:
        self._value.groups[-1].pending.append(Pending(Id(ms, seq), delivery_ms, delivery_count))

    def consumer(self, name: bytes, seen_ms: int, active_ms: int) -> None:
        self._value.groups[-1].consumers.append(Consumer(name, seen_ms, active_ms))

    def owned(self, ms: int, seq: int) -> None:
        self._value.groups[-1].consumers[-1].owned.append(Id(ms, seq))

    def module(self, module_id: int) -> None:
        self._opaque = Module(module_id)
        self.records[-1].value = self._opaque

    def module_part(self, opcode: int, data: bytes) -> None:
        self._opaque.parts.append((opcode, data))

    def end(self, crc: int) -> None:
        self.crc = crc


def snapshot_records(data: bytes, max_blob: int = MAX_BLOB) -> list[Record]:
    """The records of a whole snapshot."""
    collect = Collect()
    decoder = Decoder(collect, max_blob)
    decoder.feed(data)
    decoder.close()
    return collect.records


def payload_record(payload: bytes, key: bytes = b"", max_blob: int = MAX_BLOB) -> Record:
    """The record in what DUMP returned for `key`."""
    collect = Collect()
    decode_payload(payload, collect, key, max_blob)
    return collect.records[0]
