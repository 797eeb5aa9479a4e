"""The stream of a channel for a cluster: commands of one slot each, and each shard gets its own of them, whole, with what its marker has to say."""

from __future__ import annotations

import random

import pytest

from valkeep.errors import LocalProtocolError, ServerError
from valkeep.migrate import marker
from valkeep.migrate.delivery.push.batches import MOST_BYTES
from valkeep.migrate.delivery.push.emptying import SCRIPT
from valkeep.migrate.delivery.push.sharded import Share
from valkeep.migrate.transform import commands
from valkeep.migrate.transform.crossing import MOST_WORDS
from valkeep.migrate.transform.maybe import MaybeSet
from valkeep.migrate.transform.outcomes import PASS, Hold, Outcome, Recopy, Replace, Situation
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.migrate.transform.territory import FLUSH_SLOTS
from valkeep.topology.slots import even_ranges, key_slot, tag_for
from valkeep.wire import resp

REPLID = "a" * 40
CLUSTER = TargetFormat((9, 1), 1, cluster=True)


def translated(*words: bytes) -> Outcome:
    return commands.translate(words[0], [*words], Situation(0, 0, CLUSTER, FieldTtl.KEEP_FIELD, MaybeSet()))


def instead(outcome: Outcome) -> set[tuple[bytes, ...]]:
    assert isinstance(outcome, Replace)
    return set(outcome.instead)


def test_commands_of_one_slot_pass_and_others_are_taken_apart_where_that_is_exact() -> None:
    assert translated(b"SUNIONSTORE", b"{a}1", b"{a}2", b"{a}3") is PASS
    assert instead(translated(b"DEL", b"{a}1", b"b", b"{a}2")) == {(b"DEL", b"{a}1", b"{a}2"), (b"DEL", b"b")}
    assert instead(translated(b"MSETNX", b"a", b"1", b"b", b"2")) == {(b"MSET", b"a", b"1"), (b"MSET", b"b", b"2")}
    assert instead(translated(b"SMOVE", b"a", b"b", b"m")) == {(b"SREM", b"a", b"m"), (b"SADD", b"b", b"m")}


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ((b"RENAME", b"a", b"b"), {b"a", b"b"}),
        ((b"LMOVE", b"a", b"b", b"LEFT", b"RIGHT"), {b"a", b"b"}),
        ((b"SUNIONSTORE", b"a", b"b"), {b"a"}),
        ((b"SORT", b"a", b"BY", b"w_*", b"STORE", b"{a}2"), {b"{a}2"}),
        ((b"RPUSH", b"a", *[b"x"] * MOST_WORDS), {b"a"}),
    ],
)
def test_what_cannot_be_taken_apart_has_its_written_keys_copied_again(command: tuple[bytes, ...], written: set[bytes]) -> None:
    outcome = translated(*command)
    assert isinstance(outcome, Recopy)
    assert {key for _, key in outcome.places} == written


@pytest.mark.parametrize("command", [(b"SELECT", b"1"), (b"MOVE", b"a", b"1"), (b"SWAPDB", b"0", b"1"), (b"EVAL", b"script", b"1", b"a")])
def test_other_databases_and_scripts_hold_the_stream(command: tuple[bytes, ...]) -> None:
    assert isinstance(translated(*command), Hold)


def test_names_that_pass_without_a_look_have_one_key_or_none() -> None:
    passing = commands.verbatim((8, 0), CLUSTER)
    assert {b"SET", b"INCR"} <= passing
    assert not passing & {b"RENAME", b"MSET", b"RPUSH", b"EVAL", b"SORT", b"COPY", b"SELECT"}
    assert b"HSET" not in commands.plain((7, 4), TargetFormat((8, 1), 1, cluster=True), lossy=True)


def test_a_long_delete_goes_in_commands_that_a_script_can_hand_on() -> None:
    keys = [b"{a}%d" % number for number in range(MOST_WORDS * 2)]
    outcome = translated(b"DEL", *keys)
    assert isinstance(outcome, Replace)
    assert all(len(command) <= MOST_WORDS for command in outcome.instead)
    assert [key for command in outcome.instead for key in command[1:]] == keys


def taken(batch: bytes) -> tuple[list[list[bytes]], bytes]:
    """The commands of a batch, and its marker's value."""
    parser = resp.Parser()
    parser.feed(batch)
    words = next(iter(parser))
    assert isinstance(words, list)
    if words[0] == b"MULTI":
        alone, marked = list(parser)[:2]
        return [alone], marked[2]
    found, at = [], 5
    while at < len(words):
        count = abs(int(words[at]))
        found.append(words[at + 1 : at + 1 + count])
        at += count + 1
    return found, words[4]


FORMS = [
    lambda key, _: [b"INCR", key],
    lambda key, value: [b"SET", key, value],
    lambda key, value: [b"RESTORE", key, b"0", value, b"REPLACE"],
    lambda key, _: [b"RENAME", key, key + b"b"],
    lambda key, _: [b"del", key, key + b"b"],
    lambda key, _: [b"BITOP", b"AND", key, key],
    lambda key, value: [b"RPUSH", key, *[value] * 3],
]


def test_each_command_goes_to_the_shard_of_its_slot_in_its_order_however_the_stream_is_cut() -> None:
    rng = random.Random(1)
    keyed = [rng.choice(FORMS)(b"{k%d}" % rng.randint(0, 50), b"x" * rng.randint(0, 900)) for _ in range(300)]
    stream = [
        [b"SELECT", b"0"],
        *keyed[:150],
        [b"FLUSHALL"],
        [b"MULTI"],
        *keyed[150:],
        [b"EXEC"],
        [b"FUNCTION", b"FLUSH"],
        [b"PUBLISH", b"c", b"x"],
        [b"PING"],
    ]
    data = b"".join(resp.encode(*command) for command in stream)
    for number, ranges in enumerate(even_ranges(3)):
        share = Share(REPLID, [ranges], marker.key_in(ranges[0]), first=number == 0)
        wanted = [
            command
            for command in stream
            if command[0] in (b"FLUSHALL", b"FUNCTION")
            or (command[0] == b"PUBLISH" and not number)
            or any(key.startswith(b"{k") and ranges[0] <= key_slot(key) <= ranges[1] for key in command[1:3])
        ]
        batches, buffer, found, rest = share.batches(0, 0, renewals=True), bytearray(), [], data
        while rest or buffer:
            size = rng.randint(1, 400)
            buffer += rest[:size]
            rest = rest[size:]
            with memoryview(buffer) as view:
                consumed = batches.feed(view, bytearray())
            del buffer[:consumed]
            if batches.may_close:
                out = bytearray()
                closed = batches.close(out)
                some, value = taken(bytes(out))
                assert [command for _, _, command in share.commands_in(data[closed.start : closed.end], 0)] == some
                found += some
                assert value == marker.Marker(REPLID, closed.end).value
        assert found == wanted
        assert ranges[0] <= key_slot(share.key) <= ranges[1]
        assert marker.is_marker(0, share.key)


def test_a_shard_that_gets_nothing_for_long_has_its_marker_moved_all_the_same() -> None:
    share = Share(REPLID, [(key_slot(b"other"), key_slot(b"other"))], marker.key_in(key_slot(b"other")), first=False)
    batches = share.batches(0, 0, renewals=False)
    data = resp.encode(b"SET", b"a", b"x" * (MOST_BYTES // 2)) * 3
    consumed = batches.feed(memoryview(data), bytearray())
    assert batches.may_close
    assert batches.close(bytearray()).end == consumed > MOST_BYTES
    assert batches.idle


def emptied(batch: bytes) -> list[tuple[bytes, list[int]]]:
    """Of each call of a batch that empties slots: the marker's value, and the ranges."""
    parser = resp.Parser()
    parser.feed(batch)
    found = []
    for words in parser:
        assert isinstance(words, list)
        assert words[:4] == [b"EVAL", SCRIPT, b"1", marker.key_in(0)]
        found.append((words[4], [int(word) for word in words[5:]]))
    return found


def test_slots_are_emptied_alone_in_a_batch_piece_by_piece_and_the_marker_comes_last() -> None:
    share = Share(REPLID, [(0, 999), (5000, 5009)], marker.key_in(0), first=True)
    batches, out = share.batches(0, 0, renewals=False), bytearray()
    key = b"{%b}k" % tag_for(7)
    data = resp.encode(b"SET", key, b"1") + resp.encode(FLUSH_SLOTS, b"300-700", b"5005-16383") + resp.encode(b"SET", key, b"2")
    found = []
    rest = bytearray(data)
    while rest:
        with memoryview(rest) as view:
            consumed = batches.feed(view, out)
        del rest[:consumed]
        assert batches.may_close
        closed = batches.close(out)
        found.append((bytes(out), closed))
        out.clear()
    (one, _), (two, closed), (three, _) = found
    assert taken(one)[0][0][0] == taken(three)[0][0][0] == b"SET"
    value = marker.Marker(REPLID, closed.end).value
    assert emptied(two) == [(b"", [300, 555]), (b"", [556, 700]), (b"", [5005, 5009]), (value, [300, 700, 5005, 5009])]
    assert closed.replies == 4
    error = ServerError("ERR", "keys can not be removed")
    assert share.answers(closed, [(2, error)]) == {1: error}
    assert [command for _, _, command in share.commands_in(data[closed.start : closed.end], 0)] == [
        [FLUSH_SLOTS, b"300-700", b"5005-16383"]
    ]


def test_a_shard_without_any_of_the_slots_that_are_emptied_is_left_alone() -> None:
    share = Share(REPLID, [(0, 999)], marker.key_in(0), first=True)
    assert not share.takes(FLUSH_SLOTS, [FLUSH_SLOTS, b"1000-16383"])
    assert share.takes(FLUSH_SLOTS, [FLUSH_SLOTS, b"1000-16383", b"999-999"])


def test_a_command_of_two_slots_is_never_sent() -> None:
    batches = Share(REPLID, [(0, 16383)], marker.key_in(0), first=True).batches(0, 0, renewals=False)
    with pytest.raises(LocalProtocolError, match="2 slots"):
        batches.feed(memoryview(resp.encode(b"RENAME", b"a", b"b")), bytearray())


def test_a_library_that_is_gone_already_is_no_error_and_any_other_is() -> None:
    share = Share(REPLID, [(0, 16383)], marker.key_in(0), first=True)
    batches = share.batches(0, 0, renewals=False)
    batches.feed(memoryview(resp.encode(b"FUNCTION", b"DELETE", b"lib")), bytearray())
    closed = batches.close(bytearray())
    other = ServerError("ERR", "Library name was not given")
    assert share.answers(closed, [(3, [ServerError("ERR", "Library not found"), b"OK"])]) == {2: b"OK"}
    assert share.answers(closed, [(3, [other, b"OK"])])[1] == other
