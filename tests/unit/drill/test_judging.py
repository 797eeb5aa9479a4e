"""From what a drill left behind to its verdict: invalid beats unknown, a stall of the host excuses timers and nothing else, what is missing is never valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from valkeep.drill.checkers.evidence import FinalState
from valkeep.drill.checkers.promise import Settings
from valkeep.drill.history import History
from valkeep.drill.judging import judge
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.play import Played
from valkeep.drill.reigning import Struck
from valkeep.drill.script import ClientSpec, Drill, Expectation, Load, Step
from valkeep.drill.serverlog import Said
from valkeep.drill.watch import Sample
from valkeep.drill.workloads.record import Process
from valkeep.drill.workloads.recorder import RecorderResult, Stall
from valkeep.topology.slots import tag_for
from valkeep.topology.spec import TopologySpec

MS = 1_000_000
S = 1000 * MS
J = b"j:{a}"
OLD, NEW = "a" * 40, "b" * 40
KILLED, PROMOTED, UP = 3 * S, 4 * S, 4200 * MS
EXPLAINED = Expectation("unexplained", 0, 0)
ONE = Expectation("promotions", 1, 1)
GAP = Expectation("gap_ms", 500, 2500)


def killed(
    *,
    gone: Sequence[int] = (),
    stalls: Sequence[Stall] = (),
    expects: Sequence[Expectation] = (EXPLAINED, ONE, GAP),
    missed: Sequence[str] = (),
    drift_ms: float = 0.0,
    final: Mapping[bytes, Sequence[int]] | None = None,
    spontaneous: bool = False,
    read_nothing: bool = False,
) -> Played:
    """A sentinel drill: 300 appends to n1, one each 10 ms, until it is killed at 3 s; n2 is promoted at 4 s, acks 100 from 4.2 s on. n2 has the first
    300 - len(gone). ``gone``: values that are not there at the end. ``spontaneous``: and at 5 s n3 is promoted for no reason."""
    history = History()
    for number in range(1, 301):
        history.ok(history.invoke(1, "append", J, number, (number - 1) * 10 * MS + MS), number * 10 * MS - 5 * MS, "n1", number)
    place = 300 - len(gone)
    for number in range(1, 101):
        at = UP + number * 10 * MS
        history.ok(history.invoke(2, "append", J, 300 + number, at), at + 2 * MS, "n2", place + number)
    elements = [number for number in range(1, 401) if number not in gone]
    samples = {
        "n1": [Sample(at, at + MS, "primary", OLD, at // MS, 2, "", 0) for at in range(0, KILLED, 100 * MS)],
        "n2": [Sample(at, at + MS, "replica", OLD, at // MS, 0, "", 0) for at in range(0, KILLED, 100 * MS)]
        + [Sample(at, at + MS, "primary", NEW, at // MS, 1, "", 0) for at in range(PROMOTED + 50 * MS, 6 * S, 100 * MS)],
        "n3": [],
    }
    offset = KILLED // MS - 40 * len(gone)
    said = [
        Said(PROMOTED, "n2", "info", "PRIMARY MODE enabled (user request from 'id=9')"),
        Said(3500 * MS, "s1", "warning", "+sdown master valkey 127.0.0.1 1"),
        Said(
            PROMOTED, "n2", "info", f"Setting secondary replication ID to {OLD}, valid up to offset: {offset}. New replication ID is {NEW}"
        ),
    ]
    if spontaneous:
        text = f"Setting secondary replication ID to {NEW}, valid up to offset: 5001. New replication ID is {'c' * 40}"
        said.append(Said(5300 * MS, "n3", "info", text))
    drill = Drill(
        "test",
        "",
        replace(TopologySpec.sentinel(), timeout_ms=1000),
        (Step("kill", "primary"),),
        tuple(expects),
        load=Load(mix="append", clients=(ClientSpec("c1"),)),
    )
    recorded = RecorderResult(history, tuple(stalls), (), (Process("c1", ""), Process("c1", "n1"), Process("c1", "n2")), ())
    return Played(
        drill=drill,
        settings=Settings(drill.topology.kind),
        origin=0,
        ended=6 * S,
        recorded=recorded,
        samples=samples,
        coverage=(),
        struck=(Struck(drill.steps[0], ("n1",), KILLED, KILLED + MS),),
        said=tuple(said),
        primaries={0: "n2"},
        keys={0: 1},
        final=None if read_nothing else FinalState(journals=final or {J: elements}),
        missed=tuple(missed),
        drift_ms=drift_ms,
    )


def verdict(played: Played) -> str:
    return judge(played).verdict


def mentioned(outcome: DrillOutcome, text: str) -> bool:
    return any(text in reason for reason in outcome.reasons)


def test_a_failover_that_loses_nothing_is_valid_and_measured() -> None:
    outcome = judge(killed())
    assert (outcome.verdict, outcome.reasons) == ("valid", ())
    assert outcome.measures["promotions"] == 1
    assert outcome.measures["gap_ms"] == pytest.approx(1217, abs=10)
    (recovered,) = outcome.recovery
    assert [step.name for step in recovered.steps] == ["sdown", "promoted", "redundant", "first-ack"]


def test_a_lost_suffix_of_the_killed_primary_is_valid_and_explained() -> None:
    outcome = judge(killed(gone=range(296, 301)))
    assert (outcome.verdict, outcome.measures["lost"], outcome.measures["lost_asynchronous"]) == ("valid", 5, 5.0)
    assert len(outcome.lost_operations) == 5


HOLE = (100, *range(297, 301))


def test_a_hole_is_invalid() -> None:
    outcome = judge(killed(gone=HOLE))
    assert outcome.verdict == "invalid"
    assert mentioned(outcome, "hole")


def test_a_write_that_the_successor_lost_is_invalid() -> None:
    outcome = judge(killed(gone=(400,), final={J: list(range(1, 400))}))
    assert outcome.verdict == "invalid"
    assert mentioned(outcome, "unexplained")


@pytest.mark.parametrize(
    "planted",
    [
        {J: [*range(1, 401), 7]},  # duplicated
        {J: [2, 1, *range(3, 401)]},  # reordered
        {J: [*range(1, 401), 999]},  # phantom
    ],
)
def test_a_journal_that_does_not_say_what_was_answered_is_invalid(planted: dict[bytes, list[int]]) -> None:
    assert verdict(killed(final=planted)) == "invalid"


STALLED = Stall(3200 * MS, 501.0)


def test_a_host_that_stood_still_for_more_than_half_the_timeout_makes_it_unknown_and_is_named() -> None:
    outcome = judge(killed(stalls=[STALLED]))
    assert outcome.verdict == "unknown"
    assert mentioned(outcome, "501 ms")
    assert verdict(killed(stalls=[Stall(3200 * MS, 499.0)])) == "valid"


def test_a_stall_before_the_load_began_counts_for_nothing() -> None:
    assert verdict(killed(stalls=[Stall(-1 * S, 900.0)])) == "valid"


def test_a_hole_stays_invalid_however_long_the_host_stood_still() -> None:
    assert verdict(killed(gone=HOLE, stalls=[STALLED])) == "invalid"
    assert verdict(killed(gone=HOLE, stalls=[STALLED], drift_ms=500.0)) == "invalid"
    assert verdict(killed(final={J: [*range(1, 401), 7]}, stalls=[STALLED])) == "invalid"


def test_an_expectation_that_is_not_met_is_invalid_and_said_with_both_numbers() -> None:
    outcome = judge(killed(expects=[EXPLAINED, Expectation("gap_ms", None, 1000, "it is quick")]))
    assert outcome.verdict == "invalid"
    assert mentioned(outcome, "gap_ms ≤ 1000, measured 12")
    assert mentioned(outcome, "it is quick")
    assert verdict(killed(expects=[Expectation("gap_ms", 2000, None)])) == "invalid"  # better than expected is wrong, too


def test_an_expectation_that_a_stall_may_have_broken_is_unknown() -> None:
    assert verdict(killed(expects=[Expectation("gap_ms", None, 1000)], stalls=[STALLED])) == "unknown"


def test_a_measure_that_is_missing_makes_it_unknown() -> None:
    outcome = judge(killed(expects=[EXPLAINED, Expectation("moonlight", 1, None)]))
    assert outcome.verdict == "unknown"
    assert mentioned(outcome, "moonlight")


def test_a_broken_expectation_beats_one_that_could_not_be_measured() -> None:
    assert verdict(killed(expects=[Expectation("moonlight", 1, None), Expectation("promotions", 7, 7)])) == "invalid"


def test_a_condition_that_did_not_come_is_invalid_and_under_a_stall_unknown() -> None:
    missed = ["after kill:primary@0 the topology was not settled within 90 s"]
    outcome = judge(killed(missed=missed))
    assert outcome.verdict == "invalid"
    assert mentioned(outcome, "not settled")
    assert verdict(killed(missed=missed, stalls=[STALLED])) == "unknown"


@pytest.mark.parametrize(("drift", "expected"), [(51.0, "unknown"), (-51.0, "unknown"), (49.0, "valid")])
def test_a_wall_clock_that_was_set_makes_it_unknown_because_logs_then_lie(drift: float, expected: str) -> None:
    outcome = judge(killed(drift_ms=drift))
    assert outcome.verdict == expected
    assert mentioned(outcome, "wall clock") == (expected == "unknown")


def test_a_failover_that_nobody_caused_breaks_the_expected_number() -> None:
    outcome = judge(killed(spontaneous=True))
    assert outcome.verdict == "invalid"
    assert mentioned(outcome, "promotions = 1, measured 2")


def test_without_the_final_state_nothing_is_valid() -> None:
    outcome = judge(killed(read_nothing=True))
    assert outcome.verdict == "unknown"
    assert outcome.measures["unexplained"] is None
    assert verdict(killed(read_nothing=True, expects=())) == "unknown"
    assert verdict(killed(read_nothing=True, missed=["shard 1 had no primary at the end"])) == "invalid"


def test_without_any_expectation_the_checkers_still_judge() -> None:
    assert verdict(killed(expects=())) == "valid"
    assert verdict(killed(expects=(), gone=HOLE)) == "invalid"


def test_the_gap_of_a_load_that_never_came_back_reaches_to_the_end() -> None:
    played = killed(expects=())
    only = History()
    for operation in played.recorded.history:
        if operation.node == "n1":
            only.ok(only.invoke(1, "append", J, operation.value, operation.invoked), operation.returned, "n1", operation.result)
        else:
            only.fail(only.invoke(1, "append", J, operation.value, operation.invoked), operation.returned, "n2", "READONLY")
    final = FinalState(journals={J: list(range(1, 301))})
    outcome = judge(replace(played, recorded=replace(played.recorded, history=only), final=final))
    gap = outcome.measures["gap_ms"]
    assert gap is not None
    assert gap >= 2000


def test_a_client_that_was_never_acked_has_a_gap_as_long_as_the_load() -> None:
    played = killed(expects=())
    alone = replace(played.drill.load, clients=(ClientSpec("c1"), ClientSpec("c2", follow=False)))
    processes = (*played.recorded.processes, Process("c2", ""))
    played.recorded.history.fail(played.recorded.history.invoke(3, "append", J, 999, 2 * S), 2 * S, "n1", "UNREACHED")
    played = replace(played, drill=replace(played.drill, load=alone), recorded=replace(played.recorded, processes=processes))
    gap = judge(played).measures["gap_sticky_ms"]
    assert gap is not None
    assert gap > 5000


def test_slots_that_moved_away_do_not_hide_the_gap_of_those_that_stayed() -> None:
    """Both tags are of the first shard; one has moved to n2, which acks all the time, and n1 is away from 1 s to 3 s."""
    stays, moved = (b"j:{%b}" % tag_for(slot) for slot in (10, 5000))
    history = History()
    for number, at in enumerate(range(0, 4 * S, 10 * MS), 1):
        history.ok(history.invoke(1, "append", moved, number, at), at + MS, "n1" if at < S // 2 else "n2", number)
        if not S < at < 3 * S:
            history.ok(history.invoke(2, "append", stays, 1000 + number, at), at + MS, "n1", number)
    played = killed(expects=())
    drill = replace(played.drill, topology=TopologySpec.cluster())
    samples = {node.name: played.samples.get(node.name, [])[:1] for node in drill.topology.nodes()}
    recorded = replace(played.recorded, history=history)
    gap = judge(replace(played, drill=drill, recorded=recorded, samples=samples, said=())).measures["gap_ms"]
    assert gap is not None
    assert gap >= 1990


def test_json_carries_the_verdict_its_reasons_and_every_number() -> None:
    told = judge(killed(gone=HOLE)).to_json()
    assert told["verdict"] == "invalid"
    assert told["reasons"]
    assert {one["checker"] for one in told["checkers"]} >= {"loss", "journals", "availability", "host"}
    assert told["loss"]["wrong"] == {"hole": 1}
    assert told["faults"] == [{"name": "kill", "target": "primary", "nodes": ["n1"], "start": 3.0, "end": 6.0, "detail": ""}]
