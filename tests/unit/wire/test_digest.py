"""Digests: equal for equal values however they are encoded, different for every difference that counts."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from tests.support.rdb_records import NOW, SCORES, STRINGS, TTL_HASH, cases, snapshot, stream
from valkeep.errors import LocalProtocolError
from valkeep.wire import digest
from valkeep.wire.digest import DROP_FIELD, EXACT, KEEP_FIELD, ROW, Digester
from valkeep.wire.rdb import opcodes
from valkeep.wire.rdb.decode import Decoder
from valkeep.wire.rdb.encode import Encoding, SnapshotWriter
from valkeep.wire.rdb.record import Field, Group, Id, Pending, Record, Stream

KEY = bytes(range(16))
STRING, LIST, SET, ZSET, HASH, STREAM = (
    opcodes.KIND_STRING, opcodes.KIND_LIST, opcodes.KIND_SET, opcodes.KIND_ZSET, opcodes.KIND_HASH, opcodes.KIND_STREAM,
)  # fmt: skip


def digested(data: bytes, mode: int = EXACT, key: bytes = KEY) -> Digester:
    digester = Digester(key, mode)
    decoder = Decoder(digester)
    decoder.feed(data)
    assert decoder.finished
    return digester


def rows_of(*records: Record, mode: int = EXACT, type_id: int | None = None, key: bytes = KEY) -> list[bytes]:
    valkey = any(
        isinstance(each.value, dict) and any(isinstance(f, Field) and f.expire_ms != -1 for f in each.value.values()) for each in records
    )
    writer = SnapshotWriter(opcodes.DIALECT_VALKEY, 80) if valkey and type_id is None else SnapshotWriter(opcodes.DIALECT_REDIS, 12)
    for record in records:
        writer.record(record, Encoding(type_id=type_id))
    rows = digested(writer.finish(), mode, key).drain()
    return [rows[i : i + ROW] for i in range(0, len(rows), ROW)]


def row_of(
    kind: int, value: Any, *, expire: int = -1, key: bytes = b"key", database: int = 0, mode: int = EXACT, type_id: int | None = None
) -> bytes:
    (row,) = rows_of(Record(database, key, expire, kind, value), mode=mode, type_id=type_id)
    return row


# ------------------------------------------------------------------------------------------------------------------------------ SipHash


def rotated(x: int, n: int) -> int:
    return (x << n | x >> 64 - n) & (1 << 64) - 1


def reference(key: bytes, message: bytes, c: int, d: int) -> bytes:
    """SipHash-c-d with 128 bits, after the paper, in no hurry."""
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(n: int) -> None:
        for _ in range(n):
            for a, b, r1, c_, d_, r2 in ((0, 1, 13, 2, 3, 16), (2, 1, 17, 0, 3, 21)):
                v[a] = (v[a] + v[b]) & mask
                v[c_] = (v[c_] + v[d_]) & mask
                v[b] = rotated(v[b], r1) ^ v[a]
                v[d_] = rotated(v[d_], r2) ^ v[c_]
                v[a] = rotated(v[a], 32)

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for (m,) in struct.iter_unpack("<Q", padded):
        v[3] ^= m
        rounds(c)
        v[0] ^= m
    v[2] ^= 0xEE
    rounds(d)
    low = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(d)
    return struct.pack("<QQ", low, v[0] ^ v[1] ^ v[2] ^ v[3])


def test_the_reference_gives_the_published_vectors() -> None:
    """vectors_sip128 of the authors' reference code, SipHash-2-4."""
    assert reference(KEY, b"", 2, 4).hex() == "a3817f04ba25a8e66df67214c7550293"
    assert reference(KEY, bytes(range(1)), 2, 4).hex() == "da87c1d86b99af44347659119b22fc45"
    assert reference(KEY, bytes(range(7)), 2, 4).hex() == "a1f1ebbed8dbc153c0b84aa61ff08239"


def test_siphash_is_that_of_the_reference() -> None:
    for words in ([], [0], [1, (1 << 64) - 1, 3], list(range(40)), [(1 << 64) - 1] * 33):
        message = b"".join(word.to_bytes(8, "little") for word in words)
        assert digest.siphash13(KEY, words) == reference(KEY, message, 1, 3)


def test_a_string_is_its_length_and_its_padded_bytes() -> None:
    for size in (0, 1, 7, 8, 9, 16, 1000):
        value = bytes(i * 7 & 0xFF for i in range(size))
        message = struct.pack("<QQQ", STRING, NOW, size) + value + bytes(-size % 8)
        assert row_of(STRING, value, expire=NOW)[16:] == reference(KEY, message, 1, 3)
        name = struct.pack("<QQ", 5, size) + value + bytes(-size % 8)
        assert row_of(STRING, b"v", key=value, database=5)[:16] == reference(KEY, name, 1, 3)
        assert Digester(KEY).key_digest(5, value) == reference(KEY, name, 1, 3)


# ------------------------------------------------------------------------------------------------------------------ equal where equal


def test_every_encoding_of_a_value_has_the_same_row() -> None:
    groups: dict[str, set[bytes]] = {}
    for case in cases():
        row = digested(snapshot(case)).drain()
        assert len(row) == 2 * ROW
        if case.kind == STREAM and case.type_id != 21:
            continue  # older versions say less
        groups.setdefault(f"{case.kind} {sorted(case.value.items()) if isinstance(case.value, dict) else case.value!r}", set()).add(row)
    assert [name for name, rows in groups.items() if len(rows) != 1] == []
    assert len(groups) < len(cases()) - 10  # there are values with several encodings


def test_the_order_of_sets_hashes_and_zsets_does_not_count() -> None:
    assert row_of(ZSET, dict(reversed(SCORES.items()))) == row_of(ZSET, SCORES)
    assert row_of(HASH, dict(reversed(TTL_HASH.items()))) == row_of(HASH, TTL_HASH)
    members = [b"a", b"b", b"c" * 100]
    forth = b"\x02\x01k\x03" + b"".join(len(each).to_bytes(1, "big") + each if len(each) < 64 else b"\x40\x64" + each for each in members)
    back = b"\x02\x01k\x03" + b"".join(
        len(each).to_bytes(1, "big") + each if len(each) < 64 else b"\x40\x64" + each for each in members[::-1]
    )
    one, two = (SnapshotWriter(opcodes.DIALECT_REDIS, 11) for _ in range(2))
    one.raw(forth)
    two.raw(back)
    assert digested(one.finish()).drain() == digested(two.finish()).drain()


def test_zero_has_one_sign() -> None:
    assert row_of(ZSET, {b"a": -0.0}, type_id=5) == row_of(ZSET, {b"a": 0.0}, type_id=5)


def test_what_may_differ_between_healthy_servers_does_not_count() -> None:
    used = rows_of(Record(0, b"key", -1, STRING, b"v", idle=100)), rows_of(Record(0, b"key", -1, STRING, b"v", freq=9))
    assert used[0] == used[1] == rows_of(Record(0, b"key", -1, STRING, b"v"))
    one, two = stream(), stream()
    two.groups[0].pending[0] = two.groups[0].pending[0]._replace(delivery_ms=5)
    two.groups[0].consumers[1].seen_ms += 1
    two.groups[0].consumers[1].active_ms += 1
    del two.groups[0].consumers[0]  # it owned nothing
    assert row_of(STREAM, one) == row_of(STREAM, two)


def test_rows_are_the_same_for_any_chunks() -> None:
    for case in cases():
        data = snapshot(case)
        whole = digested(data).drain()
        digester = Digester(KEY)
        decoder = Decoder(digester)
        rows = b""
        for i in range(len(data)):
            decoder.feed(data[i : i + 1])
            rows += digester.drain()
        assert rows == whole, case.name


# ----------------------------------------------------------------------------------------------------------- different where different


def changed_stream(change: Any) -> Stream:
    made = stream()
    change(made)
    return made


def changed_group(made: Stream, **changes: Any) -> None:
    made.groups[0] = replace(made.groups[0], **changes)


def moved_to_another_consumer(made: Stream) -> None:
    two = made.groups[0].consumers[2]
    two.owned = [*two.owned, made.groups[0].consumers[1].owned.pop()]


def renamed_consumer(made: Stream) -> None:
    made.groups[0].consumers[1].name = b"uno"


def delivered_once_more(made: Stream) -> None:
    made.groups[0].pending[1] = made.groups[0].pending[1]._replace(delivery_count=71)


def no_longer_pending(made: Stream) -> None:
    made.groups[0].pending.pop()
    made.groups[0].consumers[1].owned.pop()


def other_entry(made: Stream) -> None:
    made.entries[0] = made.entries[0]._replace(fields=[b"name", b"ann", b"age", b"42"])


def other_id(made: Stream) -> None:
    made.entries[2] = made.entries[2]._replace(id=Id(9, 1))


def set_attribute(name: str, value: Any) -> Any:
    return lambda made: setattr(made, name, value)


STREAM_CHANGES = {
    "delivery count": delivered_once_more,
    "a pending entry less": no_longer_pending,
    "owner": moved_to_another_consumer,
    "consumer's name": renamed_consumer,
    "entry": other_entry,
    "entry's id": other_id,
    "last id": set_attribute("last", Id(1 << 63, 7)),
    "max deleted id": set_attribute("max_deleted", Id(4, 5)),
    "entries added": set_attribute("entries_added", 7),
    "group's name": lambda made: changed_group(made, name=b"busz"),
    "group's last id": lambda made: changed_group(made, last=Id(9, 1)),
    "group's entries read": lambda made: changed_group(made, entries_read=4),
    "group less": lambda made: made.groups.pop(),
    "group more": lambda made: made.groups.append(Group(b"zzz", Id(0, 0), 0)),
}


@pytest.mark.parametrize("name", STREAM_CHANGES)
def test_every_change_of_a_stream_is_seen(name: str) -> None:
    assert row_of(STREAM, changed_stream(STREAM_CHANGES[name]))[16:] != row_of(STREAM, stream())[16:]


CHANGES: list[tuple[str, tuple[int, Any, int], tuple[int, Any, int]]] = [
    ("ttl by a millisecond", (STRING, b"v", NOW), (STRING, b"v", NOW + 1)),
    ("ttl by a millisecond, down", (LIST, [b"v"], NOW), (LIST, [b"v"], NOW - 1)),
    ("a dropped ttl", (HASH, {b"f": Field(b"v")}, NOW), (HASH, {b"f": Field(b"v")}, -1)),
    ("a value", (STRING, b"v", -1), (STRING, b"w", -1)),
    ("a value's length", (STRING, b"v", -1), (STRING, b"v\0", -1)),
    ("empty and a zero byte", (STRING, b"", -1), (STRING, b"\0", -1)),
    ("swapped items", (LIST, [b"a", b"b", b"c"], -1), (LIST, [b"a", b"c", b"b"], -1)),
    ("an item twice", (LIST, [b"a"], -1), (LIST, [b"a", b"a"], -1)),
    ("items split elsewhere", (LIST, [b"ab", b"c"], -1), (LIST, [b"a", b"bc"], -1)),
    ("a member more", (SET, {b"a"}, -1), (SET, {b"a", b"b"}, -1)),
    ("a set and a list", (SET, {b"a"}, -1), (LIST, [b"a"], -1)),
    ("a set and a zset", (SET, {b"a"}, -1), (ZSET, {b"a": 0.0}, -1)),
    ("a score by its last bit", (ZSET, {b"a": 3.0}, -1), (ZSET, {b"a": 3.0000000000000004}, -1)),
    ("scores exchanged", (ZSET, {b"a": 1.0, b"b": 2.0}, -1), (ZSET, {b"a": 2.0, b"b": 1.0}, -1)),
    ("values exchanged", (HASH, {b"a": Field(b"1"), b"b": Field(b"2")}, -1), (HASH, {b"a": Field(b"2"), b"b": Field(b"1")}, -1)),
    ("a dropped field ttl", (HASH, TTL_HASH, -1), (HASH, {**TTL_HASH, b"a": Field(b"1")}, -1)),
    ("a field ttl by a millisecond", (HASH, TTL_HASH, -1), (HASH, {**TTL_HASH, b"a": Field(b"1", NOW + 1)}, -1)),
    ("two equal faults", (SET, {b"a", b"b", b"c"}, -1), (SET, {b"c"}, -1)),
]


@pytest.mark.parametrize(("name", "one", "two"), CHANGES, ids=[name for name, _, _ in CHANGES])
def test_every_change_of_a_value_is_seen(name: str, one: tuple[int, Any, int], two: tuple[int, Any, int]) -> None:
    rows = row_of(one[0], one[1], expire=one[2]), row_of(two[0], two[1], expire=two[2])
    assert rows[0][:16] == rows[1][:16]
    assert rows[0][16:] != rows[1][16:]


def test_the_key_digest_is_of_database_and_key() -> None:
    rows = {row_of(STRING, b"v", key=key, database=database)[:16] for key in (b"a", b"b", b"") for database in (0, 1, 256)}
    assert len(rows) == 9
    assert len({row_of(STRING, b"v", key=key)[16:] for key in (b"a", b"b")}) == 1


def test_another_secret_gives_other_rows() -> None:
    record = Record(0, b"key", -1, STRING, b"v")
    assert rows_of(record)[0][:16] != rows_of(record, key=bytes(16))[0][:16]
    assert rows_of(record)[0][16:] != rows_of(record, key=bytes(16))[0][16:]
    with pytest.raises(LocalProtocolError):
        Digester(b"short")
    with pytest.raises(LocalProtocolError):
        Digester(KEY, 9)


# --------------------------------------------------------------------------------------------------------------- field expiry by policy


def test_kept_fields_are_those_of_a_hash_without_expiry() -> None:
    plain = {name: Field(found.value) for name, found in TTL_HASH.items()}
    assert row_of(HASH, TTL_HASH, mode=KEEP_FIELD) == row_of(HASH, plain, mode=KEEP_FIELD) == row_of(HASH, plain)
    assert row_of(HASH, {**TTL_HASH, b"a": Field(b"2", NOW)}, mode=KEEP_FIELD) != row_of(HASH, plain)


def test_dropped_fields_are_as_if_they_were_not_there() -> None:
    left = {name: found for name, found in TTL_HASH.items() if found.expire_ms == -1}
    assert 0 < len(left) < len(TTL_HASH)
    assert row_of(HASH, TTL_HASH, mode=DROP_FIELD) == row_of(HASH, left)
    assert rows_of(Record(0, b"key", -1, HASH, {b"a": Field(b"1", NOW)}), mode=DROP_FIELD) == []


def test_empty_aggregates_have_no_row_as_servers_drop_them() -> None:
    writer = SnapshotWriter(opcodes.DIALECT_REDIS, 11)
    writer.raw(b"\x02\x01s\x00" + b"\x04\x01h\x00" + b"\x00\x01k\x01v")
    digester = digested(writer.finish())
    assert len(digester.drain()) == ROW
    assert (digester.keys, digester.absent) == (1, 2)


# -------------------------------------------------------------------------------------------------------------------------------- rest


def test_functions_are_digested_apart_and_in_any_order() -> None:
    def of(*codes: bytes) -> bytes:
        writer = SnapshotWriter(opcodes.DIALECT_REDIS, 11)
        for code in codes:
            writer.function(code)
        digester = digested(writer.finish())
        assert digester.functions == len(codes)
        return bytes(digester.functions_digest)

    assert of(b"#!lua a", b"#!lua b") == of(b"#!lua b", b"#!lua a")
    assert len({of(), of(b"#!lua a"), of(b"#!lua b"), of(b"#!lua a", b"#!lua b")}) == 4


def test_draining_gives_each_row_once() -> None:
    digester = Digester(KEY)
    assert digester.drain() == b""
    writer = SnapshotWriter(opcodes.DIALECT_REDIS, 11)
    for i in range(5000):
        writer.record(Record(0, b"key%d" % i, -1, STRING, b"v"))
    Decoder(digester).feed(writer.finish())
    rows = digester.drain()
    assert len({rows[i : i + 16] for i in range(0, len(rows), ROW)}) == 5000
    assert digester.drain() == b""


def test_pending_entries_and_strings_of_the_table_are_used() -> None:
    assert Pending(Id(5, 1), NOW, 1) in stream().groups[0].pending
    assert len({row_of(STRING, value) for value in STRINGS}) == len(STRINGS)
