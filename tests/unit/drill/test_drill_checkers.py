"""Every checker of a drill accepts two reigns as they may be, and catches each thing that is planted into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.support.drill_model import edited
from valkeep.drill.checkers.availability import measure_availability
from valkeep.drill.checkers.counters import check_increments
from valkeep.drill.checkers.coverage import SlotSample, check_coverage
from valkeep.drill.checkers.evidence import Evidence, FinalState, FinalStream
from valkeep.drill.checkers.host import check_host
from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.checkers.loss import explain_loss
from valkeep.drill.checkers.monotonic import check_monotonic
from valkeep.drill.checkers.pubsub import check_messages
from valkeep.drill.checkers.redirects import Redirect, check_redirects
from valkeep.drill.checkers.reigns import Bound, Cause, Deposition, Reign
from valkeep.drill.checkers.sets import check_additions
from valkeep.drill.checkers.streams import check_groups
from valkeep.drill.checkers.transactions import check_pairs
from valkeep.drill.history import History, Operation, Outcome
from valkeep.topology.slots import key_slot

J, C, S, X, Q, P, R = (b"%s:{a}" % letter for letter in (b"j", b"c", b"s", b"x", b"q", b"p", b"r"))
KEYS = {"append": J, "incr": C, "add": S, "multi": X, "eval": X, "xadd": Q, "deliver": Q, "ack": Q, "write": R, "read": R}
MS = 1_000_000

# (process, node, function, value, result); each is sent every 10 ms and takes 5
SURVIVED = (
    (1, "n1", "append", 101, 1), (1, "n1", "incr", None, 1), (1, "n1", "add", 11, 1), (1, "n1", "multi", 21, None), (1, "n1", "xadd", 31, None),
    (1, "n1", "deliver", None, 31), (1, "n1", "ack", 31, 1), (1, "n1", "append", 102, 2),
)  # fmt: skip
DOOMED = (
    (1, "n1", "append", 103, 3), (1, "n1", "incr", None, 2), (1, "n1", "add", 12, 1), (1, "n1", "eval", 22, None), (1, "n1", "xadd", 32, None),
    (1, "n1", "deliver", None, 32), (1, "n1", "append", 104, 4),
)  # fmt: skip
AFTER = (
    (2, "n2", "append", 105, 3), (2, "n2", "incr", None, 2), (2, "n2", "add", 13, 1), (2, "n2", "multi", 23, None), (2, "n2", "xadd", 33, None),
    (2, "n2", "deliver", None, 33), (2, "n2", "append", 106, 4),
)  # fmt: skip
ENDS = {"refused": (("add", 14), ("xadd", 34), ("multi", 24), ("incr", None)), "indefinite": (("add", 15), ("xadd", 35), ("incr", None))}


@dataclass
class Two:
    """A history of two reigns, what was there at the end, and who reigned."""

    history: History
    final: FinalState
    reigns: tuple[Reign, ...]

    def evidence(self) -> Evidence:
        evidence = Evidence(self.history, self.reigns)
        report, *judgements = explain_loss(evidence, self.final.journals)
        assert not report.unexplained
        assert [judgement.counts for judgement in judgements] == [{}, {}]
        return evidence


def two_reigns() -> Two:
    history = History()
    for place, (process, node, function, value, result) in enumerate((*SURVIVED, *DOOMED, *AFTER)):
        history.ok(history.invoke(process, function, KEYS[function], value, place * 10), place * 10 + 5, node, result)
    for how, operations in ENDS.items():
        for function, value in operations:
            number = history.invoke(3, function, KEYS[function], value, 220)
            (history.fail if how == "refused" else history.info)(number, 221, "n2", how)
    final = FinalState(
        journals={J: [101, 102, 105, 106]},
        counters={C: 2},
        sets={S: frozenset({11, 13})},
        pairs={X: (23, 23)},
        streams={Q: FinalStream([31, 33], frozenset({33}))},
    )
    return Two(history, final, (Reign("n1", deposed=Deposition(Cause.KILL, 150, Bound())), Reign("n2", 150)))


CHECKS: dict[str, Callable[[Evidence, FinalState], Judgement]] = {
    "counters": lambda evidence, final: check_increments(evidence, final.counters),
    "sets": lambda evidence, final: check_additions(evidence, final.sets),
    "pairs": lambda evidence, final: check_pairs(evidence, final.pairs),
    "streams": lambda evidence, final: check_groups(evidence, final.streams),
}


@pytest.mark.parametrize("checker", CHECKS)
def test_two_reigns_with_a_doomed_end_are_valid(checker: str) -> None:
    two = two_reigns()
    judgement = CHECKS[checker](two.evidence(), two.final)
    assert (judgement.checker, judgement.verdict, judgement.counts) == (checker, "valid", {})
    assert judgement.operations


MAYBE: list[tuple[str, dict[str, Any]]] = [
    ("counters", {"counters": {C: 3}}),
    ("sets", {"sets": {S: {11, 13, 15}}}),
    ("streams", {"streams": {Q: FinalStream([31, 33, 35], {33}, {35})}}),
    ("streams", {"streams": {Q: FinalStream([31, 35, 33], {33}, {35})}}),
]


@pytest.mark.parametrize(("checker", "final"), MAYBE)
def test_what_is_indefinite_may_have_happened(checker: str, final: dict[str, Any]) -> None:
    two = two_reigns()
    evidence = two.evidence()
    judgement = CHECKS[checker](evidence, replace(two.final, **final))
    # an entry whose XADD was sent last can not stand before one that was acked before
    assert judgement.counts == ({"reordered": 1} if final == MAYBE[3][1] else {})


PLANTED_ENDS: list[tuple[str, str, dict[str, Any]]] = [
    ("counters", "lost", {"counters": {C: 1}}),
    ("counters", "lost", {"counters": {}}),
    ("counters", "duplicated", {"counters": {C: 4}}),
    ("counters", "changed", {"counters": {C: b"x"}}),
    ("sets", "lost", {"sets": {S: {13}}}),
    ("sets", "lost", {"sets": {}}),
    ("sets", "resurrected", {"sets": {S: {11, 12, 13}}}),
    ("sets", "resurrected", {"sets": {S: {11, 13, 14}}}),
    ("sets", "phantom", {"sets": {S: {11, 13, 99}}}),
    ("sets", "phantom", {"sets": {S: {11, 13}, b"s:{b}": {1}}}),
    ("pairs", "partial", {"pairs": {X: (23, 21)}}),
    ("pairs", "partial", {"pairs": {X: (23, None)}}),
    ("pairs", "lost", {"pairs": {X: (21, 21)}}),
    ("pairs", "lost", {"pairs": {}}),
    ("pairs", "resurrected", {"pairs": {X: (22, 22)}}),
    ("pairs", "resurrected", {"pairs": {X: (24, 24)}}),
    ("pairs", "phantom", {"pairs": {X: (99, 99)}}),
    ("streams", "lost", {"streams": {Q: FinalStream([33], {33})}}),
    ("streams", "lost", {"streams": {}}),
    ("streams", "duplicated", {"streams": {Q: FinalStream([31, 33, 33], {33})}}),
    ("streams", "phantom", {"streams": {Q: FinalStream([31, 33, 99], {33}, {99})}}),
    ("streams", "resurrected", {"streams": {Q: FinalStream([31, 32, 33], {33}, {32})}}),
    ("streams", "resurrected", {"streams": {Q: FinalStream([31, 33, 34], {33}, {34})}}),
    ("streams", "reordered", {"streams": {Q: FinalStream([33, 31], {33})}}),
    ("streams", "lost", {"streams": {Q: FinalStream([31, 33, 35], {33})}}),  # behind the group, and never delivered
    ("streams", "lost", {"streams": {Q: FinalStream([31, 33], {31, 33})}}),  # acked, and pending again
]


@pytest.mark.parametrize(("checker", "kind", "final"), PLANTED_ENDS)
def test_what_is_planted_into_the_final_state_is_caught(checker: str, kind: str, final: dict[str, Any]) -> None:
    two = two_reigns()
    judgement = CHECKS[checker](two.evidence(), replace(two.final, **final))
    assert judgement.verdict == "invalid"
    assert kind in judgement.counts


def answers(function: str, node: str, result: int) -> Callable[[Operation], Operation]:
    return lambda o: o._replace(result=result) if (o.function, o.node, o.outcome) == (function, node, Outcome.OK) else o


def before_it_was_added(operation: Operation) -> Operation:
    return operation._replace(invoked=1, returned=2) if operation.function == "deliver" and operation.result == 33 else operation


PLANTED_ANSWERS: list[tuple[str, str, Callable[[Operation], Operation]]] = [
    ("counters", "duplicated", answers("incr", "n2", 1)),
    ("sets", "duplicated", answers("add", "n2", 0)),
    ("streams", "duplicated", answers("deliver", "n2", 31)),
    ("streams", "resurrected", answers("deliver", "n2", 32)),
    ("streams", "phantom", answers("deliver", "n2", 99)),
    ("streams", "phantom", answers("deliver", "n2", 34)),
    ("streams", "phantom", before_it_was_added),
]


@pytest.mark.parametrize(("checker", "kind", "change"), PLANTED_ANSWERS)
def test_what_is_planted_into_the_answers_is_caught(checker: str, kind: str, change: Callable[[Operation], Operation]) -> None:
    two = two_reigns()
    wrong = Two(edited(two.history, change), two.final, two.reigns)
    judgement = CHECKS[checker](wrong.evidence(), wrong.final)
    assert judgement.verdict == "invalid"
    assert kind in judgement.counts


@pytest.mark.parametrize("same", [True, False], ids=["one connection", "two connections"])
def test_a_counter_that_runs_backwards_is_caught(same: bool) -> None:
    history = History()
    for place, result in enumerate((2, 1)):
        at = 0 if same else place * 10
        history.ok(history.invoke(1 if same else place, "incr", C, None, at), at + 5, "n1", result)
    assert check_increments(Evidence(history, (Reign("n1"),)), {C: 2}).counts == {"reordered": 1}


def test_the_doomed_end_of_a_reign_may_not_answer_one_value_twice_either() -> None:
    two = two_reigns()
    wrong = Two(edited(two.history, lambda o: o._replace(result=1) if o.function == "incr" and o.number == 9 else o), two.final, two.reigns)
    assert "duplicated" in check_increments(wrong.evidence(), two.final.counters).counts


def test_the_doomed_end_of_a_reign_may_not_deliver_an_entry_twice_either() -> None:
    two = two_reigns()
    wrong = Two(
        edited(two.history, lambda o: o._replace(result=31) if o.result == 32 and o.function == "deliver" else o), two.final, two.reigns
    )
    assert check_groups(wrong.evidence(), two.final.streams).counts == {"duplicated": 1}


# ------------------------------------------------------------------------------------------------------------------ monotonic


def reads(*rows: tuple[int, str, str, int | None, int | None]) -> Judgement:
    """Rows (process, node, function, value, result), one after the other."""
    history = History()
    for place, (process, node, function, value, result) in enumerate(rows):
        history.ok(history.invoke(process, function, R, value, place * 10), place * 10 + 5, node, result)
    return check_monotonic(Evidence(history, (Reign("n1"),)))


W1, W2 = (1, "n1", "write", 1, None), (1, "n1", "write", 2, None)


def test_a_replica_may_be_behind_and_another_further_behind() -> None:
    assert reads(W1, W2, (2, "n2", "read", None, 1), (2, "n2", "read", None, 2), (2, "n3", "read", None, 1)).verdict == "valid"
    assert reads(W1, W2, (2, "n2", "read", None, 2), (3, "n2", "read", None, 1)).verdict == "valid"  # another client's connection
    assert reads(W1, W2, (1, "n2", "read", None, 1)).verdict == "valid"


@pytest.mark.parametrize(
    "rows",
    [
        (W1, W2, (2, "n2", "read", None, 2), (2, "n2", "read", None, 1)),
        (W1, W2, (1, "n1", "read", None, 1)),
        (W1, W2, (2, "n2", "read", None, 2), (2, "n2", "read", None, None), (2, "n2", "read", None, 1)),
    ],
    ids=["behind a read", "behind an own write", "behind a read, with nothing in between"],
)
def test_a_client_that_sees_a_register_go_back_at_one_node_is_caught(rows: Any) -> None:
    assert reads(*rows).counts == {"stale": 1}


def test_what_was_lost_with_its_primary_may_be_seen_and_be_gone() -> None:
    history = History()
    steps = (("append", 101, 1), ("write", 1, None), ("append", 102, 2), ("append", 103, 3), ("write", 2, None), ("append", 104, 4))
    for place, (function, value, result) in enumerate(steps):
        history.ok(history.invoke(1, function, KEYS[function], value, place * 10), place * 10 + 5, "n1", result)
    for place, result in ((7, 2), (20, 1)):  # n1 is a replica of its successor by now
        history.ok(history.invoke(2, "read", R, None, place * 10), place * 10 + 5, "n1", result)
    evidence = Evidence(history, (Reign("n1", deposed=Deposition(Cause.PARTITION, 100, Bound())), Reign("n2", 90)))
    explain_loss(evidence, {J: [101, 102]})
    assert check_monotonic(evidence).verdict == "valid"


# --------------------------------------------------------------------------------------------------------------------- pub/sub


def messages(*received: tuple[int, str, int, int], refused: tuple[int, ...] = ()) -> Judgement:
    """Publisher 1 sends 1, 2, 3 by n1 and 4 by n2; publisher 2 sends 5 by n1. ``received``: (process, node, message, at)."""
    history = History()
    for place, (process, node, value) in enumerate(((1, "n1", 1), (1, "n1", 2), (1, "n1", 3), (1, "n2", 4), (2, "n1", 5))):
        number = history.invoke(process, "publish", P, value, place * 10)
        if value in refused:
            history.fail(number, place * 10 + 5, node, "READONLY")
        else:
            history.ok(number, place * 10 + 5, node, 1)
    for process, node, message, at in received:
        history.ok(history.invoke(process, "receive", P, message, at), at, node)
    return check_messages(Evidence(history, (Reign("n1"),)))


def test_messages_may_be_lost_and_those_of_two_publishers_mixed() -> None:
    judgement = messages((9, "n3", 5, 60), (9, "n3", 1, 61), (9, "n3", 3, 62), (8, "n3", 1, 63), (9, "n4", 3, 64))
    assert (judgement.verdict, judgement.note) == ("valid", "5 published, 5 received")
    assert messages((9, "n3", 4, 60), (9, "n3", 1, 61)).verdict == "valid"  # sent through two nodes: no order


@pytest.mark.parametrize(
    ("received", "kind"),
    [
        (((9, "n3", 2, 60), (9, "n3", 1, 61)), "reordered"),
        (((9, "n3", 2, 60), (9, "n3", 2, 61)), "duplicated"),
        (((9, "n3", 99, 60),), "phantom"),
        (((9, "n3", 3, 1),), "phantom"),
    ],
    ids=["out of order", "twice", "from nobody", "before it was sent"],
)
def test_messages_out_of_order_twice_or_from_nowhere_are_caught(received: Any, kind: str) -> None:
    assert messages(*received).counts == {kind: 1}


def test_a_message_whose_publication_was_refused_is_a_phantom() -> None:
    assert messages((9, "n3", 2, 60), refused=(2,)).counts == {"phantom": 1}


# ------------------------------------------------------------------------------------- slots, redirects, availability, host


def test_slots_without_an_owner_are_timed_and_must_have_one_at_the_end() -> None:
    samples = [SlotSample(at * MS, uncovered) for at, uncovered in ((0, 0), (10, 5461), (30, 100), (40, 0), (50, 1), (55, 0))]
    coverage, judgement = check_coverage(samples)
    assert (coverage.uncovered_ms, coverage.longest_ms, coverage.most) == (35.0, 30.0, 5461)
    assert judgement.verdict == "valid"
    assert check_coverage(samples[:3])[1].counts == {"uncovered": 1}
    assert check_coverage([SlotSample(0, 0, 3)])[1].counts == {"disputed": 1}
    assert check_coverage([])[1].verdict == "unknown"


def redirected(*rows: tuple[int, str, bool], redirects: tuple[Redirect, ...]) -> Any:
    """Rows (sent at, node, acked) on one key."""
    history = History()
    for at, node, acked in rows:
        number = history.invoke(1, "write", R, at, at)
        if acked:
            history.ok(number, at + 1, node)
        else:
            history.fail(number, at + 1, node, "MOVED")
    return check_redirects(Evidence(history, (Reign("n1"),)), redirects)


def moved(at: int, answered: str = "n1", named: str = "n2", kind: str = "MOVED") -> Redirect:
    return Redirect(at, kind, answered, named, key_slot(R))


def test_a_redirect_that_is_followed_is_counted() -> None:
    found, judgement = redirected((0, "n1", True), (10, "n1", False), (20, "n2", True), redirects=(moved(11),))
    assert (found.moved, found.asked, found.followed, found.hops) == (1, 0, 1, 1)
    assert judgement.verdict == "valid"
    found, _ = redirected((10, "n1", False), (10, "n1", False), (20, "n2", True), redirects=(moved(11), moved(11)))
    assert (found.moved, found.followed, found.hops) == (2, 2, 1)  # a batch was told the same
    rows = ((0, "n1", False), (10, "n3", False), (20, "n2", True), (30, "n2", False), (40, "n1", True))
    found, judgement = redirected(*rows, redirects=(moved(1, named="n3"), moved(11, "n3"), moved(31, "n2", "n1", "ASK")))
    assert (found.moved, found.asked, found.followed, found.hops) == (2, 1, 2, 2)
    assert judgement.verdict == "valid"


def test_a_redirect_after_which_nothing_gets_through_is_caught() -> None:
    _, judgement = redirected((0, "n1", True), (10, "n1", False), (20, "n1", False), redirects=(moved(11), moved(11)))
    assert judgement.counts == {"unfollowed": 1}
    _, judgement = redirected((0, "n1", True), (10, "n1", False), redirects=(moved(11),))  # nobody tried again
    assert judgement.verdict == "valid"


def test_clients_that_are_sent_around_until_the_end_are_caught() -> None:
    half = 500_000_000
    around = tuple((10 + turn * half // 2, "n1", False) for turn in range(4))
    answers = tuple(moved(at + 1) for at, _, _ in around)
    assert redirected((0, "n1", True), *around, redirects=answers)[1].counts == {"unfollowed": 1}
    assert redirected((0, "n1", True), *around, (10 + 3 * half, "n2", True), redirects=answers)[1].verdict == "valid"
    assert redirected((0, "n1", True), *around[:3], redirects=answers[:3])[1].verdict == "valid"  # the load ended too early to tell


def test_the_gap_does_not_end_with_an_ack_that_is_lost_later() -> None:
    two = two_reigns()
    evidence = two.evidence()
    found, judgement = measure_availability(evidence, ((80, 160),))
    (gap,) = found.gaps
    assert (gap.begins, gap.ends, gap.shard) == (75, 155, 0)
    assert judgement.verdict == "valid"
    assert [(phase.name, phase.acked, phase.refused, phase.indefinite) for phase in found.phases] == [
        ("before", 8, 0, 0), ("during", 9, 0, 0), ("after", 5, 4, 3),
    ]  # fmt: skip
    assert found.phases[0].p50_ms == found.phases[0].max_ms == 5e-6
    assert found.errors == {"refused": 4, "indefinite": 3}


def test_each_shard_has_a_gap_of_its_own_that_lasts_to_the_end_where_it_stays_silent() -> None:
    history = History()
    for at, node in ((0, "n1"), (5, "n2"), (10, "n1"), (20, "n2"), (40, "n2"), (70, "n2"), (100, "n2")):
        history.ok(history.invoke(1, "write", R, at, at * MS), at * MS, node)
    found, _ = measure_availability(Evidence(history, (Reign("n1"), Reign("n2", shard=1))), ())
    assert [(gap.shard, gap.ms) for gap in found.gaps] == [(0, 90.0), (1, 30.0)]


def test_a_history_without_an_ack_tells_nothing_of_availability() -> None:
    history = History()
    history.invoke(1, "write", R, 1, 0)
    assert measure_availability(Evidence(history, (Reign("n1"),)), ())[1].verdict == "unknown"


@pytest.mark.parametrize(("late", "timeout", "verdict"), [(499, 1000, "valid"), (501, 1000, "unknown"), (5000, 0, "valid")])
def test_a_stall_of_more_than_half_the_timeout_makes_unknown(late: float, timeout: float, verdict: str) -> None:
    assert check_host([(0, 1.0), (10, late)], timeout).verdict == verdict
