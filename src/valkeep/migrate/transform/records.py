"""The records of a snapshot, from behind its header to its end, rewritten for one target; see ``snapshot``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from valkeep.errors import Refused, RemoteProtocolError
from valkeep.migrate.transform.notes import LedgerNote, TakeNote, field_ttls_lost
from valkeep.migrate.transform.target import FieldTtl, TargetFormat, convert_mode
from valkeep.wire.rdb import convert, encode, opcodes
from valkeep.wire.rdb.scan import ATTENTION, END, ITEM, Prefix, Scanner, parse_record_prefix, read_length, read_string

if TYPE_CHECKING:
    from valkeep.migrate.transform.maybe import MaybeSet
    from valkeep.migrate.transform.output import Bytes, Output

__all__ = ["Aside", "Records"]

_FIRST_FIELD_TTL = 12  # the RDB version of Redis 7.4
_LARGEST_AUX = 1 << 20
"""Bytes of one that is held back until it is whole; real ones have some fifty."""
_STRIPPED = {
    opcodes.OP_MODULE_AUX: ("module-aux", "data of a module that the target need not have; keys are not affected"),
    opcodes.OP_SLOT_IMPORT: ("slot-import", "an unfinished slot import of the source is not carried"),  # Valkey's: Redis' 243 is KEY_META
}


class Aside(Protocol):
    """Where a hash waits whose field count is not known yet. ``write`` appends, ``chunks`` gives everything back in order, ``clear`` forgets it."""

    def write(self, data: Bytes, /) -> None: ...

    def chunks(self) -> Iterator[bytes]: ...

    def clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _LargeHash:
    """A hash that is not complete in the buffer and streams through a converter. ``head``: its record as it will be written, up to its number of fields."""

    key: bytes
    database: int
    head: bytes
    converter: convert.HashConverter


class Records:
    """Rewrites what stands behind ``header`` into ``out``; see ``SnapshotTransform`` for the rest.

    ``ended``: the next byte is the EOF opcode. ``lost_fields``: where keys that lose fields are noted. ``repl_stream_db``: the
    database that the source's stream begins in, or -1.
    """

    def __init__(
        self,
        header: opcodes.Header,
        target: TargetFormat,
        policy: FieldTtl,
        note: TakeNote,
        out: Output,
        aside: Aside,
        lost_fields: MaybeSet,
        source_offset: int,
    ) -> None:
        self.header = header
        self.ended = False
        self.repl_stream_db = -1
        self._target = target
        self._policy = policy
        self._note = note
        self._out = out
        self._aside = aside
        self._lost_fields = lost_fields
        self._offset = source_offset
        self._mode = convert_mode(target, policy)
        self._scanner = Scanner(_attention(header, target), header.dialect, header.version)
        from_redis = header.dialect == opcodes.DIALECT_REDIS and header.version >= _FIRST_FIELD_TTL
        from_valkey = header.dialect == opcodes.DIALECT_VALKEY and not target.field_ttl
        self._converter = convert.RecordConverter(header.dialect, self._mode) if from_redis or from_valkey else None
        self._hash: _LargeHash | None = None
        self._stripping = False
        self._database = 0
        self._large_hashes = 0

    @property
    def keys(self) -> int:
        """Records passed or rewritten so far."""
        return self._scanner.keys + self.converted

    @property
    def converted(self) -> int:
        """Hashes with field TTLs rewritten so far."""
        return self._large_hashes + (self._converter.records if self._converter is not None else 0)

    def feed(self, view: memoryview, position: int, end: int) -> int:
        """Rewrite what is complete in ``view[position:end]``; returns the position reached. Raises ``RemoteProtocolError`` or ``Refused``."""
        while not self.ended:
            before = position, self._hash, self._stripping
            if self._hash is not None:
                position = self._stream_hash(self._hash, view, position, end)
            elif self._stripping:
                position = self._strip(view, position, end)
            else:
                position = self._pass_records(view, position, end)
            if (position, self._hash, self._stripping) == before:
                break
        return position

    # -- each consumes from ``position`` and returns where it stopped ----------------------------------------------------------------

    def _pass_records(self, view: memoryview, position: int, end: int) -> int:
        scanner = self._scanner
        while True:
            start = position
            if self._converter is None:
                position = scanner.scan(view, position, end)
                stop = scanner.stop
                if position > start:
                    self._out.send(view[start:position])
            else:
                position = self._converter.translate(scanner, view, position, end, self._out.held)
                stop = self._converter.stop
                self._note_changes(self._converter)
            if stop == END:
                self.ended = True
                return position
            if stop != ATTENTION:
                return position
            after = self._attend(scanner, view, position, end)
            if after < 0:
                return position
            position = after
            if self._hash is not None or self._stripping:
                return position

    def _attend(self, scanner: Scanner, view: memoryview, position: int, end: int) -> int:
        """One flagged item: the position after it, or -1 when more bytes are needed."""
        kind = scanner.type
        if kind == opcodes.OP_SELECTDB:
            return self._select(scanner, view, position, end)
        if kind == opcodes.OP_AUX:
            return self._aux(scanner, view, position, end)
        if kind >= opcodes.OP_KEY_META and kind not in _HASHES:
            self._stripping = True
            self._note_stripped(kind)
            scanner.take()
            return position
        return self._flagged_record(scanner, view, position, end)

    def _select(self, scanner: Scanner, view: memoryview, position: int, end: int) -> int:
        number, after = read_length(view, position + 1, end)
        if after < 0:
            return -1
        self._check_database(number, "has keys in")
        self._database = scanner.database = number
        self._pass(scanner, view, position, after)
        return after

    def _check_database(self, number: int, what: str) -> None:
        if number >= self._target.databases:
            self._refuse(
                "database",
                f"the source {what} database {number}; the target has {self._target.databases} (0 … {self._target.databases - 1})",
                f"set `databases {number + 1}` or more in the target's configuration and start it again",
                code="VK-DATABASES",
            )

    def _aux(self, scanner: Scanner, view: memoryview, position: int, end: int) -> int:
        name, after = read_string(view, position + 1, end)
        value, after = read_string(view, after, end) if name is not None else (None, -1)
        if name is None or value is None:
            if end - position > _LARGEST_AUX:
                raise RemoteProtocolError(
                    f"the snapshot has an AUX field of more than {_LARGEST_AUX} bytes, after {self.keys} keys",
                    remedy="start again; if it happens twice, check the source's memory and the network between",
                )
            return -1
        if name == b"repl-stream-db":
            if not value.removeprefix(b"-").isdigit() or len(value) > 10:
                raise RemoteProtocolError(
                    f"the snapshot's repl-stream-db is {value[:40]!r}, which is no database",
                    remedy="start again; if it happens twice, check the source's memory and the network between",
                )
            self.repl_stream_db = int(value)
            self._check_database(self.repl_stream_db, "writes to")
        self._pass(scanner, view, position, after)
        return after

    def _flagged_record(self, scanner: Scanner, view: memoryview, position: int, end: int) -> int:
        prefix = parse_record_prefix(view, position, end, self.header.dialect)
        if prefix is None:
            return -1
        if prefix.type not in _EXPIRING[self.header.dialect]:
            what = opcodes.name_of(self.header.dialect, prefix.type)
            self._refuse(
                f"type {what}",
                f"key {prefix.key!r} in database {self._database} is of type {what}, which {self._target.name} cannot take",
                "delete or convert the key on the source, or exclude its data from this migration, then start again",
                code="VK-RECORD-TYPE",
                key=prefix.key,
            )
        self._hash = self._begin_hash(view, position, prefix)
        scanner.resume_after(prefix.value_pos - position)
        return prefix.value_pos

    def _begin_hash(self, view: memoryview, position: int, prefix: Prefix) -> _LargeHash:
        converter = convert.HashConverter(prefix.type, self.header.dialect, self._mode)
        head = bytes(view[position : prefix.type_pos]) + bytes([converter.out_type]) + bytes(view[prefix.type_pos + 1 : prefix.value_pos])
        if converter.count_known:
            self._out.send(head)
        return _LargeHash(prefix.key, self._database, head, converter)

    def _stream_hash(self, hash_: _LargeHash, view: memoryview, position: int, end: int) -> int:
        converter = hash_.converter
        out = bytearray()
        position = converter.feed(view, position, end, out)
        if self._policy is FieldTtl.REFUSE and converter.fields_with_ttl and not self._target.field_ttl:
            self._refuse_fields(hash_.key, hash_.database, converter.fields_with_ttl)
        if converter.count_known:
            self._out.send(out)
        else:
            self._aside.write(out)
        if converter.done:
            self._end_hash(hash_)
            self._hash = None
        return position

    def _end_hash(self, hash_: _LargeHash) -> None:
        converter = hash_.converter
        kept = converter.fields - converter.fields_dropped
        if not converter.count_known:
            if kept:
                self._out.send(hash_.head + encode.length(kept))
                for chunk in self._aside.chunks():
                    self._out.send(chunk)
            self._aside.clear()
        self._large_hashes += 1
        if converter.fields_with_ttl and not self._target.field_ttl:
            self._degraded(hash_.key, hash_.database, converter.fields_with_ttl, converter.fields_dropped)

    def _strip(self, view: memoryview, position: int, end: int) -> int:
        position = self._scanner.scan(view, position, end)
        self._stripping = self._scanner.stop != ITEM
        return position

    def _pass(self, scanner: Scanner, view: memoryview, position: int, after: int) -> None:
        self._out.send(view[position:after])
        scanner.resume_after(after - position)

    # -- what was decided ----------------------------------------------------------------------------------------------------------

    def _note_changes(self, converter: convert.RecordConverter) -> None:
        if converter.changes:
            for key, database, with_ttl, dropped in converter.changes:
                self._degraded(key, database, with_ttl, dropped)
            converter.changes.clear()

    def _degraded(self, key: bytes, database: int, with_ttl: int, dropped: int) -> None:
        if self._policy is FieldTtl.REFUSE:
            self._refuse_fields(key, database, with_ttl)
        self._note(field_ttls_lost(self._policy, key, database, self._offset, with_ttl))
        if dropped:
            self._lost_fields.add(database, key)

    def _refuse_fields(self, key: bytes, database: int, fields: int) -> NoReturn:
        self._refuse(
            "field-ttl",
            f"key {key!r} in database {database} is a hash with {fields} or more field TTLs; {self._target.name} has none, and "
            "--field-ttl is refuse",
            "choose --field-ttl keep-field or drop-field, or a target of Valkey 9.0 or later",
            code="VK-FIELD-TTL",
            key=key,
        )

    def _refuse(self, what: str, why: str, remedy: str, *, code: str, key: bytes | None = None) -> NoReturn:
        """It cannot cross, and so nothing does: said in the ledger, raised for whoever waits."""
        self._note(LedgerNote("refused", what, why, self._policy.value, key, self._database, self._offset))
        raise Refused(why, remedy=remedy, code=code)

    def _note_stripped(self, kind: int) -> None:
        if kind == opcodes.OP_KEY_META and self.header.dialect == opcodes.DIALECT_REDIS:
            self._refuse(
                "key-meta",
                f"a key in database {self._database} carries metadata of a module (RDB {self.header.version}), whose meaning is not known here",
                "unload the module that attached it, or use a release of Valkeep that knows this version",
                code="VK-KEY-META",
            )
        if kind == opcodes.OP_SLOT_INFO:  # a hint about sizes
            return
        what, why = _STRIPPED.get(kind, (f"opcode {kind}", "the target does not know it"))
        self._note(LedgerNote("stripped", what, why, database=self._database, source_offset=self._offset))


_EXPIRING = {opcodes.DIALECT_REDIS: frozenset({22, 23, 24, 25}), opcodes.DIALECT_VALKEY: frozenset({22})}
"""Types of hashes whose fields expire, by dialect: 23 under VALKEY is something else."""
_HASHES = frozenset({22, 23, 24, 25})


def _attention(header: opcodes.Header, target: TargetFormat) -> bytes:
    """What to stop at, for this source dialect and this target: one flag for each type and opcode."""
    flags = bytearray(256)
    known = {row.id for row in opcodes.TYPES if "RV"[header.dialect] in row.dialects and row.shape != opcodes.SHAPE_UNKNOWN}
    for number in range(opcodes.OP_UPDATE):
        flags[number] = number not in known
    flags[opcodes.TYPE_MODULE_2] = 1
    same_dialect = header.dialect == target.dialect == opcodes.DIALECT_VALKEY
    for number in _HASHES & known:
        flags[number] = not same_dialect
    for number in (
        opcodes.OP_UPDATE,
        opcodes.OP_KEY_META,
        opcodes.OP_SLOT_INFO,
        opcodes.OP_FUNCTION_PRE_GA,
        opcodes.OP_MODULE_AUX,
        opcodes.OP_AUX,
        opcodes.OP_SELECTDB,
    ):
        flags[number] = 1
    return bytes(flags)
