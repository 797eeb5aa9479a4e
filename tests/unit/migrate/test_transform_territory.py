"""The stream of one lane of several: what is not its own is left out, and what waits for a copy is contained in it; each with the mistake it must not make."""

from __future__ import annotations

import random

import pytest

from tests.support.scripted_primary import command, payload
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import LARGE_COMMAND, StreamTransform
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.migrate.transform.territory import Territory
from valkeep.topology.slots import SLOTS, key_slot

A, B = key_slot(b"{a}"), key_slot(b"{b}")
ONE = payload(b"\x00\x011")
ONE_80 = payload(b"\x00\x011", 80)


def restored(key: str, data: bytes = ONE_80, expire: int = 0) -> bytes:
    return command("RESTORE", key, expire, data, "REPLACE", "ABSTTL")


class Lane:
    """A shard's stream whose offset begins at 0, fed command by command."""

    def __init__(self, *slots: int, cluster: bool = True) -> None:
        self.territory = Territory(slots)
        target = TargetFormat((9, 1), databases=1 if cluster else 16, cluster=cluster)
        self.transform = StreamTransform((8, 0), target, FieldTtl.KEEP_FIELD, Ledger(None).record, territory=self.territory)
        self.offset = 0
        self.buffer = bytearray()

    def say(self, *lines: str | bytes) -> bytes:
        """What is sent for these lines; what waits is kept for the next call."""
        self.buffer += b"".join(line if isinstance(line, bytes) else command(line) for line in lines)
        out = bytearray()
        while (self.buffer or self.transform.copying) and self.transform.wants is None:
            consumed, sent = self.transform.feed(self.buffer, self.offset)
            out += sent
            if isinstance(sent, memoryview):
                sent.release()
            self.offset += consumed
            del self.buffer[:consumed]
            if not consumed:
                break
        return bytes(out)

    def demand(self, *keys: bytes) -> None:
        """As a channel does, and what goes with it."""
        self.transform.demand(tuple((0, key) for key in keys), self.offset)
        self.territory.arrive(keys)

    def copy(self, offset: int, *keys: bytes, data: bytes | None = ONE) -> None:
        self.transform.supply([Copy(0, key, offset, data) for key in keys])


def all_of(*lines: str) -> bytes:
    return b"".join(map(command, lines))


def test_what_is_foreign_is_left_out_whatever_its_shape() -> None:
    lane = Lane(A)
    own = (
        "SET {a}1 x",
        "MULTI",
        "INCR {a}2",
        "EXEC",
        "PING",
        "DEL {a}1 {a}2",
        "SUNIONSTORE {a}1 {a}2",
        "HSET {a}h f v g w",
        "SORT {a}l STORE {a}s",
    )
    foreign = ("SET {b}1 x", "INCR {b}2", "DEL {b}1", "DEL {b}1 {b}2", "SUNIONSTORE {b}1 {b}2", "HSET {b}h f v g w", "SORT {b}l STORE {b}s")
    mixed = [line for pair in zip(own, [*foreign, "XACKDEL {b}x", "EVAL s 1 {b}1"], strict=True) for line in pair]
    assert lane.say(*mixed) == all_of(*own)


def test_a_transaction_keeps_its_frame_where_all_of_it_is_left_out() -> None:
    lane = Lane(A)
    assert lane.say("MULTI", "SET {b}1 x", "EXEC", "SET {a}1 x") == all_of("MULTI", "EXEC", "SET {a}1 x")


def test_without_a_territory_nothing_is_left_out() -> None:
    transform = StreamTransform((8, 0), TargetFormat((9, 1), databases=1, cluster=True), FieldTtl.KEEP_FIELD, Ledger(None).record)
    lines = bytearray(all_of("SET {a}1 x", "SET {b}1 x", "FLUSHALL"))
    assert bytes(transform.feed(lines, 0)[1]) == bytes(lines)


def test_a_slot_crosses_from_the_next_command_on_and_no_longer() -> None:
    lane = Lane(A)
    assert lane.say("SET {a}1 x", "SET {b}1 x") == command("SET {a}1 x")
    lane.territory.leave(A)
    lane.territory.enter(B, ())
    assert lane.say("SET {a}1 y", "SET {b}1 y") == command("SET {b}1 y")


def test_a_shard_that_is_emptied_does_not_empty_the_others() -> None:
    lane = Lane(A)
    said = lane.say("FLUSHALL", "flushdb ASYNC", f"CLUSTER FLUSHSLOT {A} ASYNC", f"CLUSTER FLUSHSLOT {B}")
    assert said == command(f"VALKEEP.FLUSHSLOTS {A}-{A}") * 3
    assert lane.say(f"TRIMSLOTS RANGES 2 {A} {A} {B} {B}", f"TRIMSLOTS RANGES 1 {B} {B}") == command(f"VALKEEP.FLUSHSLOTS {A}-{A}")
    assert Lane().say("FLUSHALL", "SET {a}1 x") == b""


def test_what_the_servers_say_to_each_other_is_left_out_and_other_words_are_held() -> None:
    lane = Lane(A)
    node = "0" * 40
    assert lane.say(f"CLUSTER SETSLOT 5 IMPORTING {node}", f"CLUSTER SYNCSLOTS ESTABLISH SOURCE {node}", "SET {a}1 x") == command(
        "SET {a}1 x"
    )
    assert lane.say("CLUSTER ADDSLOTS 1", "SET {a}2 x") == b""
    assert lane.transform.wants is not None
    assert lane.transform.wants.hold is not None


@pytest.mark.parametrize(
    "line", ["CLUSTER", "CLUSTER FLUSHSLOT", "CLUSTER FLUSHSLOT 16384", "CLUSTER FLUSHSLOT x", "FUNCTION", "TRIMSLOTS RANGES 1 5"]
)
def test_what_makes_no_sense_holds(line: str) -> None:
    lane = Lane(A)
    assert lane.say(line, "SET {a}1 x") == b""
    assert lane.transform.wants is not None
    assert lane.transform.wants.hold is not None


def test_a_key_that_a_slot_brings_along_comes_as_a_client_would_restore_it() -> None:
    lane = Lane(A)
    asking = [
        command("RESTORE-ASKING", "{a}1", 0, ONE),
        command("RESTORE-ASKING", "{a}2", 7, ONE, "ABSTTL"),
        command("RESTORE-ASKING", "{a}3", 7, ONE, "REPLACE", "ABSTTL"),
        command("RESTORE-ASKING", "{b}4", 7, ONE, "REPLACE", "ABSTTL"),
    ]
    assert lane.say(*asking) == (
        command("RESTORE", "{a}1", 0, ONE_80, "REPLACE")
        + command("RESTORE", "{a}2", 7, ONE_80, "ABSTTL", "REPLACE")
        + command("RESTORE", "{a}3", 7, ONE_80, "REPLACE", "ABSTTL")
    )


def test_functions_come_so_that_a_second_shard_may_say_them_again() -> None:
    lane = Lane(A)
    assert lane.say("FUNCTION LOAD code", "FUNCTION FLUSH") == all_of("FUNCTION LOAD REPLACE code", "FUNCTION FLUSH")


def test_what_is_said_of_a_pending_key_is_left_out_until_its_copy_contains_it() -> None:
    lane = Lane()
    lane.territory.note(A)
    assert lane.say("SET {a}noted 1") == b""
    lane.territory.enter(A, [b"{a}listed"])
    assert lane.say("APPEND {a}noted 2", "APPEND {a}listed 2", "SET {a}free 1") == command("SET {a}free 1")
    lane.demand(b"{a}noted", b"{a}listed")
    later = "APPEND {a}noted 3"
    lane.copy(lane.offset + len(command(later)), b"{a}noted", b"{a}listed")
    assert lane.say(later, "APPEND {a}noted 4") == restored("{a}noted") + restored("{a}listed") + command("APPEND {a}noted 4")


def test_a_key_that_is_gone_when_it_is_copied_is_removed() -> None:
    lane = Lane()
    lane.territory.enter(A, [b"{a}1"])
    lane.demand(b"{a}1")
    lane.copy(lane.offset, b"{a}1", data=None)
    assert lane.say() == command("DEL {a}1")


def test_a_command_that_reads_a_pending_key_has_what_it_writes_copied_once() -> None:
    lane = Lane()
    lane.territory.enter(A, [b"{a}pending"])
    line = "SUNIONSTORE {a}1 {a}pending"
    assert lane.say(line, "SADD {a}1 x") == b""
    assert lane.transform.wants is not None
    assert lane.transform.wants.places == ((0, b"{a}1"),)
    lane.copy(len(command(line)), b"{a}1")
    assert lane.say() == restored("{a}1") + command("SADD {a}1 x")
    assert lane.transform.wants is None


def test_a_command_of_a_pending_key_and_one_that_is_copied_already_is_contained() -> None:
    lane = Lane(A)
    lane.territory.enter(B, [b"{b}pending"])
    lane.demand(b"{b}1")
    line = "RENAME {b}pending {b}1"
    lane.copy(lane.offset + len(command(line)), b"{b}1")
    assert lane.say(line) == restored("{b}1")
    assert lane.transform.wants is None


def test_a_copy_of_a_slot_that_was_left_meanwhile_is_not_sent() -> None:
    lane = Lane(A, B)
    lane.demand(b"{a}1", b"{b}1")
    lane.copy(lane.offset + len(command("PING")), b"{a}1", b"{b}1", data=None)
    lane.territory.leave(A)
    lane.territory.note(A)
    assert lane.say("PING") == command("PING") + command("DEL {b}1")
    assert not lane.transform.copying
    lane.demand(b"{a}2")  # somebody asks for it all the same
    lane.copy(lane.offset, b"{a}2", data=None)
    assert lane.say() == b""


def test_while_copies_are_under_way_what_is_foreign_is_left_out_as_well() -> None:
    lane = Lane(A)
    lane.demand(b"{a}1")
    lane.copy(1000, b"{a}1")
    assert lane.say("SET {b}1 x", "SET {a}1 x", "SET {a}2 x") == command("SET {a}2 x")


def test_a_large_command_on_a_foreign_key_goes_by_unseen_and_what_follows_does_not() -> None:
    lane = Lane(A)
    lane.territory.note(B)
    head = b"*3\r\n$3\r\nSET\r\n$4\r\n{b}1\r\n$%d\r\n" % (LARGE_COMMAND + 100)
    assert lane.say(head) == b""
    assert lane.say(b"x" * (LARGE_COMMAND + 50)) == b""
    assert len(lane.buffer) < 1000
    assert lane.say(b"x" * 50 + b"\r\n", "SET {a}1 x") == command("SET {a}1 x")
    lane.territory.enter(B, ())
    assert lane.territory.pending(B) == {b"{b}1"}


def test_a_long_value_of_an_owned_key_streams_through_to_its_end_even_if_the_slot_is_left() -> None:
    lane = Lane(A)
    said = command("SET", "{a}1", b"x" * 100_000)
    assert lane.say(said[:1000]) == said[:1000]
    lane.territory.leave(A)
    assert lane.say(said[1000:], "SET {a}1 y") == said[1000:]


def test_a_target_that_is_no_cluster_gets_its_part_as_well() -> None:
    lane = Lane(A, cluster=False)
    assert lane.say("MSET {a}1 x {a}2 y", "MSET {b}1 x {b}2 y", "FLUSHDB", "SELECT 3") == all_of(
        "MSET {a}1 x {a}2 y", f"VALKEEP.FLUSHSLOTS {A}-{A}", "SELECT 3"
    )


def test_what_is_left_out_is_the_same_however_the_stream_is_cut() -> None:
    rng = random.Random(3)
    lines = [f"SET {{{rng.choice('abc')}}}{number} {'x' * rng.randint(0, 300)}" for number in range(300)]
    lines += [f"SADD {{{rng.choice('abc')}}}set {number} more" for number in range(300)]
    rng.shuffle(lines)
    expected = all_of(*(line for line in lines if "{a}" in line))
    for under_way in (False, True):
        lane = Lane(A)
        if under_way:
            lane.demand(b"{a}copied")
            lane.copy(1 << 30, b"{a}copied")
        rest, out = all_of(*lines), b""
        while rest:
            size = rng.randint(1, 700)
            out += lane.say(rest[:size])
            rest = rest[size:]
        assert out == expected
        assert lane.offset == len(all_of(*lines))
        assert lane.transform.boundary is not None
        assert lane.transform.boundary.source == lane.offset
        assert lane.transform.writes == len(lines)


def test_boundaries_are_told_behind_what_is_left_out() -> None:
    lane = Lane(A)
    lane.say("SET {a}1 x", "SET {b}1 x")
    assert lane.transform.boundary is not None
    assert lane.transform.boundary.source == lane.offset
    assert lane.transform.writes == 2


def test_every_slot_is_its_own() -> None:
    even = Lane(*range(0, SLOTS, 2))
    lines = [f"SET key:{number} x" for number in range(2000)]
    assert even.say(*lines) == all_of(*(line for line in lines if key_slot(line.split()[1].encode()) % 2 == 0))
