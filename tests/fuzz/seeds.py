"""Where cases come from: the suite's fixtures and what the encoder writes, put together anew and then damaged."""

from __future__ import annotations

from random import Random

from tests.fuzz import bits
from tests.fuzz.bits import interesting, length_bytes, mangled, text, texts
from tests.fuzz.tree import HEADER, Item, Leaf, Reader, copied_item, mutate_item
from tests.support.rdb_items import items_of, magic
from tests.support.rdb_records import cases, snapshot
from valkeep.wire import lzf
from valkeep.wire.checksum import crc64
from valkeep.wire.rdb import encode, opcodes
from valkeep.wire.rdb.record import Field, Record
from valkeep.wire.resp import encode as command

MOST = 1 << 16  # bytes of a case
_NOW = 1_900_000_000_000


def _pool(dialect: int) -> list[Item]:
    found: list[Item] = []
    for case in cases():
        if case.dialect == dialect:
            data = snapshot(case)
            found += Reader(data, HEADER, dialect).items()
    for item in items_of(dialect):
        found += Reader(magic(dialect) + item.data, HEADER, dialect).items()
    return [item for item in found if len(item.bytes()) < 12_000]


POOLS: dict[int, list[Item]] = {}


def pool(dialect: int) -> list[Item]:
    if dialect not in POOLS:
        POOLS[dialect] = _pool(dialect)
    return POOLS[dialect]


_KINDS = {
    0: opcodes.KIND_STRING, 1: opcodes.KIND_LIST, 14: opcodes.KIND_LIST, 18: opcodes.KIND_LIST, 10: opcodes.KIND_LIST, 2: opcodes.KIND_SET,
    20: opcodes.KIND_SET, 3: opcodes.KIND_ZSET, 5: opcodes.KIND_ZSET, 12: opcodes.KIND_ZSET, 17: opcodes.KIND_ZSET, 4: opcodes.KIND_HASH,
    9: opcodes.KIND_HASH, 13: opcodes.KIND_HASH, 16: opcodes.KIND_HASH, 22: opcodes.KIND_HASH, 23: opcodes.KIND_HASH, 24: opcodes.KIND_HASH,
    25: opcodes.KIND_HASH,
}  # fmt: skip
_EXPIRING = (22, 23, 24, 25)


def fresh_record(rng: Random, dialect: int, types: tuple[int, ...] = tuple(_KINDS)) -> tuple[Record, encode.Encoding]:
    """A record that the encoder has not written before, in an encoding of its kind."""
    number = rng.choice([each for each in types if dialect == 0 or each not in (23, 24, 25)])
    kind = _KINDS[number]
    names = texts(rng)
    value: object
    if kind == opcodes.KIND_STRING:
        value = text(rng)
    elif kind == opcodes.KIND_LIST:
        value = names
    elif kind == opcodes.KIND_SET:
        value = set(names)
    elif kind == opcodes.KIND_ZSET:
        value = {name: rng.choice((0.0, -0.0, 1.5, float("inf"), rng.random(), 1e300)) for name in names}
    else:
        expiring = number in _EXPIRING
        value = {
            name[:252]: Field(text(rng)[:252], _NOW + rng.randrange(1 << 33) if expiring and rng.random() < 0.5 else -1) for name in names
        }
    record = Record(0, text(rng), rng.choice((-1, -1, _NOW)), kind, value)
    options = encode.Encoding(
        type_id=number, integers=rng.random() < 0.7, compress=rng.random() < 0.2, pack=rng.randrange(1, 5), plain_nodes=rng.random() < 0.2
    )
    return record, options


def fresh_item(rng: Random, dialect: int, types: tuple[int, ...] = tuple(_KINDS)) -> Item:
    writer = encode.SnapshotWriter(dialect, 80 if dialect else 12)
    writer.select(0)
    writer.take()
    record, options = fresh_record(rng, dialect, types)
    writer.record(record, options)
    return Reader(writer.take(), 0, dialect).items()[0]


def some_item(rng: Random, dialect: int) -> Item:
    return copied_item(rng.choice(pool(dialect))) if rng.random() < 0.6 else fresh_item(rng, dialect)


_AUX = tuple(
    opcodes.OP_AUX.to_bytes(1, "big") + encode.string(b"repl-stream-db") + encode.string(value, encode.Encoding(integers=integers))
    for value in (b"0", b"3", b"15", b"16", b"-1", b"x", b"", b"4294967296", b"9" * 5000)
    for integers in (False, True)
)


def snapshots(rng: Random) -> bytes:
    """A snapshot: sometimes good, mostly damaged somewhere, mostly with the right checksum of what it then is."""
    dialect = rng.choice((0, 0, 1))
    items = [some_item(rng, dialect) for _ in range(rng.randrange(1, 6))]
    if rng.random() < 0.05:
        items.append(Item(opcodes.OP_AUX, [], [Leaf("#", rng.choice(_AUX))]))
    damage = rng.random()
    if damage < 0.7:
        for _ in range(rng.choice((1, 1, 2))):
            mutate_item(rng, rng.choice(items), pool(dialect))
    version = rng.choice((80, 80, 80, 81) if dialect else (12, 12, 12, 11, 11, 10, 9, 6, 4, 13, 14))
    out = bytearray(b"VALKEY%03d" % version if dialect else b"REDIS%04d" % version)
    for item in items:
        item.write(out)
    if 0.6 < damage < 0.9:
        out[HEADER:] = mangled(rng, bytes(out[HEADER:]))
    if rng.random() < 0.03:
        out = bytearray(mangled(rng, bytes(out)))
    if rng.random() < 0.9:
        out.append(255)
    del out[MOST:]
    if rng.random() < 0.06:
        del out[rng.randrange(len(out)) :]
        return bytes(out)
    if version >= 5 and rng.random() < 0.97:
        out += rng.choice((crc64(out),) * 7 + (0, 1)).to_bytes(8, "little")
    if rng.random() < 0.03:
        out += rng.randbytes(3)
    return bytes(out)


def expiring_hash(rng: Random) -> bytes:
    """``dialect``, and a record of a hash whose fields expire, without a snapshot around it."""
    dialect = rng.choice((0, 0, 0, 1))
    item = fresh_item(rng, dialect, _EXPIRING)
    if rng.random() < 0.75:
        mutate_item(rng, item, pool(dialect))
    data = item.bytes()
    if rng.random() < 0.2:
        data = mangled(rng, data)
    return bytes([dialect]) + data[:MOST]


def payloads(rng: Random) -> bytes:
    """What DUMP gives, mostly sealed again after the damage."""
    dialect = rng.choice((0, 0, 1))
    item = some_item(rng, dialect)
    while not item.body or item.code > 241:
        item = some_item(rng, dialect)
    if rng.random() < 0.7:
        mutate_item(rng, item, pool(dialect))
    out = bytearray([item.code if rng.random() < 0.95 else rng.randrange(256)])
    for node in item.body:
        node.write(out)
    body = mangled(rng, bytes(out)) if rng.random() < 0.15 else bytes(out)
    version = rng.choice((80, 81) if dialect else (6, 9, 10, 11, 12, 12, 13)) if rng.random() < 0.95 else interesting(rng)
    whole = bits.sealed_payload(body[:MOST], version)
    return whole if rng.random() < 0.93 else mangled(rng, whole)


def packed_blobs(rng: Random) -> bytes:
    """The number of the kind, and a blob of it."""
    number = rng.randrange(len(bits.PACKED))
    good = bits.packed(rng, bits.PACKED[number])
    return bytes([number]) + (good if rng.random() < 0.1 else mangled(rng, good))


def compressed(rng: Random) -> bytes:
    """Eight bytes of claimed size, then LZF."""
    plain = rng.choice((b"ab" * rng.randrange(200), rng.randbytes(50) * 3, b"\0" * rng.randrange(3000), b"".join(texts(rng))))
    good = lzf.compress(plain)
    size = len(plain) if rng.random() < 0.6 else interesting(rng, len(plain))
    return size.to_bytes(8, "little") + (good if rng.random() < 0.2 else mangled(rng, good))


# --- RESP and the command stream ------------------------------------------------------------------------------------------------

_REPLIES = (
    b"+OK\r\n", b"-ERR no\r\n", b"-MOVED 1 127.0.0.1:1\r\n", b":42\r\n", b":-9223372036854775808\r\n", b"$5\r\nhello\r\n", b"$-1\r\n", b"$0\r\n\r\n",
    b"*-1\r\n", b"*0\r\n", b"*2\r\n:1\r\n$1\r\na\r\n", b"%1\r\n+k\r\n:1\r\n", b"~2\r\n:1\r\n*1\r\n+a\r\n", b">2\r\n+message\r\n$1\r\nx\r\n", b"_\r\n",
    b"#t\r\n", b"#f\r\n", b",3.14\r\n", b",inf\r\n", b",nan\r\n", b"(123456789012345678901234567890\r\n", b"!9\r\nERR wrong\r\n",
    b"=7\r\ntxt:abc\r\n", b"|1\r\n+ttl\r\n:1\r\n", b"~1\r\n%1\r\n~1\r\n:1\r\n-ERR x\r\n", b"%1\r\n*1\r\n|1\r\n+a\r\n+b\r\n:7\r\n_\r\n",
)  # fmt: skip


def _renumbered(rng: Random, data: bytes) -> bytes:
    """One of the numbers in a header replaced by one at the edges, negative or not a number."""
    places = [at for at in range(len(data)) if data[at] in b"*$%~>|!=:" and data[at + 1 : at + 2].isdigit()]
    if not places:
        return data
    at = rng.choice(places) + 1
    stop = at
    while data[stop : stop + 1].isdigit():
        stop += 1
    near = int(data[at:stop]) if stop - at < 20 else 0
    wrong = (
        b"-1",
        b"-2",
        b"-9223372036854775808",
        b"",
        b"+5",
        b" 5",
        b"0x5",
        b"5_0",
        b"00000000000000000005",
        b"9" * 25,
        b"1.0",
        "٣".encode(),
    )
    new = rng.choice(wrong) if rng.random() < 0.3 else b"%d" % interesting(rng, near)
    return data[:at] + new + data[stop:]


def _damaged_lines(rng: Random, data: bytes) -> bytes:
    for _ in range(rng.choice((0, 1, 1, 2))):
        data = _renumbered(rng, data) if rng.random() < 0.6 else mangled(rng, data)
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    return data[:MOST]


def replies(rng: Random) -> bytes:
    parts = [rng.choice(_REPLIES) for _ in range(rng.randrange(1, 8))]
    if rng.random() < 0.15:
        parts.insert(rng.randrange(len(parts)), rng.choice((b"*1\r\n", b"%1\r\n+k\r\n", b"|1\r\n+k\r\n", b"~1\r\n")) * rng.randrange(1, 40))
    if rng.random() < 0.02:
        parts.append(rng.choice((b"+", b"(", b":", b",")) + b"9" * rng.choice((400, 4400, 66000)) + b"\r\n")
    return _damaged_lines(rng, b"".join(parts))


_COMMANDS = (
    b"SET k v|SET k v PX 100|SET k v IFEQ x PXAT 1900000000000|SET k v GET KEEPTTL|SETEX k 5 v|INCR k|DEL a b|MSET a 1 b 2|HSET h f v g w|"
    b"HINCRBY h f 1|HINCRBYFLOAT h f 1.5|HSETNX h f v|HPEXPIREAT h 1900000000000 FIELDS 2 f g|HPEXPIRE h 5 NX FIELDS 1 f|HPERSIST h FIELDS 1 f|"
    b"HSETEX h EX 5 FIELDS 1 f v|HSETEX h KEEPTTL FIELDS 2 f v g w|HSETEX h FNX FIELDS 1 f v|HDEL h f|HGETEX h EX 5 FIELDS 1 f|HGETDEL h FIELDS 1 f|"
    b"XADD s * f v|XADD s NOMKSTREAM MAXLEN ~ 5 LIMIT 3 1-1 f v|XADD s KEEPREF MAXLEN = 5 1-2 f v|XADD s DELREF MINID 5 1-3 f v|"
    b"XTRIM s MAXLEN 5 KEEPREF|XTRIM s MINID 5 ACKED|XDELEX s DELREF IDS 1 1-1|XACKDEL s g KEEPREF IDS 1 1-1|XGROUP CREATE s g 0 MKSTREAM|"
    b"XREADGROUP GROUP g c COUNT 1 STREAMS s >|XCLAIM s g c 0 1-1 TIME 5 RETRYCOUNT 1 FORCE JUSTID LASTID 1-1|BITOP AND d a b|BITOP DIFF d a b|"
    b"RENAME h h2|RENAMENX h h3|COPY h i DB 2 REPLACE|COPY h i|MOVE h 3|SWAPDB 0 1|SELECT 0|SELECT 5|SELECT 99|SORT l BY w->* GET # STORE d|"
    b"SORT l STORE d|DELEX k IFEQ v|DELIFEQ k v|PING|REPLCONF GETACK *|MULTI|EXEC|DISCARD|EVAL s 1 k a|FCALL f 1 k|PUBLISH c m|SPUBLISH c m|"
    b"FLUSHDB|FLUSHALL ASYNC|FUNCTION FLUSH|FUNCTION DELETE l|SPOP s|SREM s m|LPUSH l 1 2|LMOVE a b LEFT RIGHT|ZADD z 1 a|ZUNIONSTORE d 2 a b WEIGHTS 1 2|"
    b"GEORADIUS g 1 2 3 m STORE d|PFADD p a|SUNIONSTORE d a b|UNLINK a|PERSIST k|PEXPIREAT k 1900000000000|MIGRATE h 1 k 0 5|MIGRATE h 1  0 5 KEYS a b|"
    b"MSETEX 2 a 1 b 2 EX 5|VADD v FP32 x e|TS.ADD t 1 2|UNKNOWN|CONFIG SET a b|SCRIPT LOAD x|ARSET a 0 x|GETEX k EX 5|APPEND k v|RESTORE k 0 x"
)
COMMANDS = tuple([tuple(line.split(b" ")) for line in _COMMANDS.split(b"|")])
_WORDS = (
    *sorted({word for each in COMMANDS for word in each}),
    b"-1", b"2147483648", b"9223372036854775808", b"-0", b"00", b" 0", b"1_5", b"+3", b"\xd9\xa3", b"9" * 5000, b"NaN", b"", b"x" * 200, b"1.5",
)  # fmt: skip


def some_command(rng: Random) -> list[bytes]:
    kind = rng.random()
    if kind < 0.12:
        return [
            b"RESTORE",
            text(rng),
            b"%d" % rng.choice((0, _NOW)),
            payloads(rng),
            *rng.choice(((), (b"REPLACE",), (b"ABSTTL", b"REPLACE"))),
        ]
    if kind < 0.15:
        code = b"\xf5" + length_bytes(5) + b"#!lua"
        whole = bits.sealed_payload(code, rng.choice((10, 11, 12, 80)))
        return [b"FUNCTION", b"RESTORE", whole if rng.random() < 0.7 else mangled(rng, whole), b"REPLACE"]
    args = list(rng.choice(COMMANDS))
    if rng.random() < 0.35:
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(args) + 1)
            how = rng.randrange(4)
            if how == 0 and at and at < len(args):
                args[at] = rng.choice(_WORDS)
            elif how == 1:
                args.insert(max(at, 1), rng.choice(_WORDS))
            elif how == 2 and len(args) > 1:
                del args[rng.randrange(1, len(args))]
            elif args:
                args[0] = args[0].lower()
    return args


def command_streams(rng: Random) -> bytes:
    """A replication stream, in half of the cases one that a source could send."""
    parts = [command(*some_command(rng)) if rng.random() < 0.97 else b"\n" for _ in range(rng.randrange(1, 16))]
    data = b"".join(parts)
    return data[:MOST] if rng.random() < 0.5 else _damaged_lines(rng, data)


_SAID = (
    b"+OK\r\n", b"+PONG\r\n", b"\n", b"-ERR x\r\n", b"-NOAUTH x\r\n", b"-LOADING x\r\n", b"-WRONGPASS x\r\n", b"-NOMASTERLINK x\r\n", b"-DENIED x\r\n",
    b"+FULLRESYNC " + b"a" * 40 + b" 5\r\n", b"+CONTINUE\r\n", b"+CONTINUE " + b"b" * 40 + b"\r\n", b"$EOF:" + b"m" * 40 + b"\r\n", b"$12\r\n",
    b"$0\r\n", b"$-1\r\n", b"$9223372036854775808\r\n", b"$EOF:" + b"m" * 39 + b"\r\n", b"+FULLRESYNC " + b"a" * 40 + b" -1\r\n", b"-\r\n", b"+\r\n", b"$\r\n",
    b"+FULLRESYNC " + b"a" * 40 + b" 99999999999999999999\r\n", b"+\xff\xfe\r\n", b"HTTP/1.1 400\r\n", b"\x15\x03\x01", b"+PONG\n",
    b"$EOF:" + b"\xff" * 40 + b"\r\n",
)  # fmt: skip
_USUAL = (b"+PONG\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+OK\r\n")


def _whole_talk(rng: Random) -> bytes:
    """A handshake that succeeds (with a password there is one answer more), the snapshot's header, and bytes behind it."""
    parts = list(_USUAL[: rng.choice((4, 5))]) + [b"\n"] * rng.randrange(2)
    if rng.random() < 0.2:
        return b"".join(parts) + rng.choice((b"+CONTINUE\r\n", b"+CONTINUE " + b"b" * 40 + b"\r\n")) + rng.randbytes(rng.randrange(50))
    mark = rng.choice((b"m" * 40, b"m" * 39 + b"x", rng.randbytes(20).hex().encode()))
    parts += [
        b"+FULLRESYNC " + b"a" * 40 + b" 5\r\n",
        b"\n" * rng.randrange(3),
        rng.choice((b"$EOF:" + mark + b"\r\n", b"$%d\r\n" % rng.randrange(60))),
    ]
    parts += [rng.choice((mark[: rng.randrange(41)], rng.randbytes(rng.randrange(60)), b"m" * rng.randrange(80), mark)) for _ in range(3)]
    return b"".join(parts)


def source_talk(rng: Random) -> bytes:
    """What a source says to a replica; mostly a usual handshake first."""
    if rng.random() < 0.5:
        whole = _whole_talk(rng)
        return whole if rng.random() < 0.6 else _damaged_lines(rng, whole)
    parts = list(_USUAL[: rng.randrange(len(_USUAL) + 1)]) + [rng.choice(_SAID) for _ in range(rng.randrange(1, 8))]
    data = b"".join(parts) + rng.choice((b"", rng.randbytes(30), b"m" * 55))
    if rng.random() < 0.03:
        data += b"+" + b"x" * 70_000
    return data if rng.random() < 0.5 else _damaged_lines(rng, data)


_ASKED = (
    b"PING|PING x|AUTH x|AUTH right|AUTH default right|AUTH default \xc3\xa9|REPLCONF listening-port 6380|REPLCONF listening-port 99999|"
    b"REPLCONF listening-port x|"
    b"REPLCONF ip-address 127.0.0.1|REPLCONF capa eof capa psync2|REPLCONF capa dual-channel|REPLCONF version 9.1.0|REPLCONF version x|"
    b"REPLCONF rdb-only 1|REPLCONF getack *|REPLCONF ACK 5|REPLCONF ACK 5 FACK 3|REPLCONF ACK 18446744073709551616|REPLCONF ack x|REPLCONF|REPLCONF a|"
    b"PSYNC ? -1|PSYNC ? -2|PSYNC aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 7|PSYNC aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -7|PSYNC x y|PSYNC|SYNC|INFO|"
    b"CONFIG GET a|QUIT||REPLCONF set-cluster-node-id x|HELLO 3 AUTH default right|AUTH \xff\xfe"
).split(b"|")


def replica_talk(rng: Random) -> bytes:
    """What a target says to its primary."""
    parts = []
    for _ in range(rng.randrange(1, 12)):
        line = rng.choice(_ASKED)
        parts.append(line + rng.choice((b"\r\n", b"\n")) if rng.random() < 0.4 or not line else command(*line.split(b" ")))
    data = b"".join(parts)
    if rng.random() < 0.03:
        data += rng.choice((b"x" * 70_000, b"*1\r\n$70000\r\n" + b"x" * 70_000, b"*1000000\r\n"))
    return data if rng.random() < 0.5 else _damaged_lines(rng, data)
