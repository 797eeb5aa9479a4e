"""The rehearsal's judgement on hand-made histories: the move allows no loss, the failover only an explained one."""

from __future__ import annotations

import pytest

from valkeep.drill.checkers.transactions import Group
from valkeep.drill.history import History
from valkeep.drill.rehearsal.end_state import EndState
from valkeep.drill.rehearsal.failover import OffsetSamples
from valkeep.drill.rehearsal.judge import judge_failover, judge_move, survival_at
from valkeep.drill.rehearsal.operations import POOL


class Recorder:
    """A history written like a story: every operation takes 5 of 10 ns."""

    def __init__(self) -> None:
        self.history = History()
        self.at = 0

    def ok(self, function: str, key: bytes, value: int | None, node: str, result: int | None = None, process: int = 1) -> int:
        number = self.history.invoke(process, function, key, value, self.at)
        self.history.ok(number, self.at + 5, node, result)
        self.at += 10
        return number

    def info(self, function: str, key: bytes, value: int | None, node: str) -> int:
        number = self.history.invoke(1, function, key, value, self.at)
        self.history.info(number, self.at + 5, node, "LOST")
        self.at += 10
        return number


def moved() -> tuple[Recorder, EndState]:
    """One operation of each kind at the source, one at the target."""
    story = Recorder()
    for step, node in enumerate(("source", "target")):
        story.ok("set", b"0|s", step, node)
        story.ok("incr", b"0|c", None, node, step + 1)
        story.ok("rpush", b"0|l", step, node)
        story.ok("xadd", b"0|x", step, node, step << 20)
        story.ok("spop", b"0|p", None, node, step)
        story.ok("multi", b"0|t", step, node)
        story.ok("expire", b"0|e", 100 + step, node, 1)
    end = EndState(
        {b"0|s": 1}, {b"0|c": 2}, {b"0|l": [0, 1]}, {b"0|x": [(0, 0), (1 << 20, 1)]}, {b"0|p": set(range(2, POOL))},
        {b"0|t": Group(1, 1, [0, 1])}, {b"0|e": 101_000},
    )  # fmt: skip
    return story, end


def test_a_move_that_kept_everything_is_valid() -> None:
    story, end = moved()
    judgement = judge_move(story.history, end, stop=len(story.history))
    assert (judgement.verdict, judgement.acked, judgement.lost, judgement.wrong) == ("valid", 14, 0, 0)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("registers", b"0|s", 0),
        ("counters", b"0|c", 1),
        ("lists", b"0|l", [0]),
        ("streams", b"0|x", [(0, 0)]),
        ("pools", b"0|p", set(range(1, POOL))),
        ("groups", b"0|t", Group(0, 0, [0])),
        ("expiries", b"0|e", -1),
    ],
)
def test_one_lost_write_of_any_kind_makes_a_move_invalid(part: str, key: bytes, value: object) -> None:
    story, end = moved()
    getattr(end, part)[key] = value
    judgement = judge_move(story.history, end, stop=len(story.history))
    assert (judgement.verdict, judgement.lost) == ("invalid", 1)


def test_writes_after_the_checkpoint_are_not_asked_for() -> None:
    story, end = moved()
    stop = len(story.history)
    story.ok("rpush", b"0|l", 99, "target")
    assert judge_move(story.history, end, stop=stop).verdict == "valid"


def failed_over() -> tuple[Recorder, EndState]:
    """The target acks 2, 3 and 4 and is killed; its replica had only 2; the writer goes on there with 5. (0 and 1 are the move's.)"""
    story, end = moved()
    for value in (2, 3, 4):
        story.ok("rpush", b"0|l", value, "target")
    story.ok("set", b"0|s", 77, "target")
    story.ok("incr", b"0|c", None, "target", 3)
    story.info("rpush", b"0|l", 50, "target")
    story.ok("rpush", b"0|l", 5, "replica")
    story.ok("incr", b"0|c", None, "replica", 3)
    end.lists[b"0|l"] = [0, 1, 2, 5]
    end.counters[b"0|c"] = 3
    return story, end


def test_a_lost_suffix_of_the_dead_primary_is_allowed_and_counted() -> None:
    story, end = failed_over()
    judgement = judge_failover(story.history, end, killed="target", promised_until=story.history[14].returned)
    assert judgement.verdict == "valid"
    assert (judgement.lost, judgement.allowed) == (4, 4)  # 3, 4, the SET, the INCR


def test_a_loss_that_the_replica_had_got_is_not_allowed() -> None:
    story, end = failed_over()
    judgement = judge_failover(story.history, end, killed="target", promised_until=story.history[15].returned)
    assert judgement.verdict == "invalid"
    assert (judgement.lost, judgement.allowed) == (4, 3)


def test_a_hole_is_not_a_suffix() -> None:
    story, end = failed_over()
    end.lists[b"0|l"] = [0, 1, 2, 4, 5]
    assert judge_failover(story.history, end, killed="target", promised_until=None).verdict == "invalid"


def test_the_failover_may_not_lose_what_the_source_acked() -> None:
    story, end = failed_over()
    end.lists[b"0|l"] = [1, 2, 5]
    assert judge_failover(story.history, end, killed="target", promised_until=None).verdict == "invalid"


def test_a_popped_member_that_came_back_and_was_popped_again_was_lost_by_the_first_node() -> None:
    story, end = moved()
    lost = story.ok("spop", b"0|p", None, "target", 7)
    story.ok("spop", b"0|p", None, "replica", 7)
    end.pools[b"0|p"] -= {7}
    assert lost in survival_at(story.history, end, "target").lost
    assert judge_failover(story.history, end, killed="target", promised_until=None).verdict == "valid"


def test_superseded_values_of_a_register_went_with_the_primary() -> None:
    story, end = moved()
    first, second = story.ok("set", b"0|s", 10, "target"), story.ok("set", b"0|s", 11, "target")
    end.registers[b"0|s"] = 10
    survival = survival_at(story.history, end, "target")
    assert first in survival.survived
    assert second in survival.lost


@pytest.mark.parametrize(("until", "survivors"), [(100_000, 0), (110_000, 1)])
def test_an_expire_that_was_lost_before_anything_else_of_its_writer_is_allowed(until: int, survivors: int) -> None:
    """It leaves no trace but that an older one stands there."""
    story, end = moved()
    numbers = [story.ok("expire", b"0|f", 100 + 10 * step, node) for step, node in enumerate(("source", "target", "target"))]
    story.ok("set", b"0|s", 12, "target")  # lost, too, and seen to be
    end.expiries[b"0|f"] = until
    survival = survival_at(story.history, end, "target")
    assert survival.survived & set(numbers) == set(numbers[1 : 1 + survivors])
    assert survival.lost >= set(numbers[1 + survivors :])
    judgement = judge_failover(story.history, end, killed="target", promised_until=None)
    assert (judgement.verdict, judgement.lost) == ("valid", 3 - survivors)


def test_what_was_never_there_before_the_failover_may_have_gone_with_the_primary() -> None:
    story, end = moved()
    new, late = story.ok("set", b"0|n", 1, "target"), story.ok("expire", b"0|m", 100, "target")
    end.expiries[b"0|m"] = -1
    assert survival_at(story.history, end, "target").lost == {new, late}
    assert judge_failover(story.history, end, killed="target", promised_until=None).verdict == "valid"


def test_an_expiry_of_nobody_is_no_loss_that_a_failover_explains() -> None:
    story, end = moved()
    story.ok("expire", b"0|e", 200, "target", 1)
    end.expiries[b"0|e"] = 150_000
    assert survival_at(story.history, end, "target").lost == set()
    assert judge_failover(story.history, end, killed="target", promised_until=None).verdict == "invalid"


def test_offset_samples_bound_what_a_promoted_replica_must_have() -> None:
    samples = OffsetSamples([(100, 10), (200, 20), (300, 30)])
    assert samples.promised_until(25) == 200
    assert samples.promised_until(30) == 300
    assert samples.promised_until(5) is None
