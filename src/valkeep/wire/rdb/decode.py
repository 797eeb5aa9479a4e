"""Opens an RDB snapshot element by element: bytes in, calls into a `Handler` out, whatever the chunks.

`chunks.Chunks` cuts the snapshot into units and makes it resumable; here is what the units are. Between units the whole state is a few integers:
`state` says what the next unit is, `shape` how the value is laid out, and counters what is left of a collection, of a stream's groups, of a
group's consumers. A collection of any number of elements needs no memory; a packed blob is whole in memory, as it is in a server.

How it fails. RemoteProtocolError: what no server could have written, or a newer one. Refused: what only its writer can read. Both say the byte and
the key. A decoder that has failed, or whose handler has raised, stays failed.

What it does not do: judge (a set that holds a member twice, a key that a server would drop at load); join pending entries to their consumers
(`record.Collect` does); write. The module is long because it is one state machine, and a state is easier to check beside its neighbours.

Source: rdb.c rdbLoadRioWithLoadingCtx and rdbLoadObject of Redis 2.8 to 8.4 and Valkey 7.2 to 9.1.
"""

from __future__ import annotations

from struct import Struct

from valkeep.errors import ProtocolError, Refused

from ..listpack import signed64
from . import opcodes
from .chunks import MAX_BLOB, Chunks
from .dump import opened
from .handler import Handler
from .opcodes import (
    DIALECT_REDIS,
    DIALECT_VALKEY,
    FIRST_VERSION_WITH_FOOTER,
    FOOTER_SIZE,
    HEADER_SIZE,
    KIND_STRING,
    MODULE_DOUBLE,
    MODULE_EOF,
    MODULE_FLOAT,
    MODULE_STRING,
    MODULE_UINT,
    NODE_PACKED,
    NODE_PLAIN,
    OP_AUX,
    OP_EOF,
    OP_EXPIRETIME,
    OP_EXPIRETIME_MS,
    OP_FREQ,
    OP_FUNCTION2,
    OP_IDLE,
    OP_KEY_META,
    OP_MODULE_AUX,
    OP_RESIZEDB,
    OP_SELECTDB,
    OP_SLOT_IMPORT,
    OP_SLOT_INFO,
    SHAPE_HASH,
    SHAPE_HASH_2,
    SHAPE_HASH_LISTPACK,
    SHAPE_HASH_TRIPLES,
    SHAPE_HASH_TRIPLES_BARE,
    SHAPE_HASH_TTL_ABSOLUTE,
    SHAPE_HASH_TTL_RELATIVE,
    SHAPE_HASH_ZIPLIST,
    SHAPE_HASH_ZIPMAP,
    SHAPE_LIST,
    SHAPE_MODULE,
    SHAPE_QUICKLIST,
    SHAPE_QUICKLIST_2,
    SHAPE_SET,
    SHAPE_SET_LISTPACK,
    SHAPE_STREAM,
    SHAPE_STRING,
    SHAPE_ZSET_BINARY,
    SHAPE_ZSET_LISTPACK,
    SHAPE_ZSET_TEXT,
    TYPE_STREAM_LISTPACKS,
    TYPE_STREAM_LISTPACKS_3,
)
from .packed import Packed, score_of
from .streams import Nodes

__all__ = ["Decoder", "MAX_BLOB", "decode_payload"]

# --- states: what the next unit is ---------------------------------------------------------------------------------------------------------
HEADER = 0  # the 9 bytes of magic and version
NEXT = 1  # a type with its key, or an opcode
COUNT = 2  # the number of elements
ELEMENT = 3  # one element of a collection, by shape
BLOB = 4  # the one packed blob that is the value
STREAM_META = 5
GROUP = 6
PENDING = 7
CONSUMERS = 8  # the number of consumers
CONSUMER = 9
OWNED = 10
MODULE_ID = 11
PART = 12  # one part of a module's value, auxiliary data or key metadata
META_CLASS = 13
FOOTER = 14
DONE = 15

# --- whose parts the state PART reads ------------------------------------------------------------------------------------------------------
OF_RECORD = 0
OF_AUX = 1
OF_KEY_META = 2

_DOUBLE = Struct("<d").unpack_from
_SPECIAL_SCORES = (float("nan"), float("inf"), float("-inf"))  # codes 253, 254, 255 in place of the length of a text score
_FARTHEST_EXPIRY = (1 << 48) - 1  # ms: ebuckets.h EB_EXPIRE_TIME_MAX; also what keeps the sum below within 64 bits


class Decoder(Chunks):
    """`feed` it the snapshot in any chunks; it calls `handler`. `finished` once the footer was right; `unused` is what came behind it.

    `offset`: bytes decoded so far. `type_id`: the type number of the record that is being told. `max_blob`: bytes, the longest string or
    packed blob that is accepted. `close` says that no more bytes come.
    """

    __slots__ = (
        "consumers_left", "database", "dialect", "expire_ms", "first_expiry", "freq", "groups_left", "handler", "idle", "key", "kind_of", "left",
        "meta_class", "meta_left", "nodes", "owner", "packed", "parts", "shape", "shape_of", "single", "state", "stream_added", "stream_first_ms",
        "stream_first_seq", "stream_last_ms", "stream_last_seq", "stream_version", "type_id", "version",
    )  # fmt: skip

    def __init__(self, handler: Handler, max_blob: int = MAX_BLOB) -> None:
        super().__init__(max_blob)
        self.handler = handler
        self.dialect = 0
        self.version = 0
        self.shape_of = memoryview(bytes(256))
        self.kind_of = memoryview(bytes(256))
        self.single = False  # one value without a key: a payload
        self.state = HEADER
        self.database = 0
        # the record
        self.type_id = 0
        self.shape = 0
        self.key = b""
        self.expire_ms = -1
        self.freq = -1
        self.idle = -1
        self.left = 0  # elements, nodes, pending entries: of what is being read
        self.first_expiry = 0
        self.owner = OF_RECORD
        self.meta_class = 0
        self.meta_left = 0
        self.parts: list[tuple[int, bytes]] = []
        # its stream
        self.stream_version = 0
        self.stream_added = 0
        self.stream_last_ms = 0
        self.stream_last_seq = 0
        self.stream_first_ms = 0
        self.stream_first_seq = 0
        self.groups_left = 0
        self.consumers_left = 0
        self.packed = Packed()
        self.nodes = Nodes()

    def unit(self) -> bool:
        """Read one unit. False: it is not all there, nothing was told to the handler, and `missing` more bytes are needed at least."""
        state = self.state
        if state == NEXT:
            return self.next_item()
        if state == ELEMENT:
            if self.left == 0:
                self.elements_end()
                return True
            self.left -= 1
            if self.element():
                return True
            self.left += 1
            return False
        if state == COUNT:
            return self.count()
        if state == BLOB:
            return self.blob()
        if state == PART:
            return self.part()
        if STREAM_META <= state <= OWNED:
            return self.stream_unit(state)
        if state == HEADER:
            return self.header()
        if state == MODULE_ID:
            if not self.length():
                return False
            self.handler.module(self.number)
            self.owner = OF_RECORD
            self.state = PART
            return True
        if state == META_CLASS:
            return self.meta()
        return self.footer()

    def place(self) -> str:
        where = f"RDB byte {self.base + self.pos}"
        if self.state == HEADER or self.state == NEXT:
            return where
        shown = self.key if len(self.key) <= 64 else self.key[:64] + b"..."
        return f"{where}, {opcodes.name_of(self.dialect, self.type_id)} of key {shown!r} in database {self.database}"

    # --- items -----------------------------------------------------------------------------------------------------------------------------

    def header(self) -> bool:
        if not self.room(HEADER_SIZE):
            opcodes.parse_header(self.raw)  # may already know that it is none
            return False
        found = opcodes.parse_header(self.raw)
        if found is None:
            return False
        opcodes.check_version(found)
        self.begin(found.dialect, found.version)
        self.pos = HEADER_SIZE
        return True

    def begin(self, dialect: int, version: int) -> None:
        self.dialect = dialect
        self.version = version
        self.shape_of = memoryview(opcodes.shapes(dialect))
        self.kind_of = memoryview(opcodes.kinds(dialect))
        self.state = NEXT
        self.handler.begin(dialect, version)

    def next_item(self) -> bool:
        """A type with its key (and the value of a string), or an opcode with its operands."""
        pos = self.pos
        if pos >= self.size:
            return False
        number = self.view[pos]
        shape = self.shape_of[number]
        self.pos = pos + 1
        if shape == 0:
            return self.opcode(number)
        key = self.key if self.single else self.text()
        if key is None:
            return False
        self.type_id = number
        if shape == SHAPE_STRING:
            value = self.text()
            if value is None:
                return False
            self.key = key
            self.handler.begin_key(key, self.expire_ms, KIND_STRING, self.freq, self.idle)
            self.handler.string(value)
            self.end_key()
            return True
        self.key = key
        self.shape = shape
        self.state = self.first_state(shape)
        self.handler.begin_key(key, self.expire_ms, self.kind_of[number], self.freq, self.idle)
        return True

    def first_state(self, shape: int) -> int:
        """What the first unit of a value of `shape` is."""
        if shape == SHAPE_MODULE:
            return MODULE_ID
        if shape == SHAPE_STREAM:
            self.nodes.begin()
            self.stream_version = 1 if self.type_id == TYPE_STREAM_LISTPACKS else 2
            if self.type_id == TYPE_STREAM_LISTPACKS_3:
                self.stream_version = 3
            return COUNT
        if SHAPE_HASH_ZIPMAP <= shape <= SHAPE_HASH_ZIPLIST or SHAPE_HASH_LISTPACK <= shape <= SHAPE_ZSET_LISTPACK:
            return BLOB
        if shape in (SHAPE_SET_LISTPACK, SHAPE_HASH_TRIPLES, SHAPE_HASH_TRIPLES_BARE):
            return BLOB
        return COUNT

    def end_key(self) -> None:
        self.expire_ms = -1
        self.freq = -1
        self.idle = -1
        self.state = DONE if self.single else NEXT
        self.finished = self.single
        self.handler.end_key()

    def opcode(self, number: int) -> bool:
        """An opcode with its operands; `number` is no type."""
        if self.single and number != OP_KEY_META:
            raise self.unknown(number)
        if number == OP_EXPIRETIME_MS:
            if not self.room(8):
                return False
            self.expire_ms = signed64(self.bits(8))
        elif number == OP_EXPIRETIME:
            if not self.room(4):
                return False
            seconds = signed64(self.bits(4))
            seconds -= seconds >> 31 << 32
            self.expire_ms = seconds * 1000
        elif number == OP_FREQ:
            if not self.room(1):
                return False
            self.freq = self.bits(1)
        elif number == OP_IDLE:
            if not self.length():
                return False
            if self.number >> 62:
                raise self.broken(f"an idle time of {self.number} seconds is not possible")
            self.idle = self.number
        elif number == OP_SELECTDB:
            if not self.length():
                return False
            self.database = self.number
            self.handler.select(self.number)
        elif number == OP_RESIZEDB:
            if not self.length():
                return False
            keys = self.number
            if not self.length():
                return False
            self.handler.resize(keys, self.number)
        elif number == OP_AUX:
            name = self.text()
            value = None if name is None else self.text()
            if name is None or value is None:
                return False
            self.handler.aux(name, value)
        elif number == OP_FUNCTION2:
            code = self.text()
            if code is None:
                return False
            self.handler.function(code)
        elif number == OP_EOF:
            if self.expire_ms != -1 or self.freq != -1 or self.idle != -1:
                raise self.broken("the snapshot ends between the prefix of a record and the record")
            self.sum(self.pos)
            self.state = FOOTER
        elif number == OP_SLOT_INFO:
            if not self.length():
                return False
            slot = self.number
            if not self.length():
                return False
            keys = self.number
            if not self.length():
                return False
            self.handler.slot_info(slot, keys, self.number)
        elif number == OP_MODULE_AUX:
            return self.module_aux()
        elif number == OP_SLOT_IMPORT and self.dialect == DIALECT_VALKEY:
            return self.slot_import()
        elif number == OP_KEY_META and self.dialect == DIALECT_REDIS and self.version >= 13:
            if not self.length():
                return False
            self.meta_left = self.number
            self.state = META_CLASS
        else:
            raise self.unknown(number)
        return True

    def unknown(self, number: int) -> ProtocolError | Refused:
        """The error for a type or opcode that is not known here, or known not to be readable."""
        name = opcodes.name_of(self.dialect, number)
        if name == f"type {number}":
            return self.broken(f"{number} is no type or opcode of version {self.version}")
        refused = Refused(
            f"{self.place()}: {name} ({number}) cannot be read: its layout is known to its writer only",
            remedy="delete or convert such keys at the source (MODULE_AUX and functions: remove the module or the library), then take the snapshot again",
        )
        self.error = refused
        return refused

    def slot_import(self) -> bool:
        job = self.text()
        if job is None or not self.length():
            return False
        count = self.number
        if count > 16384:
            raise self.broken(f"a slot import claims {count} ranges, more than there are slots")
        ranges = []
        while count > 0:
            if not self.length():
                return False
            first = self.number
            if not self.length():
                return False
            ranges.append((first, self.number))
            count -= 1
        self.handler.slot_import(job, ranges)
        return True

    def footer(self) -> bool:
        stored = 0
        if self.version >= FIRST_VERSION_WITH_FOOTER:
            if not self.room(FOOTER_SIZE):
                return False
            stored = self.bits(8)
            if stored != 0 and stored != self.crc:
                raise self.broken(f"the snapshot is damaged: its checksum says {stored:016x}, its bytes make {self.crc:016x}")
        self.summed = self.pos
        self.state = DONE
        self.finished = True
        self.handler.end(stored)
        return True

    # --- modules ---------------------------------------------------------------------------------------------------------------------------

    def module_aux(self) -> bool:
        if not self.length():
            return False
        module_id = self.number
        if not self.length():
            return False
        if self.number != MODULE_UINT:
            raise self.broken(f"auxiliary data of a module begins with module opcode {self.number}, not with {MODULE_UINT}")
        if not self.length():
            return False
        self.handler.module_aux(module_id, self.number)
        self.owner = OF_AUX
        self.state = PART
        return True

    def meta(self) -> bool:
        """The class of the next metadata of a key, or the end of its metadata."""
        if self.meta_left == 0:
            self.state = NEXT
            return True
        if not self.room(4):
            return False
        self.meta_class = self.bits(4)
        self.meta_left -= 1
        self.parts = []
        self.owner = OF_KEY_META
        self.state = PART
        return True

    def part(self) -> bool:
        """One part of what a module has written."""
        if not self.length():
            return False
        opcode = self.number
        if opcode == MODULE_EOF:
            if self.owner == OF_RECORD:
                self.end_key()
            elif self.owner == OF_AUX:
                self.state = NEXT
            else:
                self.handler.key_meta(self.meta_class, self.parts)
                self.parts = []
                self.state = META_CLASS
            return True
        if opcode > MODULE_STRING:
            raise self.broken(f"{opcode} is no module opcode")
        kind = opcode
        data = self.operand(kind)
        if data is None:
            return False
        if self.owner == OF_KEY_META:
            self.parts.append((kind, data))
        else:
            self.handler.module_part(kind, data)
        return True

    def operand(self, kind: int) -> bytes | None:
        if kind == MODULE_STRING:
            return self.text()
        if kind == MODULE_FLOAT:
            return self.plain(4)
        if kind == MODULE_DOUBLE:
            return self.plain(8)
        return self.number.to_bytes(8, "big") if self.length() else None

    # --- collections -----------------------------------------------------------------------------------------------------------------------

    def count(self) -> bool:
        """The number of elements, with what stands before it."""
        if self.shape == SHAPE_HASH_TTL_RELATIVE:
            if not self.room(8):
                return False
            self.expiry_base(self.bits(8))
        if not self.length():
            return False
        self.left = self.number
        self.state = ELEMENT
        return True

    def expiry_base(self, first: int) -> None:
        """The time that relative expiries start from; EB_EXPIRE_TIME_INVALID, one past the farthest, when no field has any."""
        if first > _FARTHEST_EXPIRY + 1:
            raise self.broken(f"a hash says its first field expires at {first}, which is not possible")
        self.first_expiry = first

    def elements_end(self) -> None:
        if self.shape == SHAPE_STREAM:
            self.state = STREAM_META
        else:
            self.end_key()

    def element(self) -> bool:
        """One element of a collection, or one node of a list or stream."""
        shape = self.shape
        if shape == SHAPE_QUICKLIST_2:
            return self.quicklist_node()
        if shape in (SHAPE_HASH_TTL_RELATIVE, SHAPE_HASH_TTL_ABSOLUTE):
            return self.field_with_ttl(shape)
        first = self.text()
        if first is None:
            return False
        if shape == SHAPE_LIST:
            self.handler.item(first)
        elif shape == SHAPE_SET:
            self.handler.member(first)
        elif shape == SHAPE_HASH:
            value = self.text()
            if value is None:
                return False
            self.handler.field(first, value, -1)
        elif shape == SHAPE_ZSET_BINARY:
            if not self.room(8):
                return False
            self.pos += 8
            self.handler.scored(first, _DOUBLE(self.raw, self.pos - 8)[0])
        elif shape == SHAPE_ZSET_TEXT:
            if not self.room(1):
                return False
            size = self.bits(1)
            if size < 253:
                digits = self.plain(size)
                if digits is None:
                    return False
                self.handler.scored(first, score_of(digits))
            else:
                self.handler.scored(first, _SPECIAL_SCORES[size - 253])
        elif shape == SHAPE_HASH_2:
            value = self.text()
            if value is None or not self.room(8):
                return False
            self.handler.field(first, value, self.field_expiry(signed64(self.bits(8))))
        elif shape == SHAPE_QUICKLIST:
            self.packed.items_of_ziplist(self.handler, first)
        else:
            blob = self.text()
            if blob is None:
                return False
            self.nodes.tell(self.handler, first, blob)
        return True

    def field_expiry(self, expire_ms: int) -> int:
        if expire_ms < -1:
            raise self.broken(f"a field says it expires at {expire_ms}, which is not possible")
        return expire_ms

    def field_with_ttl(self, shape: int) -> bool:
        if not self.length():
            return False
        expire_ms = -1
        if self.number > _FARTHEST_EXPIRY:
            raise self.broken(f"a field says it expires at or in {self.number} ms, which is not possible")
        if self.number > 0:
            expire_ms = self.number
            if shape == SHAPE_HASH_TTL_RELATIVE:
                expire_ms += self.first_expiry - 1
                if expire_ms > _FARTHEST_EXPIRY or expire_ms == 0:
                    raise self.broken(f"a field says it expires at {expire_ms}, which is not possible")
        name = self.text()
        value = None if name is None else self.text()
        if name is None or value is None:
            return False
        self.handler.field(name, value, expire_ms)
        return True

    def quicklist_node(self) -> bool:
        if not self.length():
            return False
        container = self.number
        blob = self.text()
        if blob is None:
            return False
        if container == NODE_PLAIN:
            self.handler.item(blob)
        elif container == NODE_PACKED:
            self.packed.items_of_listpack(self.handler, blob)
        else:
            raise self.broken(f"a list node has the unknown container {container}")
        return True

    def blob(self) -> bool:
        """The packed blob that is the whole value."""
        if self.shape == SHAPE_HASH_TRIPLES:
            if not self.room(8):
                return False
            self.expiry_base(self.bits(8))
        blob = self.text()
        if blob is None:
            return False
        self.packed.tell(self.handler, self.shape, blob)
        self.end_key()
        return True

    # --- streams ---------------------------------------------------------------------------------------------------------------------------

    def stream_unit(self, state: int) -> bool:
        if state == STREAM_META:
            return self.stream_meta()
        if state == GROUP:
            return self.group()
        if state == PENDING:
            return self.pending()
        if state == CONSUMERS:
            if not self.length():
                return False
            self.consumers_left = self.number
            self.state = CONSUMER
            return True
        if state == CONSUMER:
            return self.consumer()
        return self.owned()

    def stream_meta(self) -> bool:
        if not self.length():
            return False
        length = self.number
        if not self.length():
            return False
        last_ms = self.number
        if not self.length():
            return False
        last_seq = self.number
        first_ms = 0
        first_seq = 0
        deleted_ms = 0
        deleted_seq = 0
        added = length
        if self.stream_version >= 2:
            if not self.length():
                return False
            first_ms = self.number
            if not self.length():
                return False
            first_seq = self.number
            if not self.length():
                return False
            deleted_ms = self.number
            if not self.length():
                return False
            deleted_seq = self.number
            if not self.length():
                return False
            added = self.number
        elif self.nodes.has_first:
            first_ms = self.nodes.first_ms
            first_seq = self.nodes.first_seq
        else:
            first_ms = 0xFFFFFFFFFFFFFFFF  # as t_stream.c streamGetEdgeID leaves it
            first_seq = 0xFFFFFFFFFFFFFFFF
        if not self.length():
            return False
        self.groups_left = self.number
        self.stream_last_ms = last_ms
        self.stream_last_seq = last_seq
        self.stream_first_ms = first_ms
        self.stream_first_seq = first_seq
        self.stream_added = added
        self.state = GROUP
        self.handler.stream_meta(length, last_ms, last_seq, first_ms, first_seq, deleted_ms, deleted_seq, added)
        return True

    def group(self) -> bool:
        if self.groups_left == 0:
            self.end_key()
            return True
        name = self.text()
        if name is None or not self.length():
            return False
        ms = self.number
        if not self.length():
            return False
        seq = self.number
        read = 0
        if self.stream_version >= 2:
            if not self.length():
                return False
            read = signed64(self.number)
        else:
            read = self.entries_read(ms, seq)
        if not self.length():
            return False
        self.left = self.number
        self.groups_left -= 1
        self.state = PENDING
        self.handler.group(name, ms, seq, read)
        return True

    def entries_read(self, ms: int, seq: int) -> int:
        """What a server takes a version 1 group to have read.    # t_stream.c streamEstimateDistanceFromFirstEverEntry"""
        if self.stream_added == 0:
            return 0
        if ms == self.stream_last_ms and seq == self.stream_last_seq:
            return self.stream_added
        if ms > self.stream_last_ms or (ms == self.stream_last_ms and seq > self.stream_last_seq):
            return -1
        if ms == self.stream_first_ms and seq == self.stream_first_seq:
            return 1
        if ms < self.stream_first_ms or (ms == self.stream_first_ms and seq < self.stream_first_seq):
            return 0
        return -1

    def pending(self) -> bool:
        if self.left == 0:
            self.state = CONSUMERS
            return True
        if not self.room(24):
            return False
        ms = self.bits_big()
        seq = self.bits_big()
        delivered = signed64(self.bits(8))
        if not self.length():
            return False
        self.left -= 1
        self.handler.pending(ms, seq, delivered, self.number)
        return True

    def consumer(self) -> bool:
        if self.consumers_left == 0:
            self.state = GROUP
            return True
        name = self.text()
        if name is None or not self.room(16 if self.stream_version >= 3 else 8):
            return False
        seen = signed64(self.bits(8))
        active = seen
        if self.stream_version >= 3:
            active = signed64(self.bits(8))
        if not self.length():
            return False
        self.left = self.number
        self.consumers_left -= 1
        self.state = OWNED
        self.handler.consumer(name, seen, active)
        return True

    def owned(self) -> bool:
        if self.left == 0:
            self.state = CONSUMER
            return True
        if not self.room(16):
            return False
        ms = self.bits_big()
        seq = self.bits_big()
        self.left -= 1
        self.handler.owned(ms, seq)
        return True

    def decode_value(self, body: bytes, key: bytes, dialect: int, version: int) -> None:
        """Decode `body`, one type and value without a key, as the record `key`: the inside of a DUMP payload."""
        self.begin(dialect, version)
        self.key = key
        self.single = True
        self.keep_crc = False
        self.feed(body)
        if not self.finished:
            raise self.broken(f"the payload ends after {len(body)} bytes, before its value is complete")
        if self.unused:
            raise self.broken(f"{len(self.unused)} bytes stand behind the value of the payload")


def decode_payload(payload: bytes, handler: Handler, key: bytes = b"", max_blob: int = MAX_BLOB) -> int:
    """Decode what DUMP returns and RESTORE takes; `handler` is told one record named `key`. Returns the payload's RDB version.

    Its checksum must be right, zero is not accepted: see dump.py.
    """
    view, header = opened(payload)
    body = bytes(view)
    opcodes.check_version(header)
    Decoder(handler, max_blob).decode_value(body, key, header.dialect, header.version)
    return header.version
