"""What a source sends after its snapshot, command by command, and the literal end state that each scenario leaves on a target.

The commands are written as the source *replicates* them (docs/explanation/replication.md, "The command stream after the snapshot"), those of Redis 8.2 to 8.4
from their documentation. ``values`` is what the source holds at the end, for keys that have to be copied again; payloads marked *recorded* are from DUMP of
Redis 8.0.2.

``reads``: the answers of Valkey 9.1. ``keep``, ``drop``: those of Valkey 8 under that policy where they differ. ``copied``: keys that had to be copied
again, by the same three names. Each scenario begins with FLUSHALL and uses key names of its own: what is remembered of keys that lost fields may say yes
wrongly, and then asks for a copy that the scenario does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.fixtures_snapshots import FUNCTION_2, HASH_EX, T, text
from tests.support.scripted_primary import Place, Value, Word, command, payload
from tests.support.scripted_session import Reads

__all__ = ["SCENARIOS", "STREAM_CUT", "STREAM_WHOLE", "Scenario"]

Line = str | tuple[Word, ...] | bytes
"""A command split at blanks, a command as words, or raw bytes."""

# -- values of the source, recorded ----------------------------------------------------------------------------------------------------

# 1-1 2-2 3-3, group g, all pending at alice; and the same after XDEL 2-2 and XACK 2-2
STREAM_WHOLE = bytes.fromhex(
    "15011000000000000000010000000000000001c3293011300000001400030100010101816602000102200a400c0004200940000002600940010003200900ff03030301"
    "0100000301016703030303000000000000000100000000000000011228d1fca101000001000000000000000200000000000000021228d1fca10100000100000000000000"
    "0300000000000000031228d1fca1010000010105616c6963651228d1fca10100001228d1fca1010000030000000000000001000000000000000100000000000000020000"
    "00000000000200000000000000030000000000000003"
)
STREAM_CUT = bytes.fromhex(
    "15011000000000000000010000000000000001303000000014000201010101018166020001020100010001010104010301010101010201040102010201020103010401ff"
    "020303010102020301016703030302000000000000000100000000000000011228d1fca101000001000000000000000300000000000000031228d1fca101000001010561"
    "6c6963651228d1fca10100001228d1fca1010000020000000000000001000000000000000100000000000000030000000000000003"
)
# plain 1, ttl 7 until T; and the same after HPERSIST; and only ttl 5 until T
HASH_7 = bytes.fromhex("1900d8c32cbb030000232300000006008374746c040701f400d8c32cbb0300000985706c61696e0601010001ff")
HASH_7_PERSISTED = bytes.fromhex("1900d8c32cbb0300001b1b000000060085706c61696e06010100018374746c0407010001ff")
HASH_ONLY_TTL = bytes.fromhex("1900d8c32cbb030000181800000003008374746c040501f400d8c32cbb03000009ff")


def value(body: bytes, expire_ms: int = -1) -> Value:
    return Value(payload(body), expire_ms)


def string(data: bytes, expire_ms: int = -1) -> Value:
    return value(b"\x00" + text(data), expire_ms)


def here(**values: Value) -> dict[Place, Value]:
    """Keys of database 0."""
    return {(0, name.encode()): one for name, one in values.items()}


@dataclass(frozen=True)
class Scenario:
    name: str
    stream: Sequence[Line]
    reads: Reads
    keep: Reads | None = None
    drop: Reads | None = None
    values: Mapping[Place, Value] = field(default_factory=dict)
    copied: Sequence[Place] = ()
    copied_keep: Sequence[Place] | None = None
    copied_drop: Sequence[Place] | None = None
    degraded: tuple[int, int] = (0, 0)  # field TTLs that the ledger counts under keep and under drop

    @property
    def data(self) -> bytes:
        return b"".join(
            line if isinstance(line, bytes) else command(line) if isinstance(line, str) else command(*line) for line in self.stream
        )

    def expected(self, policy: str | None) -> tuple[Reads, Sequence[Place], int]:
        """Reads, copies, ledgered field TTLs. ``policy`` None: a target with field TTLs."""
        if policy == "keep-field":
            return (
                self.reads if self.keep is None else self.keep,
                self.copied if self.copied_keep is None else self.copied_keep,
                self.degraded[0],
            )
        if policy == "drop-field":
            return (
                self.reads if self.drop is None else self.drop,
                self.copied if self.copied_drop is None else self.copied_drop,
                self.degraded[1],
            )
        return self.reads, self.copied, 0


def at(*keys: str) -> tuple[Place, ...]:
    return tuple((0, key.encode()) for key in keys)


def hash_of(key: str, fields: dict[bytes, bytes], *expiring: int) -> Reads:
    """HGETALL, and the expiry of fields f and g (of those that are told)."""
    reads: list[tuple[str, object]] = [(f"HGETALL {key}", fields)]
    if expiring:
        reads.append((f"HPEXPIRETIME {key} FIELDS {len(expiring)} {' '.join('fg'[: len(expiring)])}", list(expiring)))
    return reads


BINARY = b"\x00\xff\r\n$3\r\n*1\r\n"
HASH_F = bytes.fromhex("18 00d8c32cbb030000 01 01 0166 0176")  # f v until T
FV, GW = {b"f": b"v"}, {b"g": b"w"}
FVGW = FV | GW
MEGABYTES = bytes(range(256)) * 16_384  # 4 MiB
PAYLOAD_OF_MEGABYTES = payload(b"\x00" + b"\x80" + len(MEGABYTES).to_bytes(4, "big") + MEGABYTES)

_FIELD_TTLS = (
    Scenario(
        "HPEXPIREAT",
        ["HSET a1 f v g w", f"HPEXPIREAT a1 {T} FIELDS 1 f"],
        hash_of("a1", FVGW, T, -1),
        keep=hash_of("a1", FVGW),
        drop=hash_of("a1", GW),
        degraded=(1, 1),
    ),
    Scenario(
        "HPEXPIREAT with a condition, of every field",
        ["HSET a2 f v", f"HPEXPIREAT a2 {T} NX FIELDS 1 f"],
        hash_of("a2", FV, T),
        keep=hash_of("a2", FV),
        drop=[("EXISTS a2", 0)],
        values=here(a2=value(HASH_F)),
        copied_drop=at("a2"),
        degraded=(1, 1),
    ),
    Scenario(
        "HPEXPIREAT with a condition that spared a field, as Valkey 9.1 replicates it",
        ["HSET ac f v g w", f"HPEXPIREAT ac {T} FIELDS 1 f", f"hpexpireat ac {T} xx fields 3 f g nosuch"],
        hash_of("ac", FVGW, T, -1),
        keep=hash_of("ac", FVGW),
        drop=hash_of("ac", GW),
        values=here(ac=value(bytes.fromhex("18 00d8c32cbb030000 02 01 0166 0176 00 0167 0177"))),
        copied_drop=at("ac"),
        degraded=(4, 2),
    ),
    Scenario(
        "HGETDEL, as Valkey 9.1 replicates it",
        ["HSET ad f v g w", "HGETDEL ad FIELDS 2 f nosuch"],
        hash_of("ad", GW),
    ),
    Scenario(
        "a field TTL in the past, and the HDEL that follows it",
        ["HSET ae f v g w", "HPEXPIREAT ae 1000 FIELDS 1 f", "HDEL ae f"],
        [("HMGET ae f g", [None, b"w"]), ("HLEN ae", 1)],
        degraded=(1, 1),
    ),
    Scenario(
        "keys, fields and values of any bytes",
        [
            ("HSET", BINARY, BINARY, BINARY, b"", b"w"),
            ("HPEXPIREAT", BINARY, T, "FIELDS", 1, BINARY),
            ("XDELEX", BINARY + b"2", "IDS", 1, "2-2"),
        ],
        [(("HMGET", BINARY, BINARY, b""), [BINARY, b"w"]), (("XLEN", BINARY + b"2"), 2)],
        drop=[(("HMGET", BINARY, BINARY, b""), [None, b"w"]), (("XLEN", BINARY + b"2"), 2)],
        values={(0, BINARY + b"2"): value(STREAM_CUT)},
        copied=((0, BINARY + b"2"),),
        degraded=(1, 1),
    ),
    Scenario(
        "HPERSIST",
        ["HSET a3 plain 1 ttl 7", f"HPEXPIREAT a3 {T} FIELDS 1 ttl", "HPERSIST a3 FIELDS 1 ttl"],
        [("HGETALL a3", {b"plain": b"1", b"ttl": b"7"}), ("HPEXPIRETIME a3 FIELDS 1 ttl", [-1])],
        keep=[("HGETALL a3", {b"plain": b"1", b"ttl": b"7"})],
        drop=[("HGETALL a3", {b"plain": b"1", b"ttl": b"7"})],
        values=here(a3=value(HASH_7_PERSISTED)),
        copied_drop=at("a3"),
        degraded=(1, 1),
    ),
    Scenario("HPERSIST of a field that never lost its TTL", ["HSET a4 f v", "HPERSIST a4 FIELDS 1 f"], hash_of("a4", FV)),
    Scenario(
        "a field expires: HDEL",
        ["HSET a5 f v g w", f"HPEXPIREAT a5 {T} FIELDS 1 f", "HDEL a5 f"],
        hash_of("a5", GW),
        degraded=(1, 1),
    ),
    Scenario(
        "HSETEX PXAT",
        ["HSET a6 g w", f"HSETEX a6 PXAT {T} FIELDS 1 f v"],
        hash_of("a6", FVGW, T, -1),
        keep=hash_of("a6", FVGW),
        drop=hash_of("a6", GW),
        degraded=(1, 1),
    ),
    Scenario(
        "HSETEX FNX PXAT",
        [f"HSETEX a7 FNX PXAT {T} FIELDS 2 f v g w"],
        hash_of("a7", FVGW, T, T),
        keep=hash_of("a7", FVGW),
        drop=[("EXISTS a7", 0)],
        degraded=(2, 2),
    ),
    Scenario(
        "HSETEX FXX of a field that is not to expire any more",
        ["HSET a8 f v", f"HPEXPIREAT a8 {T} FIELDS 1 f", "HSETEX a8 FXX FIELDS 1 f v2"],
        hash_of("a8", {b"f": b"v2"}, -1),
        keep=hash_of("a8", {b"f": b"v2"}),
        drop=hash_of("a8", {b"f": b"v2"}),
        values=here(a8=value(bytes.fromhex("04 01 0166 027632"))),
        copied_drop=at("a8"),
        degraded=(1, 1),
    ),
    Scenario(
        "HSETEX KEEPTTL",
        ["HSET a9 plain 1 ttl 5", f"HPEXPIREAT a9 {T} FIELDS 1 ttl", "HSETEX a9 KEEPTTL FIELDS 1 ttl 7"],
        [("HGETALL a9", {b"plain": b"1", b"ttl": b"7"}), ("HPEXPIRETIME a9 FIELDS 2 ttl plain", [T, -1])],
        keep=[("HGETALL a9", {b"plain": b"1", b"ttl": b"7"})],
        drop=[("HGETALL a9", {b"plain": b"1"})],
        values=here(a9=value(HASH_7)),
        copied_drop=at("a9"),
        degraded=(1, 2),
    ),
    Scenario(
        "HINCRBY of a field with TTL",
        ["HSET b1 plain 1 ttl 5", f"HPEXPIREAT b1 {T} FIELDS 1 ttl", "HINCRBY b1 ttl 2"],
        [("HGETALL b1", {b"plain": b"1", b"ttl": b"7"}), ("HPEXPIRETIME b1 FIELDS 1 ttl", [T])],
        keep=[("HGETALL b1", {b"plain": b"1", b"ttl": b"7"})],
        drop=[("HGETALL b1", {b"plain": b"1"})],
        values=here(b1=value(HASH_7)),
        copied_drop=at("b1"),
        degraded=(1, 2),
    ),
    Scenario(
        "HINCRBYFLOAT, as Redis 8.0 replicates it",
        ["HSET b2 f 1 g w", f"HPEXPIREAT b2 {T} FIELDS 1 f", "HSET b2 f 1.5"],
        hash_of("b2", {b"f": b"1.5", b"g": b"w"}, -1, -1),
        keep=hash_of("b2", {b"f": b"1.5", b"g": b"w"}),
        drop=hash_of("b2", {b"f": b"1.5", b"g": b"w"}),
        values=here(b2=value(bytes.fromhex("04 02 0166 03312e35 0167 0177"))),
        copied_drop=at("b2"),
        degraded=(1, 1),
    ),
    Scenario(
        "a hash whose every field was dropped comes back, and its key's TTL with it",
        ["HSET b9 f v", f"PEXPIREAT b9 {T + 9}", f"HPEXPIREAT b9 {T} FIELDS 1 f", "HSET b9 g w"],
        [*hash_of("b9", FVGW, T, -1), ("PEXPIRETIME b9", T + 9)],
        keep=[*hash_of("b9", FVGW), ("PEXPIRETIME b9", T + 9)],
        drop=[*hash_of("b9", GW), ("PEXPIRETIME b9", T + 9)],
        values=here(b9=value(bytes.fromhex("18 00d8c32cbb030000 02 01 0166 0176 00 0167 0177"), T + 9)),
        copied_drop=at("b9"),
        degraded=(1, 2),
    ),
    Scenario(
        "a hash whose every field was dropped is renamed and copied",
        ["HSET b3 ttl 5", f"HPEXPIREAT b3 {T} FIELDS 1 ttl", "COPY b3 b4", "RENAME b3 b5", "SET b6 1"],
        [
            ("HGETALL b4", {b"ttl": b"5"}),
            ("HGETALL b5", {b"ttl": b"5"}),
            ("HPEXPIRETIME b5 FIELDS 1 ttl", [T]),
            ("EXISTS b3", 0),
            ("GET b6", b"1"),
        ],
        keep=[("HGETALL b4", {b"ttl": b"5"}), ("HGETALL b5", {b"ttl": b"5"}), ("EXISTS b3", 0), ("GET b6", b"1")],
        drop=[("EXISTS b3 b4 b5", 0), ("GET b6", b"1")],
        values=here(b4=value(HASH_ONLY_TTL), b5=value(HASH_ONLY_TTL)),
        copied_drop=at("b4", "b3", "b5"),
        degraded=(1, 3),
    ),
    Scenario(
        "a hash that lost a field moves to another database, and counts there",
        ["HSET b7 plain 1 ttl 5", f"HPEXPIREAT b7 {T} FIELDS 1 ttl", "MOVE b7 2", "SELECT 2", "HINCRBY b7 ttl 2", "SELECT 0"],
        [("EXISTS b7", 0), ("SELECT 2", b"OK"), ("HGETALL b7", {b"plain": b"1", b"ttl": b"7"}), ("HPEXPIRETIME b7 FIELDS 1 ttl", [T])],
        keep=[("EXISTS b7", 0), ("SELECT 2", b"OK"), ("HGETALL b7", {b"plain": b"1", b"ttl": b"7"})],
        drop=[("EXISTS b7", 0), ("SELECT 2", b"OK"), ("HGETALL b7", {b"plain": b"1"})],
        values={(2, b"b7"): value(HASH_7)},
        copied_drop=((0, b"b7"), (2, b"b7")),
        degraded=(1, 2),
    ),
    Scenario(
        "databases are swapped under a hash that lost a field",
        [
            "HSET b8 plain 1 ttl 5",
            f"HPEXPIREAT b8 {T} FIELDS 1 ttl",
            "SWAPDB 0 4",
            "SELECT 4",
            "HINCRBY b8 ttl 2",
            "SWAPDB 0 4",
            "SELECT 0",
        ],
        [("HGETALL b8", {b"plain": b"1", b"ttl": b"7"}), ("HPEXPIRETIME b8 FIELDS 1 ttl", [T])],
        keep=[("HGETALL b8", {b"plain": b"1", b"ttl": b"7"})],
        drop=[("HGETALL b8", {b"plain": b"1"})],
        values=here(b8=value(HASH_7)),
        copied_drop=((4, b"b8"), (4, b"b8"), (0, b"b8")),
        degraded=(1, 2),
    ),
)

_NEW_COMMANDS = (
    Scenario(
        "MSETEX PXAT",
        [f"MSETEX 2 c1 one c2 two PXAT {T}"],
        [("GET c1", b"one"), ("GET c2", b"two"), ("PEXPIRETIME c1", T), ("PEXPIRETIME c2", T)],
        values=here(c1=string(b"one", T), c2=string(b"two", T)),
        copied_keep=at("c1", "c2"),
        copied_drop=at("c1", "c2"),
    ),
    Scenario("DELEX, replicated as DEL", ["SET c3 1", "DEL c3", "SET c4 1", "UNLINK c4"], [("EXISTS c3 c4", 0)]),
    Scenario("DELEX verbatim", ["SET c5 1", "DELEX c5", "SET c6 1", "DELEX c6 IFEQ 1"], [("EXISTS c5 c6", 0)]),
    Scenario("SET IFEQ, replicated as SET PXAT", ["SET c7 a", f"SET c7 b PXAT {T}"], [("GET c7", b"b"), ("PEXPIRETIME c7", T)]),
    Scenario(
        "SET with conditions, verbatim",
        [
            "SET c8 a",
            "SET c8 b IFNE z",
            "SET c8 c IFEQ b",
            f"SET c8 d IFEQ c PXAT {T}",
            "SET c8 e IFDNE 0123456789abcdef KEEPTTL",
            "set c9 x ifdeq 00 px 99999999",
        ],
        [("GET c8", b"e"), ("PEXPIRETIME c8", T), ("GET c9", b"x")],
    ),
    Scenario(
        "XADD KEEPREF",
        ["XADD d1 KEEPREF 1-1 f 1", "XADD d1 NOMKSTREAM KEEPREF MAXLEN = 2 2-2 f 2", "XADD d1 KEEPREF MAXLEN = 2 3-3 KEEPREF DELREF"],
        [("XRANGE d1 - +", [[b"2-2", [b"f", b"2"]], [b"3-3", [b"KEEPREF", b"DELREF"]]])],
    ),
    Scenario(
        "XADD DELREF",
        ["XADD d2 1-1 f 1", "XADD d2 2-2 f 2", "XGROUP CREATE d2 g 0", "XADD d2 DELREF MAXLEN = 2 3-3 f 3"],
        [("XRANGE d2 - +", [[b"1-1", [b"f", b"1"]], [b"3-3", [b"f", b"3"]]]), ("XPENDING d2 g", [2, b"1-1", b"3-3", [[b"alice", b"2"]]])],
        values=here(d2=value(STREAM_CUT)),
        copied=at("d2"),
    ),
    Scenario(
        "XADD ACKED",
        ["XADD d3 ACKED MINID = 1 1-1 f 1"],
        [("XLEN d3", 3), ("XPENDING d3 g", [3, b"1-1", b"3-3", [[b"alice", b"3"]]])],
        values=here(d3=value(STREAM_WHOLE)),
        copied=at("d3"),
    ),
    Scenario(
        "XTRIM KEEPREF",
        ["XADD d4 1-1 f 1", "XADD d4 2-2 f 2", "XTRIM d4 MAXLEN = 1 KEEPREF"],
        [("XRANGE d4 - +", [[b"2-2", [b"f", b"2"]]])],
    ),
    Scenario(
        "XTRIM DELREF",
        ["XADD d5 1-1 f 1", "XTRIM d5 MAXLEN = 2 DELREF"],
        [("XLEN d5", 2), ("XPENDING d5 g", [2, b"1-1", b"3-3", [[b"alice", b"2"]]])],
        values=here(d5=value(STREAM_CUT)),
        copied=at("d5"),
    ),
    Scenario(
        "XACKDEL",
        ["XADD d6 1-1 f 1", "XACKDEL d6 g DELREF IDS 1 2-2", "SET d6after 1"],
        [("XLEN d6", 2), ("XPENDING d6 g", [2, b"1-1", b"3-3", [[b"alice", b"2"]]]), ("GET d6after", b"1")],
        values=here(d6=value(STREAM_CUT)),
        copied=at("d6"),
    ),
    Scenario(
        "XDELEX",
        ["XADD d7 1-1 f 1", "XDELEX d7 KEEPREF IDS 1 2-2", "XADD d7 3-3 f 3"],
        [("XRANGE d7 - +", [[b"1-1", [b"f", b"1"]], [b"3-3", [b"f", b"3"]]])],
        values=here(d7=value(STREAM_CUT)),
        copied=at("d7"),
    ),
    Scenario(
        "BITOP with operations of 8.2",
        [
            ("SET", "e1", b"\xff\x0f"),
            ("SET", "e2", b"\x0f\xff"),
            "BITOP DIFF e3 e1 e2",
            "BITOP DIFF1 e4 e1 e2",
            "BITOP ANDOR e5 e1 e2",
            "BITOP ONE e6 e1 e2",
            "BITOP AND e7 e1 e2",
            "bitop not e8 e1",
        ],
        [
            ("GET e3", b"\xf0\x00"),
            ("GET e4", b"\x00\xf0"),
            ("GET e5", b"\x0f\x0f"),
            ("GET e6", b"\xf0\xf0"),
            ("GET e7", b"\x0f\x0f"),
            ("GET e8", b"\x00\xf0"),
        ],
        values=here(e3=string(b"\xf0\x00"), e4=string(b"\x00\xf0"), e5=string(b"\x0f\x0f"), e6=string(b"\xf0\xf0")),
        copied=at("e3", "e4", "e5", "e6"),
    ),
    Scenario("BITOP DIFF that leaves nothing", ["SET e9 x", "BITOP DIFF e9 none1 none2"], [("EXISTS e9", 0)], copied=at("e9")),
    Scenario(
        "RESTORE with a payload of RDB 12",
        [
            ("RESTORE", "f1", 0, payload(b"\x00" + text(b"one"))),
            ("RESTORE", "f2", T, payload(STREAM_CUT), "REPLACE", "ABSTTL"),
            ("RESTORE", "f3", 0, payload(b"\x19" + bytes.fromhex(HASH_EX)), "REPLACE"),
            ("RESTORE", "f4", 0, payload(HASH_ONLY_TTL)),
        ],
        [
            ("GET f1", b"one"),
            ("XLEN f2", 2),
            ("PEXPIRETIME f2", T),
            ("HGETALL f3", {b"f": b"v", b"g": b"w", b"h": b"7"}),
            ("HPEXPIRETIME f3 FIELDS 3 f g h", [T, T + 5, -1]),
            ("HGETALL f4", {b"ttl": b"5"}),
            ("HPEXPIRETIME f4 FIELDS 1 ttl", [T]),
        ],
        keep=[("GET f1", b"one"), ("HGETALL f3", {b"f": b"v", b"g": b"w", b"h": b"7"}), ("HGETALL f4", {b"ttl": b"5"})],
        drop=[("GET f1", b"one"), ("HGETALL f3", {b"h": b"7"}), ("EXISTS f4", 0)],
        degraded=(3, 3),
    ),
    Scenario(
        "FUNCTION RESTORE with a payload of RDB 12",
        [("FUNCTION", "RESTORE", payload(bytes.fromhex(FUNCTION_2)), "FLUSH"), "SET f5 1"],
        [
            (
                "FUNCTION LIST",
                [[b"library_name", b"lib", b"engine", b"LUA", b"functions", [[b"name", b"answer", b"description", None, b"flags", []]]]],
            ),
            ("GET f5", b"1"),
        ],
    ),
)

_LOAD = "#!lua name=other\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)"

_ORDINARY = (
    Scenario(
        "strings and counters",
        [
            "SET g1 5",
            "INCRBY g1 3",
            "DECR g1",
            "INCRBYFLOAT g2 1.5",
            "SETEX g3 99999999 v",
            "PSETEX g4 99999999999 v",
            "SETNX g5 v",
            "MSET g6 1 g7 2",
            "APPEND g6 23",
            "SETRANGE g7 1 x",
            "SETBIT g8 7 1",
            "BITFIELD g9 SET u8 0 65",
            "GETSET g5 w",
            "GETDEL g4",
            f"SET ga v PXAT {T}",
            "SET ga w KEEPTTL",
            f"PEXPIREAT g1 {T}",
            "PERSIST g1",
            f"PEXPIREAT g2 {T}",
            ("PFADD", "gb", "a", "b"),
        ],
        [
            ("MGET g1 g2 g4 g5 g6 g7 g8 g9 ga", [b"7", b"1.5", None, b"w", b"123", b"2x", b"\x01", b"A", b"w"]),
            ("PTTL g1", -1),
            ("PEXPIRETIME g2", T),
            ("PEXPIRETIME ga", T),
            ("EXISTS g3", 1),
            ("PFCOUNT gb", 2),
        ],
    ),
    Scenario(
        "lists, sets and sorted sets",
        [
            "RPUSH h1 a b c d",
            "LPOP h1",
            "LSET h1 0 B",
            "LINSERT h1 BEFORE c x",
            "LREM h1 1 d",
            "LMOVE h1 h2 LEFT RIGHT",
            "LTRIM h1 0 0",
            "SADD h3 a b c",
            "SREM h3 c",
            "SMOVE h3 h4 b",
            "SUNIONSTORE h5 h3 h4",
            "ZADD h6 1 a 2.5 b",
            "ZINCRBY h6 5 a",
            "ZUNIONSTORE h7 1 h6 WEIGHTS 2",
            "ZREMRANGEBYSCORE h6 -inf 3",
            "ZRANGESTORE h8 h7 0 0",
            "GEOADD h9 13.361389 38.115556 Palermo",
        ],
        [
            ("LRANGE h1 0 -1", [b"x"]),
            ("LRANGE h2 0 -1", [b"B"]),
            ("SMEMBERS h3", {b"a"}),
            ("SMEMBERS h5", {b"a", b"b"}),
            ("ZRANGE h6 0 -1 WITHSCORES", [b"a", b"6"]),
            ("ZRANGE h7 0 -1 WITHSCORES", [b"b", b"5", b"a", b"12"]),
            ("ZRANGE h8 0 -1", [b"b"]),
            ("GEOHASH h9 Palermo", [b"sqc8b49rny0"]),
        ],
    ),
    Scenario(
        "hashes and keys",
        [
            "HSET i1 f 1 g 2",
            "HINCRBY i1 f 4",
            "HINCRBYFLOAT i1 h 0.5",
            "HSETNX i1 n v",
            "HMSET i1 m 1",
            "HDEL i1 g",
            "RENAME i1 i2",
            "COPY i2 i3",
            "SELECT 1",
            "SET i4 v",
            "MOVE i4 5",
            "SELECT 0",
            "COPY i2 i5 DB 5 REPLACE",
            "SORT i9 BY nosort STORE i8",
        ],
        [
            ("HGETALL i2", {b"f": b"5", b"h": b"0.5", b"n": b"v", b"m": b"1"}),
            ("HLEN i3", 4),
            ("EXISTS i1 i8", 0),
            ("SELECT 1", b"OK"),
            ("EXISTS i4", 0),
            ("SELECT 5", b"OK"),
            ("GET i4", b"v"),
            ("HLEN i5", 4),
        ],
    ),
    Scenario(
        "streams, as XREADGROUP CLAIM is replicated",
        [
            "XADD j1 1-1 f 1",
            "XADD j1 2-2 f 2",
            "XGROUP CREATE j1 g 0",
            "XGROUP CREATECONSUMER j1 g alice",
            "MULTI",
            "XCLAIM j1 g alice 0 1-1 TIME 1700000000000 RETRYCOUNT 3 FORCE JUSTID LASTID 1-1",
            "XGROUP SETID j1 g 1-1 ENTRIESREAD 1",
            "EXEC",
            "XACK j1 g 9-9",
            "XDEL j1 2-2",
            "XSETID j1 5-5 ENTRIESADDED 7 MAXDELETEDID 2-2",
        ],
        [
            ("XRANGE j1 - +", [[b"1-1", [b"f", b"1"]]]),
            ("XPENDING j1 g", [1, b"1-1", b"1-1", [[b"alice", b"1"]]]),
            (
                "XINFO GROUPS j1",
                [[b"name", b"g", b"consumers", 1, b"pending", 1, b"last-delivered-id", b"1-1", b"entries-read", 1, b"lag", None]],
            ),
        ],
    ),
    Scenario(
        "scripts, functions and messages",
        [
            ("FUNCTION", "LOAD", _LOAD),
            "PUBLISH channel message",
            "SPUBLISH channel message",
            "MULTI",
            "SET k1 1",
            "INCR k1",
            "EXEC",
            "SCRIPT FLUSH",
        ],
        [
            (
                "FUNCTION LIST",
                [[b"library_name", b"other", b"engine", b"LUA", b"functions", [[b"name", b"twice", b"description", None, b"flags", []]]]],
            ),
            ("GET k1", b"2"),
        ],
    ),
    Scenario(
        "databases",
        [
            "SELECT 3",
            "SET l1 3",
            "SELECT 0",
            "SET l1 0",
            "SWAPDB 0 3",
            "SET l2 0",
            "SELECT 3",
            "FLUSHDB",
            "SELECT 15",
            "SET l3 15",
            "select 0",
        ],
        [("GET l1", b"3"), ("GET l2", b"0"), ("SELECT 3", b"OK"), ("DBSIZE", 0), ("SELECT 15", b"OK"), ("GET l3", b"15")],
    ),
    Scenario(
        "what is said between servers",
        [b"\n\n", "PING", "SET m1 1", b"\n", "REPLCONF GETACK *", "INCR m1", "replconf getack *", b"\n", "PING"],
        [("GET m1", b"2")],
    ),
    Scenario(
        "commands in small letters",
        ["set n1 a", "Select 2", "sEt n2 b", "sELECT 0"],
        [("GET n1", b"a"), ("SELECT 2", b"OK"), ("GET n2", b"b")],
    ),
    Scenario(
        "empty and binary arguments",
        [("SET", b"", b""), ("SET", b"o\r\n1", b"\x00*1\r\n$4\r\nPING\r\n")],
        [(("GET", b""), b""), (("GET", b"o\r\n1"), b"\x00*1\r\n$4\r\nPING\r\n")],
    ),
)

_TRANSACTIONS = (
    Scenario(
        "a transaction of which nothing is left",
        ["HSET o1 f v", "MULTI", "HPERSIST o1 FIELDS 1 f", "REPLCONF GETACK *", "EXEC", "MULTI", "EXEC", "INCR o2"],
        [("HGETALL o1", {b"f": b"v"}), ("GET o2", b"1")],
    ),
    Scenario(
        "a transaction that changes the database, around a key that is copied again",
        ["multi", "select 3", "INCR o3", "XDELEX o4 IDS 1 2-2", "Select 5", "incr o3", "exec", "INCR o3", "SELECT 0", "INCR o5"],
        [
            ("GET o5", b"1"),
            ("EXISTS o3 o4", 0),
            ("SELECT 3", b"OK"),
            ("GET o3", b"1"),
            ("XLEN o4", 2),
            ("SELECT 5", b"OK"),
            ("GET o3", b"2"),
            ("EXISTS o4", 0),
        ],
        values={(3, b"o4"): value(STREAM_CUT)},
        copied=((3, b"o4"),),
    ),
    Scenario(
        "what a script did, in small letters and in another database",
        [
            "multi",
            "set o6 1",
            "incr o6",
            "exec",
            "select 5",
            "set o7 1 ifeq 0",
            "hset o8 f v",
            f"hpexpireat o8 {T} fields 1 f",
            "select 0",
        ],
        [("GET o6", b"2"), ("SELECT 5", b"OK"), ("GET o7", b"1"), *hash_of("o8", FV, T)],
        keep=[("GET o6", b"2"), ("SELECT 5", b"OK"), ("GET o7", b"1"), *hash_of("o8", FV)],
        drop=[("GET o6", b"2"), ("SELECT 5", b"OK"), ("GET o7", b"1"), ("EXISTS o8", 0)],
        degraded=(1, 1),
    ),
    Scenario(
        "XAUTOCLAIM and a trimming XADD, as they are replicated",
        [
            "XADD oa 1-1 f v",
            "XGROUP CREATE oa g 0",
            "XCLAIM oa g c3 0 1-1 TIME 1700000000000 RETRYCOUNT 2 FORCE JUSTID LASTID 1-1",
            "XADD oa NOMKSTREAM MAXLEN = 2 2-2 f v",
            "xadd oa maxlen = 2 keepref 3-3 f v",
        ],
        [("XLEN oa", 2), ("XPENDING oa g", [1, b"1-1", b"1-1", [[b"c3", b"1"]]])],
    ),
    Scenario(
        "a transaction with commands that are translated",
        [
            "MULTI",
            "SET p1 1",
            "HSET p2 f v g w",
            f"HPEXPIREAT p2 {T} FIELDS 1 f",
            "SET p1 2 IFEQ 1",
            ("RESTORE", "p3", 0, payload(b"\x00\x01v")),
            "EXEC",
            "INCR p1",
        ],
        [("GET p1", b"3"), *hash_of("p2", FVGW, T, -1), ("GET p3", b"v")],
        keep=[("GET p1", b"3"), *hash_of("p2", FVGW), ("GET p3", b"v")],
        drop=[("GET p1", b"3"), *hash_of("p2", GW), ("GET p3", b"v")],
        degraded=(1, 1),
    ),
    Scenario(
        "a transaction with a key that is copied again",
        ["SET q1 1", "MULTI", "INCR q1", "XDELEX q2 KEEPREF IDS 1 2-2", "INCR q1", "EXEC", "INCR q1"],
        [("GET q1", b"4"), ("XLEN q2", 2)],
        values=here(q2=value(STREAM_CUT)),
        copied=at("q2"),
    ),
)

_UNDER_WAY = (
    Scenario(
        "a key that is copied again is renamed",
        ["XADD r1 1-1 f 1", "XACKDEL r1 g DELREF IDS 1 2-2", "RENAME r1 r2", "SET r3 1"],
        [("EXISTS r1", 0), ("XLEN r2", 2), ("GET r3", b"1")],
        values=here(r2=value(STREAM_CUT)),
        copied=at("r1", "r2"),
    ),
    Scenario(
        "a key that is copied again is copied to another one",
        ["XACKDEL s1 g DELREF IDS 1 2-2", "COPY s1 s2", "SET s3 1", "DEL s3 s1"],
        [("EXISTS s1 s3", 0), ("XLEN s2", 2)],
        values=here(s2=value(STREAM_CUT)),
        copied=at("s1", "s2", "s3"),
    ),
    Scenario(
        "a key that is copied again feeds a union, and that one another",
        ["SADD t1 a", ("SET", "t9", b"\x0f"), "BITOP DIFF t2 t9 none", "BITOP OR t3 t2 t9", "BITOP OR t4 t3 t9", "SUNIONSTORE t5 t1"],
        [("GET t2", b"\x0f"), ("GET t3", b"\x0f"), ("GET t4", b"\x0f"), ("SMEMBERS t5", {b"a"})],
        values=here(t2=string(b"\x0f"), t3=string(b"\x0f"), t4=string(b"\x0f")),
        copied=at("t2", "t3", "t4"),
    ),
    Scenario(
        "databases are swapped under a key that is copied again",
        ["SET u1 0", "BITOP DIFF u2 u1 none", "SWAPDB 0 1", "SELECT 1", "APPEND u2 x", "SET u3 1", "SELECT 0", "SET u4 0"],
        [("EXISTS u2", 0), ("GET u4", b"0"), ("SELECT 1", b"OK"), ("GET u1", b"0"), ("GET u2", b"0x"), ("GET u3", b"1")],
        values={(1, b"u2"): string(b"0x")},
        copied=((0, b"u2"), (0, b"u2"), (1, b"u2")),
    ),
    Scenario(
        "everything is flushed under a key that is copied again",
        ["SET v1 a", "BITOP DIFF v2 v1 none", "FLUSHALL", "SET v3 b", "APPEND v2 c"],
        [("EXISTS v1", 0), ("GET v2", b"c"), ("GET v3", b"b")],
        values=here(v2=string(b"c")),
        copied=at("v2"),
    ),
    Scenario(
        "a list is sorted by keys that are copied again",
        ["RPUSH w1 1 2", "SET w_1 1", "SET w_2 2", "BITOP DIFF w_1 w_9 none", "SORT w1 BY w_* STORE w2", "BITOP DIFF w_1 w_8 none"],
        [("GET w_1", b"3"), ("LRANGE w2 0 -1", [b"2", b"1"])],
        values=here(w_1=string(b"3"), w2=value(bytes.fromhex("01 02 0132 0131"))),
        copied=at("w_1", "w2"),
    ),
    Scenario(
        "GETACK, newlines and long values while a key is copied again",
        [
            ("SET", "x1", MEGABYTES),
            "BITOP DIFF x2 x9 none",
            b"\n",
            "REPLCONF GETACK *",
            ("SET", "x1", MEGABYTES[:-1]),
            b"\n\n",
            "PING",
            "INCR x3",
        ],
        [("STRLEN x1", len(MEGABYTES) - 1), ("GET x2", b"2"), ("GET x3", b"1")],
        values=here(x2=string(b"2")),
        copied=at("x2"),
    ),
)

_LARGE = (
    Scenario(
        "values of several megabytes",
        [("SET", "y1", MEGABYTES), ("RPUSH", "y2", MEGABYTES, b"short"), ("RESTORE", "y3", 0, PAYLOAD_OF_MEGABYTES), "SET y4 1"],
        [
            ("STRLEN y1", len(MEGABYTES)),
            ("GETRANGE y1 255 257", b"\xff\x00\x01"),
            ("LLEN y2", 2),
            ("GETRANGE y3 -1 -1", b"\xff"),
            ("GET y4", b"1"),
        ],
    ),
)

SCENARIOS: tuple[Scenario, ...] = (*_FIELD_TTLS, *_NEW_COMMANDS, *_ORDINARY, *_TRANSACTIONS, *_UNDER_WAY, *_LARGE)
