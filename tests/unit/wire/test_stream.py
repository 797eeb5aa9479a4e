"""The scanner of the command stream, both builds: what passes, what stops it, and what it never gives out."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.support.interpreted import both
from valkeep.errors import LocalProtocolError, RemoteProtocolError
from valkeep.topology.slots import SLOTS, key_slot
from valkeep.wire.commands import VALKEY_COMMANDS
from valkeep.wire.resp import encode

builds = pytest.mark.parametrize("stream", both("stream"), ids=["installed", "interpreted"])
VERBATIM = frozenset({b"SET", b"DEL", b"MULTI", b"EXEC", b"PING", b"ZREMRANGEBYSCORE"})


@builds
def test_commands_that_may_pass_are_passed_in_any_case_of_their_names(stream: ModuleType) -> None:
    scanner = stream.CommandScanner(VERBATIM)
    data = encode("set", "a", "1") + encode("PiNg") + encode("ZREMRANGEBYSCORE", "z", "0", "1") + encode("DEL", "a", "b", "c")
    assert scanner.scan(data, 0, len(data)) == len(data)
    assert (scanner.stop, scanner.commands, scanner.boundary, scanner.at_boundary) == (stream.NEED_MORE, 4, len(data), True)


@builds
def test_it_stops_before_a_command_that_may_not_pass_and_goes_on_after_it(stream: ModuleType) -> None:
    scanner = stream.CommandScanner(VERBATIM)
    before, other, after = encode("SET", "a", "1"), encode("SELECT", "3"), encode("SET", "b", "2")
    data = before + other + after
    at = scanner.scan(data, 0, len(data))
    assert at == len(before)
    assert (scanner.stop, scanner.name, scanner.argc, scanner.at_boundary) == (stream.ATTENTION, b"SELECT", 2, True)
    assert scanner.scan(data, at, len(data)) == at  # asked again, the same answer
    assert scanner.command(data, at, len(data)) == ([b"SELECT", b"3"], at + len(other))
    scanner.resume_after()
    assert scanner.scan(data, at + len(other), len(data)) == len(data)
    assert scanner.commands == 2


@builds
def test_a_value_streams_through_before_its_end_has_come(stream: ModuleType) -> None:
    scanner = stream.CommandScanner(VERBATIM)
    head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n"
    assert scanner.scan(head, 0, len(head)) == len(head)
    assert not scanner.at_boundary
    assert scanner.boundary == 0
    piece = b"\r\n*1" * (1 << 14)
    for _ in range(8192):
        assert scanner.scan(piece, 0, len(piece)) == len(piece)
        assert scanner.boundary == -1
    assert scanner.scan(b"\r", 0, 1) == 0
    assert scanner.scan(b"\r\n", 0, 2) == 2
    assert scanner.at_boundary
    assert scanner.commands == 1


@builds
def test_a_boundary_is_never_inside_of_a_transaction(stream: ModuleType) -> None:
    scanner = stream.CommandScanner(VERBATIM)
    one, begin, end = encode("SET", "a", "1"), encode("MULTI"), encode("EXEC")
    data = one + begin + b"\n" + one + one + end + one
    whole = len(one) + len(begin) + 1 + 2 * len(one) + len(end)
    for size in range(len(data) + 1):
        scanner = stream.CommandScanner(VERBATIM)
        scanner.scan(data, 0, size)
        expected = 0 if size < len(one) else len(one) if size < whole else whole if size < len(data) else len(data)
        assert scanner.boundary == expected, size
    inside = stream.CommandScanner(VERBATIM)
    inside.scan(data, 0, len(one) + len(begin))
    assert (inside.scan(one, 0, len(one)), inside.boundary) == (len(one), -1)


@builds
def test_nothing_of_a_command_passes_before_its_name_is_known(stream: ModuleType) -> None:
    data = encode("SET", "a", "1")
    known = data.index(b"SET\r\n") + 5
    for end in range(known):
        scanner = stream.CommandScanner(VERBATIM)
        assert scanner.scan(data, 0, end) == 0
        assert scanner.stop == stream.NEED_MORE
        assert scanner.at_boundary
    assert stream.CommandScanner(VERBATIM).scan(data, 0, known) == known


@builds
def test_names_that_only_look_alike_do_not_pass(stream: ModuleType) -> None:
    names = VALKEY_COMMANDS[9, 1]
    for name in sorted(names):
        data = encode(name)
        assert stream.CommandScanner(names).scan(data, 0, len(data)) == len(data)
        for other in (name + b"X", name[:-1] + b"\x00", b"X" + name, name[::-1] + b"_", name[:-1] + bytes([name[-1] ^ 0x80])):
            if other.upper() in names:
                continue
            data = encode(other)
            scanner = stream.CommandScanner(names)
            assert scanner.scan(data, 0, len(data)) == 0
            assert scanner.stop == stream.ATTENTION
            assert scanner.name == other.upper()


@builds
def test_a_name_with_the_same_hash_does_not_pass(stream: ModuleType) -> None:
    def code(name: bytes) -> int:
        value = len(name)
        for letter in name:
            value = (value * 33 + letter) & 0xFFFF
        return value

    twin = next(
        bytes([a, b, c])
        for a in range(123, 256)
        for b in range(123, 256)
        for c in range(123, 256)
        if code(bytes([a, b, c])) & 0xFFF == code(b"SET") & 0xFFF
    )
    data = encode(twin)
    assert stream.CommandScanner(VERBATIM).scan(data, 0, len(data)) == 0


@builds
def test_transactions_are_followed_whoever_passes_their_frame(stream: ModuleType) -> None:
    scanner = stream.CommandScanner(VERBATIM)
    data = encode("MULTI") + encode("SET", "a", "1")
    scanner.scan(data, 0, len(data))
    assert scanner.in_multi
    data = encode("EXEC")
    scanner.scan(data, 0, len(data))
    assert not scanner.in_multi
    other = stream.CommandScanner(frozenset())
    for name, inside in ((b"MULTI", True), (b"SET", True), (b"EXEC", False)):
        data = encode(name)
        assert other.scan(data, 0, len(data)) == 0
        other.resume_after()
        assert other.in_multi is inside


@builds
def test_finish_ends_with_the_command_that_is_under_way(stream: ModuleType) -> None:
    scanner = stream.CommandScanner(VERBATIM)
    first, second = encode("SET", "a", "1"), encode("SET", "b", "2")
    data = first + second
    assert scanner.finish(data, 0, len(data)) == 0
    at = scanner.scan(data, 0, len(first) - 3)
    assert scanner.finish(data, at, len(data)) == len(first)
    assert scanner.finish(data, len(first), len(data)) == len(first)


@builds
def test_a_long_command_that_comes_in_pieces_is_parsed_on_from_where_it_was(stream: ModuleType) -> None:
    args = [b"MSETEX", *[b"%d" % number for number in range(20_000)]]
    data = encode(*args)
    scanner = stream.CommandScanner(VERBATIM)
    for end in range(0, len(data), 1000):
        assert scanner.scan(data, 0, end) == 0
        assert scanner.command(data, 0, end) is None
    assert scanner.command(data, 0, len(data)) == (args, len(data))


@builds
def test_bare_newlines_between_commands_pass(stream: ModuleType) -> None:
    scanner = stream.CommandScanner(VERBATIM)
    data = b"\n\n" + encode("SET", "a", "1") + b"\n" + encode("SELECT", "0")
    at = scanner.scan(data, 0, len(data))
    assert data[at:] == encode("SELECT", "0")
    assert scanner.command(b"\n" + data[at:], 0, len(data) - at + 1) == ([b"SELECT", b"0"], len(data) - at + 1)


WRONG = [
    b"PING\r\n",
    b"\r\n",
    b"-ERR no\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*\r\n",
    b"*x\r\n",
    b"*1x",
    b"*1\rx",
    b"*99999999999999\r\n",
    b"*2147483648\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*1\r\n$129\r\n",
    b"*1\r\n$3\r\nSETxx",
    b"*2\r\n$3\r\nSET\r\n*1\r\n",
    b"*2\r\n$3\r\nSET\r\n$-1\r\n",
    b"*2\r\n$3\r\nSET\r\n$2\r\nabcd",
    b"*2\r\n$3\r\nSET\r\n$9999999999999\r\n",
]


@builds
@pytest.mark.parametrize("data", WRONG, ids=[repr(data)[2:-1] for data in WRONG])
def test_what_is_no_command_stream_is_the_sources_error(stream: ModuleType, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        stream.CommandScanner(VERBATIM).scan(data, 0, len(data))
    assert caught.value.remedy
    with pytest.raises(RemoteProtocolError):
        stream.CommandScanner(VERBATIM).command(data, 0, len(data))


@builds
def test_positions_outside_of_the_data_are_our_error(stream: ModuleType) -> None:
    for pos, end in ((-1, 2), (0, 9), (2, 1)):
        with pytest.raises(LocalProtocolError):
            stream.CommandScanner(VERBATIM).scan(b"abc", pos, end)
        with pytest.raises(LocalProtocolError):
            stream.CommandScanner(VERBATIM).command(b"abc", pos, end)


@builds
def test_names_have_to_be_given_in_upper_case(stream: ModuleType) -> None:
    with pytest.raises(LocalProtocolError):
        stream.CommandScanner(frozenset({b"set"}))


@builds
def test_whose_slots_are_owned_is_asked_when_a_command_begins(stream: ModuleType) -> None:
    owned = bytearray(SLOTS)
    scanner = stream.CommandScanner(VERBATIM, {b"INCR": 2}, owned=owned, keyed=frozenset({b"SET", b"INCR"}))
    data = encode("PING") + encode("SET", "{a}1", "1") + encode("INCR", "{a}2") + encode("DEL", "not", "keyed")
    at = scanner.scan(data, 0, len(data))
    assert (at, scanner.stop, scanner.name) == (len(encode("PING")), stream.ATTENTION, b"SET")
    owned[key_slot(b"{a}")] = stream.PASSES
    assert scanner.scan(data, at, len(data)) == len(data)
    assert scanner.commands == 4
    head = b"*3\r\n$3\r\nSET\r\n$4\r\n{a}1\r\n$1000\r\n"
    assert scanner.scan(head, 0, len(head)) == len(head)
    owned[key_slot(b"{a}")] = 2
    assert scanner.scan(b"x" * 1000 + b"\r\n", 0, 1002) == 1002  # it had begun
    assert scanner.scan(data, at, len(data)) == at


@builds
def test_a_first_key_is_waited_for_and_one_that_is_too_long_stops(stream: ModuleType) -> None:
    owned = bytearray([stream.PASSES]) * SLOTS
    scanner = stream.CommandScanner(VERBATIM, owned=owned, keyed=frozenset({b"SET"}))
    data = encode("SET", b"k" * stream.MAX_KEY, "v")
    head = data.index(b"k")
    for end in (head - 9, head - 2, head, head + stream.MAX_KEY - 1):
        assert (scanner.scan(data, 0, end), scanner.stop) == (0, stream.NEED_MORE)
    assert scanner.scan(data, 0, len(data)) == len(data)
    data = encode("SET", b"k" * (stream.MAX_KEY + 1), "v")
    assert (scanner.scan(data, 0, 40), scanner.stop) == (0, stream.ATTENTION)
    with pytest.raises(LocalProtocolError):
        stream.CommandScanner(VERBATIM, owned=bytearray(1))
