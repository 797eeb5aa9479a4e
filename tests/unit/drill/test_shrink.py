"""A schedule that fails is shrunk to the least that still fails, whatever it takes to make it fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkeep.drill.script import Step, parse_schedule, schedule_text
from valkeep.drill.shrink import Shrunk, shrink

EIGHT = parse_schedule(" ".join(f"pause:n{number}@0.1+0.2" for number in range(1, 9)))


class Drills:
    """Plays no drill, and counts: a schedule fails when it has all of these steps."""

    def __init__(self, culprits: Iterable[Step], passes_first: int = 0) -> None:
        self.culprits, self.passes_first = set(culprits), passes_first
        self.played: list[tuple[Step, ...]] = []

    async def fails(self, steps: tuple[Step, ...]) -> bool:
        self.played.append(steps)
        return self.culprits <= set(steps) and self.played.count(steps) > self.passes_first

    def shrunk(self, steps: tuple[Step, ...], *, runs: int = 1000, tries: int = 1) -> Shrunk:
        return asyncio.run(shrink(steps, self.fails, runs=runs, tries=tries))


@pytest.mark.parametrize("pair", [(0, 1), (0, 7), (3, 4), (2, 6)])
def test_a_violation_that_only_a_pair_of_steps_triggers_is_shrunk_to_the_pair(pair: tuple[int, int]) -> None:
    culprits = tuple(EIGHT[number] for number in pair)
    found = Drills(culprits).shrunk(EIGHT)
    assert (found.steps, found.complete) == (culprits, True)
    assert found.runs <= 40


def test_one_culprit_of_eight_takes_few_runs() -> None:
    found = Drills(EIGHT[5:6]).shrunk(EIGHT)
    assert found.steps == EIGHT[5:6]
    assert found.runs <= 12


def test_what_fails_without_any_fault_is_shrunk_to_nothing() -> None:
    found = Drills(()).shrunk(EIGHT)
    assert (schedule_text(found.steps), found.complete) == ("", True)


@given(st.sets(st.integers(0, 11), min_size=1), st.integers(0, 11))
def test_what_is_left_is_exactly_what_is_needed_in_its_order_and_no_schedule_is_played_twice(wanted: set[int], more: int) -> None:
    steps = tuple(Step("pause", f"n{number}") for number in range(12))
    drills = Drills(steps[number] for number in wanted | {more})
    found = drills.shrunk(steps)
    assert found.steps == tuple(steps[number] for number in sorted(wanted | {more}))
    assert found.complete
    assert len(drills.played) == len(set(drills.played)) == found.runs
    assert steps not in drills.played


def test_a_fault_and_the_heal_that_follows_it_stay_together() -> None:
    steps = parse_schedule("pause:n2@0+0.1 kill:primary@0~moved heal:kill@0.5~redundant pause:n3@0+0.1 isolate:n1@0 heal:all@1")
    drills = Drills(steps[1:2])
    assert drills.shrunk(steps).steps == steps[1:3]
    assert all((steps[1] in played) == (steps[2] in played) and (steps[4] in played) == (steps[5] in played) for played in drills.played)


@pytest.mark.parametrize("runs", range(8))
def test_no_more_runs_are_played_than_allowed_and_the_best_so_far_is_kept(runs: int) -> None:
    drills = Drills((EIGHT[1], EIGHT[6]))
    found = drills.shrunk(EIGHT, runs=runs)
    assert found.runs == len(drills.played) == runs
    assert not found.complete
    assert {EIGHT[1], EIGHT[6]} <= set(found.steps)


def test_a_schedule_that_fails_every_other_time_is_tried_again() -> None:
    culprits = (EIGHT[2], EIGHT[3])
    assert Drills(culprits, passes_first=1).shrunk(EIGHT).steps == EIGHT
    assert Drills(culprits, passes_first=1).shrunk(EIGHT, tries=2).steps == culprits
