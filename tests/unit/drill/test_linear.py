"""Registers: zones and search agree with brute force, and what is planted into valid histories is found."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.drill_model import edited, simulated
from valkeep.drill.checkers.evidence import Evidence
from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.checkers.linear import check_linear
from valkeep.drill.checkers.loss import explain_loss
from valkeep.drill.checkers.reigns import NEVER, Bound, Cause, Deposition, Reign
from valkeep.drill.checkers.search import DELETE, READ, WRITE, Budget, Call, find_order
from valkeep.drill.history import History, Operation, Outcome

K, J = b"r:{a}:0", b"j:{a}"
ALONE = (Reign("n1"),)
Row = tuple[str, int | None, int | None, int, int]  # function, value, result, invoked, returned (-1: an info)


def recorded(*rows: Row) -> History:
    """Each operation on a connection of its own, between two appends that the same node acked, so that its reads count as a primary's."""
    history = History()
    for process, (function, value, result, invoked, returned) in enumerate(rows):
        history.ok(history.invoke(process, "append", J, process * 10 + 1000, invoked), max(invoked, returned), "n1")
        number = history.invoke(process, function, K, value, invoked)
        if returned < 0:
            history.info(number, invoked + 1, "n1", "LOST")
        else:
            history.ok(number, returned, "n1", result)
    return history


def judged(history: History, final: Any, reigns: tuple[Reign, ...] = ALONE, journal: list[int] | None = None, **more: Any) -> Judgement:
    evidence = Evidence(history, reigns)
    if journal is None:
        journal = [operation.value for operation in history.of("append") if isinstance(operation.value, int)]
    explain_loss(evidence, {J: journal})
    return check_linear(evidence, {K: final}, **more)


# ------------------------------------------------------------------------------------------------------------- brute force


def legal(calls: tuple[Call, ...], *, strict: bool) -> bool:
    """Whether this very order agrees with all answers. Not strict: a delete that answered 1 is not asked whether there was something."""
    value: int | None = None
    for call in calls:
        if call.kind == WRITE:
            value = call.value
        elif call.kind == READ:
            if value != call.value:
                return False
        else:
            if (call.value == 0 and value is not None) or (strict and call.value == 1 and value is None):
                return False
            if call.value != 0:
                value = None
    return True


def any_order(calls: list[Call], *, strict: bool = True) -> bool:
    """Every order of every choice of the indefinite ones that respects time."""
    sure = [call for call in calls if call.returned != NEVER]
    maybe = [call for call in calls if call.returned == NEVER]
    for count in range(len(maybe) + 1):
        for chosen in combinations(maybe, count):
            for order in permutations([*sure, *chosen]):
                in_time = all(
                    order[late].returned >= order[early].invoked for early in range(len(order)) for late in range(early + 1, len(order))
                )
                if in_time and legal(order, strict=strict):
                    return True
    return False


def calls_of(rows: list[Row], final: int | None) -> list[Call]:
    kinds = {"write": WRITE, "read": READ, "delete": DELETE}
    found = [
        Call(kinds[function], value if function == "write" else result, invoked, NEVER if returned < 0 else returned)
        for function, value, result, invoked, returned in rows
        if returned >= 0 or function != "read"
    ]
    return [*found, Call(READ, final, 1000, 1000)]


@st.composite
def small_histories(draw: st.DrawFn, *, deletes: bool) -> tuple[list[Row], int | None]:
    functions = ["write", "write", "read", "read", *(["delete"] if deletes else [])]
    rows: list[Row] = []
    values = [None, 1, 2, 3]
    for number in range(draw(st.integers(1, 5))):
        function = draw(st.sampled_from(functions))
        invoked = draw(st.integers(0, 12))
        returned = draw(st.one_of(st.integers(invoked, invoked + 6), st.just(-1) if function != "read" else st.integers(invoked, 14)))
        if function == "write":
            rows.append(("write", number + 1, None, invoked, returned))
        elif function == "read":
            rows.append(("read", None, draw(st.sampled_from(values)), invoked, returned))
        else:
            rows.append(("delete", None, draw(st.sampled_from([0, 1])) if returned >= 0 else None, invoked, returned))
    return rows, draw(st.sampled_from(values))


@given(small_histories(deletes=False))
def test_zones_say_what_brute_force_says(case: tuple[list[Row], int | None]) -> None:
    rows, final = case
    assert (judged(recorded(*rows), final).verdict == "valid") == any_order(calls_of(rows, final))


@given(small_histories(deletes=True))
def test_with_deletes_no_register_is_condemned_that_has_an_order_and_none_acquitted_that_has_none(
    case: tuple[list[Row], int | None],
) -> None:
    rows, final = case
    verdict = judged(recorded(*rows), final).verdict
    if any_order(calls_of(rows, final)):
        assert verdict == "valid"
    if not any_order(calls_of(rows, final), strict=False):
        assert verdict == "invalid"


@given(small_histories(deletes=True))
def test_the_search_says_what_brute_force_says(case: tuple[list[Row], int | None]) -> None:
    calls = calls_of(*case)
    assert find_order(calls, Budget(100_000)) == any_order(calls)


# ------------------------------------------------------------------------------------------------------------ planted, one reign

VALID: tuple[Row, ...] = (
    ("read", None, None, 0, 1),
    ("write", 1, None, 2, 3),
    ("read", None, 1, 4, 5),
    ("write", 2, None, 6, 9),
    ("read", None, 1, 7, 8),
    ("read", None, 2, 10, 11),
    ("delete", None, 1, 12, 13),
    ("read", None, None, 14, 15),
    ("delete", None, 0, 16, 17),
    ("write", 3, None, 18, -1),
    ("write", 4, None, 20, 21),
    ("read", None, 4, 22, 23),
)


@pytest.mark.parametrize("final", [4, 3])
def test_a_valid_register_is_valid_whether_its_indefinite_write_came_late_or_never(final: int) -> None:
    judgement = judged(recorded(*VALID), final)
    assert (judgement.verdict, judgement.operations) == ("valid", 11)


def planted(place: int, **change: Any) -> History:
    names = ("function", "value", "result", "invoked", "returned")
    rows = [list(row) for row in VALID]
    for name, value in change.items():
        rows[place][names.index(name)] = value
    return recorded(*(tuple(row) for row in rows))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "final", "kind"),
    [
        pytest.param(planted(5, result=1), 4, "stale", id="an overwritten value is read"),
        pytest.param(planted(2, result=None), 4, "stale", id="an acked write is not seen"),
        pytest.param(planted(7, result=2), 4, "resurrected", id="a deleted value is read"),
        pytest.param(planted(11, result=2), 4, "resurrected", id="a deleted value is read much later"),
        pytest.param(planted(2, result=99), 4, "phantom", id="a value is read that nobody wrote"),
        pytest.param(planted(2, result=4), 4, "phantom", id="a value is read before it was sent"),
        pytest.param(planted(8, result=1), 4, "stale", id="a delete finds what was deleted"),
        pytest.param(recorded(*VALID), 2, "resurrected", id="at the end the deleted value is back"),
        pytest.param(recorded(*VALID), None, "lost", id="at the end the last write is gone"),
        pytest.param(recorded(*VALID[:5]), 1, "lost", id="at the end the last write is undone"),
        pytest.param(recorded(*VALID), 99, "phantom", id="at the end something foreign is there"),
        pytest.param(recorded(*VALID), b"text", "phantom", id="at the end something else is there"),
    ],
)
def test_what_is_planted_into_one_reign_is_found(history: History, final: Any, kind: str) -> None:
    judgement = judged(history, final)
    assert judgement.verdict == "invalid"
    assert kind in judgement.counts
    assert judgement.anomalies[0].key == K


def test_the_value_of_a_refused_write_is_resurrected_wherever_it_shows() -> None:
    refused = edited(recorded(*VALID), lambda o: o._replace(outcome=Outcome.FAIL, error="READONLY", returned=3) if o.value == 1 else o)
    assert "resurrected" in judged(refused, 4).counts
    at_the_end = History()
    at_the_end.fail(at_the_end.invoke(1, "write", K, 5, 0), 1, "n1", "READONLY")
    assert judged(at_the_end, 5).counts == {"resurrected": 1}


def test_a_search_that_needs_more_than_its_budget_says_unknown() -> None:
    rows: list[Row] = [("write", number % 4, None, 0, 50) for number in range(8)]  # not unique, so zones say nothing
    history = recorded(*rows)
    assert judged(history, 3, steps=10).verdict == "unknown"
    assert judged(history, 3, steps=100_000).verdict == "valid"
    assert "could not be decided" in judged(history, 3, steps=10).note


def test_values_that_are_not_unique_are_left_to_the_search() -> None:
    same = (("write", 1, None, 0, 1), ("write", 2, None, 2, 3), ("write", 1, None, 4, 5))
    assert judged(recorded(*same), 1).verdict == "valid"
    assert judged(recorded(*same, ("read", None, 2, 6, 7)), 1).verdict == "invalid"


# --------------------------------------------------------------------------------------------------------------- two reigns


def two_reigns() -> tuple[History, list[int], tuple[Reign, ...]]:
    """One client: n1 acks 1 and 2 and a read of 2, of which 2 and its read are lost; n2 begins with 1, is read, and gets 3."""
    history = History()
    steps: tuple[tuple[str, int | None, int | None, str], ...] = (
        ("append", 101, 1, "n1"), ("write", 1, None, "n1"), ("append", 102, 2, "n1"),
        ("append", 103, 3, "n1"), ("write", 2, None, "n1"), ("read", None, 2, "n1"), ("append", 104, 4, "n1"),
        ("append", 105, 3, "n2"), ("read", None, 1, "n2"), ("write", 3, None, "n2"), ("read", None, 3, "n2"), ("append", 106, 4, "n2"),
    )  # fmt: skip
    for place, (function, value, result, node) in enumerate(steps):
        history.ok(
            history.invoke(1 + (node == "n2"), function, J if function == "append" else K, value, place * 10), place * 10 + 5, node, result
        )
    deposed = Deposition(Cause.KILL, 68, Bound(), until=68)
    return history, [101, 102, 105, 106], (Reign("n1", deposed=deposed), Reign("n2", 69))


def test_the_doomed_end_of_a_reign_is_a_branch_of_its_own() -> None:
    history, journal, reigns = two_reigns()
    assert judged(history, 3, reigns, journal).verdict == "valid"


@pytest.mark.parametrize(
    ("number", "result", "kind"),
    [
        pytest.param(5, 1, "stale", id="stale in the doomed branch"),
        pytest.param(5, 3, "phantom", id="a value of the successor in the doomed branch"),
        pytest.param(8, None, "stale", id="the successor does not have what survived"),
        pytest.param(8, 2, "resurrected", id="a lost value is read from the successor"),
        pytest.param(10, 1, "stale", id="stale at the successor"),
    ],
)
def test_what_is_planted_into_a_reign_is_found_in_its_view(number: int, result: int | None, kind: str) -> None:
    history, journal, reigns = two_reigns()
    wrong = edited(history, lambda o: o._replace(result=result) if o.number == number else o)
    judgement = judged(wrong, 3, reigns, journal)
    assert kind in judgement.counts, judgement


def test_a_lost_value_may_not_be_there_at_the_end() -> None:
    history, journal, reigns = two_reigns()
    without = edited(history, lambda o: None if o.value == 3 or o.number == 10 else o)
    assert judged(without, 1, reigns, journal).verdict == "valid"
    assert judged(without, 2, reigns, journal).counts == {"resurrected": 1}


def test_reads_that_no_primary_surely_answered_are_not_judged() -> None:
    history, journal, reigns = two_reigns()
    late = history.invoke(1, "read", K, None, 200)  # after the last append that n1 acked on this connection
    history.ok(late, 205, "n1", 1)
    assert judged(history, 3, reigns, journal).verdict == "valid"


# --------------------------------------------------------------------------------------------------------- runs of a tiny model


@given(st.integers(0, 1 << 32), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.4]))
def test_registers_and_pairs_of_a_valid_run_are_never_condemned(seed: int, reigns: int, maybe: float) -> None:
    case = simulated(seed, reigns=reigns, maybe=maybe, batches=20)
    evidence = Evidence(case.history, case.context.reigns)
    explain_loss(evidence, case.final.journals)
    assert check_linear(evidence, case.final.registers).verdict == "valid"
    pairs = {key: first for key, (first, _) in case.final.pairs.items()}
    assert check_linear(evidence, pairs, written=("multi", "eval"), checker="pairs").verdict == "valid"


@given(st.integers(0, 1 << 32), st.data())
def test_one_client_alone_that_reads_something_else_is_always_caught(seed: int, data: st.DataObject) -> None:
    """With one client on one node nothing is concurrent but a batch, so a read in a batch of its own has exactly one right answer."""
    case = simulated(seed, reigns=1, maybe=0.0, clients=1, size=3, batches=40)
    written = {o.value for o in case.history.of("write")}
    reads = [o for o in case.history.of("read") if o.outcome is Outcome.OK]
    if not reads or len(written) < 2:
        return
    chosen: Operation = data.draw(st.sampled_from(reads))
    wrong = data.draw(st.sampled_from(sorted({*written, 12345} - {chosen.result}, key=repr)))
    history = edited(case.history, lambda o: o._replace(result=wrong) if o.number == chosen.number else o)
    evidence = Evidence(history, case.context.reigns)
    explain_loss(evidence, case.final.journals)
    assert check_linear(evidence, case.final.registers).verdict == "invalid"
