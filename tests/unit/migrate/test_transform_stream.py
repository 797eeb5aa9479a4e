"""The stream's translation as a state machine: what is absorbed, what waits, what is sent when; each with the mistake it must not make."""

from __future__ import annotations

import pytest

from tests.support.fixtures_snapshots import VECTOR_SET, T, text
from tests.support.fixtures_streams import HASH_7, HASH_ONLY_TTL
from tests.support.scripted_primary import command, payload
from valkeep.errors import LocalProtocolError, Refused
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.commands import verbatim
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.maybe import MaybeSet
from valkeep.migrate.transform.stream import StreamTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

V8, V9 = TargetFormat((8, 1)), TargetFormat((9, 1))
ONE = payload(b"\x00\x011")
ONE_11 = payload(b"\x00\x011", 11)


def restored(key: str, data: bytes = ONE_11, expire: int = 0) -> bytes:
    return command("RESTORE", key, expire, data, "REPLACE", "ABSTTL")


class Stream:
    """A source's stream whose offset begins at 0, fed command by command."""

    def __init__(self, target: TargetFormat = V8, policy: FieldTtl = FieldTtl.KEEP_FIELD, **more: object) -> None:
        self.ledger = Ledger(None)
        self.transform = StreamTransform((8, 4), target, policy, self.ledger.record, **more)  # type: ignore[arg-type]
        self.offset = 0
        self.buffer = bytearray()

    def say(self, *lines: str | bytes) -> bytes:
        """What is sent for these lines; what waits is kept for the next call."""
        self.buffer += b"".join(line if isinstance(line, bytes) else command(line) for line in lines)
        out = bytearray()
        while self.buffer and self.transform.wants is None:
            consumed, sent = self.transform.feed(self.buffer, self.offset)
            out += sent
            if isinstance(sent, memoryview):
                sent.release()
            self.offset += consumed
            del self.buffer[:consumed]
            if not consumed:
                break
        return bytes(out)

    @property
    def places(self) -> tuple[tuple[int, bytes], ...]:
        return self.transform.wants.places if self.transform.wants is not None else ()

    @property
    def why(self) -> str:
        wants = self.transform.wants
        assert wants is not None
        assert wants.hold is not None
        assert wants.hold.remedy
        return wants.hold.why

    def copy(self, offset: int, *places: tuple[int, bytes], data: bytes | None = ONE, expire_ms: int = -1) -> None:
        self.transform.supply([Copy(database, key, offset, data, expire_ms) for database, key in places])


def size(*lines: str) -> int:
    return sum(len(command(line)) for line in lines)


def test_what_both_sides_mean_alike_passes_as_its_bytes() -> None:
    stream = Stream()
    lines = ("SELECT 3", "SET k v", "INCR n", "MULTI", "LPUSH l a", "EXEC", "PING")
    assert stream.say(*lines) == b"".join(map(command, lines))
    assert stream.transform.database == 3


def test_a_copy_is_sent_at_its_offset_and_absorbs_what_came_before() -> None:
    stream = Stream()
    assert stream.say("SET a 1", "XDELEX k IDS 1 1-1", "INCR k2") == command("SET a 1")
    assert stream.places == ((0, b"k"),)
    due = size("SET a 1", "XDELEX k IDS 1 1-1", "INCR k2", "APPEND k x", "INCR a")
    stream.copy(due, (0, b"k"), expire_ms=T)
    assert stream.say("APPEND k x") == command("INCR k2")  # k is absorbed, k2 is not
    assert stream.transform.copying
    assert stream.say("INCR a") == command("INCR a") + restored("k", expire=T)  # it is due there, and the key flows again
    assert not stream.transform.copying
    assert stream.say("APPEND k y") == command("APPEND k y")
    assert stream.ledger.counts["recopied", "key", ""] == 1


def test_a_copy_of_a_key_that_is_gone_deletes_it() -> None:
    stream = Stream()
    stream.say("BITOP DIFF d a b")
    stream.copy(size("BITOP DIFF d a b"), (0, b"d"), data=None)
    assert stream.say("INCR n") == command("DEL d") + command("INCR n")


def test_a_copy_lands_in_its_own_database_whatever_is_selected_by_then() -> None:
    stream = Stream()
    stream.say("SELECT 2", "XDELEX k IDS 1 1-1")
    assert stream.places == ((2, b"k"),)
    stream.copy(size("SELECT 2", "XDELEX k IDS 1 1-1", "SELECT 5"), (2, b"k"))
    assert stream.say("SELECT 5") == command("SELECT 5") + command("SELECT 2") + restored("k") + command("SELECT 5")
    assert stream.say("INCR n") == command("INCR n")


@pytest.mark.parametrize(
    ("line", "waits_for"),
    [
        ("RENAME k other", ((0, b"other"),)),
        ("COPY k other", ((0, b"other"),)),
        ("COPY k other DB 2", ((2, b"other"),)),
        ("MOVE k 2", ((2, b"k"),)),
        ("SUNIONSTORE other a k", ((0, b"other"),)),
        ("BITOP OR other k a", ((0, b"other"),)),
        ("DEL k other", ((0, b"other"),)),
        ("MSET other 1 k 2", ((0, b"other"),)),
        ("RPOPLPUSH k other", ((0, b"other"),)),
        ("ZUNIONSTORE other 2 a k", ((0, b"other"),)),
        ("SORT list BY w_* STORE other", ((0, b"other"),)),
        ("SORT list BY nosort GET w_* STORE other", ((0, b"other"),)),
        ("SWAPDB 0 1", ((0, b"k"), (1, b"k"))),
    ],
)
def test_what_reads_an_absorbed_key_makes_the_other_wait_for_a_copy_too(line: str, waits_for: tuple[tuple[int, bytes], ...]) -> None:
    stream = Stream()
    stream.say("XDELEX k IDS 1 1-1")
    first = size("XDELEX k IDS 1 1-1", line, "INCR n")
    stream.copy(first, (0, b"k"))
    assert stream.say(line, "INCR n") == b""
    assert set(stream.places) == set(waits_for)
    stream.copy(first, *stream.places)
    out = stream.say("PING")
    assert command("INCR n") in out
    assert out.index(command("INCR n")) < out.index(b"RESTORE")  # the copies are of the offset behind it
    assert (command(line) in out) == line.startswith("SWAPDB")
    assert out.endswith(command("PING"))


@pytest.mark.parametrize("line", ["SORT list STORE other", "FLUSHALL", "FLUSHDB", "PUBLISH k x", "SELECT 3", "SWAPDB 2 3", "SET other k"])
def test_what_has_nothing_to_do_with_an_absorbed_key_is_not_delayed(line: str) -> None:
    stream = Stream()
    stream.say("XDELEX k IDS 1 1-1")
    stream.copy(1 << 40, (0, b"k"))
    assert stream.say(line) == command(line)


def test_a_copy_is_never_put_into_a_transaction() -> None:
    stream = Stream()
    lines = ("MULTI", "INCR a", "XDELEX k IDS 1 1-1", "INCR b", "EXEC")
    assert stream.say(*lines) == command("MULTI") + command("INCR a")
    assert not stream.transform.at_boundary
    assert stream.transform.between_commands
    stream.copy(size(*lines), (0, b"k"))
    assert stream.say() == command("INCR b") + command("EXEC") + restored("k")
    assert stream.transform.at_boundary


def test_a_long_value_that_is_under_way_is_finished_before_a_copy() -> None:
    stream = Stream()
    whole = command("SET", "big", bytes(5000))
    assert stream.say(whole[:2000]) == whole[:2000]
    stream.transform.demand(((0, b"k"),), stream.offset)
    with pytest.raises(LocalProtocolError):
        stream.transform.feed(stream.buffer, stream.offset)
    stream.copy(2100, (0, b"k"))
    assert not stream.transform.between_commands
    assert stream.say(whole[2000:]) == whole[2000:] + restored("k")
    assert stream.say("PING") == command("PING")


def test_a_command_in_pieces_waits_for_its_end() -> None:
    stream = Stream()
    data = command("SET s v IFEQ x")
    out = b"".join(stream.say(data[at : at + 1]) for at in range(len(data)))
    assert out == command("SET s v")


@pytest.mark.parametrize("policy", FieldTtl)
def test_a_hold_says_the_command_the_reason_and_the_remedy_and_sends_nothing_after_it(policy: FieldTtl) -> None:
    stream = Stream(V9, policy)
    assert stream.say("SET a 1", "FROBNICATE x", "SET b 1") == command("SET a 1")
    assert "FROBNICATE" in stream.why
    assert stream.transform.wants is not None
    assert stream.transform.wants.offset == size("SET a 1")
    with pytest.raises(LocalProtocolError):
        stream.transform.feed(stream.buffer, stream.offset)


@pytest.mark.parametrize(
    "line", ["SELECT 16", "SELECT -1", "SWAPDB 0 16", "SWAPDB 99 1", "MOVE a 16", "COPY a b DB 16", "COPY a b REPLACE db 17"]
)
def test_a_database_that_the_target_does_not_have_holds(line: str) -> None:
    stream = Stream()
    assert stream.say(line, "SET b 1") == b""
    assert stream.why
    absorbing = Stream()
    absorbing.say("XDELEX a IDS 1 1-1")
    absorbing.copy(1 << 40, (0, b"a"))
    assert absorbing.say(line, "SET b 1") == b""
    assert absorbing.why


def test_a_payload_that_the_target_cannot_take_holds_and_names_the_key() -> None:
    stream = Stream()
    assert stream.say(command("RESTORE", "vectors", 0, payload(b"\x07" + bytes.fromhex(VECTOR_SET)))) == b""
    assert "vectors" in stream.why
    assert stream.places == ((0, b"vectors"),)  # its deletion on the source would free it
    damaged = Stream()
    damaged.say(command("RESTORE", "k", 0, ONE[:-1] + b"!"))
    assert "checksum" in damaged.why
    functions = Stream()
    functions.say(command("FUNCTION", "RESTORE", payload(b"\xf5" + text(b"x"))[:-1] + b"!"))
    assert "FUNCTION" in functions.why


def test_a_dump_of_no_functions_is_sealed_for_the_target_like_any() -> None:
    assert Stream().say(command("FUNCTION", "RESTORE", payload(b""), "FLUSH")).count(b"FLUSH") == 1


def test_a_copy_that_cannot_be_sent_is_refused_and_the_wish_stands() -> None:
    stream = Stream()
    stream.say("VADD vectors x")
    with pytest.raises(Refused, match="vectors"):
        stream.copy(1000, (0, b"vectors"), data=payload(b"\x07" + bytes.fromhex(VECTOR_SET)))
    assert stream.places == ((0, b"vectors"),)
    stream.copy(0, (0, b"vectors"), data=None)
    assert not stream.transform.wants


def test_under_refuse_no_copy_may_lose_a_field_ttl() -> None:
    stream = Stream(V8, FieldTtl.REFUSE)
    stream.say("XDELEX k IDS 1 1-1")
    with pytest.raises(Refused, match="field TTLs"):
        stream.copy(1000, (0, b"k"), data=payload(HASH_7))
    kept = Stream(V9, FieldTtl.REFUSE)
    kept.say("XDELEX k IDS 1 1-1")
    kept.copy(0, (0, b"k"), data=payload(HASH_7))
    assert b"RESTORE" in kept.say("PING")


def test_what_a_copy_loses_is_in_the_ledger_and_remembered() -> None:
    stream = Stream(V8, FieldTtl.DROP_FIELD)
    stream.say("XDELEX k IDS 1 1-1")
    stream.copy(size("XDELEX k IDS 1 1-1"), (0, b"k"), data=payload(HASH_7))
    assert b"RESTORE" in stream.say("PING")
    assert stream.ledger.counts["degraded", "field-ttl", "drop-field"] == 1
    assert (0, b"k") in stream.transform.lost_fields
    stream.say("XDELEX gone IDS 1 1-1")
    stream.copy(stream.offset + size("XDELEX gone IDS 1 1-1"), (0, b"gone"), data=payload(HASH_ONLY_TTL))
    assert stream.say("PING") == command("DEL gone") + command("PING")


@pytest.mark.parametrize(
    "line",
    [
        "HINCRBY k f 1",
        "HINCRBYFLOAT k f 1",
        "HPERSIST k FIELDS 1 f",
        "HSETEX k KEEPTTL FIELDS 1 f v",
        "HSETEX k FIELDS 1 f v",
        "HSET k g w",
        "HMSET k g w",
        "RENAME k k2",
        "COPY k k2",
        "MOVE k 3",
    ],
)
def test_what_depends_on_a_lost_field_is_copied(line: str) -> None:
    lost = MaybeSet()
    lost.add(0, b"k")
    assert Stream(V8, FieldTtl.DROP_FIELD, lost_fields=lost).say(line, "PING") == b""
    whole = Stream(V8, FieldTtl.DROP_FIELD)
    assert command("PING") in whole.say(line, "PING")
    assert whole.transform.wants is None


def test_a_lost_field_is_not_forgotten_when_databases_are_swapped() -> None:
    lost = MaybeSet()
    lost.add(0, b"k")
    stream = Stream(V8, FieldTtl.DROP_FIELD, lost_fields=lost)
    stream.say("SWAPDB 0 7", "HINCRBY k f 1", "SELECT 7")
    assert stream.transform.wants is None
    stream.say("HINCRBY k f 1")
    assert stream.places == ((7, b"k"),)


def test_a_hash_that_a_restore_brought_without_some_fields_is_remembered_and_a_whole_one_is_not() -> None:
    stream = Stream(V8, FieldTtl.DROP_FIELD, lost_fields=MaybeSet())
    stream.say(command("RESTORE", "lossy", 0, payload(HASH_7)), command("RESTORE", "whole", 0, ONE))
    assert (0, b"lossy") in stream.transform.lost_fields
    assert (0, b"whole") not in stream.transform.lost_fields
    stream.say("HINCRBY lossy f 1")
    assert stream.say("PING") == b""
    assert stream.places == ((0, b"lossy"),)


def test_a_copy_that_lost_fields_is_remembered_under_the_database_it_is_sent_to() -> None:
    stream = Stream(V8, FieldTtl.DROP_FIELD)
    lines = ("XDELEX k IDS 1 1-1", "SWAPDB 0 7", "INCR n")
    stream.say(*lines)
    stream.copy(size(*lines), (0, b"k"))
    stream.say()
    assert set(stream.places) == {(0, b"k"), (7, b"k")}
    read = [Copy(0, b"k", size(*lines), payload(HASH_7)), Copy(7, b"k", size(*lines), None)]  # both were read behind the swap
    stream.transform.supply(read)
    assert b"RESTORE" in stream.say("PING")
    stream.say("HINCRBY k f 1")
    assert stream.places == ((0, b"k"),)


def test_getack_is_for_us_and_never_for_the_target() -> None:
    stream = Stream()
    assert stream.say("SET a 1", "REPLCONF GETACK *", "INCR a") == command("SET a 1") + command("INCR a")
    assert stream.transform.acknowledge
    stream.transform.acknowledge = False
    stream.say("XDELEX k IDS 1 1-1")
    stream.copy(1 << 40, (0, b"k"))
    assert stream.say("REPLCONF GETACK *") == b""
    assert stream.transform.acknowledge


def test_writes_are_counted_without_what_writes_nothing() -> None:
    stream = Stream()
    stream.say("PING", "SELECT 1", "REPLCONF GETACK *")
    assert stream.transform.writes == 0
    stream.say("SET a 1", "INCR a", "DELEX b")
    assert stream.transform.writes == 3


def test_a_copy_that_nobody_asked_for_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        Stream().copy(0, (0, b"k"))


def test_sources_without_new_commands_are_not_looked_at() -> None:
    assert {b"SET", b"XADD", b"BITOP", b"HINCRBY"} <= verbatim((7, 2), V8)
    assert not {b"HINCRBY", b"HSET"} & verbatim((7, 4), V8, lossy=True)
    assert {b"HINCRBY", b"HSET"} <= verbatim((7, 4), V8)
    assert {b"HINCRBY", b"HSET"} <= verbatim((7, 4), V9, lossy=True)
    assert {b"HINCRBY", b"HSET"} <= verbatim((7, 2), V8, lossy=True)
    assert {b"SET", b"XADD"} <= verbatim((8, 0), V9)
    assert not {b"SET", b"XADD", b"BITOP", b"XTRIM"} & verbatim((8, 4), V9)
    assert not {b"SELECT", b"SWAPDB", b"MOVE", b"COPY", b"RESTORE", b"FUNCTION", b"REPLCONF"} & verbatim((2, 8), V9)
    assert b"HPEXPIREAT" not in verbatim((7, 4), V8)
    assert b"SET" not in verbatim((8, 1), TargetFormat((8, 0)), valkey=True)
    assert b"SET" in verbatim((8, 1), V8, valkey=True)
