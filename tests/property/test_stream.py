"""The command stream in any pieces, whole and damaged, by both builds: the same commands stop it, and every byte passes once."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.interpreted import both
from valkeep.errors import RemoteProtocolError
from valkeep.topology.slots import SLOTS, key_slot
from valkeep.wire.resp import encode

INSTALLED, INTERPRETED = both("stream")
VERBATIM = frozenset({b"SET", b"MULTI", b"EXEC", b"DEL", b"INCR"})
KEYED = frozenset({b"SET", b"DEL", b"INCR"})
EVEN = bytearray(slot % 2 == 0 for slot in range(SLOTS))

values = st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"*1\r\n$3\r\nSET\r\n", b"", b"$1\r\n"]))
names = st.sampled_from([b"SET", b"set", b"MULTI", b"EXEC", b"DEL", b"Incr", b"SELECT", b"HPEXPIREAT", b"SETEX", b"SE", b"RESTORE"])
commands = st.lists(st.builds(lambda name, rest: [name, *rest], names, st.lists(values, max_size=5)), max_size=12)
cuts = st.lists(st.integers(0, 4000), max_size=20)


def told(stream: Any, data: bytes, places: list[int], owned: bytearray | None = None) -> tuple[bytes, list[list[bytes]], Any]:
    """Scan ``data`` as it arrives in pieces: (bytes that passed, commands that stopped it, how it ended)."""
    scanner = stream.CommandScanner(VERBATIM, owned=owned, keyed=KEYED)
    passed = bytearray()
    stopped: list[list[bytes]] = []
    held = b""
    last = 0
    for place in [*sorted({place % (len(data) + 1) for place in places}), len(data)]:
        held += data[last:place]
        last = place
        at = 0
        try:
            while True:
                after = scanner.scan(held, at, len(held))
                passed += held[at:after]
                at = after
                if scanner.stop != stream.ATTENTION:
                    break
                found = scanner.command(held, at, len(held))
                if found is None:
                    break
                assert found[0][0].upper() == scanner.name
                assert len(found[0]) == scanner.argc
                stopped.append(found[0])
                scanner.resume_after()
                at = found[1]
        except RemoteProtocolError as error:
            return bytes(passed), stopped, "broken" if error.remedy else "without a remedy"
        held = held[at:]
        if scanner.stop != stream.ATTENTION:
            assert len(held) < 200
    return bytes(passed), stopped, (scanner.at_boundary, scanner.in_multi, scanner.commands)


@given(commands, cuts)
def test_any_chunking_passes_and_stops_the_same_in_both_builds(parts: list[list[bytes]], places: list[int]) -> None:
    data = b"".join(encode(*args) for args in parts)
    verbatim = [args for args in parts if args[0].upper() in VERBATIM]
    framed = [args[0].upper() for args in parts if args[0].upper() in (b"MULTI", b"EXEC")]
    expected = (
        b"".join(encode(*args) for args in verbatim),
        [args for args in parts if args not in verbatim],
        (True, bool(framed) and framed[-1] == b"MULTI", len(verbatim)),
    )
    assert told(INSTALLED, data, places) == expected
    assert told(INTERPRETED, data, places) == expected


@given(commands.filter(bool), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4), cuts)
@settings(max_examples=300)
def test_a_damaged_stream_is_the_same_in_both_builds(parts: list[list[bytes]], damage: list[tuple[int, int]], places: list[int]) -> None:
    data = bytearray(b"".join(encode(*args) for args in parts))
    for at, byte in damage:
        data[at % len(data)] = byte
    assert told(INSTALLED, bytes(data), places) == told(INTERPRETED, bytes(data), places)


slotted = st.one_of(values, st.sampled_from([b"{a}1", b"{a}2", b"{b}", b"{}a", b"a{b", b"}{", b"{a}{b}", b"\xff{\x00}", b"k" * 70]))
keyed = st.lists(st.builds(lambda name, rest: [name, *rest], names, st.lists(slotted, max_size=3)), max_size=12)


@given(keyed, cuts)
def test_where_slots_are_owned_a_command_passes_when_its_first_key_may_in_both_builds(parts: list[list[bytes]], places: list[int]) -> None:
    data = b"".join(encode(*args) for args in parts)

    def passes(args: list[bytes]) -> bool:
        name = args[0].upper()
        return name in VERBATIM and (name not in KEYED or (len(args) > 1 and key_slot(args[1]) % 2 == 0))

    expected = (b"".join(encode(*args) for args in parts if passes(args)), [args for args in parts if not passes(args)])
    assert told(INSTALLED, data, places, EVEN)[:2] == expected
    assert told(INTERPRETED, data, places, EVEN) == told(INSTALLED, data, places, EVEN)


@given(keyed.filter(bool), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4), cuts)
@settings(max_examples=300)
def test_a_damaged_stream_of_owned_slots_is_the_same_in_both_builds(
    parts: list[list[bytes]], damage: list[tuple[int, int]], places: list[int]
) -> None:
    data = bytearray(b"".join(encode(*args) for args in parts))
    for at, byte in damage:
        data[at % len(data)] = byte
    assert told(INSTALLED, bytes(data), places, EVEN) == told(INTERPRETED, bytes(data), places, EVEN)


def skipped(stream: Any, data: bytes, places: list[int]) -> tuple[bytes, list[list[bytes]], bytes]:
    """As ``told``, but what is of no slot that may pass is skipped: (what passed, commands that stopped it, what was skipped)."""
    scanner = stream.CommandScanner(VERBATIM, owned=EVEN, keyed=KEYED)
    passed, over, stopped = bytearray(), bytearray(), []
    held, last, skipping = b"", 0, False
    for place in [*sorted({place % (len(data) + 1) for place in places}), len(data)]:
        held += data[last:place]
        last, at = place, 0
        while True:
            if skipping:
                after = scanner.finish(held, at, len(held))
                over += held[at:after]
                at = after
                skipping = not scanner.at_boundary
                if skipping:
                    break
            after = scanner.scan(held, at, len(held))
            passed += held[at:after]
            at = after
            if scanner.stop != stream.ATTENTION:
                break
            after = scanner.skip(held, at, len(held))
            over += held[at:after]
            if after > at:
                at, skipping = after, not scanner.at_boundary
                continue
            found = scanner.command(held, at, len(held))
            if found is None:
                break
            stopped.append(found[0])
            scanner.passed(found[0][0].upper())
            at = found[1]
        held = held[at:]
    assert scanner.at_boundary
    return bytes(passed), stopped, bytes(over)


@given(keyed, cuts)
def test_what_is_of_other_slots_is_skipped_and_nothing_else_in_both_builds(parts: list[list[bytes]], places: list[int]) -> None:
    kinds: dict[str, list[list[bytes]]] = {"passed": [], "stopped": [], "skipped": []}
    for args in parts:
        name = args[0].upper()
        mine = "passed" if len(args) > 1 and key_slot(args[1]) % 2 == 0 else "skipped" if len(args) > 1 else "stopped"
        kinds["stopped" if name not in VERBATIM else mine if name in KEYED else "passed"].append(args)
    data = b"".join(encode(*args) for args in parts)
    passed, skips = (b"".join(encode(*args) for args in kinds[kind]) for kind in ("passed", "skipped"))
    for stream in (INSTALLED, INTERPRETED):
        assert skipped(stream, data, places) == (passed, kinds["stopped"], skips)


@given(st.binary(max_size=300))
def test_the_slot_of_a_key_in_a_buffer_is_the_key_s_in_both_builds(key: bytes) -> None:
    for module in both("slots"):
        assert module.SlotHash().of(b"{x}" + key + b"}", 3, len(key)) == key_slot(key)


@given(st.binary(max_size=100), cuts)
def test_any_bytes_pass_stop_or_break(data: bytes, places: list[int]) -> None:
    assert told(INSTALLED, b"*2\r\n$3\r\n" + data, places) == told(INTERPRETED, b"*2\r\n$3\r\n" + data, places)


@given(st.integers(1 << 16, 1 << 63))
def test_a_claimed_length_allocates_nothing(claim: int) -> None:
    tracemalloc.start()
    try:
        for stream in (INSTALLED, INTERPRETED):
            told(stream, b"*2\r\n$3\r\nSET\r\n$%d\r\nxx" % claim, [])
            told(stream, b"*2\r\n$7\r\nRESTORE\r\n$%d\r\nxx" % claim, [])
            told(stream, b"*%d\r\n$7\r\nRESTORE\r\n" % claim, [])
            told(stream, b"*2\r\n$3\r\nSET\r\n$%d\r\nxx" % claim, [], EVEN)
            told(stream, b"*2\r\n$3\r\nSET\r\n$" + b"0" * 5000, [], EVEN)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
