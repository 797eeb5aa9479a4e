"""Schedules as text: what is written is read back, and what is no step is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkeep.drill import faults
from valkeep.drill.script import CONDITIONS, HEAL, Expectation, Load, Step, parse_schedule, schedule_text
from valkeep.errors import UsageError
from valkeep.topology.spec import TopologySpec

words = st.from_regex(r"[a-z][a-z-]{0,11}", fullmatch=True)
numbers = st.integers(0, 100_000).map(lambda number: number / 100)
steps = st.builds(
    Step,
    fault=words,
    target=st.lists(st.from_regex(r"[a-z]{1,8}\d?(:(\d|\*))?", fullmatch=True), min_size=1, max_size=3).map(",".join),
    after=numbers,
    lasts=numbers,
    until=st.sampled_from(CONDITIONS),
    options=st.lists(st.tuples(words, st.from_regex(r"[a-z0-9.-]{1,8}", fullmatch=True)), max_size=3).map(tuple),
)


@given(st.lists(steps, max_size=6))
def test_a_schedule_is_read_back_as_it_was_written(listed: list[Step]) -> None:
    assert parse_schedule(schedule_text(tuple(listed))) == tuple(listed)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("kill:primary@2.0", Step("kill", "primary", 2.0)),
        ("partition:primary,c1@0+8", Step("partition", "primary,c1", 0.0, 8.0)),
        ("pause:replica:2@1.5+3", Step("pause", "replica:2", 1.5, 3.0)),
        ("config:primary(min-replicas-to-write=1)@0", Step("config", "primary", options=(("min-replicas-to-write", "1"),))),
        ("heal:all@4~settled", Step(HEAL, "all", 4.0, until="settled")),
        ("kill:primary:*@0~none", Step("kill", "primary:*", until="none")),
    ],
)
def test_the_forms_of_the_documentation_mean_what_it_says(text: str, step: Step) -> None:
    assert parse_schedule(text) == (step,)
    assert str(parse_schedule(str(step))[0]) == str(step)


@pytest.mark.parametrize(
    "text", ["kill", "kill:primary", "kill@2", "kill:primary@", "kill:primary@-1", "kill:primary@1+", "Kill:primary@1", "kill:primary(x)@0"]
)
def test_what_is_no_step_is_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_schedule(f"kill:primary@0 {text}")
    assert text.partition("(")[0] in caught.value.message
    assert caught.value.remedy


def test_an_empty_schedule_has_no_steps() -> None:
    assert parse_schedule("  ") == ()
    assert schedule_text(()) == ""


@pytest.mark.parametrize("until", CONDITIONS)
def test_every_condition_can_be_waited_for_and_no_other(until: str) -> None:
    faults.check([Step("kill", "primary", until=until)], TopologySpec.sentinel(), Load())
    with pytest.raises(UsageError, match="no condition"):
        faults.check([Step(HEAL, "all", until=until + "x")], TopologySpec.sentinel(), Load())


@pytest.mark.parametrize(
    ("expected", "value", "met"),
    [
        (Expectation("lost", 0, 0), 0.0, True),
        (Expectation("lost", 0, 0), 1.0, False),
        (Expectation("lost", 10, None), 10.0, True),
        (Expectation("lost", 10, None), 9.9, False),
        (Expectation("lost", None, 10), 10.0, True),
        (Expectation("lost", None, 10), 10.1, False),
        (Expectation("lost"), 1e9, True),
        (Expectation("lost", 0, 10), None, None),
    ],
)
def test_an_expectation_is_met_within_its_bounds_and_unknown_without_a_value(
    expected: Expectation, value: float | None, met: bool | None
) -> None:
    assert expected.met(value) is met
