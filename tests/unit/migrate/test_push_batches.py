"""The stream in batches: what comes out has the effect of what went in, whatever the pieces, and each batch says where it leads."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from valkeep.migrate import marker
from valkeep.migrate.delivery.push.batches import Batches, Closed, Seal, commands_in
from valkeep.migrate.marker import Marker
from valkeep.wire import resp

REPLID = "a" * 40
BEGINS = 1000
Step = tuple[int, tuple[bytes, ...]]  # the database, and the command that is executed there

plain = st.sampled_from(
    [
        (b"SET", b"k", b"v" * 40),
        (b"incr", b"n"),
        (b"LPUSH", b"list", b"\r\n*1\r\n$4\r\nPING\r\n"),
        (b"PEXPIREAT", b"k", b"99"),
        (b"HPERSIST", b"h", b"FIELDS", b"1", b"f"),
        (b"VADD", b"unknown", b"to us"),
        (b"SWAPDB", b"0", b"2"),
        (b"SWAPDB", b"1", b"2"),
        (b"SELECT", b"3"),
        (b"SELECT", b"0"),
    ]
)
talk = st.sampled_from([(b"PING",), (b"REPLCONF", b"GETACK", b"*")])
transaction = st.lists(plain, max_size=4).map(lambda inside: [(b"MULTI",), *inside, (b"EXEC",)])
streams = st.lists(plain.map(lambda one: [one]) | talk.map(lambda one: [one]) | transaction, max_size=25).map(
    lambda parts: [one for part in parts for one in part]
)


def fed(commands: list[tuple[bytes, ...]], seed: int, *, offset: int = BEGINS, database: int = 0) -> list[tuple[bytes, Closed]]:
    """Batches as they are written, from pieces of any size and closed now and then."""
    rng = random.Random(seed)
    data = b"".join(resp.encode(*command) for command in commands)
    batches = Batches(offset, database, Seal(REPLID), renewals=True)
    done: list[tuple[bytes, Closed]] = []
    buffer, out, written = bytearray(), bytearray(), bytearray()
    at = 0
    while at < len(data) or buffer or batches.may_close:
        size = rng.choice([1, 3, 10, 50, 1000])
        buffer += data[at : at + size]
        at += size
        with memoryview(buffer) as view:
            consumed = batches.feed(view, out, only_this=rng.random() < 0.3)
        del buffer[:consumed]
        written += out
        out.clear()
        if batches.may_close and (rng.random() < 0.4 or (at >= len(data) and not buffer)):
            closed = batches.close(out)
            written += out
            out.clear()
            done.append((bytes(written), closed))
            written.clear()
        if at > len(data) + 100_000:
            raise AssertionError("it does not come to an end")
    assert not out
    return done


def executed(commands: list[tuple[bytes, ...]]) -> list[Step]:
    """What a server does, without talk, frames and the selection itself."""
    database, steps = 0, []
    for command in commands:
        name = command[0].upper()
        if name == b"SELECT":
            database = int(command[1])
        elif name not in (b"PING", b"REPLCONF", b"MULTI", b"EXEC"):
            steps.append((database, command))
    return steps


def parsed(data: bytes) -> list[tuple[bytes, ...]]:
    parser = resp.Parser()
    parser.feed(data)
    return [tuple(command) for command in parser]


def ours(step: Step) -> bool:
    return step[0] == marker.DATABASE and step[1][1] == marker.KEY


@given(streams, st.integers(0, 1 << 30))
def test_batches_have_the_effect_of_the_stream_and_say_where_they_lead(commands: list[tuple[bytes, ...]], seed: int) -> None:
    done = fed(commands, seed)
    steps: list[Step] = []
    for written, closed in done:
        batch = parsed(written)
        assert (batch[0], batch[-1]) == ((b"MULTI",), (b"EXEC",))
        assert closed.replies == len(batch)
        assert [name for name, *_ in batch].count(b"MULTI") == 1
        found = executed(batch)
        assert found[-1] == (0, (b"SET", marker.KEY, Marker(REPLID, closed.end, _database(commands, closed.end)).value))
        steps += [step for step in found if not ours(step)]
        for place, step in enumerate(found):  # the marker never goes along into another database
            if step[1][0] == b"SWAPDB" and b"0" in step[1][1:]:
                assert found[place - 1] == (0, (b"DEL", marker.KEY))
    assert steps == executed(commands)


@given(streams, st.integers(0, 1 << 30))
def test_a_transaction_of_the_source_is_never_parted(commands: list[tuple[bytes, ...]], seed: int) -> None:
    inside, offset, allowed = False, BEGINS, {BEGINS}
    for command in commands:
        offset += len(resp.encode(*command))
        inside = command[0] == b"MULTI" or (inside and command[0] != b"EXEC")
        if not inside:
            allowed.add(offset)
    assert {closed.end for _, closed in fed(commands, seed)} <= allowed


@given(streams, st.integers(0, 1 << 30))
def test_from_any_marker_the_rest_follows(commands: list[tuple[bytes, ...]], seed: int) -> None:
    done = fed(commands, seed)
    for number, (_, closed) in enumerate(done):
        at, rest = BEGINS, list(commands)
        while at < closed.end:
            at += len(resp.encode(*rest.pop(0)))
        again = fed(rest, seed + 1, offset=closed.end, database=_database(commands, closed.end))
        one = [step for written, _ in done[number + 1 :] for step in executed(parsed(written)) if not ours(step)]
        assert [step for written, _ in again for step in executed(parsed(written)) if not ours(step)] == one


@given(streams, st.integers(0, 1 << 30))
def test_a_place_among_the_answers_leads_back_to_its_command(commands: list[tuple[bytes, ...]], seed: int) -> None:
    data = b"".join(resp.encode(*command) for command in commands)
    for written, closed in fed(commands, seed):
        inside = parsed(written)[1:-1]  # what EXEC answers, one for one
        for place, _, command in commands_in(data[closed.start - BEGINS : closed.end - BEGINS], closed.database):
            assert inside[place] == tuple(command)
        renewals = [place for place, command in enumerate(inside) if command[0] in (b"PEXPIREAT", b"HPERSIST")]
        assert [one.place for one in closed.renewals] == renewals
        assert all(inside[one.place][1] == one.key for one in closed.renewals)


def test_a_large_command_passes_through_and_is_closed_behind_its_end() -> None:
    batches = Batches(0, 0, Seal(REPLID), renewals=False)
    command = resp.encode(b"SET", b"big", b"x" * 1_000_000)
    out = bytearray()
    total = 0
    for at in range(0, len(command), 10_000):
        with memoryview(command[at : at + 10_000]) as view:
            assert batches.feed(view, out) == len(view)
        assert batches.may_close is (at + 10_000 >= len(command))
        total += len(out)
        out.clear()
    assert total > 1_000_000
    assert batches.close(out).replies == 6


def test_a_marker_is_read_as_it_was_written_and_anything_else_is_none_of_ours() -> None:
    one = Marker("0123456789" * 4, 812, 3)
    assert Marker.parse(one.value) == one
    for wrong in (b"", b"7", b"a:1:2", one.value + b":1", one.value.replace(b"812", b"x")):
        assert Marker.parse(wrong) is None


def _database(commands: list[tuple[bytes, ...]], offset: int) -> int:
    """Selected at that offset of the stream."""
    database, at = 0, BEGINS
    for command in commands:
        if at >= offset:
            break
        at += len(resp.encode(*command))
        if command[0] == b"SELECT":
            database = int(command[1])
    return database
