"""One record for each encoding that a server ever wrote, and hypothesis strategies for more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.encode import PLAIN, Encoding, SnapshotWriter
from valkeep.wire.rdb.record import Consumer, Entry, Field, Group, Id, Module, Pending, Record, Stream

REDIS, VALKEY = opcodes.DIALECT_REDIS, opcodes.DIALECT_VALKEY
NOW = 1_900_000_000_000

STRINGS = [b"", b"a", b"0", b"-1", b"127", b"-32768", b"2147483647", b"2147483648", b"007", b"\xff\x00" * 40, b"ab" * 5000]
ENTRIES = [
    Entry(Id(5, 1), [b"name", b"ann", b"age", b"41"]),
    Entry(Id(5, 2), [b"name", b"bob", b"age", b"-7"]),
    Entry(Id(9, 0), [b"other", b"fields", b"x" * 70, b""]),
    Entry(Id(1 << 63, (1 << 64) - 1), [b"name", b"eve", b"age", b"9"]),
]
GROUPS = [  # in order of their names, and so are consumers: as a server lists them
    Group(
        b"busy",
        Id(9, 0),
        3,
        [Pending(Id(5, 1), NOW, 1), Pending(Id(5, 2), NOW + 1, 70), Pending(Id(9, 0), NOW, 1)],
        [Consumer(b"idle", 1, -1), Consumer(b"one", NOW, NOW + 5, [Id(5, 1), Id(9, 0)]), Consumer(b"two", NOW, -1, [Id(5, 2)])],
    ),
    Group(b"empty", Id(0, 0), 0),
]


def stream(*, version: int = 3) -> Stream:
    """A stream with groups, as a version of its encoding can say it (what version 1 cannot say: as a server fills it in)."""
    groups = [
        Group(
            group.name,
            group.last,
            group.entries_read if version >= 2 or not group.pending else -1,
            list(group.pending),
            [
                Consumer(each.name, each.seen_ms, each.active_ms if version >= 3 else each.seen_ms, list(each.owned))
                for each in group.consumers
            ],
        )
        for group in GROUPS
    ]
    deleted, added = (Id(4, 4), 6) if version >= 2 else (Id(0, 0), 4)
    return Stream(list(ENTRIES), 4, ENTRIES[-1].id, ENTRIES[0].id, deleted, added, groups)


@dataclass(frozen=True)
class Case:
    """A value in an encoding. `name` as in opcodes.TYPES, and what is special."""

    name: str
    type_id: int
    kind: int
    value: Any
    version: int = 11
    dialect: int = REDIS
    options: Encoding = PLAIN

    def choice(self) -> Encoding:
        return replace(self.options, type_id=self.type_id)

    def record(self, key: bytes = b"key") -> Record:
        return Record(0, key, -1, self.kind, self.value)


def plain_hash(size: int = 5) -> dict[bytes, Field]:
    return {b"field%d" % i: Field(STRINGS[i % 9]) for i in range(size)}


TTL_HASH = {b"a": Field(b"1", NOW), b"b": Field(b"forever"), b"c": Field(b"x" * 70, NOW + 86_400_000), b"": Field(b"", NOW)}
SCORES = {b"a": 1.0, b"b": -0.5, b"c": 1e300, b"d": float("inf"), b"e": float("-inf"), b"f": 3.0000000000000004, b"": 0.0}
NUMBERS = {b"-70000", b"1", b"2", b"3"}


def cases() -> list[Case]:
    s, li, se, z, h, x = (
        opcodes.KIND_STRING, opcodes.KIND_LIST, opcodes.KIND_SET, opcodes.KIND_ZSET, opcodes.KIND_HASH, opcodes.KIND_STREAM,
    )  # fmt: skip
    found = [Case(f"STRING {text[:8]!r}", 0, s, text) for text in STRINGS]
    found += [
        Case("STRING lzf", 0, s, b"ab" * 5000, options=Encoding(compress=True)),
        Case("LIST", 1, li, STRINGS),
        Case("SET", 2, se, set(STRINGS)),
        Case("ZSET", 3, z, SCORES),
        Case("HASH", 4, h, plain_hash()),
        Case("ZSET_2", 5, z, SCORES),
        Case("HASH_ZIPMAP", 9, h, {b"a": Field(b"1"), b"x" * 300: Field(b"y" * 254)}, version=2),
        Case("LIST_ZIPLIST", 10, li, STRINGS, version=6),
        Case("SET_INTSET 16", 11, se, {b"1", b"-2"}),
        Case("SET_INTSET 32", 11, se, NUMBERS),
        Case("SET_INTSET 64", 11, se, {b"9223372036854775807", b"-9223372036854775808"}),
        Case("ZSET_ZIPLIST", 12, z, SCORES, version=9),
        Case("HASH_ZIPLIST", 13, h, plain_hash(), version=9),
        Case("LIST_QUICKLIST", 14, li, STRINGS, version=9, options=Encoding(pack=3, compress=True)),
        Case("STREAM_LISTPACKS", 15, x, stream(version=1), version=9),
        Case("HASH_LISTPACK", 16, h, plain_hash()),
        Case("ZSET_LISTPACK", 17, z, SCORES),
        Case("LIST_QUICKLIST_2 packed", 18, li, STRINGS, options=Encoding(pack=4)),
        Case("LIST_QUICKLIST_2 plain", 18, li, STRINGS, options=Encoding(plain_nodes=True)),
        Case("STREAM_LISTPACKS_2", 19, x, stream(version=2), version=10, options=Encoding(pack=2)),
        Case("SET_LISTPACK", 20, se, set(STRINGS)),
        Case("STREAM_LISTPACKS_3", 21, x, stream(), options=Encoding(pack=2)),
        Case("STREAM_LISTPACKS_3 all fields", 21, x, stream(), options=Encoding(same_fields=False, compress=True)),
        Case("STREAM_LISTPACKS_3 empty", 21, x, Stream(last=Id(7, 7), max_deleted=Id(7, 7), entries_added=1)),
        Case("HASH_METADATA_PRE_GA", 22, h, TTL_HASH, version=12),
        Case("HASH_LISTPACK_EX_PRE_GA", 23, h, TTL_HASH, version=12),
        Case("HASH_METADATA", 24, h, TTL_HASH, version=12),
        Case("HASH_LISTPACK_EX", 25, h, TTL_HASH, version=12),
        Case("HASH_2", 22, h, TTL_HASH, version=80, dialect=VALKEY),
        Case("HASH_LISTPACK under VALKEY", 16, h, plain_hash(), version=80, dialect=VALKEY),
        Case("MODULE_2", 7, opcodes.KIND_MODULE, Module(0x1234567890ABC401, [(1, b"\xff" * 8), (2, bytes(8)), (3, b"1234"), (4, b"12345678"), (5, b"text")])),
    ]  # fmt: skip
    return found


def snapshot(case: Case) -> bytes:
    """One snapshot with everything around the record: AUX, functions, prefixes, hints, a second database."""
    writer = SnapshotWriter(case.dialect, case.version)
    writer.aux(b"redis-ver", b"7.2.4")
    writer.function(b"#!lua name=f\nredis.register_function('f', function() end)")
    writer.module_aux(Module(0x1234567890ABC401, [(5, b"opaque"), (2, bytes(8))]), 2)
    writer.select(0)
    writer.resize(2, 1)
    record = case.record()
    record.expire_ms = NOW
    writer.record(record, case.choice())
    writer.raw(b"\xf4" + b"\x01\x02\x00")  # SLOT_INFO
    second = case.record(b"second")
    second.database, second.idle = 3, 100
    writer.record(second, case.choice())
    return writer.finish()


# --- strategies ----------------------------------------------------------------------------------------------------------------------------

texts = st.one_of(
    st.binary(max_size=80),
    st.integers(-(1 << 64), 1 << 64).map(lambda number: b"%d" % number),
    st.sampled_from([b"-0", b"00", b"-", b"x" * 64, b"y" * 300, b"ab" * 4096]),
)
scores = st.floats(allow_nan=False)
u64 = st.integers(0, (1 << 64) - 1)
ids = st.builds(Id, st.integers(0, 1 << 40) | u64, u64)
expiries = st.just(-1) | st.integers(1, (1 << 46) - 1)
hashes = st.dictionaries(texts, texts.map(Field), min_size=1, max_size=12)
ttl_hashes = st.dictionaries(texts, st.builds(Field, texts, expiries), min_size=1, max_size=12)
lists = st.lists(texts, min_size=1, max_size=20)
sets = st.sets(texts, min_size=1, max_size=20)
zsets = st.dictionaries(texts, scores, min_size=1, max_size=12)
int_sets = st.sets(st.integers(-(1 << 63), (1 << 63) - 1).map(lambda number: b"%d" % number), min_size=1, max_size=20)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Any stream that version 3 of the encoding can say."""
    names = st.sampled_from([[b"a", b"b"], [b"a"], [b"longer" * 20, b"b", b"7"]])
    found = [
        Entry(each, [part for name in draw(names) for part in (name, draw(texts))])
        for each in sorted(draw(st.sets(ids, min_size=1, max_size=8)))
    ]
    times = st.integers(0, 1 << 42)
    groups = []
    for name in draw(st.lists(st.binary(min_size=1, max_size=5), max_size=2, unique=True)):
        pending = [Pending(entry.id, draw(times), draw(st.integers(0, 1 << 33))) for entry in found if draw(st.booleans())]
        consumers = [Consumer(b"c%d" % i, draw(times), draw(times | st.just(-1))) for i in range(draw(st.integers(1, 2)))]
        for each in pending:
            draw(st.sampled_from(consumers)).owned.append(each.id)
        groups.append(Group(name, draw(ids), draw(st.integers(-1, 1 << 40)), pending, consumers))
    return Stream(found, len(found), found[-1].id, found[0].id, draw(ids), draw(u64), groups)


@st.composite
def any_case(draw: st.DrawFn) -> Case:
    """Any value in any encoding of its kind."""
    options = Encoding(
        integers=draw(st.booleans()), compress=draw(st.booleans()), pack=draw(st.integers(1, 6)), plain_nodes=draw(st.booleans()),
        same_fields=draw(st.booleans()),
    )  # fmt: skip
    values: dict[int, st.SearchStrategy[Any]] = {
        opcodes.KIND_STRING: texts, opcodes.KIND_LIST: lists, opcodes.KIND_SET: sets, opcodes.KIND_ZSET: zsets, opcodes.KIND_HASH: hashes,
        opcodes.KIND_STREAM: streams(),
    }  # fmt: skip
    special: dict[int, st.SearchStrategy[Any]] = {opcodes.SHAPE_SET_INTSET: int_sets}
    for shape in (
        opcodes.SHAPE_HASH_2, opcodes.SHAPE_HASH_TRIPLES, opcodes.SHAPE_HASH_TRIPLES_BARE, opcodes.SHAPE_HASH_TTL_ABSOLUTE,
        opcodes.SHAPE_HASH_TTL_RELATIVE,
    ):  # fmt: skip
        special[shape] = ttl_hashes
    older = (opcodes.TYPE_STREAM_LISTPACKS, opcodes.TYPE_STREAM_LISTPACKS_2)  # cannot say all that `streams` draws
    rows = [row for row in opcodes.TYPES if row.shape != opcodes.SHAPE_UNKNOWN and row.kind != opcodes.KIND_MODULE and row.id not in older]
    row = draw(st.sampled_from(rows))
    value = draw(special.get(row.shape, values[row.kind]))
    dialect = draw(st.sampled_from([REDIS, VALKEY])) if row.dialects == "RV" else "RV".index(row.dialects)
    return Case(row.name, row.id, row.kind, value, 80 if dialect == VALKEY else 12, dialect, options)
