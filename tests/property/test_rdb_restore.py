"""RESTORE commands made of a snapshot's records: they hold what the records hold, both builds make the same, and any pieces of the input give the same."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.interpreted import both
from tests.support.rdb_items import REDIS, length, ms, text
from tests.support.rdb_records import Case, any_case, cases, snapshot
from valkeep.topology.slots import SLOTS, key_slot
from valkeep.wire import resp
from valkeep.wire.rdb.dump import opened
from valkeep.wire.rdb.opcodes import parse_header
from valkeep.wire.rdb.record import payload_record, snapshot_records
from valkeep.wire.rdb.restore import FULL, ITEM, LARGE, NEED_MORE, Restorer
from valkeep.wire.rdb.scan import Scanner

ROOM = 4096
cuts = st.lists(st.integers(0, 1 << 20), max_size=12)


def commands_of(blocks: list[bytes]) -> list[list[bytes]]:
    parser = resp.Parser()
    parser.feed(b"".join(blocks))
    return list(parser)


def restored(restore: ModuleType, data: bytes, places: list[int]) -> list[bytes]:
    """The blocks that are made of a whole snapshot, given in pieces; what is no record is stepped over."""
    header = parse_header(data)
    assert header is not None
    made = restore.Restorer(header.dialect, header.version, ROOM, 1 << 30)
    blocks: list[bytes] = []
    pos = 9
    for end in [*sorted({9 + place % (len(data) - 8) for place in places}), len(data)]:
        while True:
            pos = made.run(data, pos, end)
            if made.stop == FULL:
                blocks.append(made.take())
            elif made.stop == ITEM:
                if made.type == 255:
                    return [*blocks, made.take()]
                step = Scanner(b"\1" * 256, header.dialect, header.version)
                assert step.scan(data, pos, len(data)) == pos
                step.take()
                after = step.scan(data, pos, len(data))
                if after > end:
                    break
                pos = after
            else:
                assert made.stop == NEED_MORE
                break
    raise AssertionError("the snapshot has no end")


def options_of(command: list[bytes]) -> dict[bytes, int]:
    assert command[0] == b"RESTORE"
    rest = command[4:]
    found = {b"TTL": int(command[2])}
    while rest:
        name = rest.pop(0)
        found[name] = int(rest.pop(0)) if name in (b"IDLETIME", b"FREQ") else 1
    return found


def told(case: Any) -> list[Any]:
    return [case.key, case.expire_ms, case.kind, case.value, case.freq, case.idle]


@settings(max_examples=60, deadline=None)
@given(any_case() | st.sampled_from(cases()), cuts)
def test_commands_hold_what_the_records_hold_and_both_builds_make_the_same_of_any_pieces(case: Case, places: list[int]) -> None:
    data = snapshot(case)
    compiled, interpreted = both("rdb.restore")
    header = parse_header(data)
    assert header is not None
    first = restored(compiled, data, places)
    assert first == restored(interpreted, data, places) == restored(compiled, data, [])
    commands = commands_of(first)
    records = snapshot_records(data)
    assert len(commands) == len(records)
    for command, record in zip(commands, records, strict=True):
        _, sealed = opened(command[3])
        assert (sealed.version, command[1]) == (header.version, record.key)
        options = options_of(command)
        assert options.pop(b"REPLACE") == 1
        assert (options.pop(b"TTL"), options.pop(b"ABSTTL", 0)) == ((record.expire_ms, 1) if record.expire_ms >= 0 else (0, 0))
        found = payload_record(command[3], command[1])
        assert (found.kind, found.value) == (record.kind, record.value)
        expected = {b"FREQ": record.freq} if record.freq >= 0 else {b"IDLETIME": record.idle} if record.idle >= 0 else {}
        assert options == expected


def test_a_block_is_full_before_it_outgrows_its_room_and_a_larger_command_gets_its_own() -> None:
    small, big = b"\0" + text(b"k") + text(b"v" * 100), b"\0" + text(b"big") + text(b"v" * 9000)
    data = small + small + big + small
    restorer = Restorer(REDIS, 11, 700, 1 << 20)
    blocks, pos = [], 0
    while pos < len(data):
        pos = restorer.run(data, pos, len(data))
        blocks.append((restorer.commands, restorer.take()))
    assert [count for count, _ in blocks] == [2, 1, 1]
    assert [len(command[3]) for command in commands_of([one for _, one in blocks])] == [113, 113, 9013, 113]
    assert restorer.keys == 4


def test_a_value_above_the_bound_stops_before_its_record_whole_or_not() -> None:
    data = b"\0" + text(b"small") + text(b"v") + b"\xfc" + ms(5) + b"\1" + text(b"list") + length(2) + text(b"x" * 600) + text(b"y" * 600)
    for end in (len(data), len(data) - 100):
        restorer = Restorer(REDIS, 11, 4096, 1000)
        pos = restorer.run(data, 0, end)
        assert (restorer.stop, restorer.commands, data[pos]) == (LARGE, 1, 0xFC)


def test_a_key_that_is_a_number_becomes_its_digits_and_an_expiry_of_zero_is_not_taken_for_none() -> None:
    data = b"\xfc" + ms(0) + b"\0" + b"\xc1\x39\x30" + text(b"v")
    restorer = Restorer(REDIS, 11, 4096, 1000)
    assert restorer.run(data, 0, len(data)) == len(data)
    ((name, key, ttl, _, *options),) = commands_of([restorer.take()])
    assert (name, key, ttl, options) == (b"RESTORE", b"12345", b"1", [b"REPLACE", b"ABSTTL"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(min_size=1, max_size=20) | st.sampled_from([b"{a}b", b"a{b}c{d}", b"{}a", b"{a", b"a}{b}", b"12", b"-7", b"x" * 90]),
        min_size=1,
    )
)
def test_of_each_slot_the_records_go_to_who_owns_it_in_both_builds(keys: list[bytes]) -> None:
    plain = b"".join(b"\0" + text(key) + text(b"v") for key in keys)
    data = plain + b"\0\xc1\x39\x30" + text(b"v")  # a key that is a number
    halves = [bytes(slot % 2 == parity for slot in range(SLOTS)) for parity in (0, 1)]
    for parity, owned in enumerate(halves):
        for build in both("rdb.restore"):
            restorer = build.Restorer(REDIS, 11, 1 << 16, 1000, owned)
            assert restorer.run(data, 0, len(data)) == len(data)
            found = [command[1] for command in commands_of([restorer.take()])]
            assert found == [key for key in [*keys, b"12345"] if key_slot(key) % 2 == parity]
