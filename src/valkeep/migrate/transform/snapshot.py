"""A snapshot, rewritten for one target while it arrives: bytes in, bytes out, any chunking.

Nearly everything is passed on as it is. The compiled scanner steps over records and stops only at what is flagged here (``_attention``):

    header              replaced by the target's (REDIS0011 or VALKEY080)
    SELECTDB            checked: a database number beyond the target's `databases` makes a Valkey exit while it loads
    AUX                 passed on; `repl-stream-db` and the source's version are remembered
    MODULE_AUX          stripped and noted: it may be written by a module that holds no key, and an unknown one makes a Valkey exit
    SLOT_INFO, KEY_META stripped: a hint, and metadata of modules (noted)
    hashes with TTLs    rewritten: HASH_2 for Valkey 9, plain hashes for Valkey 8 under the field-TTL policy
    module values, unknown types   refused, by name, before anything of them is sent
    EOF, CRC            the source's is checked, the target's own is written

Memory: values stream through. Only a hash that loses fields has to wait until its last field is known, because its count stands before
its entries; small ones are done in memory, larger ones go ``aside`` to disk.

What this does not do: it neither reads nor writes anything itself (``write`` and ``aside`` are given), and it does not decide when the target
may have the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from valkeep.errors import Refused, RemoteProtocolError
from valkeep.migrate.transform import commands
from valkeep.migrate.transform.maybe import MaybeSet
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb import convert, encode, opcodes
from valkeep.wire.rdb.scan import ATTENTION, END, ITEM, Prefix, Scanner, parse_record_prefix, read_length, read_string

if TYPE_CHECKING:
    from valkeep.migrate.ledger import Ledger

__all__ = ["Aside", "SnapshotTransform"]

Bytes = bytes | bytearray | memoryview

FIRST_FIELD_TTL = 12  # the RDB version of Redis 7.4
_HEADER, _RECORDS, _HASH, _SKIP, _FOOTER, _DONE = range(6)
_WRITE_BYTES = 1 << 18
_LARGEST_AUX = 1 << 20
"""Bytes of one that is held back until it is whole; real ones have some fifty."""
_STRIPPED = {
    (opcodes.DIALECT_REDIS, opcodes.OP_SLOT_INFO): ("", ""),
    (opcodes.DIALECT_VALKEY, opcodes.OP_SLOT_INFO): ("", ""),
    (opcodes.DIALECT_VALKEY, opcodes.OP_SLOT_IMPORT): ("slot-import", "an unfinished slot import of the source is not carried"),
}
_MODULE_AUX_WHY = "data of a module that the target need not have; keys are not affected"


class Aside(Protocol):
    """Where a hash waits whose field count is not known yet. ``write`` appends, ``chunks`` gives everything back in order, ``clear`` forgets it."""

    def write(self, data: Bytes, /) -> None: ...

    def chunks(self) -> Iterator[bytes]: ...

    def clear(self) -> None: ...


class SnapshotTransform:
    """Rewrites one snapshot for ``target`` under ``policy``; what is to be sent goes to ``write``, in order.

    ``keys``: records passed so far; ``repl_stream_db``: the database that the source's stream begins in, or -1; ``done``: the whole snapshot was read and
    its checksum was right; ``lost_fields``: keys that lost fields.
    """

    def __init__(
        self,
        target: TargetFormat,
        policy: FieldTtl,
        ledger: Ledger,
        write: Callable[[Bytes], object],
        aside: Aside,
        *,
        source_offset: int = 0,
    ) -> None:
        self.target = target
        self.policy = policy
        self.ledger = ledger
        self.lost_fields = MaybeSet()
        self.repl_stream_db = -1
        self.source_aux: dict[bytes, bytes] = {}
        self.header: opcodes.Header | None = None
        self.bytes_in = 0
        self._write = write
        self._aside = aside
        self._offset = source_offset
        self._mode = commands.convert_mode(target, policy)
        self._state = _HEADER
        self._scanner: Scanner | None = None
        self._crc_in = 0
        self._crc_out = 0
        self._out = bytearray()
        self._hash: convert.HashConverter | None = None
        self._hash_head = b""
        self._hash_prefix: Prefix | None = None
        self._converter: convert.RecordConverter | None = None
        self._database = 0
        self._large_hashes = 0

    @property
    def done(self) -> bool:
        return self._state == _DONE

    @property
    def keys(self) -> int:
        """Records passed or rewritten so far."""
        passed = self._scanner.keys if self._scanner is not None else 0
        converted = self._converter.records if self._converter is not None else 0
        return passed + converted + self._large_hashes

    def feed(self, buffer: bytearray) -> int:
        """Rewrite what is complete in ``buffer``; returns how many bytes were consumed. The rest has to be presented again with more behind it.

        Nothing is consumed past the snapshot's end (``done``). Raises ``RemoteProtocolError`` (damaged) or ``Refused`` (cannot cross); what was
        written before is then of no use, because a target takes a snapshot whole.
        """
        view = memoryview(buffer)
        end = len(buffer)
        position = 0
        steps = {_HEADER: self._header, _RECORDS: self._records, _HASH: self._stream_hash, _SKIP: self._skip, _FOOTER: self._footer}
        while self._state != _DONE:
            before, state = position, self._state
            position = steps[state](view, position, end)
            if state != _FOOTER:
                self._crc_in = crc64(view[before:position], self._crc_in)
            if position == before and self._state == state:
                break
        self._flush()
        self.bytes_in += position
        return position

    # -- states: each consumes from ``position`` and returns where it stopped ------------------------------------------------------

    def _header(self, view: memoryview, position: int, end: int) -> int:
        header = opcodes.parse_header(view[position:end])
        if header is None:
            return position
        opcodes.check_version(header)
        self.header = header
        self._scanner = Scanner(_attention(header, self.target), header.dialect, header.version)
        from_redis = header.dialect == opcodes.DIALECT_REDIS and header.version >= FIRST_FIELD_TTL
        from_valkey = header.dialect == opcodes.DIALECT_VALKEY and not self.target.field_ttl
        if from_redis or from_valkey:
            self._converter = convert.RecordConverter(header.dialect, self._mode)
        self._send(self.target.header)
        self._state = _RECORDS
        return position + opcodes.HEADER_SIZE

    def _records(self, view: memoryview, position: int, end: int) -> int:
        scanner = self._scanner
        assert scanner is not None
        while True:
            start = position
            if self._converter is None:
                position = scanner.scan(view, position, end)
                stop = scanner.stop
                if position > start:
                    self._send(view[start:position])
            else:
                position = self._converter.translate(scanner, view, position, end, self._out)
                stop = self._converter.stop
                self._note_changes(self._converter)
            if stop == END:
                self._state = _FOOTER
                return position
            if stop != ATTENTION:
                return position
            after = self._attend(scanner, view, position, end)
            if after < 0 or self._state != _RECORDS:
                return max(after, position)
            position = after

    def _attend(self, scanner: Scanner, view: memoryview, position: int, end: int) -> int:
        """One flagged item: the position after it, or -1 when more bytes are needed."""
        kind = scanner.type
        if kind == opcodes.OP_SELECTDB:
            return self._select(scanner, view, position, end)
        if kind == opcodes.OP_AUX:
            return self._aux(scanner, view, position, end)
        if kind >= opcodes.OP_KEY_META and kind not in _HASHES:
            self._state = _SKIP
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
        if number >= self.target.databases:
            raise Refused(
                f"the source {what} database {number}; the target has {self.target.databases} (0 … {self.target.databases - 1})",
                remedy=f"set `databases {number + 1}` or more in the target's configuration and start it again",
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
        self.source_aux[name] = value
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
        header = self.header
        assert header is not None
        prefix = parse_record_prefix(view, position, end, header.dialect)
        if prefix is None:
            return -1
        if prefix.type not in _EXPIRING[header.dialect]:
            self._refuse(prefix)
        self._begin_hash(view, position, prefix, header)
        scanner.resume_after(prefix.value_pos - position)
        return prefix.value_pos

    def _begin_hash(self, view: memoryview, position: int, prefix: Prefix, header: opcodes.Header) -> None:
        """A hash that is not complete in the buffer: from here on it streams through a converter."""
        self._hash = convert.HashConverter(prefix.type, header.dialect, self._mode)
        self._hash_prefix = prefix
        self._hash_head = (
            bytes(view[position : prefix.type_pos]) + bytes([self._hash.out_type]) + bytes(view[prefix.type_pos + 1 : prefix.value_pos])
        )
        if self._hash.count_known:
            self._send(self._hash_head)
        self._state = _HASH

    def _stream_hash(self, view: memoryview, position: int, end: int) -> int:
        converter, prefix = self._hash, self._hash_prefix
        assert converter is not None
        assert prefix is not None
        out = bytearray()
        position = converter.feed(view, position, end, out)
        if self.policy is FieldTtl.REFUSE and converter.fields_with_ttl and not self.target.field_ttl:
            self._refuse_fields(prefix.key, converter.fields_with_ttl)
        if converter.count_known:
            self._send(out)
        else:
            self._aside.write(out)
        if converter.done:
            kept = converter.fields - converter.fields_dropped
            if not converter.count_known:
                if kept:
                    self._send(self._hash_head + encode.length(kept))
                    for chunk in self._aside.chunks():
                        self._send(chunk)
                self._aside.clear()
            self._large_hashes += 1
            if converter.fields_with_ttl and not self.target.field_ttl:
                self._degraded(prefix.key, self._database, converter.fields_with_ttl, converter.fields_dropped)
            self._hash = self._hash_prefix = None
            self._state = _RECORDS
        return position

    def _skip(self, view: memoryview, position: int, end: int) -> int:
        scanner = self._scanner
        assert scanner is not None
        position = scanner.scan(view, position, end)
        if scanner.stop == ITEM:
            self._state = _RECORDS
        return position

    def _footer(self, view: memoryview, position: int, end: int) -> int:
        header = self.header
        assert header is not None
        size = 1 + (opcodes.FOOTER_SIZE if header.has_footer else 0)
        if end - position < size:
            return position
        self._crc_in = crc64(view[position : position + 1], self._crc_in)
        claimed = int.from_bytes(view[position + 1 : position + size], "little")
        if claimed and claimed != self._crc_in:
            raise RemoteProtocolError(
                f"the snapshot is damaged: its checksum is {claimed:016x}, its bytes give {self._crc_in:016x} (after {self.keys} keys)",
                remedy="start again; if it happens twice, check the source's memory and the network between (nothing was sent to be loaded)",
                code="VK-SNAPSHOT-CRC",
            )
        self._send(view[position : position + 1])
        self._flush()
        self._write(self._crc_out.to_bytes(8, "little"))
        self._finish_ledger()
        self._state = _DONE
        return position + size

    # -- what was decided ----------------------------------------------------------------------------------------------------------

    def _note_changes(self, converter: convert.RecordConverter) -> None:
        if converter.changes:
            for key, database, _expire, _type, _fields, with_ttl, dropped in converter.changes:
                self._degraded(key, database, with_ttl, dropped)
            converter.changes.clear()

    def _degraded(self, key: bytes, database: int, with_ttl: int, dropped: int) -> None:
        if self.policy is FieldTtl.REFUSE:
            self._refuse_fields(key, with_ttl)
        self.ledger.record(
            "degraded",
            "field-ttl",
            commands.WHY_FIELD_TTL[self.policy],
            policy=self.policy.value,
            key=key,
            database=database,
            source_offset=self._offset,
            count=with_ttl,
        )
        if dropped:
            self.lost_fields.add(database, key)

    def _refuse_fields(self, key: bytes, fields: int) -> None:
        raise Refused(
            f"key {key!r} in database {self._database} is a hash with {fields} or more field TTLs; Valkey {self.target.display} has none, and "
            "--field-ttl is refuse",
            remedy="choose --field-ttl keep-field or drop-field, or a target of Valkey 9.0 or later",
            code="VK-FIELD-TTL",
        )

    def _refuse(self, prefix: Prefix) -> None:
        header = self.header
        assert header is not None
        what = opcodes.name_of(header.dialect, prefix.type)
        raise Refused(
            f"key {prefix.key!r} in database {self._database} is of type {what}, which Valkey {self.target.display} cannot take",
            remedy="delete or convert the key on the source, or exclude its data from this migration, then start again",
            code="VK-RECORD-TYPE",
        )

    def _note_stripped(self, kind: int) -> None:
        header = self.header
        assert header is not None
        if kind == opcodes.OP_MODULE_AUX:
            self.ledger.record("stripped", "module-aux", _MODULE_AUX_WHY, database=self._database, source_offset=self._offset)
            return
        if kind == opcodes.OP_KEY_META and header.dialect == opcodes.DIALECT_REDIS:
            raise Refused(
                f"a key in database {self._database} carries metadata of a module (RDB {header.version}), whose meaning is not known here",
                remedy="unload the module that attached it, or use a release of Valkeep that knows this version",
                code="VK-KEY-META",
            )
        what, why = _STRIPPED.get((header.dialect, kind), (f"opcode {kind}", "the target does not know it"))
        if what:
            self.ledger.record("stripped", what, why, database=self._database, source_offset=self._offset)

    def _finish_ledger(self) -> None:
        converted = self._large_hashes + (self._converter.records if self._converter is not None else 0)
        if converted and self.target.field_ttl:
            why = "hashes with field TTLs, written in the target's own encoding; nothing lost"
            self.ledger.record("converted", "hash-encoding", why, source_offset=self._offset, count=converted)

    # -- output --------------------------------------------------------------------------------------------------------------------

    def _pass(self, scanner: Scanner, view: memoryview, position: int, after: int) -> None:
        self._send(view[position:after])
        scanner.resume_after(after - position)

    def _send(self, data: Bytes) -> None:
        if len(data) >= _WRITE_BYTES:
            self._flush()
            self._crc_out = crc64(data, self._crc_out)
            self._write(data)
        else:
            self._out += data
            if len(self._out) >= _WRITE_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._out:
            self._crc_out = crc64(self._out, self._crc_out)
            self._write(self._out)
            self._out = bytearray()


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
