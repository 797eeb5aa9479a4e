"""Which slots' keys cross: what is left out, what is noted, what is pending, and what becomes of commands on both."""

from __future__ import annotations

import pytest

from valkeep.errors import LocalProtocolError
from valkeep.migrate.transform.outcomes import Drop, Hold, Pass, Recopy, Replace
from valkeep.migrate.transform.territory import FLUSH_SLOTS, Territory, repeatable
from valkeep.topology.slots import key_slot

A, B = key_slot(b"{a}"), key_slot(b"{b}")


def words(text: str) -> list[bytes]:
    return text.encode().split()


def test_what_is_in_a_foreign_slot_is_left_out_and_what_is_in_an_owned_one_is_not_its_business() -> None:
    territory = Territory([A])
    assert territory.judged(words("SET {a}1 x"), 0) is None
    assert territory.judged(words("SET {b}1 x"), 0) == Drop()
    assert territory.judged(words("DEL {b}1 {b}2"), 0) == Drop()
    assert territory.judged(words("SUNIONSTORE {b}1 {b}2"), 0) == Drop()
    assert territory.judged(words("PING"), 0) is None
    assert territory.judged(words("NOBODY.KNOWS {b}1"), 0) is None


def test_a_slot_crosses_from_where_it_was_entered_to_where_it_was_left() -> None:
    territory = Territory([A])
    owned = territory.owned
    assert territory.ranges == ((A, A),)
    territory.leave(A)
    territory.enter(B, ())
    assert territory.ranges == ((B, B),)
    assert territory.judged(words("SET {a}1 x"), 0) == Drop()
    assert territory.judged(words("SET {b}1 x"), 0) is None
    assert owned is territory.owned
    assert (owned[A], owned[B]) == (0, 1)


def test_keys_that_are_written_while_a_slot_is_noted_are_pending_when_it_is_entered() -> None:
    territory = Territory([A])
    territory.judged(words("SET {b}before x"), 0)
    territory.note(B)
    territory.judged(words("SUNIONSTORE {b}1 {b}read"), 0)
    territory.note(B)  # again: what was noted is kept
    territory.judged(words("DEL {b}2 {b}3"), 0)
    territory.judged(words("SET {a}1 x"), 0)
    assert territory.ranges == ((A, A),)
    assert (territory.owned[A], territory.owned[B]) == (1, 3)  # the scanner may not leave out by itself what is noted
    territory.enter(B, [b"{b}there"])
    assert territory.pending(B) == {b"{b}1", b"{b}2", b"{b}3", b"{b}there"}
    assert territory.owned[B] == 2
    territory.note(0)
    assert [slot for slot, carried in enumerate(territory.carried) if carried] == sorted([A, B])


def test_leaving_a_slot_forgets_what_was_noted_and_what_was_pending() -> None:
    territory = Territory([A])
    territory.note(B)
    territory.judged(words("SET {b}1 x"), 0)
    territory.leave(B)
    territory.judged(words("SET {b}2 x"), 0)
    territory.enter(B, [b"{b}3"])
    assert territory.pending(B) == {b"{b}3"}
    territory.leave(B)
    territory.enter(B, ())
    assert territory.pending(B) == frozenset()
    assert territory.owned[B] == 1


def test_a_pending_key_does_not_cross_until_it_arrives() -> None:
    territory = Territory([])
    territory.enter(A, [b"{a}1", b"{a}2"])
    assert territory.judged(words("SET {a}1 x"), 0) == Drop()
    assert territory.judged(words("SET {a}free x"), 0) is None
    territory.arrive([b"{a}1", b"{a}unknown", b"{b}elsewhere"])
    assert territory.judged(words("SET {a}1 x"), 0) is None
    assert territory.judged(words("SET {a}2 x"), 0) == Drop()
    assert territory.owned[A] == 2
    territory.arrive([b"{a}2"])
    assert territory.owned[A] == 1


def test_entering_a_slot_twice_keeps_what_is_pending() -> None:
    territory = Territory([])
    territory.enter(A, [b"{a}1"])
    territory.enter(A, [b"{a}2"])
    assert territory.pending(A) == {b"{a}1", b"{a}2"}


def test_a_command_that_reads_or_writes_a_pending_key_has_the_others_that_it_writes_copied_again() -> None:
    territory = Territory([])
    territory.enter(A, [b"{a}pending"])
    assert territory.judged(words("SUNIONSTORE {a}1 {a}pending {a}2"), 0) == Recopy(((0, b"{a}1"),))
    assert territory.judged(words("RENAME {a}pending {a}1"), 0) == Recopy(((0, b"{a}1"),))
    assert territory.judged(words("DEL {a}1 {a}pending {a}2"), 0) == Recopy(((0, b"{a}1"), (0, b"{a}2")))
    assert territory.judged(words("SUNIONSTORE {a}pending {a}1"), 0) == Drop()
    assert territory.judged(words("SUNIONSTORE {a}1 {a}2"), 0) is None


@pytest.mark.parametrize("command", ["FLUSHALL", "flushdb ASYNC"])
def test_emptying_a_shard_empties_its_slots_only(command: str) -> None:
    territory = Territory([0, 1, 2, A])
    territory.enter(B, [b"{b}1"])
    expected = Territory([0, 1, 2, A, B]).ranges
    assert territory.judged(words(command), 0) == Replace(((FLUSH_SLOTS, *(b"%d-%d" % one for one in expected)),))
    assert Territory([]).judged(words(command), 0) == Drop()


def test_functions_may_be_said_by_every_shard() -> None:
    load = words("FUNCTION LOAD code")
    assert repeatable(Pass(), load) == Replace(((b"FUNCTION", b"LOAD", b"REPLACE", b"code"),))
    assert repeatable(Pass(), words("FUNCTION LOAD REPLACE code")) == Replace(((b"FUNCTION", b"LOAD", b"REPLACE", b"code"),))
    sealed = Replace(((b"FUNCTION", b"RESTORE", b"payload"),))
    assert repeatable(sealed, words("FUNCTION RESTORE p")) == Replace(((b"FUNCTION", b"RESTORE", b"payload", b"REPLACE"),))
    flush = Replace(((b"FUNCTION", b"RESTORE", b"payload", b"FLUSH"),))
    assert repeatable(flush, words("FUNCTION RESTORE p FLUSH")) == flush
    assert repeatable(Pass(), words("FUNCTION FLUSH")) == Pass()
    hold = Hold("why", "remedy")
    assert repeatable(hold, load) == hold


def test_what_is_no_slot_and_what_is_no_key_of_it_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        Territory([16384])
    with pytest.raises(LocalProtocolError):
        Territory([]).enter(A, [b"{b}1"])
    with pytest.raises(LocalProtocolError):
        Territory([]).note(-1)
