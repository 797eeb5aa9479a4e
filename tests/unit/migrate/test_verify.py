"""The pure parts of verification: rows compared, written keys noted, two sightings judged."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkeep.cli.migrate_verify import _progress
from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.client.replication import HungUp
from valkeep.client.server_info import ServerInfo
from valkeep.errors import ConnectionLost, ExitCode, Refused, RemoteProtocolError, ServerError
from valkeep.migrate.keyread import KeyRead, Seen
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify import Comparison, Difference
from valkeep.migrate.verify.barrier import Relation
from valkeep.migrate.verify.crossing import VerifierBug, endpoint_from, endpoint_to, error_from, error_to
from valkeep.migrate.verify.explain import explain
from valkeep.migrate.verify.found import Found
from valkeep.migrate.verify.judge import judge
from valkeep.migrate.verify.mode import Mode
from valkeep.migrate.verify.side import Spill, libraries, names_path, partitions_for, rows_path
from valkeep.migrate.verify.written import Written
from valkeep.report.events import Note
from valkeep.topology.slots import key_slot
from valkeep.wire import resp
from valkeep.wire.commands import keys_of
from valkeep.wire.digest import DROP_FIELD, EXACT, KEEP_FIELD, Digester
from valkeep.wire.rdb.decode import Decoder
from valkeep.wire.rdb.encode import SnapshotWriter, dump_payload
from valkeep.wire.rdb.opcodes import DIALECT_REDIS, DIALECT_VALKEY, KIND_HASH, KIND_LIST, KIND_SET, KIND_STRING, KIND_ZSET
from valkeep.wire.rdb.record import Field, Record
from valkeep.wire.rows import ABSENT, AMBIGUOUS, DIFFERENT, DUPLICATE, EQUAL, EXPIRED, NAME, WRITTEN, compare, pick
from valkeep.wire.spiller import Spiller, policy
from valkeep.wire.writes import FIRST_ARGUMENT, WriteReader

NOW = 1_900_000_000_000


def digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def row(key: str, value: str, expiry: int = -1, field_expiry: int = -1) -> bytes:
    return digest(key) + digest(value) + struct.pack("=qq", expiry, field_expiry)


# ------------------------------------------------------------------------------------------------------------------------ rows


def test_equal_rows_agree_in_any_order() -> None:
    rows = [row(f"k{i}", f"v{i}") for i in range(1000)]
    outcome = compare(b"".join(rows), b"".join(reversed(rows)), b"", NOW)
    assert outcome.agree
    assert outcome.counts_left[EQUAL] == outcome.counts_right[EQUAL] == 1000


def test_each_state_of_a_row_is_told() -> None:
    left = [
        row("same", "1"),
        row("missing", "1"),
        row("value", "1"),
        row("written", "1"),
        row("gone", "1", NOW),
        row("field", "1", -1, NOW - 1),
    ]
    right = [row("same", "1"), row("extra", "1"), row("value", "2"), row("written", "2"), row("field", "2")]
    outcome = compare(b"".join(left), b"".join(right), digest("written") + digest("nowhere"), NOW)
    assert list(outcome.left) == [EQUAL, ABSENT, DIFFERENT, WRITTEN, EXPIRED, AMBIGUOUS]
    assert list(outcome.right) == [EQUAL, ABSENT, DIFFERENT, WRITTEN, AMBIGUOUS]


def test_an_expiry_after_the_deadline_excuses_nothing() -> None:
    assert list(compare(row("k", "1", NOW + 1), b"", b"", NOW).left) == [ABSENT]
    assert list(compare(row("k", "1", NOW), row("k", "2", NOW + 1), b"", NOW).left) == [DIFFERENT]
    assert list(compare(row("k", "1", NOW), row("k", "2", NOW - 5), b"", NOW).left) == [EXPIRED]
    assert list(compare(b"", row("k", "1", NOW - 1), b"", NOW).right) == [EXPIRED]


def test_a_key_that_comes_twice_is_a_duplicate_and_no_difference() -> None:
    outcome = compare(row("k", "1") * 2, row("k", "1") * 3, b"", NOW)
    assert list(outcome.left) == [EQUAL, DUPLICATE]
    assert list(outcome.right) == [EQUAL, DUPLICATE, DUPLICATE]


@given(
    st.dictionaries(st.integers(0, 40), st.integers(0, 2)),
    st.dictionaries(st.integers(0, 40), st.integers(0, 2)),
    st.sets(st.integers(0, 40)),
)
def test_rows_are_compared_as_dicts_are(left: dict[int, int], right: dict[int, int], written: set[int]) -> None:
    outcome = compare(
        b"".join(row(str(key), str(value)) for key, value in left.items()),
        b"".join(row(str(key), str(value)) for key, value in right.items()),
        b"".join(digest(str(key)) for key in written),
        NOW,
    )
    judged = left.keys() - written
    assert outcome.counts_left[ABSENT] == len(judged - right.keys())
    assert outcome.counts_right[ABSENT] == len(right.keys() - written - left.keys())
    assert outcome.counts_left[DIFFERENT] == sum(key in right and right[key] != left[key] for key in judged)
    assert outcome.counts_left[WRITTEN] == len(left.keys() & written)


def test_names_are_picked_by_state_in_batches() -> None:
    names = b"".join(NAME.pack(i % 3, len(b"key:%d" % i)) + b"key:%d" % i for i in range(10))
    states = bytes([EQUAL, DIFFERENT] * 5)
    hits, at, pos = pick(names, states, bytes([DIFFERENT]), 0, 0, 2)
    assert hits == [(DIFFERENT, 1, b"key:1"), (DIFFERENT, 0, b"key:3")]
    more, at, _ = pick(names, states, bytes([DIFFERENT]), at, pos, 100)
    assert [key for _, _, key in more] == [b"key:5", b"key:7", b"key:9"]
    assert at == 10


# ---------------------------------------------------------------------------------------------------------------------- spiller


def test_a_spilled_row_has_the_digesters_halves_and_the_expiries() -> None:
    writer = SnapshotWriter(DIALECT_VALKEY, 80)
    writer.aux(b"repl-stream-db", b"7")
    writer.function(b"#!lua name=lib\nredis.register_function('f', function() end)")
    writer.select(3)
    writer.record(Record(3, b"h", NOW, KIND_HASH, {b"a": Field(b"1", NOW + 5), b"b": Field(b"2"), b"c": Field(b"3", NOW + 2)}))
    writer.record(Record(3, b"s", -1, KIND_STRING, b"x"))
    data = writer.finish()
    key = b"k" * 16
    spiller, plain = Spiller(key, EXACT, 4), Digester(key)
    Decoder(spiller).feed(data)
    Decoder(plain).feed(data)
    rows = b"".join(bytes(part) for part in spiller.rows)
    words = plain.drain()
    assert sorted(rows[at : at + 32] for at in range(0, len(rows), 48)) == sorted(words[at : at + 32] for at in range(0, len(words), 32))
    assert sorted(struct.unpack("=qq", rows[at + 32 : at + 48]) for at in range(0, len(rows), 48)) == [(-1, -1), (NOW, NOW + 2)]
    for part, names in zip(spiller.rows, spiller.names, strict=True):
        picked, _, _ = pick(bytes(names), bytes(len(part) // 48), b"\0", 0, 0, 100)
        assert [plain.key_digest(database, name) for _, database, name in picked] == [
            bytes(part[at : at + 16]) for at in range(0, len(part), 48)
        ]
    assert spiller.stream_database == 7
    assert list(libraries(spiller.libraries)) == ["lib"]


def test_of_a_snapshot_only_the_keys_of_these_slots_are_spilled(tmp_path: Path) -> None:
    writer = SnapshotWriter(DIALECT_VALKEY, 80)
    names = [b"plain%d" % number for number in range(50)] + [b"{tag}%d" % number for number in range(9)] + [b"{}x", b"{open"]
    writer.select(0)
    for name in names:
        writer.record(Record(0, name, -1, KIND_STRING, b"x"))
    data = writer.finish()
    ranges = ((0, key_slot(b"tag") - 1), (key_slot(b"tag") + 1, 9000))
    spill = Spill(tmp_path, "source", b"k" * 16, 4, Mode.EXACT, ranges=ranges)
    spill.feed(data)
    spill.finish()
    spill.close()
    wanted = sorted(name for name in names if any(first <= key_slot(name) <= last for first, last in ranges))
    assert 0 < len(wanted) < 52
    found = []
    for partition in range(4):
        rows, kept = rows_path(tmp_path, "source", partition).read_bytes(), names_path(tmp_path, "source", partition).read_bytes()
        picked, _, _ = pick(kept, bytes(len(rows) // 48), b"\0", 0, 0, 100)
        found += [name for _, _, name in picked]
    assert sorted(found) == wanted
    assert spill.spiller.keys == len(wanted)


# ----------------------------------------------------------------------------------------------------------------- written keys


def test_every_command_on_the_short_way_writes_exactly_its_first_argument() -> None:
    forms = {
        b"BITFIELD": [b"SET", b"u8", b"0", b"1"],
        b"XAUTOCLAIM": [b"g", b"c", b"0", b"0"],
        b"XCLAIM": [b"g", b"c", b"0", b"1-1"],
        b"XACK": [b"g", b"1-1"],
        b"XACKDEL": [b"g", b"IDS", b"1", b"1-1"],
        b"XDELEX": [b"IDS", b"1", b"1-1"],
    }
    for name in FIRST_ARGUMENT:
        keys = keys_of([name, b"the key", *forms.get(name, [b"1", b"2", b"3", b"4"])], 5)
        assert keys is not None, name
        assert keys.written == ((5, b"the key"),), name
        assert not keys.databases, name
        assert not keys.everything, name


COMMANDS = [
    [b"SELECT", b"2"], [b"SET", b"a", b"1" * 300], [b"PING"], [b"MULTI"], [b"hset", b"h", b"f", b"v"], [b"EXEC"], [b"DEL", b"x"],
    [b"SELECT", b"0"], [b"DEL", b"y", b"z"], [b"REPLCONF", b"GETACK", b"*"], [b"INCR", b"a"],
]  # fmt: skip


@given(st.integers(1, 400))
def test_written_keys_are_the_same_whatever_the_chunks(size: int) -> None:
    stream = b"\n".join(resp.encode(*command) for command in COMMANDS)
    reader = WriteReader(1000, 9)
    for at in range(0, len(stream), size):
        reader.feed(stream[at : at + size])
    assert reader.position == 1000 + len(stream)
    assert reader.commands == len(COMMANDS)
    assert [(one.database, one.args) for one in reader.others] == [(0, [b"DEL", b"y", b"z"])]
    taken = reader.take()
    assert {database: sorted(keys) for database, keys in taken.items()} == {2: [b"a", b"h", b"x"], 0: [b"a"]}
    assert taken[0][b"a"] == reader.position
    assert reader.take() == {}


def test_a_large_value_is_not_kept() -> None:
    reader = WriteReader(0, 0)
    command = resp.encode(b"SET", b"k", b"v" * 5_000_000)
    reader.feed(command[:100])
    reader.feed(command[100:])
    assert reader.take() == {0: {b"k": len(command)}}
    reader.feed(resp.encode(b"DEL", b"a", b"k" * 70_000))
    assert reader.others[0].args == [b"DEL", b"a", None]


@pytest.mark.parametrize(
    "data", [b"+OK\r\n", b"*x\r\n", b"*0\r\n", b"*1\r\n*1\r\n", b"*2\r\n$6\r\nSELECT\r\n$1\r\nx\r\n", b"*99999999999999999999\r\n"]
)
def test_what_is_no_stream_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        WriteReader(0, 0).feed(data)


@pytest.mark.parametrize("database", [b"9" * 10, b"9" * 20, b"9" * 5000])
def test_a_database_that_no_server_has_is_an_error_of_the_stream(database: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        WriteReader(0, 0).feed(resp.encode(b"SELECT", database))


def test_a_length_of_too_many_digits_is_an_error_wherever_the_stream_is_cut() -> None:
    data = b"*2\r\n$4\r\nSREM\r\n$1099511627776\r\n"
    for cut in range(len(data)):
        reader = WriteReader(0, 0)
        with pytest.raises(RemoteProtocolError):
            for piece in (data[:cut], data[cut:]):
                reader.feed(piece)


def test_what_no_key_can_tell_makes_everything_written(tmp_path: Path) -> None:
    for command in ([b"FLUSHALL"], [b"FLUSHDB"], [b"SWAPDB", b"0", b"1"], [b"NEVERHEARDOF", b"k"], [b"CLUSTER", b"flushslot", b"7"]):
        written = Written(0, 0, tmp_path)
        written.feed(resp.encode(*command))
        assert command[0].decode() in written.everything
    written = Written(0, 0, tmp_path)
    written.feed(resp.encode(b"COPY", b"a", b"b", b"DB", b"4") + resp.encode(b"FUNCTION", b"LOAD", b"x"))
    written.feed(resp.encode(b"CLUSTER", b"SETSLOT", b"7", b"STABLE") + resp.encode(b"CLUSTER"))
    assert not written.everything
    assert written.functions
    assert set(written.names()) == {(4, b"b")}


def test_written_keys_spill_and_come_back_in_batches(tmp_path: Path) -> None:
    written = Written(0, 0, tmp_path)
    for number in range(100):
        written.note(number % 2, b"k%d" % number, number + 1)
    written.spill()
    written.note(0, b"later", 500)
    assert len(written) == 101
    batches = list(written.take(30))
    assert max(len(one) for one in batches) <= 30
    assert {key for one in batches for key in one} == {(n % 2, b"k%d" % n) for n in range(100)} | {(0, b"later")}
    assert len(written) == 0
    assert not [path for path in tmp_path.iterdir() if "taken" in path.name]
    written.note(1, b"again", 600)
    assert written.last(1, b"again") == 600
    written.forget(1, b"again")
    assert written.last(1, b"again") == 0


# ------------------------------------------------------------------------------------------------------------------------ judge


def seen(kind: int, value: object, expiry: int = -1, *, valkey: bool = True, tolerance: int = 0) -> Seen:
    dialect, version = (DIALECT_VALKEY, 80) if valkey else (DIALECT_REDIS, 12)
    return Seen(dump_payload(Record(0, b"k", -1, kind, value), dialect, version), expiry, tolerance)


def test_one_value_in_two_dialects_is_equal() -> None:
    fields = {b"a": Field(b"1", NOW + 9), b"b": Field(b"2")}
    assert judge(seen(KIND_HASH, fields, valkey=False), seen(KIND_HASH, fields), Mode.EXACT, NOW) == "equal"


@pytest.mark.parametrize(
    ("source", "target", "what"),
    [
        (seen(KIND_STRING, b"1"), None, "missing"),
        (None, seen(KIND_STRING, b"1"), "extra"),
        (seen(KIND_STRING, b"1"), seen(KIND_STRING, b"2"), "different"),
        (seen(KIND_STRING, b"1"), seen(KIND_LIST, [b"1"]), "different"),
        (seen(KIND_LIST, [b"a", b"b"]), seen(KIND_LIST, [b"b", b"a"]), "different"),
        (seen(KIND_SET, {b"a"}), seen(KIND_SET, {b"a", b"b"}), "different"),
        (seen(KIND_ZSET, {b"a": 1.0}), seen(KIND_ZSET, {b"a": 1.0000001}), "different"),
        (seen(KIND_STRING, b"1", NOW + 10), seen(KIND_STRING, b"1", NOW + 11), "expiry"),
        (seen(KIND_STRING, b"1", NOW + 10), seen(KIND_STRING, b"1"), "expiry"),
        (seen(KIND_STRING, b"1", NOW + 10, tolerance=2), seen(KIND_STRING, b"1", NOW + 13), "expiry"),
        (seen(KIND_HASH, {b"a": Field(b"1", NOW + 9)}), seen(KIND_HASH, {b"a": Field(b"1")}), "different"),
    ],
)
def test_planted_differences_are_told(source: Seen | None, target: Seen | None, what: str) -> None:
    assert judge(source, target, Mode.EXACT, NOW) == what
    assert explain(source, target, Mode.EXACT)


def test_what_no_client_sees_is_no_difference() -> None:
    assert judge(None, None, Mode.EXACT, NOW) == "equal"
    assert judge(seen(KIND_STRING, b"1", NOW), None, Mode.EXACT, NOW) == "expired"
    assert judge(None, seen(KIND_STRING, b"1", NOW - 1), Mode.EXACT, NOW) == "expired"
    assert judge(seen(KIND_STRING, b"1", NOW - 1), seen(KIND_STRING, b"2", NOW - 2), Mode.EXACT, NOW) == "expired"
    assert judge(seen(KIND_STRING, b"1", NOW + 10, tolerance=2), seen(KIND_STRING, b"1", NOW + 12), Mode.EXACT, NOW) == "equal"
    expired, live = {b"a": Field(b"1", NOW - 1), b"b": Field(b"2")}, {b"b": Field(b"2")}
    assert judge(seen(KIND_HASH, expired), seen(KIND_HASH, live), Mode.EXACT, NOW) == "equal"
    assert judge(seen(KIND_HASH, live), seen(KIND_HASH, expired), Mode.EXACT, NOW) == "equal"
    assert judge(None, seen(KIND_HASH, {b"a": Field(b"1", NOW - 1)}), Mode.EXACT, NOW) == "equal"
    assert judge(seen(KIND_HASH, expired), seen(KIND_HASH, {b"b": Field(b"3")}), Mode.EXACT, NOW) == "different"


def test_the_policy_decides_what_the_target_should_have() -> None:
    source = seen(KIND_HASH, {b"a": Field(b"1", NOW + 99), b"b": Field(b"2")}, valkey=False)
    kept, dropped = seen(KIND_HASH, {b"a": Field(b"1"), b"b": Field(b"2")}), seen(KIND_HASH, {b"b": Field(b"2")})
    assert judge(source, kept, Mode.KEEP_FIELD, NOW) == "equal"
    assert judge(source, dropped, Mode.KEEP_FIELD, NOW) == "different"
    assert judge(source, dropped, Mode.DROP_FIELD, NOW) == "equal"
    assert judge(source, kept, Mode.DROP_FIELD, NOW) == "different"
    only = seen(KIND_HASH, {b"a": Field(b"1", NOW + 99)}, valkey=False)
    assert judge(only, None, Mode.DROP_FIELD, NOW) == "equal"
    assert judge(only, seen(KIND_HASH, {b"a": Field(b"1")}), Mode.DROP_FIELD, NOW) == "extra"


# ----------------------------------------------------------------------------------------------------------------------- values


def test_a_comparison_survives_json() -> None:
    one = Comparison(
        keys_source=5, different=1, examples=(Difference(3, b"\xff\x00", "different", "why"), Difference(0, b"k", "missing")),
        verdict="invalid", reasons=("r",), notes=("n",), seconds=1.5,
    )  # fmt: skip
    assert Comparison.from_json(one.to_json()) == one
    assert one.exit_code is ExitCode.JUDGED_BAD
    assert Comparison.unknown("x").exit_code is ExitCode.UNKNOWN
    assert Comparison(unsettled=3).hot_only
    assert Comparison(unsettled=3, reasons=("3 keys are written faster than they can be compared",)).hot_only
    assert not Comparison(unsettled=3, missing=1, verdict="invalid").hot_only
    assert not Comparison.unknown("x").hot_only


def test_errors_and_endpoints_cross_the_pipe_whole() -> None:
    refused = error_from(error_to(Refused("no", remedy="do", definite=True, code="VK-SPOOL-FULL")))
    assert isinstance(refused, Refused)
    assert (refused.message, refused.remedy, refused.exit_code, refused.code) == ("no", "do", ExitCode.NOT_RUN, "VK-SPOOL-FULL")
    lost = error_from(error_to(ConnectionLost("gone", remedy="look", definite=False)))
    assert lost.exit_code is ExitCode.UNCERTAIN
    assert isinstance(error_from(error_to(HungUp("gone", remedy="look"))), ConnectionLost)
    assert isinstance(error_from(error_to(HungUp("gone", remedy="look"))), ConnectionLost)
    endpoint = Endpoint("::1", 7, username="u", password=Secret("p w"), tls=TLS(verify="ca"))
    assert endpoint_from(endpoint_to(endpoint)) == endpoint


def test_all_differences_are_kept_for_a_repair_and_some_for_people(tmp_path: Path) -> None:
    found = Found(tmp_path)
    for number in range(50):
        found.add("missing", 0, b"k%d" % number)
    assert len(found) == 50
    assert len(found.examples) == 20
    assert len(list(found.take())) == 50
    assert len(found) == 0
    found.close()


def test_partitions_grow_with_the_keys_and_stay_few() -> None:
    assert [partitions_for(keys) for keys in (0, 1_000_000, 1_000_001, 10**7, 10**12)] == [4, 4, 8, 64, 256]


def test_a_bug_crosses_as_a_bug_with_its_traceback_and_a_full_disk_does_not() -> None:
    try:
        raise ZeroDivisionError("x")
    except ZeroDivisionError as error:
        bug = error_from(error_to(error))
    assert isinstance(bug, VerifierBug)
    assert "bug of Valkeep" in bug.message
    assert "ZeroDivisionError: x" in bug.message
    assert "test_verify.py" in bug.trace
    assert bug.exit_code is ExitCode.UNKNOWN
    full = error_from(error_to(OSError(28, "No space left on device")))
    assert not isinstance(full, VerifierBug)
    assert "--workdir" in full.remedy


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_bugs_traceback_is_shown_where_debugging_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], debug: str
) -> None:
    monkeypatch.setenv("VALKEEP_DEBUG", debug)
    _progress(Note(0.0, "error", "a bug of Valkeep", {"traceback": "Traceback (most recent call last)"}))
    said = capsys.readouterr().err
    assert "a bug of Valkeep" in said
    assert ("Traceback" in said) == bool(debug)


def test_an_expiry_before_7_is_made_of_time_and_pttl() -> None:
    payload = dump_payload(Record(0, b"k", -1, KIND_STRING, b"v"), DIALECT_REDIS, 9)
    read = KeyRead.of((6, 2, 7))
    assert [command[0] for command in read.commands(b"k")] == ["DUMP", "TIME", "PTTL", "TIME"]
    at = [b"1900000000", b"5999"]
    assert read.seen([payload, at, 1000, at]) == Seen(payload, 1_900_000_001_005, 2)
    assert read.seen([payload, at, -1, at]) == Seen(payload, -1, 0)
    assert read.seen([None, at, -2, at]) is None
    assert read.seen([payload, at, -2, at]) is None  # it expired between the two
    with pytest.raises(ServerError, match="NOPERM"):
        read.seen([b"QUEUED", ServerError("NOPERM", "no"), ServerError("EXECABORT", "no")])


@pytest.mark.parametrize(("after", "tolerance"), [(b"5999", 2), (b"6000", 2), (b"7000", 4), (b"35999", 32)])
def test_a_server_that_stood_still_between_the_two_makes_the_expiry_unsure(after: bytes, tolerance: int) -> None:
    payload = dump_payload(Record(0, b"k", -1, KIND_STRING, b"v"), DIALECT_REDIS, 9)
    seen = KeyRead(exact=False).seen([payload, [b"1900000000", b"5999"], 1000, [b"1900000000", after]])
    assert seen == Seen(payload, 1_900_000_001_005, tolerance)
    assert seen.unsure == (tolerance > 2)


def test_an_expiry_from_7_on_is_what_the_server_says() -> None:
    payload = dump_payload(Record(0, b"k", -1, KIND_STRING, b"v"), DIALECT_REDIS, 10)
    read = KeyRead.of((7, 0, 15))
    assert [command[0] for command in read.commands(b"k")] == ["DUMP", "PEXPIRETIME"]
    assert read.seen([payload, 1_900_000_001_005]) == Seen(payload, 1_900_000_001_005)
    assert read.seen([payload, -1]) == Seen(payload, -1)
    assert read.seen([payload, -2]) is None


def server_of(**facts: object) -> ServerInfo:
    return cast("ServerInfo", SimpleNamespace(**facts))


def test_what_the_target_should_hold_is_decided_by_the_policy_and_its_version() -> None:
    new, old = server_of(kind="valkey", version=(9, 0)), server_of(kind="valkey", version=(8, 1))
    assert {Mode.of(each, new) for each in FieldTtl} == {Mode.EXACT}
    assert Mode.of(FieldTtl.REFUSE, old) is Mode.EXACT
    assert Mode.of(FieldTtl.KEEP_FIELD, old) is Mode.KEEP_FIELD
    assert Mode.of(FieldTtl.DROP_FIELD, old) is Mode.DROP_FIELD
    assert {policy(mode) for mode in Mode} == {EXACT, KEEP_FIELD, DROP_FIELD}


def test_only_a_replica_is_linked_and_only_under_one_id_offsets_say_something() -> None:
    source = server_of(replid="a" * 40)
    assert Relation.of(source, server_of(role="replica", replid="a" * 40)) is Relation.NATIVE
    assert Relation.of(source, server_of(role="replica", replid="b" * 40)) is Relation.FOREIGN
    assert Relation.of(source, server_of(role="primary", replid="a" * 40)) is Relation.APART
    assert Relation.of(server_of(replid="?"), server_of(role="replica", replid="?")) is Relation.FOREIGN
    assert [relation for relation in Relation if not relation.exact] == [Relation.FOREIGN]
