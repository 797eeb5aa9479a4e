"""Snapshots as literal bytes, and the literal end state of every record in them: what an ordinary command answers on the target.

One row is one record. Values marked *recorded* are what DUMP gave on Redis 8.0.2, Redis 7.0.15 or Valkey 9.1 (without type and footer); the others, of
servers that no test machine has, are drawn by hand from rdb.c, ziplist.c, zipmap.c and intset.c, one byte beside the other::

    ziplist   zlbytes:4 zltail:4 zllen:2 (prevlen:1 encoding:1 data)* ff        encoding 0x = string of x bytes, fx = the number x - 1
    zipmap    count:1 (len key len free value)* ff
    intset    width:4 count:4 number*

``reads`` is what Valkey 9.1 answers. ``keep`` and ``drop`` are the answers of Valkey 8 under that policy, where they differ. Times lie in the
year 2100, seconds (opcode 253 holds 31 bits) in 2038.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.scripted_primary import sealed
from tests.support.scripted_session import Reads

__all__ = ["FUNCTION_2", "HASH_EX", "ROWS", "SNAPSHOTS", "T", "VECTOR_SET", "Row", "Snapshot", "item", "text"]

T = 4102444800000  # ms: 2100-01-01
SECONDS = 2145916800  # 2038-01-01


def length(n: int) -> bytes:
    if n < 64:
        return bytes([n])
    return bytes([0x40 | n >> 8, n & 0xFF]) if n < 16384 else b"\x80" + n.to_bytes(4, "big")


def text(value: bytes) -> bytes:
    """An RDB string: length and bytes."""
    return length(len(value)) + value


def item(kind: int, key: str, value: bytes | str, prefix: bytes = b"") -> bytes:
    """A record: prefix opcodes, type, key, value (bytes or hex)."""
    return prefix + bytes([kind]) + text(key.encode()) + (bytes.fromhex(value) if isinstance(value, str) else value)


@dataclass(frozen=True)
class Row:
    name: str
    record: bytes
    reads: Reads
    keep: Reads | None = None
    drop: Reads | None = None
    database: int = 0
    since: int = 1  # the RDB version that brought it
    valkey: bool = False  # only under VALKEY magic
    redis: bool = True  # allowed under REDIS magic
    keys: int = 1
    lost: int = 0  # field TTLs that Valkey 8 cannot have

    def expected(self, policy: str | None) -> Reads:
        """``policy`` None: a target with field TTLs."""
        if policy == "keep-field" and self.keep is not None:
            return self.keep
        return self.drop if policy == "drop-field" and self.drop is not None else self.reads


# -- old encodings, drawn by hand -------------------------------------------------------------------------------------------------------

ZIPMAP = "0203 666f6f 03 00 62617205 68656c6c6f 05 00 776f726c64ff"  # foo: bar, hello: world
ZL_HASH = "16000000 13000000 040000 01 6603 01 7603 01 6e03 fdff"  # f v n 12
ZL_LIST = "18000000 13000000 040000 01 6103 f202 c0 d4fe04 02 6263ff"  # a 1 -300 bc
ZL_ZSET = "1c000000 16000000 040000 03 6f6e6505 f202 03 74776f05 03 322e35ff"  # one 1 two 2.5
ZL_AB = "11000000 0d000000 020000 01 6103 01 62ff"  # a b
ZL_1 = "0d000000 0a000000 010000 f2ff"  # 1
INTSET_16 = "02000000 03000000fbff 0100 2c01"  # -5 1 300


def packed(blob: str) -> bytes:
    return text(bytes.fromhex(blob))


# -- recorded ----------------------------------------------------------------------------------------------------------------------------

HYLL = "2948594c4c010000000000000000000080466d80560c80443c8438804dc28042ed84498c80426d80425a"
QUICKLIST_2 = "0102c31d3b153b00000004008161020101f290eefe04a86c6f6e6720e01a040129ff"  # one node, its listpack compressed
SET_LISTPACK = "0f0f00000003008161028162021101ff"
INTSET_64 = "c32228040800000004200302d08aff60000001200b400000024004400002f2052a20130000"
ZSET_LISTPACK = "23230000000600836e656704842d696e6605836f6e650401018374776f0483322e3504ff"
ZSET_2 = "0303706f73000000000000f07f0374776f0000000000000440036f6e65000000000000f03f"
HASH_LISTPACK = "12120000000400816602817602816e020c01ff"
TRIPLES = "2e2e0000000900816602817602f400d8c32cbb03000009816702817702f405d8c32cbb0300000981680207010001ff"
HASH_EX = "00d8c32cbb030000" + TRIPLES  # f v until T, g w until T + 5, h 7
HASH_EX_ALL = "00d8c32cbb03000017170000000300816602817602f400d8c32cbb03000009ff"  # f v until T
HASH_METADATA = "00d8c32cbb03000003000168c00706016701770101660176"
HASH_2 = "030166017600d8c32cbb0300000167017705d8c32cbb0300000168c007ffffffffffffffff"
HASH_2_ALL = "010166017600d8c32cbb030000"
VECTOR_SET = "81bde72da2bb1eb40002020201025001020005016505027f000205020102000200022002813f8000003f80000000"
FUNCTION_2 = (
    "f5404a23216c7561206e616d653d6c69620a72656469732e72656769737465725f66756e6374696f6e2827616e7377657227"
    "2c2066756e6374696f6e28292072657475726e20343220656e6429"
)

# A stream of five entries, 2-2 deleted; group g at 4-4 (1-1 and 3-3 pending at alice, 4-4 at bob), group idle at 9-1.
NODES = (
    "01 10 00000000000000010000000000000001 c3404f405d125d0000002500040101010201816602816702002009000020010701018178020501032008601c400c0002"
    "60010003c00c000320010004800c0200010820030e0101856f74686572068179020601ff"
)
LAST, COUNTERS, UNREAD = "04 09 01", "01 01 02 02 05", "81ffffffffffffffff"
PENDING = (
    "03 00000000000000010000000000000001 0068e5cf8b010000 01 00000000000000030000000000000003 0068e5cf8b010000 07"
    "00000000000000040000000000000004 0068e5cf8b010000 02"
)
SEEN = "86a4d0fca1010000"
OF_ALICE = "02 00000000000000010000000000000001 00000000000000030000000000000003"
OF_BOB = "01 00000000000000040000000000000004"
ALICE, BOB = "05 616c696365", "03 626f62"
STREAM_1 = f"{NODES} {LAST} 02 01 67 04 04 {PENDING} 02 {ALICE}{SEEN}{OF_ALICE} {BOB}{SEEN}{OF_BOB} 04 69646c65 09 01 00 00"
STREAM_2 = (
    f"{NODES} {LAST} {COUNTERS} 02 01 67 04 04 {UNREAD} {PENDING} 02 {ALICE}{SEEN}{OF_ALICE} {BOB}{SEEN}{OF_BOB}"
    f"04 69646c65 09 01 {UNREAD} 00 00"
)
STREAM_3 = (
    f"{NODES} {LAST} {COUNTERS} 02 01 67 04 04 {UNREAD} {PENDING} 02 {ALICE}{SEEN}{SEEN}{OF_ALICE} {BOB}{SEEN}{SEEN}{OF_BOB}"
    f"04 69646c65 09 01 {UNREAD} 00 00"
)
DELIVERED = (
    "local r = redis.call('XPENDING', KEYS[1], 'g', '-', '+', 10) for _, p in ipairs(r) do p[3] = 0 end return r"  # idle times left out
)


def stream_reads(key: str, *, counters: bool = True) -> Reads:
    entries = [
        [b"1-1", [b"f", b"1", b"g", b"x"]],
        [b"3-3", [b"f", b"3", b"g", b"x"]],
        [b"4-4", [b"f", b"4", b"g", b"x"]],
        [b"9-1", [b"other", b"y"]],
    ]
    pending = [[b"1-1", b"alice", 0, 1], [b"3-3", b"alice", 0, 7], [b"4-4", b"bob", 0, 2]]
    reads: list[tuple[str | tuple[str | bytes | int, ...], object]] = [
        (f"XRANGE {key} - +", entries),
        (("EVAL_RO", DELIVERED, 1, key), pending),
        (f"XPENDING {key} g", [3, b"1-1", b"4-4", [[b"alice", b"2"], [b"bob", b"1"]]]),
        (f"XPENDING {key} idle", [0, None, None, None]),
    ]
    if counters:
        groups = [
            [b"name", b"g", b"consumers", 2, b"pending", 3, b"last-delivered-id", b"4-4", b"entries-read", None, b"lag", None],
            [b"name", b"idle", b"consumers", 0, b"pending", 0, b"last-delivered-id", b"9-1", b"entries-read", None, b"lag", 0],
        ]
        reads.append((f"XINFO GROUPS {key}", groups))
    return reads


def ms(at: int) -> bytes:
    return b"\xfc" + struct.pack("<q", at)


def expiring(row: str, kind: int, value: str, since: int, *, valkey: bool = False) -> Row:
    """A hash f v (until T), g w (until T + 5), h 7."""
    whole = {b"f": b"v", b"g": b"w", b"h": b"7"}
    key = row.replace(" ", "-")
    return Row(
        row,
        item(kind, key, value),
        [(f"HGETALL {key}", whole), (f"HPEXPIRETIME {key} FIELDS 3 f g h", [T, T + 5, -1])],
        keep=[(f"HGETALL {key}", whole)],
        drop=[(f"HGETALL {key}", {b"h": b"7"})],
        since=since,
        valkey=valkey,
        redis=not valkey,
        lost=2,
    )


def expiring_whole(row: str, kind: int, value: str, since: int, *, prefix: bytes = b"", valkey: bool = False) -> Row:
    """A hash whose only field, f, lives until T."""
    key = row.replace(" ", "-")
    return Row(
        row,
        item(kind, key, value, prefix),
        [(f"HGETALL {key}", {b"f": b"v"}), (f"HPEXPIRETIME {key} FIELDS 1 f", [T])],
        keep=[(f"HGETALL {key}", {b"f": b"v"})],
        drop=[(f"EXISTS {key}", 0)],
        since=since,
        valkey=valkey,
        redis=not valkey,
        lost=1,
    )


ROWS: tuple[Row, ...] = (
    # strings
    Row("string", item(0, "string", text(b"hello")), [("GET string", b"hello"), ("PTTL string", -1)]),
    Row("empty string", item(0, "empty", "00"), [("GET empty", b""), ("EXISTS empty", 1)]),
    Row("int 8", item(0, "int8", "c085"), [("GET int8", b"-123")]),
    Row("int 16", item(0, "int16", "c13930"), [("GET int16", b"12345")]),
    Row("int 32", item(0, "int32", "c2ffffff7f"), [("GET int32", b"2147483647")]),
    Row("compressed string", item(0, "lzf", "c30a405002616261e04201016162"), [("GET lzf", b"ab" * 40)]),
    Row("hyperloglog", item(0, "hll", HYLL), [("PFCOUNT hll", 8)]),
    Row("key that is a number", bytes.fromhex("00 c1 3930 0176"), [("GET 12345", b"v")]),
    Row("key that is compressed", bytes.fromhex("00 c30a405002616261e042010161 62 0176"), [(("GET", b"ab" * 40), b"v")]),
    Row("empty key", bytes.fromhex("00 00 0176"), [(("GET", b""), b"v")]),
    Row("key of bytes", bytes.fromhex("00 04 000dff0a 0176"), [(("GET", b"\x00\r\xff\n"), b"v")]),
    Row("large string", item(0, "large", text(b"0123456789" * 30_000)), [("STRLEN large", 300_000), ("GETRANGE large 299998 -1", b"89")]),
    # expiry and eviction
    Row("expiry in seconds", item(0, "sec", "0176", b"\xfd" + struct.pack("<i", SECONDS)), [("PEXPIRETIME sec", SECONDS * 1000)]),
    Row("expiry in milliseconds", item(0, "ms", "0176", ms(T + 7)), [("GET ms", b"v"), ("PEXPIRETIME ms", T + 7)], since=3),
    Row("frequency", item(0, "freq", "0176", b"\xf9\x2a"), [("GET freq", b"v")], since=9),
    Row("idle time", item(0, "idle", "0176", b"\xf8\x47\xd0"), [("GET idle", b"v")], since=9),
    Row(
        "expiry and idle time",
        item(2, "exidle", "01 0161", ms(T) + b"\xf8\x05"),
        [("SMEMBERS exidle", {b"a"}), ("PEXPIRETIME exidle", T)],
        since=9,
    ),
    # lists
    Row("list", item(1, "list", "03 0161 c001 026263"), [("LRANGE list 0 -1", [b"a", b"1", b"bc"])]),
    Row("list ziplist", item(10, "zllist", packed(ZL_LIST)), [("LRANGE zllist 0 -1", [b"a", b"1", b"-300", b"bc"])]),
    Row("quicklist", item(14, "ql", b"\x02" + packed(ZL_AB) + packed(ZL_1)), [("LRANGE ql 0 -1", [b"a", b"b", b"1"])], since=7),
    Row("quicklist 2", item(18, "ql2", QUICKLIST_2), [("LRANGE ql2 0 -1", [b"a", b"1", b"-70000", b"long " * 8])], since=10),
    Row(
        "quicklist 2 with a plain node",
        item(18, "ql2plain", b"\x02" + b"\x02" + packed("0a0000000100816102ff") + b"\x01" + text(b"p" * 9000)),
        [("LLEN ql2plain", 2), ("LINDEX ql2plain 0", b"a"), ("LINDEX ql2plain 1", b"p" * 9000)],
        since=10,
    ),
    # sets
    Row("set", item(2, "set", "03 c011 0162 0161"), [("SMEMBERS set", {b"17", b"a", b"b"})]),
    Row("set intset", item(11, "is16", packed(INTSET_16)), [("SMEMBERS is16", {b"-5", b"1", b"300"})]),
    Row("set intset of 64 bits, compressed", item(11, "is64", INTSET_64), [("SMEMBERS is64", {b"-30000", b"1", b"2", b"5000000000"})]),
    Row("set listpack", item(20, "setlp", SET_LISTPACK), [("SMEMBERS setlp", {b"a", b"b", b"17"})], since=11),
    # sorted sets
    Row(
        "zset with text scores",
        item(3, "ztext", b"\x04" + text(b"a") + b"\x033.5" + text(b"b") + b"\xfe" + text(b"c") + b"\xff" + text(b"d") + b"\x0517e+2"),
        [("ZRANGE ztext 0 -1 WITHSCORES", [b"c", b"-inf", b"a", b"3.5", b"d", b"1700", b"b", b"inf"])],
    ),
    Row(
        "zset with doubles",
        item(5, "zset2", ZSET_2),
        [("ZRANGE zset2 0 -1 WITHSCORES", [b"one", b"1", b"two", b"2.5", b"pos", b"inf"])],
        since=8,
    ),
    Row("zset ziplist", item(12, "zzl", packed(ZL_ZSET)), [("ZRANGE zzl 0 -1 WITHSCORES", [b"one", b"1", b"two", b"2.5"])]),
    Row(
        "zset listpack",
        item(17, "zlp", ZSET_LISTPACK),
        [("ZRANGE zlp 0 -1 WITHSCORES", [b"neg", b"-inf", b"one", b"1", b"two", b"2.5"])],
        since=10,
    ),
    # hashes
    Row("hash", item(4, "hash", "02 016e c00c 0166 0176"), [("HGETALL hash", {b"n": b"12", b"f": b"v"})]),
    Row("hash zipmap", item(9, "zipmap", packed(ZIPMAP)), [("HGETALL zipmap", {b"foo": b"bar", b"hello": b"world"})]),
    Row("hash ziplist", item(13, "hzl", packed(ZL_HASH)), [("HGETALL hzl", {b"f": b"v", b"n": b"12"})]),
    Row("hash listpack", item(16, "hlp", HASH_LISTPACK), [("HGETALL hlp", {b"f": b"v", b"n": b"12"})], since=10),
    # hashes with field TTLs
    expiring("rc hash", 22, "03 81000003bb2cc3d800 0166 0176 81000003bb2cc3d805 0167 0177 00 0168 c007", 12),
    expiring("rc packed hash", 23, TRIPLES, 12),
    expiring("hash metadata", 24, HASH_METADATA, 12),
    expiring("hash listpack ex", 25, HASH_EX, 12),
    expiring_whole("rc hash, all fields", 22, "01 81000003bb2cc3d800 0166 0176", 12),
    expiring_whole("hash metadata, all fields", 24, "00d8c32cbb030000 01 01 0166 0176", 12),
    expiring_whole("hash listpack ex, all fields", 25, HASH_EX_ALL, 12, prefix=ms(T + 9)),
    Row(
        "hash metadata without TTLs",
        item(24, "hmeta0", "0000000000000100 01 00 0166 0176"),
        [("HGETALL hmeta0", {b"f": b"v"}), ("HPEXPIRETIME hmeta0 FIELDS 1 f", [-1])],
        keep=[("HGETALL hmeta0", {b"f": b"v"})],
        drop=[("HGETALL hmeta0", {b"f": b"v"})],
        since=12,
    ),
    expiring("hash 2", 22, HASH_2, 80, valkey=True),
    expiring_whole("hash 2, all fields", 22, HASH_2_ALL, 80, valkey=True),
    # streams
    Row("stream 1", item(15, "st1", STREAM_1), stream_reads("st1", counters=False), since=9),
    Row("stream 2", item(19, "st2", STREAM_2), stream_reads("st2"), since=10),
    Row("stream 3", item(21, "st3", STREAM_3), stream_reads("st3"), since=11),
    # no keys
    Row(
        "function",
        bytes.fromhex(FUNCTION_2),
        [
            (
                "FUNCTION LIST",
                [[b"library_name", b"lib", b"engine", b"LUA", b"functions", [[b"name", b"answer", b"description", None, b"flags", []]]]],
            )
        ],
        since=10,
        keys=0,
    ),
    # other databases
    Row(
        "database 3",
        item(0, "in3", "0176"),
        [("SELECT 3", b"OK"), ("GET in3", b"v"), ("DBSIZE", 2), ("SELECT 0", b"OK"), ("EXISTS in3", 0)],
        database=3,
    ),
    Row(
        "same key in database 3",
        item(0, "string", "05 6f74686572"),
        [("SELECT 3", b"OK"), ("GET string", b"other"), ("SELECT 0", b"OK")],
        database=3,
    ),
    Row(
        "database 15",
        item(2, "in15", "01 0161"),
        [("SELECT 15", b"OK"), ("SMEMBERS in15", {b"a"}), ("DBSIZE", 1), ("SELECT 0", b"OK")],
        database=15,
    ),
)


@dataclass(frozen=True)
class Snapshot:
    """``info``: what its source says of itself. ``stripped``: ledger lines of opcodes that do not cross."""

    name: str
    data: bytes
    rows: tuple[Row, ...]
    info: dict[str, str] = field(default_factory=dict)
    stripped: Sequence[str] = ()


def aux(name: bytes, value: bytes) -> bytes:
    return b"\xfa" + text(name) + value


MODULE_AUX = bytes.fromhex("f7 81bde72da2bb1eb400 02 02 05 03 616263 02 05 00")
SLOT_INFO = bytes.fromhex("f4 05 01 00")


def snapshot(magic: bytes, rows: Sequence[Row], *, opcodes: bool) -> bytes:
    out = magic
    version = int(magic[-3:])
    if version >= 7:
        out += aux(b"redis-ver", text(b"8.4.0")) + aux(b"redis-bits", b"\xc0\x40") + aux(b"ctime", b"\xc2\x00\x00\x00\x60")
        out += aux(b"repl-stream-db", b"\xc0\x03") + aux(b"repl-id", text(b"5c1e" * 10)) + aux(b"repl-offset", b"\xc1\xe8\x03")
        out += aux(b"aof-base", b"\xc0\x00") + aux(b"something-new", text(b"x" * 100))
    if opcodes:
        out += MODULE_AUX
    out += b"".join(row.record for row in rows if not row.keys)
    for database in sorted({row.database for row in rows}):
        out += b"\xfe" + length(database)
        if version >= 7:
            out += b"\xfb" + length(sum(row.keys for row in rows if row.database == database)) + length(0)
        if opcodes:
            out += SLOT_INFO
        out += b"".join(row.record for row in rows if row.database == database and row.keys)
    if opcodes:
        out += MODULE_AUX
    return sealed(out) if version >= 5 else out + b"\xff"


def _made(magic: bytes, *, opcodes: bool = False, **info: str) -> Snapshot:
    version = int(magic[-3:])
    valkey = magic.startswith(b"VALKEY")
    rows = tuple(
        row for row in ROWS if row.since <= version and ((row.redis and (not valkey or row.since < 12)) or (valkey and row.valkey))
    )
    return Snapshot(magic.decode(), snapshot(magic, rows, opcodes=opcodes), rows, info, ("module-aux",) * 2 if opcodes else ())


SNAPSHOTS: tuple[Snapshot, ...] = (
    _made(b"REDIS0012", opcodes=True, redis_version="8.4.0"),
    _made(b"REDIS0011", redis_version="7.2.4"),
    _made(b"REDIS0010", redis_version="7.0.15"),
    _made(b"REDIS0009", redis_version="6.2.14"),
    _made(b"REDIS0008", redis_version="4.0.14"),
    _made(b"REDIS0007", redis_version="3.2.13"),
    _made(b"REDIS0006", redis_version="2.8.24"),
    _made(b"REDIS0004", redis_version="2.6.17"),
    _made(b"VALKEY080", redis_version="7.2.4", server_name="valkey", valkey_version="9.1.0"),
)
"""Every record type of its version and of those before, as servers go on reading them."""
