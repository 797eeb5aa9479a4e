"""Loss is explained or condemned: two reigns, a cut, and everything that can be planted into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.drill_model import edited, simulated
from valkeep.drill.checkers.evidence import LOST, SURVIVED, Evidence
from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.checkers.loss import LossReport, explain_loss
from valkeep.drill.checkers.promise import Settings, promise
from valkeep.drill.checkers.reigns import NEVER, Bound, Cause, Deposition, Reign, loss_of
from valkeep.drill.history import History, Operation, Outcome
from valkeep.topology.slots import tag_for
from valkeep.topology.spec import Kind, Persistence

J, OTHER = b"j:{a}", b"j:{b}"
MS = 1_000_000
FAULT = 100 * MS

KILLED = Deposition(Cause.KILL, FAULT, Bound(since=55 * MS, until=FAULT), until=FAULT, promoted=150 * MS)


def reigns(deposition: Deposition | None = KILLED) -> tuple[Reign, ...]:
    return Reign("n1", deposed=deposition), Reign("n2", begins=150 * MS)


def two_reigns() -> tuple[History, dict[bytes, list[int]]]:
    """Ten appends acked by n1, one each 10 ms (values 1 … 10), of which the last four were lost; then three by n2 (11 … 13), and a refused one (14)
    and an indefinite one (15). Two clients by turns. The other journal is written by n1 at 1 ms and at 91 ms (21, lost: 22)."""
    history = History()

    def append(process: int, key: bytes, value: int, at: int, node: str, result: int) -> None:
        history.ok(history.invoke(process, "append", key, value, at), at + 2 * MS, node, result)

    append(3, OTHER, 21, 1 * MS, "n1", 1)
    for place in range(1, 11):
        append(1 + place % 2, J, place, place * 10 * MS - 5 * MS, "n1", place)
    append(3, OTHER, 22, 96 * MS, "n1", 2)
    for place in range(7, 10):
        append(1 + place % 2, J, place + 4, 150 * MS + place * 10 * MS, "n2", place)
    history.fail(history.invoke(1, "append", J, 14, 300 * MS), 301 * MS, "n2", "NOREPLICAS")
    history.info(history.invoke(2, "append", J, 15, 300 * MS), 301 * MS, "n2", "LOST")
    return history, {J: [1, 2, 3, 4, 5, 6, 11, 12, 13], OTHER: [21]}


def explained(history: History, journals: dict[bytes, list[int]], reigns: tuple[Reign, ...]) -> tuple[LossReport, dict[str, Judgement]]:
    report, *judgements = explain_loss(Evidence(history, reigns), journals)
    return report, {judgement.checker: judgement for judgement in judgements}


def kinds(judgements: dict[str, Judgement]) -> set[str]:
    return {kind for judgement in judgements.values() for kind in judgement.counts}


def test_a_lost_suffix_of_a_killed_primary_is_explained_as_asynchronous() -> None:
    report, judgements = explained(*two_reigns(), reigns())
    assert {judgement.verdict for judgement in judgements.values()} == {"valid"}
    assert (report.lost, report.explained, report.wrong) == (5, {"asynchronous": 5}, {})
    (node,) = report.nodes
    assert (node.node, node.deposed_by, node.lost) == ("n1", "kill", 5)
    assert (node.before_ms, node.after_ms, node.window_ms) == (33.0, 0.0, 31.0)
    assert node.allowed_ms == 45.0
    assert {(example.value, example.node, example.cause) for example in report.examples} == {
        (value, "n1", "asynchronous") for value in (7, 8, 9, 10, 22)
    }
    assert "5 of 15 acked writes were lost: 5 asynchronous" in judgements["loss"].note


@pytest.mark.parametrize("final", [[1, 2, 3, 4, 5, 6, 11, 12, 13, 15], [1, 2, 3, 4, 5, 6, 11, 12, 13]])
def test_an_indefinite_append_may_be_there_or_not(final: list[int]) -> None:
    history, journals = two_reigns()
    _, judgements = explained(history, {**journals, J: final}, reigns())
    assert not kinds(judgements)


def planted(*kind: str) -> Callable[[Any], Any]:
    return lambda plan: pytest.param(plan, set(kind), id=f"{plan.__name__}")


def hole(journals: dict[bytes, list[int]]) -> None:
    journals[J].remove(3)


def last_write_of_the_successor(journals: dict[bytes, list[int]]) -> None:
    journals[J].remove(13)


def duplicate(journals: dict[bytes, list[int]]) -> None:
    journals[J].append(13)


def stranger(journals: dict[bytes, list[int]]) -> None:
    journals[J].append(99)


def stranger_key(journals: dict[bytes, list[int]]) -> None:
    journals[b"j:{c}"] = [1]


def refused(journals: dict[bytes, list[int]]) -> None:
    journals[J].append(14)


def back_from_the_dead(journals: dict[bytes, list[int]]) -> None:
    journals[J].append(7)


def swapped(journals: dict[bytes, list[int]]) -> None:
    journals[J][1], journals[J][2] = journals[J][2], journals[J][1]


def vanished(journals: dict[bytes, list[int]]) -> None:
    del journals[J]


def early_of_another_journal(journals: dict[bytes, list[int]]) -> None:
    journals[OTHER] = []


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        (hole, {"hole", "reordered"}),  # what stands behind it is no longer where the server said
        (last_write_of_the_successor, {"unexplained"}),
        (duplicate, {"duplicated"}),
        (stranger, {"phantom"}),
        (stranger_key, {"phantom"}),
        (refused, {"resurrected"}),
        (back_from_the_dead, {"resurrected"}),
        (swapped, {"reordered"}),
        (vanished, {"unexplained", "beyond"}),
        (early_of_another_journal, {"hole"}),
    ],
)
def test_what_is_planted_into_the_final_journals_is_caught(plan: Callable[[dict[bytes, list[int]]], None], kind: set[str]) -> None:
    history, journals = two_reigns()
    plan(journals)
    _, judgements = explained(history, journals, reigns())
    assert kind <= kinds(judgements)


def test_the_writes_of_a_node_that_was_never_deposed_may_not_be_lost() -> None:
    report, judgements = explained(*two_reigns(), reigns(None))
    assert report.wrong == {"unexplained": 5}
    assert judgements["loss"].lost == 5
    assert "never deposed" in judgements["loss"].anomalies[0].detail


def test_the_writes_of_a_node_that_is_not_known_as_a_primary_may_not_be_lost() -> None:
    report, _ = explained(*two_reigns(), (Reign("n2"),))
    assert report.wrong == {"unexplained": 5}
    assert report.nodes[0].node == "n1"


def test_a_loss_that_the_successor_surely_had_is_beyond_the_promise() -> None:
    bound = Bound(since=78 * MS, until=FAULT, why="samples")
    report, judgements = explained(*two_reigns(), reigns(replace(KILLED, bound=bound)))
    assert report.wrong == {"beyond": 2}  # acked at 67 and 77 ms
    assert report.explained == {"asynchronous": 3}
    assert "11.0 ms before any loss is allowed (samples)" in judgements["loss"].anomalies[0].detail


def test_a_loss_after_the_window_or_after_the_node_had_stopped_is_beyond_the_promise() -> None:
    for deposition in (replace(KILLED, bound=Bound(until=90 * MS)), replace(KILLED, bound=Bound(), until=90 * MS)):
        report, _ = explained(*two_reigns(), reigns(deposition))
        assert report.wrong == {"beyond": 2}  # sent at 95 and 96 ms


def test_where_nothing_may_be_lost_every_loss_is_beyond_the_promise() -> None:
    report, _ = explained(*two_reigns(), reigns(replace(KILLED, bound=Bound(since=NEVER, why="always"))))
    assert report.wrong == {"beyond": 5}
    assert report.nodes[0].allowed_ms == 0.0


def test_one_place_answered_twice_in_a_reign_is_a_forgotten_append() -> None:
    history, journals = two_reigns()
    twice = edited(history, lambda o: o._replace(result=9) if o.value == 10 else o)
    _, judgements = explained(twice, journals, reigns())
    assert kinds(judgements) == {"duplicated"}


def test_the_order_of_a_connection_and_of_time_is_kept_in_the_list() -> None:
    history = History()
    for process, value, at, result in ((1, 1, 0, 2), (1, 2, 0, 1), (2, 3, 10, 4), (3, 4, 20, 3)):
        history.ok(history.invoke(process, "append", J, value, at), at + 5, "n1", result)
    _, judgements = explained(history, {J: [2, 1, 4, 3]}, (Reign("n1"),))
    assert judgements["journals"].counts == {"reordered": 2}


def test_a_suffix_is_judged_by_the_order_of_a_connection_also_across_journals() -> None:
    history = History()
    for value, key in ((1, J), (2, OTHER)):  # one pipeline: sent and answered at the same times
        history.ok(history.invoke(1, "append", key, value, 10), 20, "n1", 1)
    deposed = (Reign("n1", deposed=Deposition(Cause.KILL, 50, Bound())), Reign("n2", 60))
    assert kinds(explained(history, {OTHER: [2]}, deposed)[1]) == {"hole"}
    assert not kinds(explained(history, {J: [1]}, deposed)[1])


def test_a_slot_that_moved_to_another_shard_is_no_evidence_against_the_rest_of_its_old_node() -> None:
    history = History()
    history.ok(history.invoke(1, "append", J, 1, 10), 20, "n1", 1)
    history.ok(history.invoke(1, "append", OTHER, 2, 30), 40, "n1", 1)
    history.ok(history.invoke(1, "append", OTHER, 3, 50), 60, "n9", 2)  # its slot is now another shard's
    where = (Reign("n1", deposed=Deposition(Cause.KILL, 70, Bound())), Reign("n2", 80), Reign("n9", shard=1))
    assert not kinds(explained(history, {OTHER: [2, 3]}, where)[1])


def test_what_lies_between_appends_shares_their_fate() -> None:
    history = History()
    rows = ("append", 1), ("write", 2), ("append", 3), ("incr", None), ("append", 4), ("add", 5), ("append", 6)
    for place, (function, value) in enumerate(rows):
        key = J if function == "append" else b"%s:{a}" % function.encode()
        history.ok(history.invoke(1, function, key, value, place * 10), place * 10 + 5, "n1", None)
    evidence = Evidence(history, (Reign("n1", deposed=Deposition(Cause.KILL, 100, Bound())), Reign("n2", 110)))
    report, *_ = explain_loss(evidence, {J: [1, 3]})
    assert list(evidence.fate) == [0, 0, 0, 1, 2, 2, 2]
    assert (report.lost, report.maybe, report.by_function) == (3, 1, {"append": 2, "add": 1})


def test_a_node_that_restarts_empty_succeeds_itself_though_clients_are_quicker_than_who_looked() -> None:
    """Killed at 50, seen again at 90; at 60 a new connection is answered by the new process, and at 95 a last ack of the old one is read."""
    history = History()
    for process, value, sent, got, place in (
        (1, 1, 10, 15, 1),
        (1, 2, 20, 25, 2),
        (2, 3, 60, 65, 1),
        (2, 4, 70, 75, 2),
        (3, 9, 45, 95, 3),
        (2, 5, 100, 105, 3),
    ):
        history.ok(history.invoke(process, "append", J, value, sent), got, "n1", place)
    deposed = Deposition(Cause.RESTART, 50, Bound(), promoted=90)
    report, judgements = explained(history, {J: [3, 4, 5]}, (Reign("n1", deposed=deposed), Reign("n1", 90)))
    assert not kinds(judgements)
    assert report.explained == {"restart": 3}


def test_acks_of_a_library_that_names_no_node_are_given_to_who_reigned_then() -> None:
    history, journals = two_reigns()
    unnamed = edited(history, lambda o: o._replace(node=""))
    report, judgements = explained(unnamed, journals, reigns())
    assert not kinds(judgements)
    assert report.explained == {"asynchronous": 5}
    assert {example.node for example in report.examples} == {"n1"}
    journals[J].remove(3)
    assert "hole" in kinds(explained(unnamed, journals, reigns())[1])
    assert explained(unnamed, two_reigns()[1], reigns(None))[0].wrong == {"unexplained": 5}


def test_a_shard_s_acks_without_a_node_are_not_given_to_another_shard() -> None:
    history = History()
    low, high = b"j:{%s}" % tag_for(1), b"j:{%s}" % tag_for(16000)
    for place, key in enumerate((low, high, low, high)):
        history.ok(history.invoke(1, "append", key, place + 1, place * 10), place * 10 + 5, "", place // 2 + 1)
    two = (Reign("n1", deposed=Deposition(Cause.KILL, 50, Bound())), Reign("n3", 60), Reign("n2", shard=1))
    assert not kinds(explained(history, {low: [1], high: [2, 4]}, two)[1])
    assert kinds(explained(history, {low: [1, 3], high: [2]}, two)[1]) == {"unexplained"}


def test_a_client_that_repeats_an_append_makes_a_duplicate_and_nothing_else() -> None:
    history = History()
    for value, place in ((1, 1), (2, 3), (3, 4)):  # the first answer to 2 was lost on its way
        history.ok(history.invoke(1, "append", J, value, value * 10), value * 10 + 5, "n1", place)
    assert explained(history, {J: [1, 2, 2, 3]}, (Reign("n1"),))[1]["journals"].counts == {"duplicated": 1}


def test_a_node_that_is_promoted_again_begins_a_reign_of_its_own() -> None:
    history = History()
    rows = (("n1", 1, 10, 1), ("n1", 2, 20, 2), ("n2", 3, 40, 2), ("n1", 4, 80, 3))
    for node, value, sent, place in rows:
        history.ok(history.invoke(value, "append", J, value, sent), sent + 5, node, place)
    first = Deposition(Cause.PARTITION, 15, Bound(), until=50, promoted=30, healed=45)
    second = Deposition(Cause.COORDINATED, 60, Bound(NEVER, 60), until=62, promoted=61)
    succession = (Reign("n1", deposed=first), Reign("n2", 30, deposed=second), Reign("n1", 61))
    report, judgements = explained(history, {J: [1, 3, 4]}, succession)
    assert not kinds(judgements)
    assert report.explained == {"partition": 1}
    assert explained(history, {J: [1, 3]}, succession)[0].wrong == {"unexplained": 1}
    assert explained(history, {J: [1, 4]}, succession)[0].wrong == {"beyond": 1}


@pytest.mark.parametrize(
    ("cause", "returned", "loss"),
    [
        (Cause.KILL, 99, "asynchronous"),
        (Cause.KILL, 101, "asynchronous"),
        (Cause.TERM, 101, "asynchronous"),
        (Cause.PARTITION, 99, "asynchronous"),
        (Cause.PARTITION, 101, "partition"),
        (Cause.PARTITION, 301, "stale primary"),
        (Cause.PAUSE, 99, "asynchronous"),
        (Cause.PAUSE, 301, "stale primary"),
        (Cause.FAILOVER, 199, "asynchronous"),
        (Cause.FAILOVER, 201, "stale primary"),
        (Cause.CRASH, 99, "crash"),
        (Cause.RESTART, 99, "restart"),
    ],
)
def test_the_cause_of_a_loss_follows_from_the_moment_of_its_ack(cause: Cause, returned: int, loss: str) -> None:
    assert loss_of(Deposition(cause, 100, Bound(), promoted=200, healed=300), returned) == loss


S = 1_000_000_000
AT = 100 * S
SENTINEL, CLUSTER, ALONE = (Settings(kind) for kind in (Kind.SENTINEL, Kind.CLUSTER, Kind.STANDALONE))


@pytest.mark.parametrize(
    ("settings", "cause", "moments", "since", "until"),
    [
        (SENTINEL, Cause.KILL, {"promised_until": AT - S}, -1, 1),
        (SENTINEL, Cause.KILL, {}, None, 1),
        (SENTINEL, Cause.TERM, {}, None, 11),
        (SENTINEL, Cause.PARTITION, {"healed": AT + 8 * S}, None, 8 + 18 + 1),
        (SENTINEL, Cause.PARTITION, {}, None, None),
        (SENTINEL, Cause.FAILOVER, {"promoted": AT + S}, None, 1 + 18 + 1),
        (SENTINEL, Cause.PAUSE, {"healed": AT + 5 * S}, None, 5 + 18 + 1),
        (SENTINEL, Cause.COORDINATED, {}, "nothing", 0),
        (CLUSTER, Cause.PARTITION, {"healed": AT + 8 * S}, None, 1.5 + 1),
        (replace(SENTINEL, min_replicas=1, max_lag=1), Cause.PARTITION, {"healed": AT + 8 * S}, -3, 3 + 1),
        (replace(SENTINEL, min_replicas=1, max_lag=1), Cause.FAILOVER, {"promoted": AT + S}, -3, 1 + 3 + 1),
        (replace(SENTINEL, min_replicas=1, max_lag=1), Cause.KILL, {"promised_until": AT - S}, -1, 1),
        (replace(SENTINEL, min_replicas=1, max_lag=1), Cause.PAUSE, {"healed": AT + 5 * S}, -3, 5 + 3 + 1),
        (replace(ALONE, persistence=Persistence.EVERYSEC), Cause.CRASH, {}, -2, 1),
        (replace(ALONE, persistence=Persistence.ALWAYS), Cause.CRASH, {}, "nothing", 1),
        (replace(ALONE, persistence=Persistence.RDB), Cause.CRASH, {"saved_at": AT - 50 * S}, -50, 1),
        (replace(ALONE, persistence=Persistence.NONE), Cause.CRASH, {}, None, 1),
        (replace(ALONE, persistence=Persistence.EVERYSEC), Cause.RESTART, {}, "nothing", 1),
        (replace(ALONE, persistence=Persistence.NONE), Cause.RESTART, {}, None, 1),
    ],
)
def test_the_promise_follows_from_the_settings(
    settings: Settings, cause: Cause, moments: dict[str, int], since: float | str | None, until: float | None
) -> None:
    bound = promise(settings, cause, at=AT, **moments)
    lows = {None: -(1 << 62), "nothing": NEVER}
    assert bound.since == (AT + since * S if isinstance(since, int | float) else lows[since])
    assert bound.until == (NEVER if until is None else AT + until * S)
    assert bound.why


# ---------------------------------------------------------------------------------------------------- runs of a tiny model

seeds = st.integers(0, 1 << 32)


@given(seeds, st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.4]))
def test_a_valid_run_is_never_condemned_and_every_fate_is_true(seed: int, count: int, maybe: float) -> None:
    case = simulated(seed, reigns=count, maybe=maybe)
    evidence = Evidence(case.history, case.context.reigns)
    report, *judgements = explain_loss(evidence, case.final.journals)
    assert [judgement.counts for judgement in judgements] == [{}, {}]
    assert report.unexplained == 0
    assert sum(report.explained.values()) == report.lost
    for operation in case.history:
        if operation.outcome is Outcome.OK and operation.function != "read":
            fate = evidence.fate[operation.number]
            assert fate not in ({LOST} if operation.number in case.kept else {SURVIVED}), operation


@given(seeds, st.data())
def test_an_acked_append_removed_from_a_valid_end_is_caught_or_is_the_end_of_a_doomed_stream(seed: int, data: st.DataObject) -> None:
    case = simulated(seed)
    there = {element for elements in case.final.journals.values() for element in elements}
    acked = [o for o in case.history.of("append") if o.outcome is Outcome.OK and o.value in there]
    assume(acked)
    removed: Operation = data.draw(st.sampled_from(acked))
    journals = {key: [element for element in found if element != removed.value] for key, found in case.final.journals.items()}
    report, *judgements = explain_loss(Evidence(case.history, case.context.reigns), journals)
    reign = next(reign for reign in case.context.reigns if reign.node == removed.node)
    later = [o for o in acked if o.node == removed.node and o.process == removed.process and o.number > removed.number]
    if reign.deposed is None or later:
        assert report.unexplained
        assert "invalid" in {judgement.verdict for judgement in judgements}
