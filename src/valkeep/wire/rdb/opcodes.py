"""What the first byte of everything in an RDB snapshot means: the dispatch table, whose rows are their documentation.

A snapshot is a header of 9 bytes, then items, then the footer::

    52 45 44 49 53 30 30 31 32         REDIS0012            magic REDIS, four digits of version (Redis, and Valkey up to 8.1)
    56 41 4C 4B 45 59 30 38 30         VALKEY080            magic VALKEY, three digits of version (Valkey 9.0 and later)
    FA 0A valkey-ver 05 9.1.2          AUX name value
    FE 00                              SELECTDB 0
    FB 02 01                           RESIZEDB keys expires
    FC <8 bytes> 00 03 foo 03 bar      EXPIRETIME_MS, then a record: type, key, value
    FF <8 bytes>                       EOF, CRC64 of everything before it (version >= 5; zero: not computed)

Lengths (`len` in the layouts below) are drawn beside `LEN_14BIT` and its neighbours; a `string` is a length and that many bytes, or one of
the four encodings ENC_*. A `blob` is a string whose bytes are a packed structure (ziplist, listpack, intset, zipmap), taken as a whole.

**The same number means different things under the two magics** (types 22 and 23, opcode 243): decide by `Header.dialect`, never by the
version. Versions 12 to 79 under magic REDIS are Redis' own since 7.4; Valkey jumped to 80 and changed the magic with it.

What this does not do: read anything. `scan.py` steps over items, `decode.py` opens them.

Source: rdb.h and rdb.c of Redis 2.8 to 8.4 and of Valkey 7.2 to 9.1; rows that say "reported" were not seen in the wild by us.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from valkeep.errors import RemoteProtocolError

MAGIC_REDIS = b"REDIS"
MAGIC_VALKEY = b"VALKEY"
HEADER_SIZE = 9  # bytes
FOOTER_SIZE = 8  # bytes: CRC64, little-endian; absent below version 5
FIRST_VERSION_WITH_FOOTER = 5

DIALECT_REDIS = 0  # magic REDIS: Redis, and Valkey up to 8.1 (version 11)
DIALECT_VALKEY = 1  # magic VALKEY: Valkey 9.0 and later (version 80 and later)

NEWEST_REDIS = 15  # Redis 8.10; 13 to 15 only as far as their layouts are known, see TYPES
NEWEST_VALKEY = 81  # Valkey 9.2; 81 adds a type and an opcode that are refused when met
OLDEST = 1

# --- lengths -----------------------------------------------------------------------------------------------------------------------------
# 00|XXXXXX                                       6 bits: 0 to 63                                              # rdb.h RDB_6BITLEN
# 01|XXXXXX XXXXXXXX                              14 bits, big-endian: 0 to 16383                              # rdb.h RDB_14BITLEN
# 10|000000 <4 bytes, big-endian>                 32 bits                                                      # rdb.h RDB_32BITLEN 0x80
# 10|000001 <8 bytes, big-endian>                 64 bits, since version 8 (Redis 4.0)                         # rdb.h RDB_64BITLEN 0x81
# 11|EEEEEE                                       no length: a string in the special encoding EEEEEE           # rdb.h RDB_ENCVAL
LEN_6BIT = 0
LEN_14BIT = 1
LEN_32BIT = 0x80
LEN_64BIT = 0x81
LEN_ENCODED = 3

# --- special string encodings, the 6 bits after 11 ---------------------------------------------------------------------------------------
ENC_INT8 = 0  # C0 <1 byte, signed>                the string is its decimal digits
ENC_INT16 = 1  # C1 <2 bytes, little-endian, signed>
ENC_INT32 = 2  # C2 <4 bytes, little-endian, signed>
ENC_LZF = 3  # C3 len(compressed) len(plain) <compressed bytes>

# --- inside a module's value: one length each, then its operand --------------------------------------------------------------------------
MODULE_EOF = 0  # 00                                the value ends here
MODULE_SINT = 1  # 01 len                           signed, as 64 bits
MODULE_UINT = 2  # 02 len
MODULE_FLOAT = 3  # 03 <4 bytes>
MODULE_DOUBLE = 4  # 04 <8 bytes>
MODULE_STRING = 5  # 05 string

# --- inside QUICKLIST_2: what one node holds ---------------------------------------------------------------------------------------------
NODE_PLAIN = 1  # 01 string                         one item, too big for a listpack
NODE_PACKED = 2  # 02 blob                          a listpack of items

# --- opcodes: items that are not records -------------------------------------------------------------------------------------------------
OP_KEY_META = 243  # F3 under REDIS (version >= 13)
OP_SLOT_IMPORT = 243  # F3 under VALKEY
OP_SLOT_INFO = 244  # F4
OP_FUNCTION2 = 245  # F5
OP_FUNCTION_PRE_GA = 246  # F6
OP_MODULE_AUX = 247  # F7
OP_IDLE = 248  # F8
OP_FREQ = 249  # F9
OP_AUX = 250  # FA
OP_RESIZEDB = 251  # FB
OP_EXPIRETIME_MS = 252  # FC
OP_EXPIRETIME = 253  # FD
OP_SELECTDB = 254  # FE
OP_EOF = 255  # FF
OP_UPDATE = 242  # F2 under VALKEY (version 81), layout unknown

# --- types of records --------------------------------------------------------------------------------------------------------------------
TYPE_STRING = 0
TYPE_LIST = 1
TYPE_SET = 2
TYPE_ZSET = 3
TYPE_HASH = 4
TYPE_ZSET_2 = 5
TYPE_MODULE_PRE_GA = 6
TYPE_MODULE_2 = 7
TYPE_HASH_ZIPMAP = 9
TYPE_LIST_ZIPLIST = 10
TYPE_SET_INTSET = 11
TYPE_ZSET_ZIPLIST = 12
TYPE_HASH_ZIPLIST = 13
TYPE_LIST_QUICKLIST = 14
TYPE_STREAM_LISTPACKS = 15
TYPE_HASH_LISTPACK = 16
TYPE_ZSET_LISTPACK = 17
TYPE_LIST_QUICKLIST_2 = 18
TYPE_STREAM_LISTPACKS_2 = 19
TYPE_SET_LISTPACK = 20
TYPE_STREAM_LISTPACKS_3 = 21
REDIS_TYPE_HASH_METADATA_PRE_GA = 22
REDIS_TYPE_HASH_LISTPACK_EX_PRE_GA = 23
TYPE_HASH_METADATA = 24
TYPE_HASH_LISTPACK_EX = 25
REDIS_TYPE_STREAM_LISTPACKS_4 = 26
VALKEY_TYPE_HASH_2 = 22
VALKEY_TYPE_PATH_HASH = 23

# --- what a record is to its user: `kind` in handlers and records ------------------------------------------------------------------------
KIND_STRING = 0
KIND_LIST = 1
KIND_SET = 2
KIND_ZSET = 3
KIND_HASH = 4
KIND_STREAM = 5
KIND_MODULE = 6
KIND_NAMES = ("string", "list", "set", "zset", "hash", "stream", "module")  # as the TYPE command says it, but for modules

# --- shapes: how a value is laid out, which is what the decoder's state machine switches on ----------------------------------------------
SHAPE_UNKNOWN = 0  # not in the table, or its layout is not known: refused when met
SHAPE_STRING = 1  # string
SHAPE_LIST = 2  # len, (item)*
SHAPE_SET = 3  # len, (member)*
SHAPE_ZSET_TEXT = 4  # len, (member, score as text)*: 1 byte length and ascii digits; 253 nan, 254 +inf, 255 -inf
SHAPE_ZSET_BINARY = 5  # len, (member, score as 8 bytes little-endian double)*
SHAPE_HASH = 6  # len, (field, value)*
SHAPE_MODULE = 7  # len(module id), (module opcode, operand)*, MODULE_EOF
SHAPE_HASH_ZIPMAP = 8  # blob
SHAPE_LIST_ZIPLIST = 9  # blob
SHAPE_SET_INTSET = 10  # blob
SHAPE_ZSET_ZIPLIST = 11  # blob: member, score, member, score …
SHAPE_HASH_ZIPLIST = 12  # blob: field, value, field, value …
SHAPE_QUICKLIST = 13  # len, (ziplist blob)*
SHAPE_STREAM = 14  # see TYPES
SHAPE_HASH_LISTPACK = 15  # blob: field, value, field, value …
SHAPE_ZSET_LISTPACK = 16  # blob: member, score, member, score …
SHAPE_QUICKLIST_2 = 17  # len, (len(NODE_PLAIN | NODE_PACKED), string)*
SHAPE_SET_LISTPACK = 18  # blob
SHAPE_HASH_TTL_ABSOLUTE = 19  # len, (len(expiry in ms, 0 none), field, value)*
SHAPE_HASH_TRIPLES_BARE = 20  # blob: field, value, expiry in ms (0 none) …
SHAPE_HASH_TTL_RELATIVE = 21  # 8 bytes LE first expiry in ms, len, (len(ttl), field, value)*; ttl 0: none, else first + ttl - 1
SHAPE_HASH_TRIPLES = 22  # 8 bytes LE first expiry in ms, blob: field, value, expiry in ms (0 none) …
SHAPE_HASH_2 = 23  # len, (field, value, 8 bytes LE signed expiry in ms, -1 none)*


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One type of record. `dialects`: "RV" under both magics, "R" or "V" under one."""

    id: int
    name: str
    dialects: str
    kind: int
    shape: int
    since: str
    layout: str


@dataclass(frozen=True, slots=True)
class OpcodeRow:
    """One opcode. `prefix`: it belongs to the record that follows."""

    id: int
    name: str
    dialects: str
    prefix: bool
    since: str
    layout: str


_STREAM = (
    "len, (string of 16 bytes: master id, blob: listpack)*, len length, len last-ms, len last-seq, "
    "[v2: len first-ms, len first-seq, len max-deleted-ms, len max-deleted-seq, len entries-added,] "
    "len, (name, len last-ms, len last-seq, [v2: len entries-read,] "
    "len, (16 bytes id, 8 bytes LE delivery ms, len deliveries)*, "
    "len, (name, 8 bytes LE seen ms, [v3: 8 bytes LE active ms,] len, (16 bytes id)*)*)*"
)

TYPES: tuple[TypeRow, ...] = (
    TypeRow(0, "STRING", "RV", KIND_STRING, SHAPE_STRING, "1.0", "string"),
    TypeRow(1, "LIST", "RV", KIND_LIST, SHAPE_LIST, "1.0", "len, (item)*"),
    TypeRow(2, "SET", "RV", KIND_SET, SHAPE_SET, "1.0", "len, (member)*"),
    TypeRow(3, "ZSET", "RV", KIND_ZSET, SHAPE_ZSET_TEXT, "1.2", "len, (member, text score)*"),
    TypeRow(4, "HASH", "RV", KIND_HASH, SHAPE_HASH, "2.0", "len, (field, value)*"),
    TypeRow(5, "ZSET_2", "RV", KIND_ZSET, SHAPE_ZSET_BINARY, "4.0", "len, (member, 8 bytes LE double)*"),
    TypeRow(6, "MODULE_PRE_GA", "RV", KIND_MODULE, SHAPE_UNKNOWN, "4.0-rc", "known to its module only: no server and no tool can skip it"),
    TypeRow(7, "MODULE_2", "RV", KIND_MODULE, SHAPE_MODULE, "4.0", "len(module id), (opcode, operand)*, EOF"),
    TypeRow(9, "HASH_ZIPMAP", "RV", KIND_HASH, SHAPE_HASH_ZIPMAP, "2.4", "blob: zipmap"),
    TypeRow(10, "LIST_ZIPLIST", "RV", KIND_LIST, SHAPE_LIST_ZIPLIST, "2.4", "blob: ziplist"),
    TypeRow(11, "SET_INTSET", "RV", KIND_SET, SHAPE_SET_INTSET, "2.4", "blob: intset"),
    TypeRow(12, "ZSET_ZIPLIST", "RV", KIND_ZSET, SHAPE_ZSET_ZIPLIST, "2.4", "blob: ziplist of member, score"),
    TypeRow(13, "HASH_ZIPLIST", "RV", KIND_HASH, SHAPE_HASH_ZIPLIST, "2.6", "blob: ziplist of field, value"),
    TypeRow(14, "LIST_QUICKLIST", "RV", KIND_LIST, SHAPE_QUICKLIST, "3.2", "len, (blob: ziplist)*"),
    TypeRow(15, "STREAM_LISTPACKS", "RV", KIND_STREAM, SHAPE_STREAM, "5.0", _STREAM),
    TypeRow(16, "HASH_LISTPACK", "RV", KIND_HASH, SHAPE_HASH_LISTPACK, "7.0", "blob: listpack of field, value"),
    TypeRow(17, "ZSET_LISTPACK", "RV", KIND_ZSET, SHAPE_ZSET_LISTPACK, "7.0", "blob: listpack of member, score"),
    TypeRow(18, "LIST_QUICKLIST_2", "RV", KIND_LIST, SHAPE_QUICKLIST_2, "7.0", "len, (len container, string or blob)*"),
    TypeRow(19, "STREAM_LISTPACKS_2", "RV", KIND_STREAM, SHAPE_STREAM, "7.0", _STREAM),
    TypeRow(20, "SET_LISTPACK", "RV", KIND_SET, SHAPE_SET_LISTPACK, "7.2", "blob: listpack"),
    TypeRow(21, "STREAM_LISTPACKS_3", "RV", KIND_STREAM, SHAPE_STREAM, "7.2", _STREAM),
    TypeRow(22, "HASH_METADATA_PRE_GA", "R", KIND_HASH, SHAPE_HASH_TTL_ABSOLUTE, "7.4-rc", "len, (len expiry ms, field, value)*"),
    TypeRow(23, "HASH_LISTPACK_EX_PRE_GA", "R", KIND_HASH, SHAPE_HASH_TRIPLES_BARE, "7.4-rc", "blob: listpack of field, value, expiry ms"),
    TypeRow(24, "HASH_METADATA", "R", KIND_HASH, SHAPE_HASH_TTL_RELATIVE, "7.4", "8 bytes LE first expiry, len, (len ttl, field, value)*"),
    TypeRow(25, "HASH_LISTPACK_EX", "R", KIND_HASH, SHAPE_HASH_TRIPLES, "7.4", "8 bytes LE first expiry, blob: field, value, expiry ms"),
    TypeRow(22, "HASH_2", "V", KIND_HASH, SHAPE_HASH_2, "9.0", "len, (field, value, 8 bytes LE expiry ms, -1 none)*"),
    TypeRow(26, "STREAM_LISTPACKS_4", "R", KIND_STREAM, SHAPE_UNKNOWN, "8.6", "reported: a stream and a block of idempotent ids"),
    TypeRow(27, "STREAM_LISTPACKS_5", "R", KIND_STREAM, SHAPE_UNKNOWN, "8.8", "reported: a stream and a zone of refused entries"),
    TypeRow(28, "ARRAY", "R", KIND_MODULE, SHAPE_UNKNOWN, "8.8", "reported"),
    TypeRow(23, "PATH_HASH", "V", KIND_HASH, SHAPE_UNKNOWN, "9.2", "reported"),
)

OPCODES: tuple[OpcodeRow, ...] = (
    OpcodeRow(243, "KEY_META", "R", True, "8.6", "reported: len, (4 bytes class, (opcode, operand)*, EOF)*; directly before the type"),
    OpcodeRow(243, "SLOT_IMPORT", "V", False, "9.0", "name of the job, len, (len first slot, len last slot)*"),
    OpcodeRow(244, "SLOT_INFO", "RV", False, "7.4", "len slot, len keys, len keys with expiry; a hint"),
    OpcodeRow(245, "FUNCTION2", "RV", False, "7.0", "string: the library's code with its #! line"),
    OpcodeRow(246, "FUNCTION_PRE_GA", "RV", False, "7.0-rc", "refused by every release, and here"),
    OpcodeRow(247, "MODULE_AUX", "RV", False, "5.0", "len module id, len MODULE_UINT, len when, (opcode, operand)*, EOF"),
    OpcodeRow(248, "IDLE", "RV", True, "5.0", "len: seconds since last use (LRU policies)"),
    OpcodeRow(249, "FREQ", "RV", True, "5.0", "1 byte: LFU counter"),
    OpcodeRow(250, "AUX", "RV", False, "3.2", "string name, string value"),
    OpcodeRow(251, "RESIZEDB", "RV", False, "3.2", "len keys, len keys with expiry; a hint"),
    OpcodeRow(252, "EXPIRETIME_MS", "RV", True, "2.6", "8 bytes LE: unix time in ms"),
    OpcodeRow(253, "EXPIRETIME", "RV", True, "1.0", "4 bytes LE: unix time in s"),
    OpcodeRow(254, "SELECTDB", "RV", False, "1.0", "len database"),
    OpcodeRow(255, "EOF", "RV", False, "1.0", "then the footer"),
    OpcodeRow(242, "UPDATE", "V", False, "9.2", "reported: refused when met"),
)


@dataclass(frozen=True, slots=True)
class Header:
    """The first 9 bytes of a snapshot."""

    dialect: int  # DIALECT_REDIS or DIALECT_VALKEY
    version: int

    @property
    def has_footer(self) -> bool:
        return self.version >= FIRST_VERSION_WITH_FOOTER


def parse_header(data: bytes | bytearray | memoryview) -> Header | None:
    """The header in the first HEADER_SIZE bytes of `data`; None: more bytes needed, and those there are a possible beginning.

    RemoteProtocolError: not a snapshot. A version that is not known is returned: who reads on decides (`check_version`).
    """
    start = bytes(data[:HEADER_SIZE])
    for magic, dialect in ((MAGIC_REDIS, DIALECT_REDIS), (MAGIC_VALKEY, DIALECT_VALKEY)):
        head = start[: len(magic)]
        if head != magic[: len(head)]:
            continue
        digits = start[len(magic) :]
        if digits and not all(0x30 <= digit <= 0x39 for digit in digits):
            break
        if len(start) < HEADER_SIZE:
            return None
        return Header(dialect, int(digits))
    raise RemoteProtocolError(
        f"this is not an RDB snapshot: it starts with {start!r}, not with REDIS or VALKEY and a version",
        remedy="check that the source is a Redis or Valkey server, and that the file is a snapshot (not an append-only file)",
    )


def check_version(header: Header) -> None:
    """RemoteProtocolError when the version of `header` is one whose layouts are not known here."""
    redis = header.dialect == DIALECT_REDIS
    if OLDEST <= header.version <= NEWEST_REDIS if redis else 80 <= header.version <= NEWEST_VALKEY:
        return
    known = f"REDIS {OLDEST} to {NEWEST_REDIS}" if redis else f"VALKEY 80 to {NEWEST_VALKEY}"
    raise RemoteProtocolError(
        f"snapshot version {header.version} under magic {'REDIS' if redis else 'VALKEY'} is not known (known: {known})",
        remedy="use a release of Valkeep that knows this server, or a source of an older version",
    )


@cache
def shapes(dialect: int) -> bytes:
    """256 bytes: the SHAPE_* of each type number under `dialect`; SHAPE_UNKNOWN where there is none."""
    table = bytearray(256)
    for row in TYPES:
        if "RV"[dialect] in row.dialects:
            table[row.id] = row.shape
    return bytes(table)


@cache
def kinds(dialect: int) -> bytes:
    """256 bytes: the KIND_* of each type number under `dialect`; 255 where there is none."""
    table = bytearray(b"\xff" * 256)
    for row in TYPES:
        if "RV"[dialect] in row.dialects:
            table[row.id] = row.kind
    return bytes(table)


def name_of(dialect: int, number: int) -> str:
    """The name of a type or opcode number under `dialect`, for messages; "type 99" where there is none."""
    for type_row in TYPES:
        if type_row.id == number and "RV"[dialect] in type_row.dialects:
            return type_row.name
    for opcode_row in OPCODES:
        if opcode_row.id == number and "RV"[dialect] in opcode_row.dialects:
            return opcode_row.name
    return f"type {number}"
