"""A verification whose links broke, or whose source went on elsewhere, tells nothing: another one begins, and a cut-over waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from valkeep.errors import ConnectionLost
from valkeep.migrate import proof as module
from valkeep.migrate.fence import Aborted
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import NotEqual
from valkeep.migrate.proof import Proof
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.report.events import Event, Phase

VALID = Comparison(verdict="valid", keys_source=7)
LATER = Comparison(verdict="valid", keys_source=8)
WRONG = Comparison(verdict="invalid", missing=1)


class Scripted:
    """A verifier: each look gives the next answer; "broken" is a link that breaks under it, "moved" slots that do not stand still."""

    def __init__(self, *answers: Comparison | str, during: Callable[[], None] = lambda: None) -> None:
        self.answers = list(answers)
        self.broken = self.moved = False
        self._during = during

    async def full(self) -> Comparison:
        self._during()
        answer = self.answers.pop(0)
        if isinstance(answer, Comparison):
            return answer
        self.broken, self.moved = True, answer == "moved"
        return Comparison.unknown("the link broke")

    round = full

    async def final(self, offset: int) -> Comparison:
        del offset
        return await self.full()


class Story:
    """``verifiers``: those that come after the first; an exception: it cannot be begun yet."""

    def __init__(self, first: Scripted, *verifiers: Scripted | Exception, lane: str = "", clock: Callable[[], float] = lambda: 0.0) -> None:
        self.verifiers = list(verifiers)
        self.history = "one"
        self.heard: list[Event] = []
        journal = Journal(None, self.heard.append, clock)
        self.proof = Proof(cast("Verifier", first), journal, self.renew, lambda: self.history, lane)

    async def renew(self) -> Verifier:
        one = self.verifiers.pop(0)
        if isinstance(one, Exception):
            raise one
        return cast("Verifier", one)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)


def begun(story: Story) -> list[str]:
    return [event.name for event in story.heard if isinstance(event, Phase)]


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))


def test_a_full_comparison_that_breaks_off_begins_again_as_soon_as_it_can() -> None:
    story = Story(Scripted("broken"), ConnectionLost("away", remedy="wait"), Scripted(VALID))
    run(story.proof.full())
    assert story.proof.comparison == VALID


def test_a_source_that_went_on_elsewhere_makes_even_a_difference_void() -> None:
    def fail_over() -> None:
        story.history = "two"

    story = Story(Scripted(WRONG, during=fail_over), Scripted(VALID))
    run(story.proof.full())
    assert story.proof.comparison == VALID


def test_a_difference_of_an_unbroken_look_is_one() -> None:
    with pytest.raises(NotEqual):
        run(Story(Scripted(WRONG)).proof.full())


def test_links_that_break_every_time_end_in_unknown() -> None:
    story = Story(Scripted("broken"), *[Scripted("broken") for _ in range(module.BEGINNINGS)])
    with pytest.raises(NotEqual, match="5 times in a row"):
        run(story.proof.full())


def test_slots_that_move_for_long_end_nothing() -> None:
    many = 3 * module.BEGINNINGS
    story = Story(Scripted("moved"), *[Scripted("moved") for _ in range(many)], Scripted(VALID), lane="1")
    run(story.proof.full())
    assert story.proof.comparison == VALID

    def move() -> None:
        story.history += "1"

    story = Story(Scripted(VALID, during=move), *[Scripted(WRONG, during=move) for _ in range(many)], Scripted(VALID), lane="1")
    run(story.proof.full())
    assert (story.proof.comparison, story.verifiers) == (VALID, [])
    story = Story(Scripted("broken"), *[Scripted("broken") for _ in range(module.BEGINNINGS)], lane="1")
    with pytest.raises(NotEqual, match="5 times in a row"):
        run(story.proof.full())


def test_a_round_whose_link_broke_is_followed_by_a_full_comparison() -> None:
    story = Story(Scripted(VALID, "broken"), Scripted(LATER))
    run(story.proof.full())
    run(story.proof.round())
    assert story.proof.comparison == LATER
    assert story.verifiers == []
    assert begun(story) == ["verify", "verified"]  # of the second one; the first is its caller's step


def test_a_round_in_which_everything_holds_is_no_step_of_its_own() -> None:
    story = Story(Scripted(VALID, VALID))
    run(story.proof.full())
    run(story.proof.round())
    assert begun(story) == []


def test_while_nobody_waits_everything_is_not_compared_again_right_after_it_was() -> None:
    async def work() -> None:
        now = [0.0]

        def slow() -> None:
            now[0] += 30.0  # a comparison of everything

        story = Story(Scripted(VALID, "broken", during=slow), Scripted(VALID, during=slow), Scripted(LATER, LATER), clock=lambda: now[0])
        await story.proof.full()
        await story.proof.round()
        assert len(story.verifiers) == 2  # not yet
        now[0] += 30.0 * module.REST - 40.0
        await story.proof.round()
        assert len(story.verifiers) == 2
        now[0] += 20.0
        await story.proof.round()
        assert len(story.verifiers) == 1
        story.history = "two"  # void again, and now somebody says go
        await story.proof.settle()
        assert (story.verifiers, story.proof.comparison) == ([], LATER)

    run(work())


def test_a_cut_over_whose_last_look_broke_off_is_called_off_and_may_be_tried_again() -> None:
    async def work() -> None:
        story = Story(Scripted(VALID, "broken", "broken"), Scripted(VALID, VALID))
        await story.proof.full()
        with pytest.raises(Aborted) as aborted:
            await story.proof.last(812, held=True)
        assert aborted.value.code == "VK-CUTOVER-LINK"
        await story.proof.settle()
        assert await story.proof.last(812, held=True) == (0, 0)

    run(work())
