"""Commands that are too large to be collected: the head decides, the rest goes by, and what follows is neither lost nor sent too early."""

from __future__ import annotations

import pytest

from tests.support.fixtures_streams import HASH_7
from tests.support.scripted_primary import Word, command, payload
from tests.unit.migrate.test_transform_stream import ONE, V8, V9, Stream, restored
from valkeep.migrate.transform import stream as module
from valkeep.migrate.transform.maybe import MaybeSet
from valkeep.migrate.transform.target import FieldTtl

LARGE = b"x" * 3000
MANY = [b"f%d" % number for number in range(200)]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_COMMAND", 1000)
    monkeypatch.setattr(module, "MANY_WORDS", 100)
    monkeypatch.setattr(module, "LARGEST_COMMAND", 8000)


def fed(stream: Stream, data: bytes, step: int = 500) -> bytes:
    """What is sent for ``data``, given in pieces as from the network: what is whole in the buffer needs no limit."""
    return b"".join(stream.say(data[start : start + step]) for start in range(0, len(data), step))


COMMANDS: dict[str, tuple[Word, ...]] = {
    "SET with a condition": ("SET", "k", LARGE, "IFEQ", "old"),
    "SET with an expiry": ("set", "k", LARGE, "PXAT", 1900000000000),
    "RESTORE": ("RESTORE", "k", 0, payload(b"\x00" + LARGE), "REPLACE"),
    "XADD": ("XADD", "k", "DELREF", "MAXLEN", 5, "1-1", "f", LARGE),
    "a command that the target does not know": ("HSETEX", "k", "PXAT", 1900000000000, "FIELDS", 1, "f", LARGE),
    "many arguments": ("HSETEX", "k", "FIELDS", 100, *MANY),
}


@pytest.mark.parametrize("step", [1, 7, 500])
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("case", COMMANDS)
def test_the_key_is_copied_and_the_command_goes_by(case: str, within: bool, step: int) -> None:
    stream = Stream(V8)
    before, after = command("SET a 1"), command("INCR a")
    if within:
        before, after = before + command("MULTI"), after + command("EXEC")
    whole = before + command(*COMMANDS[case]) + after
    assert fed(stream, whole, step) == before
    assert stream.places == ((0, b"k"),)
    assert stream.transform.wants is not None
    assert stream.transform.wants.offset == len(before)
    stream.copy(len(whole), (0, b"k"), expire_ms=1900000000000)
    assert stream.say() == after + restored("k", expire=1900000000000)
    assert stream.say("APPEND k y") == command("APPEND k y")
    assert stream.ledger.counts["recopied", "key", ""] == 1
    writes = 3 + 2 * within
    assert stream.transform.writes == writes + 1


@pytest.mark.parametrize("step", [1, 7, 500])
def test_while_others_are_absorbed_a_large_value_passes_or_goes_by_as_a_small_one_would(step: int) -> None:
    stream = Stream(V8)
    wish = command("XDELEX k IDS 1 1-1")
    other, own = command("SET", "other", LARGE), command("SET", "k", LARGE)
    whole = wish + other + own + other + command("INCR n")
    fed(stream, whole, step)
    assert stream.places == ((0, b"k"),)
    stream.copy(len(whole), (0, b"k"))
    assert stream.say() == other + other + command("INCR n") + restored("k")
    assert not stream.transform.copying


def test_while_others_are_absorbed_a_large_value_that_needs_a_look_is_copied_too() -> None:
    stream = Stream(V8)
    wish, rest = command("XDELEX k IDS 1 1-1"), command("SET", "other", LARGE, "IFNE", "x") + command("INCR n")
    lines = wish + rest
    stream.say(wish)
    stream.copy(len(lines), (0, b"k"))
    assert fed(stream, rest) == b""
    assert stream.places == ((0, b"other"),)
    stream.copy(len(lines), (0, b"other"), data=None)
    assert stream.say() == command("INCR n") + restored("k") + command("DEL other")


def test_under_drop_field_a_large_store_into_a_hash_that_lost_fields_is_copied() -> None:
    lost = MaybeSet()
    lost.add(0, b"k")
    stream = Stream(V8, FieldTtl.DROP_FIELD, lost_fields=lost)
    line = command("HSET", "k", "f", LARGE)
    assert fed(stream, line) == b""
    assert stream.places == ((0, b"k"),)
    stream.copy(len(line), (0, b"k"), data=payload(HASH_7))
    assert stream.say("PING").count(b"RESTORE") == 1
    assert stream.ledger.counts["degraded", "field-ttl", "drop-field"] == 1


@pytest.mark.parametrize("step", [7, 500])
def test_what_does_not_name_its_keys_at_its_beginning_is_collected_whole(step: int) -> None:
    stream = Stream(V8)
    line = command("MSETEX", 2, "one", LARGE, "two", LARGE, "PXAT", 1900000000000)
    fed(stream, line, step)
    assert stream.places == ((0, b"one"), (0, b"two"))
    stream.copy(len(line), (0, b"one"), (0, b"two"))
    assert stream.say("PING").endswith(restored("two") + command("PING"))


def test_what_is_larger_than_that_is_held_with_a_remedy_and_nothing_behind_it_is_sent() -> None:
    stream = Stream(V8)
    line = command("MSETEX", 3, "one", LARGE, "two", LARGE, "three", LARGE, "PXAT", 1900000000000)
    assert fed(stream, command("SET a 1") + line + command("SET b 1")) == command("SET a 1")
    assert "MSETEX" in stream.why
    assert stream.places == ()


def test_what_the_target_knows_streams_through_whatever_its_size() -> None:
    stream = Stream(V9)
    lines = [
        command("HSETEX", "k", "PXAT", 1900000000000, "FIELDS", 100, *MANY),
        command("SET", "k", LARGE * 10),
        command("MSET", "a", LARGE * 10, "b", LARGE * 10),
        command("RPUSH", "l", *MANY),
    ]
    assert fed(stream, b"".join(lines), 100) == b"".join(lines)
    assert stream.transform.wants is None


def test_a_copy_that_cannot_be_sent_is_held_and_the_command_goes_by_when_the_cause_is_gone() -> None:
    stream = Stream(V8, FieldTtl.REFUSE)
    line = command("HSETEX", "k", "PXAT", 1900000000000, "FIELDS", 1, "f", LARGE)
    fed(stream, line + command("INCR n"))
    with pytest.raises(Exception, match="refuse"):
        stream.copy(len(line), (0, b"k"), data=payload(HASH_7))
    assert stream.places == ((0, b"k"),)
    stream.copy(len(line), (0, b"k"), data=ONE)
    assert stream.say() == restored("k") + command("INCR n")
