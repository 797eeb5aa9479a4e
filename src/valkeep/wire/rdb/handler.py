"""What a decoder calls: one method per thing that is in a snapshot, in the order of the snapshot.

Why a class with methods and not a stream of event objects: verification calls these some ten million times a minute. Compiled, a call
into a handler that is compiled too costs 3 ns; into one written in Python, 70 ns. Override what you need: every method here does nothing.

The order of calls, as a grammar (? at most once, * any number)::

    snapshot = begin (aux | select | resize | function | module_aux module_part* | slot_info | slot_import | record)* end
    record   = key_meta* begin_key value end_key
    value    = string | item* | member* | scored* | field* | stream | module module_part*
    stream   = stream_entry* stream_meta (group pending* (consumer owned*)*)*

Integers are C integers when compiled: ids, counters and lengths are unsigned 64 bits, times are signed 64 bits in ms since 1970.
Methods must not keep more than they can afford: elements come one at a time, so that a set of ten million members needs no memory.
Pending entries come as the snapshot has them: the group's list first (`pending`), later which consumer owns which id (`owned`); joining
them needs memory of the size of the list, so that it is left to those who want it (`Collect` does).

An empty list, set, hash or sorted set (`begin_key`, `end_key` and nothing between) can be in a snapshot; servers drop such a key when
they load it.
"""

from __future__ import annotations

__all__ = ["Handler"]


class Handler:
    """Ignores everything. Subclass in Python, or in a compiled module through handler.pxd."""

    def begin(self, dialect: int, version: int) -> None:
        """The header: DIALECT_REDIS or DIALECT_VALKEY, and the RDB version."""

    def aux(self, name: bytes, value: bytes) -> None:
        """An AUX field, such as redis-ver, valkey-ver, repl-id, repl-offset, repl-stream-db, used-mem, aof-base."""

    def select(self, database: int) -> None:
        """The records that follow are in `database`. 0 before the first call."""

    def resize(self, keys: int, expires: int) -> None:
        """A hint: so many keys, so many of them with expiry, in this database."""

    def function(self, code: bytes) -> None:
        """A library of functions, with its #! line."""

    def module_aux(self, module_id: int, when: int) -> None:
        """Auxiliary data of a module; `module_part` calls follow."""

    def slot_info(self, slot: int, keys: int, expires: int) -> None:
        """A hint of a cluster node."""

    def slot_import(self, job: bytes, ranges: list[tuple[int, int]]) -> None:
        """A slot import under way (Valkey 9 cluster): (first, last) slots, inclusive."""

    def key_meta(self, class_spec: int, parts: list[tuple[int, bytes]]) -> None:
        """Metadata of a module's class for the key that begins next (Redis 8.6); `parts` as in `module_part`."""

    def begin_key(self, key: bytes, expire_ms: int, kind: int, freq: int, idle: int) -> None:
        """A record begins. `expire_ms` −1: none; `kind` is KIND_*; `freq` (LFU counter) and `idle` (LRU, s): −1 none."""

    def string(self, value: bytes) -> None:
        """The value of a string record."""

    def item(self, value: bytes) -> None:
        """The next item of a list, head first."""

    def member(self, value: bytes) -> None:
        """A member of a set."""

    def scored(self, member: bytes, score: float) -> None:
        """A member of a sorted set. `score` may be inf, -inf or (never from a healthy server) nan."""

    def field(self, name: bytes, value: bytes, expire_ms: int) -> None:
        """A field of a hash. `expire_ms` −1: none."""

    def stream_entry(self, ms: int, seq: int, fields: list[bytes]) -> None:
        """The next entry of a stream (deleted ones are not told); `fields` is name, value, name, value …"""

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
        """After the entries. Of a version 1 stream (Redis < 7.0) the last five are told as a server of today sets them when it loads one:
        first id = id of the first entry (2^64-1 twice when there is none), nothing deleted, entries_added = length."""

    def group(self, name: bytes, last_ms: int, last_seq: int, entries_read: int) -> None:
        """A consumer group begins. `entries_read` −1: not known. Version 1 streams have none: it is the estimate a server of today makes
        when it loads one."""

    def pending(self, ms: int, seq: int, delivery_ms: int, delivery_count: int) -> None:
        """An entry of the group's pending list, in order of ids."""

    def consumer(self, name: bytes, seen_ms: int, active_ms: int) -> None:
        """A consumer of the group begins. `active_ms` −1: never; streams before version 3 have no such time, and tell `seen_ms` twice."""

    def owned(self, ms: int, seq: int) -> None:
        """The consumer's pending list has this id, which `pending` has told before."""

    def module(self, module_id: int) -> None:
        """The value of a record of a module type; `module_part` calls follow. See `module_name`."""

    def module_part(self, opcode: int, data: bytes) -> None:
        """One part of a module's value: MODULE_SINT or MODULE_UINT with 8 bytes big-endian, MODULE_FLOAT 4 bytes and MODULE_DOUBLE 8 as
        they stand, MODULE_STRING its bytes."""

    def end_key(self) -> None:
        """The record is complete."""

    def end(self, crc: int) -> None:
        """The snapshot is complete. `crc`: its footer, which was right; 0: the writer computed none, or there is no footer."""


_MODULE_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def module_name(module_id: int) -> tuple[str, int]:
    """The nine characters of the type's name and its encoding version, out of a module id.

    54 bits: nine characters of 6 bits, first one highest; 10 bits: encoding version.   # module.c moduleTypeEncodeId
    """
    name = "".join(_MODULE_ALPHABET[(module_id >> shift) & 63] for shift in range(58, 9, -6))
    return name, module_id & 1023
