"""Writes RDB snapshots and payloads from records: the encoding is the caller's choice, the checksum is right.

For single keys that are copied again, for what the gateway says itself, and for tests, which need every encoding that a server ever wrote.
`SnapshotWriter` collects bytes, `take` drains them, so that a long snapshot needs no memory. Without a choice the type is a plain one which
every server of the version takes. Encodings with an option: `pack` (how many elements a packed node gets), `compress` (strings of more than 20
bytes by LZF where that is shorter), `integers` (strings that are small decimal numbers as integers).

What it does not do: decide what a target can take (migrate.transform, wire.rdb.convert), or keep two records apart that are one key.

Source: rdb.c rdbSaveObject, rdbSaveRawString; for the streams' nodes, streams.py beside this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from valkeep.errors import LocalProtocolError

from .. import intset, listpack, lzf, ziplist, zipmap
from ..checksum import crc64
from . import opcodes
from .dump import sealed
from .record import Entry, Field, Id, Module, Record, Stream

__all__ = ["PLAIN", "Encoding", "SnapshotWriter", "default_type", "dump_payload", "length", "string", "text_score", "value"]

_NODE_SIZE = 128  # elements of a packed node, unless told


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to encode. `type_id` None: `default_type`. `pack`: elements in one node of a list or stream."""

    type_id: int | None = None
    integers: bool = True
    compress: bool = False
    pack: int = _NODE_SIZE
    plain_nodes: bool = False  # QUICKLIST_2: nodes of one item, not listpacks
    same_fields: bool = True  # streams: entries may share the fields of their master entry


PLAIN = Encoding()


def length(number: int) -> bytes:
    """An RDB length; see opcodes.LEN_6BIT."""
    if number < 64:
        return bytes([number])
    if number < 16384:
        return bytes([0x40 | number >> 8, number & 0xFF])
    if number < 1 << 32:
        return b"\x80" + number.to_bytes(4, "big")
    return b"\x81" + number.to_bytes(8, "big")


def string(data: bytes, encoding: Encoding = PLAIN) -> bytes:
    """An RDB string, as an integer or compressed where the `encoding` allows it and it is shorter."""
    if encoding.integers and 0 < len(data) <= 11 and data.lstrip(b"-").isdigit() and b"%d" % int(data) == data:
        for mark, width in ((opcodes.ENC_INT8, 1), (opcodes.ENC_INT16, 2), (opcodes.ENC_INT32, 4)):
            if -(1 << (8 * width - 1)) <= int(data) < 1 << (8 * width - 1):
                return bytes([0xC0 | mark]) + int(data).to_bytes(width, "little", signed=True)
    if encoding.compress and len(data) > 20:
        packed = lzf.compress(data)
        if len(packed) < len(data) - 4:
            return bytes([0xC0 | opcodes.ENC_LZF]) + length(len(packed)) + length(len(data)) + packed
    return length(len(data)) + data


def text_score(score: float) -> bytes:
    """A score of type ZSET: one byte of length and ascii digits; 253 nan, 254 inf, 255 -inf."""
    if score != score:
        return b"\xfd"
    if score in (float("inf"), float("-inf")):
        return b"\xfe" if score > 0 else b"\xff"
    digits = b"%.17g" % score
    return bytes([len(digits)]) + digits


def packed_score(score: float) -> bytes:
    """A score in a packed sorted set: digits; an integer where it is one."""
    if abs(score) < 1 << 53 and score == int(score) and not (score == 0 and str(score).startswith("-")):
        return b"%d" % int(score)
    return b"%.17g" % score


def default_type(record: Record, dialect: int, version: int) -> int:
    """The plain type for `record` that every server takes which takes `version`. LocalProtocolError: there is none."""
    kind = record.kind
    if kind == opcodes.KIND_STRING:
        return opcodes.TYPE_STRING
    if kind == opcodes.KIND_LIST:
        return opcodes.TYPE_LIST
    if kind == opcodes.KIND_SET:
        return opcodes.TYPE_SET
    if kind == opcodes.KIND_ZSET:
        return opcodes.TYPE_ZSET_2 if version >= 8 else opcodes.TYPE_ZSET
    if kind == opcodes.KIND_HASH:
        if all(found.expire_ms == -1 for found in record.value.values()):
            return opcodes.TYPE_HASH
        if dialect == opcodes.DIALECT_VALKEY:
            return opcodes.VALKEY_TYPE_HASH_2
        if version >= 12:
            return opcodes.TYPE_HASH_METADATA
        raise LocalProtocolError(
            f"a hash whose fields expire has no encoding in version {version}", remedy="choose a policy for field TTLs before it is written"
        )
    if kind == opcodes.KIND_STREAM:
        if version >= 11:
            return opcodes.TYPE_STREAM_LISTPACKS_3
        return opcodes.TYPE_STREAM_LISTPACKS_2 if version == 10 else opcodes.TYPE_STREAM_LISTPACKS
    return opcodes.TYPE_MODULE_2


def value(record: Record, type_id: int, dialect: int, encoding: Encoding = PLAIN) -> bytes:
    """The value of `record` as `type_id` of `dialect`, without type and key."""
    shape = opcodes.shapes(dialect)[type_id]
    kind = opcodes.kinds(dialect)[type_id]
    if kind != record.kind:
        raise LocalProtocolError(
            f"a {opcodes.KIND_NAMES[record.kind]} cannot be written as {opcodes.name_of(dialect, type_id)}",
            remedy="choose a type of its kind",
        )
    if shape == opcodes.SHAPE_STREAM:
        number = {opcodes.TYPE_STREAM_LISTPACKS: 1, opcodes.TYPE_STREAM_LISTPACKS_2: 2}.get(type_id, 3)
        return _stream(record.value, number, encoding)
    if kind == opcodes.KIND_HASH:
        return _hash(record.value, shape, encoding)
    if kind == opcodes.KIND_LIST:
        return _list(record.value, shape, encoding)
    if kind == opcodes.KIND_ZSET:
        return _zset(record.value, shape, encoding)
    if kind == opcodes.KIND_SET:
        members = sorted(record.value)
        if shape == opcodes.SHAPE_SET_INTSET:
            return string(intset.build([int(member) for member in members]), encoding)
        if shape == opcodes.SHAPE_SET_LISTPACK:
            return string(listpack.build(members), encoding)
        return length(len(members)) + b"".join(string(member, encoding) for member in members)
    if kind == opcodes.KIND_STRING:
        return string(record.value, encoding)
    return _module(record.value)


def _list(items: list[bytes], shape: int, encoding: Encoding) -> bytes:
    if shape == opcodes.SHAPE_LIST_ZIPLIST:
        return string(ziplist.build(items), encoding)
    if shape == opcodes.SHAPE_QUICKLIST:
        nodes = [ziplist.build(part) for part in _parts(items, encoding.pack)]
        return length(len(nodes)) + b"".join(string(node, encoding) for node in nodes)
    if shape == opcodes.SHAPE_QUICKLIST_2:
        if encoding.plain_nodes:
            # a server has plain nodes for big items only; it does not load one that is empty
            plain = [
                b"\x01" + string(item, replace(encoding, integers=False)) if item else b"\x02" + string(listpack.build([b""]))
                for item in items
            ]
            return length(len(items)) + b"".join(plain)
        nodes = [listpack.build(part) for part in _parts(items, encoding.pack)]
        return length(len(nodes)) + b"".join(b"\x02" + string(node, encoding) for node in nodes)
    return length(len(items)) + b"".join(string(item, encoding) for item in items)


def _parts(items: list[bytes], size: int) -> list[list[bytes]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _zset(scores: dict[bytes, float], shape: int, encoding: Encoding) -> bytes:
    if shape in (opcodes.SHAPE_ZSET_LISTPACK, opcodes.SHAPE_ZSET_ZIPLIST):
        ordered = sorted(scores.items(), key=lambda pair: (pair[1], pair[0]))
        flat = [part for member, score in ordered for part in (member, packed_score(score))]
        return string(listpack.build(flat) if shape == opcodes.SHAPE_ZSET_LISTPACK else ziplist.build(flat), encoding)
    if shape == opcodes.SHAPE_ZSET_TEXT:
        return length(len(scores)) + b"".join(string(member, encoding) + text_score(score) for member, score in scores.items())
    return length(len(scores)) + b"".join(string(member, encoding) + struct.pack("<d", score) for member, score in scores.items())


def _hash(fields: dict[bytes, Field], shape: int, encoding: Encoding) -> bytes:
    pairs = [(name, found.value) for name, found in fields.items()]
    if shape == opcodes.SHAPE_HASH_ZIPMAP:
        return string(zipmap.build(pairs), encoding)
    if shape == opcodes.SHAPE_HASH_ZIPLIST:
        return string(ziplist.build([part for pair in pairs for part in pair]), encoding)
    if shape == opcodes.SHAPE_HASH_LISTPACK:
        return string(listpack.build([part for pair in pairs for part in pair]), encoding)
    count = length(len(fields))
    if shape == opcodes.SHAPE_HASH_2:
        return count + b"".join(
            string(name, encoding) + string(found.value, encoding) + struct.pack("<q", found.expire_ms) for name, found in fields.items()
        )
    if shape == opcodes.SHAPE_HASH:
        return count + b"".join(string(name, encoding) + string(data, encoding) for name, data in pairs)
    times = [found.expire_ms for found in fields.values() if found.expire_ms != -1]
    first = min(times) if times else 1 << 48  # ebuckets.h EB_EXPIRE_TIME_INVALID
    if shape in (opcodes.SHAPE_HASH_TRIPLES, opcodes.SHAPE_HASH_TRIPLES_BARE):
        # servers keep them sorted by expiry, those without one last
        ordered = sorted(fields.items(), key=lambda pair: (pair[1].expire_ms == -1, pair[1].expire_ms))
        blob = listpack.build([part for name, found in ordered for part in (name, found.value, b"%d" % max(found.expire_ms, 0))])
        return (struct.pack("<Q", first) if shape == opcodes.SHAPE_HASH_TRIPLES else b"") + string(blob, encoding)
    relative = shape == opcodes.SHAPE_HASH_TTL_RELATIVE
    out = [struct.pack("<Q", first) if relative else b"", count]
    for name, found in fields.items():
        ttl = 0 if found.expire_ms == -1 else found.expire_ms - first + 1 if relative else found.expire_ms
        out += [length(ttl), string(name, encoding), string(found.value, encoding)]
    return b"".join(out)


def _id(found: Id) -> bytes:
    return struct.pack(">QQ", found.ms, found.seq)


def _stream(stream: Stream, number: int, encoding: Encoding) -> bytes:
    nodes = list(_nodes(stream.entries, encoding))
    out = [length(len(nodes))]
    for master, blob in nodes:
        out += [length(16), _id(master), string(blob, encoding)]
    out += [length(stream.length), length(stream.last.ms), length(stream.last.seq)]
    if number >= 2:
        for found in (stream.first, stream.max_deleted):
            out += [length(found.ms), length(found.seq)]
        out.append(length(stream.entries_added))
    out.append(length(len(stream.groups)))
    for group in stream.groups:
        out += [string(group.name, encoding), length(group.last.ms), length(group.last.seq)]
        if number >= 2:
            out.append(length(group.entries_read % (1 << 64)))
        out.append(length(len(group.pending)))
        for pending in group.pending:
            out += [_id(pending.id), struct.pack("<q", pending.delivery_ms), length(pending.delivery_count)]
        out.append(length(len(group.consumers)))
        for consumer in group.consumers:
            out += [string(consumer.name, encoding), struct.pack("<q", consumer.seen_ms)]
            if number >= 3:
                out.append(struct.pack("<q", consumer.active_ms))
            out += [length(len(consumer.owned)), *(_id(found) for found in consumer.owned)]
    return b"".join(out)


def _nodes(entries: list[Entry], encoding: Encoding) -> Iterator[tuple[Id, bytes]]:
    """The entries in nodes of `encoding.pack`, each with its master id. Layout: see streams.py."""
    builder = listpack.Builder()
    for start in range(0, len(entries), encoding.pack):
        part = entries[start : start + encoding.pack]
        master = part[0].id
        shared = part[0].fields[0::2]
        builder.append_integer(len(part))
        builder.append_integer(0)
        builder.append_integer(len(shared))
        for name in shared:
            builder.append(name)
        builder.append_integer(0)
        for entry in part:
            same = encoding.same_fields and entry.fields[0::2] == shared
            builder.append_integer(2 if same else 0)
            builder.append_integer(_wrapped(entry.id.ms - master.ms))
            builder.append_integer(_wrapped(entry.id.seq - master.seq))
            if not same:
                builder.append_integer(len(entry.fields) // 2)
            for data in entry.fields[1::2] if same else entry.fields:
                builder.append(data)
            builder.append_integer(len(shared) + 3 if same else len(entry.fields) + 4)
        yield master, builder.finish()


def _wrapped(difference: int) -> int:
    """As a server stores a difference of two unsigned 64 bit numbers: in signed 64 bits."""
    return (difference + (1 << 63)) % (1 << 64) - (1 << 63)


def _module(module: Module) -> bytes:
    return length(module.module_id) + _parts_of_module(module.parts)


def _parts_of_module(parts: Iterable[tuple[int, bytes]]) -> bytes:
    out = bytearray()
    for opcode, data in parts:
        out += length(opcode)
        if opcode in (opcodes.MODULE_SINT, opcodes.MODULE_UINT):
            out += length(int.from_bytes(data, "big"))
        else:
            out += string(data) if opcode == opcodes.MODULE_STRING else data
    return bytes(out) + length(opcodes.MODULE_EOF)


class SnapshotWriter:
    """Writes one snapshot: `aux`, `select`, `record` …, then `finish`. What was written is in `take`, or all of it in `finish` if never taken."""

    def __init__(self, dialect: int, version: int, *, checksum: bool = True) -> None:
        self.dialect = dialect
        self.version = version
        self.checksum = checksum
        self._crc = 0
        self._database = -1
        magic = b"VALKEY%03d" if dialect == opcodes.DIALECT_VALKEY else b"REDIS%04d"
        self._out = bytearray(magic % version)

    def take(self) -> bytes:
        """What was written since the last call."""
        out = bytes(self._out)
        self._crc = crc64(out, self._crc)
        self._out.clear()
        return out

    def aux(self, name: bytes, data: bytes) -> None:
        self._out += bytes([opcodes.OP_AUX]) + string(name) + string(data)

    def select(self, database: int) -> None:
        self._out += bytes([opcodes.OP_SELECTDB]) + length(database)
        self._database = database

    def resize(self, keys: int, expires: int) -> None:
        self._out += bytes([opcodes.OP_RESIZEDB]) + length(keys) + length(expires)

    def function(self, code: bytes) -> None:
        self._out += bytes([opcodes.OP_FUNCTION2]) + string(code)

    def module_aux(self, module: Module, when: int) -> None:
        self._out += bytes([opcodes.OP_MODULE_AUX]) + length(module.module_id) + length(opcodes.MODULE_UINT) + length(when)
        self._out += _parts_of_module(module.parts)

    def raw(self, data: bytes) -> None:
        """Bytes that are whole items already."""
        self._out += data

    def record(self, record: Record, encoding: Encoding = PLAIN) -> None:
        """One record, after SELECTDB when its database is another than the last one's."""
        if record.database != self._database:
            self.select(record.database)
        type_id = default_type(record, self.dialect, self.version) if encoding.type_id is None else encoding.type_id
        out = self._out
        if record.expire_ms != -1:
            out += bytes([opcodes.OP_EXPIRETIME_MS]) + struct.pack("<q", record.expire_ms)
        if record.idle != -1:
            out += bytes([opcodes.OP_IDLE]) + length(record.idle)
        if record.freq != -1:
            out += bytes([opcodes.OP_FREQ, record.freq])
        out.append(type_id)
        out += string(record.key, encoding)
        out += value(record, type_id, self.dialect, encoding)

    def finish(self) -> bytes:
        """The rest of the snapshot, with its footer."""
        self._out.append(opcodes.OP_EOF)
        rest = self.take()
        if self.version < opcodes.FIRST_VERSION_WITH_FOOTER:
            return rest
        return rest + (self._crc if self.checksum else 0).to_bytes(8, "little")


def dump_payload(record: Record, dialect: int, version: int, encoding: Encoding = PLAIN) -> bytes:
    """What RESTORE takes for `record`, without its expiry, which is RESTORE's argument."""
    type_id = default_type(record, dialect, version) if encoding.type_id is None else encoding.type_id
    return sealed(bytes([type_id]) + value(record, type_id, dialect, encoding), version)
