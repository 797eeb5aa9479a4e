"""A channel: one rendering of a source, with offsets of its own, and what waits when it may not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fixtures_snapshots import item
from tests.support.scripted_primary import command, payload, sealed
from valkeep.errors import RemoteProtocolError
from valkeep.migrate.gateway import channel as module
from valkeep.migrate.gateway import marks
from valkeep.migrate.gateway.channel import GETACK, PING, Channel
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.spool import SpoolFull
from valkeep.migrate.transform.copies import Copy
from valkeep.migrate.transform.stream import Wanted
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

BEGIN = 1000
ONE = payload(b"\x00\x011")
IN_3 = sealed(b"REDIS0012\xfa\x0erepl-stream-db\xc0\x03\xfe\x00" + item(0, "k", "0176"))

Make = Callable[..., Channel]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Channel] = []

    def build(policy: FieldTtl = FieldTtl.DROP_FIELD, snapshot: bytes | None = IN_3, spool_limit: int = 0) -> Channel:
        wishes: list[Wanted] = []
        one = Channel(
            TargetFormat((8, 1)),
            policy,
            Ledger(None),
            tmp_path,
            "ab" * 20,
            source_version=(8, 4),
            source_offset=BEGIN,
            spool_limit=spool_limit,
            on_wanted=lambda _, wanted: wishes.append(wanted),
        )
        made.append(one)
        if snapshot is not None:
            one.feed_snapshot(snapshot)
            one.end_snapshot()
        return one

    yield build
    for one in made:
        one.close()
    assert list(tmp_path.iterdir()) == []


def sent(channel: Channel, start: int = BEGIN) -> bytes:
    return channel.stream.read(start, 1 << 20)


def test_the_database_of_the_stream_is_said_first_and_counts_as_ours(make: Make) -> None:
    one = make()
    assert sent(one) == command("SELECT 3")
    assert (one.begins, one.source_offset, one.ends) == (BEGIN, BEGIN, BEGIN + len(command("SELECT 3")))
    assert one.covering(BEGIN) == one.ends


def test_covering_is_where_an_offset_of_the_source_has_had_its_effect(make: Make) -> None:
    one = make()
    longer, shorter = command("SET k v IFEQ x"), command("HPERSIST k FIELDS 1 f")
    lines = [command("SET a 1"), longer, shorter, command("INCR a"), command("REPLCONF GETACK *"), command("INCR a")]
    ends = [BEGIN]
    own = {BEGIN: one.ends}
    for line in lines:
        one.feed_stream(line)
        ends.append(ends[-1] + len(line))
        own[ends[-1]] = one.ends
    assert one.source_offset == ends[-1]
    for before, after in zip(ends, ends[1:], strict=False):
        for offset in range(before + 1, after + 1):
            covered = one.covering(offset)
            assert covered is not None
            assert covered >= own[after]
    assert one.covering(ends[-1]) == one.ends
    assert one.covering(ends[-1] + 1) is None


def test_covering_waits_for_what_was_absorbed_into_a_copy(make: Make) -> None:
    one = make()
    wish, write, later = command("XDELEX k IDS 1 1-1"), command("APPEND k x"), command("INCR n")
    one.feed_stream(wish)
    assert one.wanted is not None
    assert one.covering(BEGIN + 1) is None
    due = BEGIN + len(wish) + len(write) + len(later)
    one.supply([Copy(3, b"k", due, ONE)])
    one.resume()
    one.feed_stream(write)
    assert one.source_offset == BEGIN + len(wish) + len(write)
    assert one.covering(BEGIN + 1) is None
    assert one.covering(one.source_offset) is None
    assert one.insert(GETACK)
    assert one.covering(one.source_offset) is None
    one.feed_stream(later)
    assert sent(one).endswith(later + command("RESTORE", "k", 0, payload(b"\x00\x011", 11), "REPLACE", "ABSTTL"))
    for offset in range(BEGIN + 1, due + 1):
        assert one.covering(offset) == one.ends


def test_thinned_marks_answer_later_and_never_too_early(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MARKS", 16)
    one = make()
    own = {BEGIN: one.ends}
    for number in range(400):
        one.feed_stream(command(f"SET k{number} v IFEQ {'x' * (number % 7)}"))
        own[one.source_offset] = one.ends
    assert len(one._marks._source) <= 16
    before = 0
    for offset, earliest in own.items():
        covered = one.covering(offset)
        assert covered is not None
        assert covered >= max(earliest, before)
        before = covered


def test_while_it_waits_what_comes_is_spooled_and_worked_off_in_order(make: Make) -> None:
    one = make()
    lines = [command(f"APPEND other {number:06}") for number in range(30_000)]
    one.feed_stream(command("XDELEX k IDS 1 1-1") + b"".join(lines[:10]))
    stopped = one.ends
    for line in lines[10:]:
        one.feed_stream(line)
    assert one.ends == stopped
    assert one.held_bytes == sum(map(len, lines[10:]))
    assert not one.resume()
    one.supply([Copy(3, b"k", BEGIN + len(command("XDELEX k IDS 1 1-1")), ONE)])
    turns = 0
    while one.resume():
        turns += 1
    assert turns > 2  # a piece at a time
    assert one.held_bytes == 0
    out = b""
    while piece := one.stream.read(stopped + len(out), 1 << 20):
        out += piece
    assert out.endswith(b"".join(lines))
    assert out.startswith(command("RESTORE", "k", 0, payload(b"\x00\x011", 11), "REPLACE", "ABSTTL"))
    one.feed_stream(command("INCR n"))
    assert one.stream.read(one.ends - len(command("INCR n")), 100) == command("INCR n")


def test_our_own_commands_stand_between_the_sources_and_never_within_a_transaction(make: Make) -> None:
    one = make()
    begun = sent(one)
    assert one.insert(PING)
    one.feed_stream(command("SET k v")[:17])
    assert one.insert(GETACK)
    assert sent(one) == begun + PING + GETACK
    one.feed_stream(command("SET k v")[17:] + command("MULTI") + command("INCR n"))
    one.keep_alive()
    assert sent(one) == begun + PING + GETACK + command("SET k v") + PING
    assert one.covering(one.source_offset) == one.ends + len(command("MULTI") + command("INCR n"))
    one.feed_stream(command("EXEC"))
    one.keep_alive()
    assert sent(one) == begun + PING + GETACK + command("SET k v") + PING + command("MULTI") + command("INCR n") + command("EXEC") + PING


def test_what_stands_behind_a_boundary_is_not_sent_until_it_is_whole(make: Make) -> None:
    one = make()
    begun = sent(one)
    large = command("SET", "k", "v" * 100_000)
    for at in range(0, len(large) - 1, 9_999):
        one.feed_stream(large[at : at + 9_999][: len(large) - 1 - at])
        assert sent(one) == begun
    one.feed_stream(large[-1:] + command("MULTI") + command("SELECT 5"))
    assert sent(one) == begun + large
    one.feed_stream(command("SET a 1") + command("EXEC")[:-1])
    assert sent(one) == begun + large
    one.feed_stream(b"\n")
    assert sent(one) == begun + large + command("MULTI") + command("SELECT 5") + command("SET a 1") + command("EXEC")


def test_what_is_too_much_to_be_moved_is_not_moved_for_a_word_of_ours(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOVED", 30)
    one = make()
    one.feed_stream(command("MULTI"))
    assert one.insert(PING)
    one.feed_stream(command("INCR n"))
    assert not one.insert(PING)


def test_before_the_snapshot_is_whole_nothing_is_said_in_the_stream(make: Make) -> None:
    one = make(snapshot=None)
    assert not one.insert(PING)
    assert not one.take_acknowledge()
    assert not one.demand(((0, b"k"),))
    assert sent(one) == b""


def test_the_source_is_told_once_when_it_asked(make: Make) -> None:
    one = make()
    one.feed_stream(command("REPLCONF GETACK *"))
    assert one.take_acknowledge()
    assert not one.take_acknowledge()


@pytest.mark.parametrize(
    ("data", "code"), [(IN_3[:-3], "VK-SNAPSHOT-TRUNCATED"), (IN_3 + b"x", "VK-SNAPSHOT-TRAILING"), (b"", "VK-SNAPSHOT-TRUNCATED")]
)
def test_a_snapshot_that_is_not_whole_ends_in_a_clear_error(make: Make, data: bytes, code: str) -> None:
    one = make(snapshot=None)
    one.feed_snapshot(data)
    with pytest.raises(RemoteProtocolError) as error:
        one.end_snapshot()
    assert error.value.code == code
    assert not one.complete


def test_a_repair_waits_until_nothing_else_does(make: Make) -> None:
    one = make()
    assert one.demand(((3, b"a"), (0, b"b")))
    assert not one.demand(((3, b"c"),))
    assert one.wanted is not None
    assert one.wanted.places == ((3, b"a"), (0, b"b"))
    one.supply([Copy(3, b"a", BEGIN, ONE), Copy(0, b"b", BEGIN, None)])
    while one.resume():
        pass
    one.feed_stream(command("PING"))
    assert command("SELECT 0") + command("DEL b") + command("SELECT 3") in sent(one)


def test_a_repair_reaches_the_target_of_a_source_that_says_nothing(make: Make) -> None:
    one = make()
    one.feed_stream(command("SET", "x", "1"))
    here = one.source_offset
    before = one.covering(here)
    assert one.demand(((3, b"a"),))
    one.supply([Copy(3, b"a", here, ONE)])
    assert one.copying
    while one.resume():
        pass
    assert not one.copying
    assert b"RESTORE" in sent(one)
    assert before is not None
    assert one.covering(here) == one.stream.end > before


def test_a_full_spool_is_said_and_not_passed_over(make: Make) -> None:
    one = make(spool_limit=5000)
    with pytest.raises(SpoolFull):
        for _ in range(100):
            one.feed_stream(command("SET", "k", b"v" * 100))
    waiting = make(spool_limit=5000)
    waiting.feed_stream(command("FROBNICATE"))
    with pytest.raises(SpoolFull):
        for _ in range(100):
            waiting.feed_stream(command("SET", "k", b"v" * 100))


def test_after_a_disk_that_was_full_nothing_is_translated_a_second_time(make: Make) -> None:
    one = make(spool_limit=2000)
    one.feed_stream(command("SET a 1"))
    before = sent(one)
    with pytest.raises(SpoolFull):
        one.feed_stream(command("MULTI") + command("SELECT 1") + command("INCR a") + command("SET", "k", b"v" * 3000) + command("EXEC"))
    one.stream.limit = 0
    for again in (lambda: one.feed_stream(b""), lambda: one.feed_stream(command("INCR a")), one.resume):
        with pytest.raises(SpoolFull):
            again()
    one.keep_alive()
    assert sent(one) == before + PING


def test_a_snapshot_that_nobody_will_ask_for_gives_its_space_back(make: Make, tmp_path: Path) -> None:
    one = make()
    assert any(path.name.startswith("snapshot") for path in tmp_path.iterdir())
    one.release_snapshot()
    assert not any(path.name.startswith("snapshot") for path in tmp_path.iterdir())
    asyncio.run(one.stream.grown(BEGIN))
