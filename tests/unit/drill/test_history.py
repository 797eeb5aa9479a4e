"""The packed history: what goes in comes out, in memory and on disk, and a million operations fit."""

from __future__ import annotations

import pytest

from valkeep.drill.history import NOTHING, History, Outcome, doubting
from valkeep.errors import LocalProtocolError, RemoteProtocolError


def small() -> History:
    history = History(origin_unix_ns=1_000)
    first = history.invoke(1, "set", b"0|a", 7, 10)
    second = history.invoke(2, "incr", b"0|\xff", None, 11)
    third = history.invoke(1, "xadd", b"0|a", b"value", 12)
    history.invoke(3, "set", b"0|b", -1, 13)
    history.ok(first, 20, "source")
    history.ok(second, 21, "source", 42)
    history.info(third, 22, "target", "LOST the connection broke")
    fifth = history.invoke(1, "spop", b"0|c", None, 30)
    history.ok(fifth, 31, "target", b"member")
    sixth = history.invoke(1, "set", b"0|a", 8, 32)
    history.fail(sixth, 33, "target", "READONLY")
    return history


def test_operations_come_out_as_they_were_recorded() -> None:
    operations = list(small())
    assert [(o.function, o.key, o.value, o.outcome, o.node, o.result, o.error) for o in operations] == [
        ("set", b"0|a", 7, Outcome.OK, "source", None, ""),
        ("incr", b"0|\xff", None, Outcome.OK, "source", 42, ""),
        ("xadd", b"0|a", b"value", Outcome.INFO, "target", None, "LOST the connection broke"),
        ("set", b"0|b", -1, Outcome.INFO, "", None, ""),
        ("spop", b"0|c", None, Outcome.OK, "target", b"member", ""),
        ("set", b"0|a", 8, Outcome.FAIL, "target", None, "READONLY"),
    ]
    assert [(o.number, o.process, o.invoked, o.returned) for o in operations][:4] == [
        (0, 1, 10, 20),
        (1, 2, 11, 21),
        (2, 1, 12, 22),
        (3, 3, 13, -1),
    ]


def test_an_operation_that_never_came_back_is_indefinite() -> None:
    assert small().counts() == {"ok": 3, "fail": 1, "info": 2}


def test_events_are_ordered_by_time_and_typed() -> None:
    assert [(event.at, event.type) for event in small().events()] == [
        (10, "invoke"), (11, "invoke"), (12, "invoke"), (13, "invoke"), (20, "ok"), (21, "ok"), (22, "info"),
        (30, "invoke"), (31, "ok"), (32, "invoke"), (33, "fail"),
    ]  # fmt: skip


def test_a_packed_history_reads_back_equal() -> None:
    history = small()
    again = History.unpacked(b"".join(history.packed()))
    assert list(again) == list(history)
    assert again.origin_unix_ns == 1_000
    assert again.error_counts() == {"LOST the connection broke": 1, "READONLY": 1}


@pytest.mark.parametrize("cut", [0, 5, 11, 40, -1])
def test_a_cut_or_foreign_file_is_refused_with_a_remedy(cut: int) -> None:
    with pytest.raises(RemoteProtocolError, match="not a recorded history"):
        History.unpacked(b"".join(small().packed())[:cut])


def test_completing_twice_or_before_the_invocation_is_a_bug_of_the_caller() -> None:
    history = small()
    with pytest.raises(LocalProtocolError, match="completed twice"):
        history.ok(0, 50, "source")
    number = history.invoke(1, "set", b"k", 1, 100)
    with pytest.raises(LocalProtocolError, match="before it was invoked"):
        history.ok(number, 99, "source")


def test_functions_are_selected_within_a_range() -> None:
    history = small()
    assert [operation.number for operation in history.of("set")] == [0, 3, 5]
    assert [operation.number for operation in history.of("set", "incr", start=1, stop=5)] == [1, 3]
    assert list(history.of("hset")) == []


def test_columns_say_what_operations_say() -> None:
    history = small()
    columns = history.columns
    assert not history.plain  # two of them hold bytes
    for operation in history:
        number = operation.number
        assert (columns.process[number], columns.invoked[number], columns.returned[number]) == operation[1:2] + operation[6:8]
        assert history.functions.names[columns.function[number]] == operation.function
        assert history.keys.names[columns.key[number]] == operation.key
        assert history.nodes.names[columns.node[number]] == operation.node
    assert [columns.value[number] for number in (0, 1)] == [7, NOTHING]
    assert [columns.result[number] for number in (0, 1)] == [NOTHING, 42]
    numbers = History()
    numbers.invoke(1, "set", b"k", 1, 0)
    assert numbers.plain


def test_replies_that_came_in_one_block_with_a_refusal_tell_no_time() -> None:
    history = History()
    for _ in range(3):
        history.invoke(1, "set", b"k", 1, 0)
    history.ok(0, 10, "source")
    history.ok(1, 90, "source")
    history.fail(2, 90, "source", "NOREPLICAS")
    assert history.ack_times() == [10]


def test_doubted_operations_become_indefinite() -> None:
    assert [o.outcome for o in doubting(small(), {0})][:2] == [Outcome.INFO, Outcome.OK]


def test_two_hundred_thousand_operations_pack_into_few_bytes() -> None:
    history = History()
    for number in range(200_000):
        operation = history.invoke(number % 8, "set", b"0|k:%d" % (number % 100), number, number * 1000)
        history.ok(operation, number * 1000 + 500, "source", None)
    packed = b"".join(history.packed())
    assert len(packed) < 20 * 200_000
    assert sum(operation.outcome is Outcome.OK for operation in History.unpacked(packed)) == 200_000
