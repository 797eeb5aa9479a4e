"""Several lanes that work side by side: the first that fails ends what is waited for, and they tell of themselves as one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from valkeep.errors import Refused
from valkeep.migrate.abreast import Chorus, beside, together
from valkeep.migrate.gateway.gateway import Gateway
from valkeep.report.events import Event, Lag, Note, Phase, Progress, VerdictEvent


class Failing:
    """As a gateway that is watched."""

    def __init__(self, after: float = 3600.0) -> None:
        self._after = after

    async def watch(self) -> None:
        await asyncio.sleep(self._after)
        raise Refused("the stream is held", remedy="look", code="VK-HELD")


def gateways(*found: Failing) -> list[Gateway]:
    return [cast("Gateway", one) for one in found]


def test_what_is_waited_for_ends_when_any_gateway_fails() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def story() -> None:
        before = asyncio.all_tasks()
        with pytest.raises(Refused, match="the stream is held"):
            await beside(gateways(Failing(), Failing(0.01)), work())
        assert ended == [True]
        assert asyncio.all_tasks() == before  # nothing is left behind

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_gateway_that_has_failed_already_is_heard_before_the_work() -> None:
    async def story() -> None:
        failed = Failing(0)
        for _ in range(3):
            with pytest.raises(Refused):
                await beside(gateways(failed), asyncio.sleep(0.05))

    asyncio.run(story())


def test_the_first_of_several_works_that_fails_ends_the_others() -> None:
    cancelled = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def fails() -> None:
        raise Refused("no", remedy="none", code="VK-HELD")

    async def story() -> None:
        with pytest.raises(Refused):
            await together([slow(), fails(), slow()])
        await together([])

    asyncio.run(asyncio.wait_for(story(), 10))
    assert len(cancelled) == 2


def test_progress_of_several_voices_is_their_sum_and_words_have_a_name() -> None:
    heard: list[Event] = []
    chorus = Chorus(heard.append)
    first, second = chorus.voice("1"), chorus.voice("2")
    first(Progress(1.0, "snapshot", 10, 100, 50, 500))
    second(Progress(2.0, "snapshot", 1, 2, 3, 4))
    first(Progress(3.0, "load", 5))
    first(Progress(4.0, "snapshot", 20, 200, 50, 500))
    second(Note(5.0, "info", "goes on"))
    lag = Lag(6.0, "target", 7)
    second(lag)
    assert heard == [
        Progress(1.0, "snapshot", 10, 100, 50, 500),
        Progress(2.0, "snapshot", 11, 102, 53, 504),
        Progress(3.0, "load", 5),
        Progress(4.0, "snapshot", 21, 202, 53, 504),
        Note(5.0, "info", "shard 2: goes on"),
        lag,
    ]


def test_a_target_is_as_far_behind_as_all_that_is_written_to_it() -> None:
    heard: list[Event] = []
    chorus = Chorus(heard.append)
    first, second = chorus.voice("1"), chorus.voice("2")
    first(Lag(1.0, "a", 1000, 20.0))
    second(Lag(1.5, "a", 7, 0.5))
    second(Lag(2.0, "b", 3, None))
    second(Lag(4.5, "a", 8, 0.4))  # nobody has heard of the first for a while
    assert heard == [Lag(1.0, "a", 1000, 20.0), Lag(1.5, "a", 1007, 20.0), Lag(2.0, "b", 3, None), Lag(4.5, "a", 8, 0.4)]


def test_a_voice_that_sings_alone_is_heard_as_it_is() -> None:
    heard: list[Any] = []
    note = Note(1.0, "info", "goes on")
    Chorus(heard.append).voice("")(note)
    assert heard == [note]


def verdict(at: float, word: str) -> VerdictEvent:
    return VerdictEvent(at, word, {"of": "verify-full"})


def test_a_phase_of_several_voices_begins_with_the_first_and_ends_with_the_last() -> None:
    heard: list[Event] = []
    chorus = Chorus(heard.append)
    first, second = chorus.voice("1"), chorus.voice("2")
    for at, emit in ((1.0, first), (2.0, second)):
        emit(Phase(at, "verify-full"))
    first(Phase(3.0, "verify-full", done=True, detail="valid"))
    first(verdict(3.0, "valid"))
    assert heard == [Phase(1.0, "verify-full")]
    second(Phase(4.0, "verify-full", done=True, detail="valid"))
    second(verdict(4.0, "valid"))
    assert heard[1:] == [Phase(4.0, "verify-full", done=True, detail="valid"), verdict(4.0, "valid")]
    first(Phase(5.0, "verify-full"))  # again, and alone
    first(Phase(6.0, "verify-full", done=True, detail="unknown"))
    first(verdict(6.0, "unknown"))
    assert heard[3:] == [Phase(5.0, "verify-full"), Phase(6.0, "verify-full", done=True, detail="unknown"), verdict(6.0, "unknown")]


@pytest.mark.parametrize(
    ("verdicts", "worst"), [(("valid", "invalid"), "invalid"), (("unknown", "valid"), "unknown"), (("invalid", "unknown"), "invalid")]
)
def test_one_bad_verdict_is_that_of_all(verdicts: tuple[str, str], worst: str) -> None:
    heard: list[Event] = []
    chorus = Chorus(heard.append)
    voices = [chorus.voice("1"), chorus.voice("2")]
    for emit in voices:
        emit(Phase(1.0, "verify-full"))
    for emit, word in zip(voices, verdicts, strict=True):
        emit(Phase(2.0, "verify-full", done=True, detail=word))
        emit(verdict(2.0, word))
    said = f"shard 1: {verdicts[0]}, shard 2: {verdicts[1]}"
    assert heard[1:] == [Phase(2.0, "verify-full", done=True, detail=said), verdict(2.0, worst)]


def test_voices_that_come_one_after_the_other_are_in_one_phase_while_they_gather() -> None:
    heard: list[Event] = []
    chorus = Chorus(heard.append)
    with chorus.gathering():
        for number in (1, 2):
            emit = chorus.voice(str(number))
            emit(Phase(number, "snapshot"))
            emit(Phase(number + 0.5, "snapshot", done=True, detail=f"{number} keys"))
        third = chorus.voice("3")
        third(Phase(3.0, "snapshot"))
    assert heard == [Phase(1.0, "snapshot")]
    third(Phase(9.0, "snapshot", done=True, detail="3 keys"))
    assert heard[1:] == [Phase(9.0, "snapshot", done=True, detail="shard 1: 1 keys, shard 2: 2 keys, shard 3: 3 keys")]


def test_what_is_begun_again_is_told_again_and_steps_that_have_no_end_once() -> None:
    heard: list[Event] = []
    chorus = Chorus(heard.append)
    first, second = chorus.voice("1"), chorus.voice("2")
    first(Phase(1.0, "cutover:pause"))
    first(Phase(2.0, "cutover:drain"))
    second(Phase(3.0, "cutover:pause"))
    second(Phase(4.0, "cutover:drain"))
    second(Phase(5.0, "cutover:pause"))
    first(Phase(6.0, "cutover:pause"))
    assert heard == [Phase(1.0, "cutover:pause"), Phase(2.0, "cutover:drain"), Phase(5.0, "cutover:pause")]


def rounds(*events: tuple[str, str]) -> list[str]:
    """What is told of a phase: ("begin" | "end" | verdict, …). ``events``: voice, "begin" or the verdict with which it ends."""
    told: list[Event] = []
    chorus = Chorus(told.append)
    voices = {name: chorus.voice(name) for name, _ in events}
    for at, (name, what) in enumerate(events):
        if what == "begin":
            voices[name](Phase(at, "verify-round"))
        else:
            voices[name](Phase(at, "verify-round", done=True, detail=what))
            voices[name](VerdictEvent(at, what, {"of": "verify-round"}))
    return ["end" if isinstance(one, Phase) and one.done else one.verdict if isinstance(one, VerdictEvent) else "begin" for one in told]


def test_a_lane_whose_round_lasts_longer_than_the_others_is_heard_at_last() -> None:
    """The others begin another one meanwhile: it is in that, too, until it has ended its own."""
    long = rounds(("1", "begin"), ("2", "begin"), ("1", "valid"), ("1", "begin"), ("1", "valid"), ("2", "invalid"))
    assert long == ["begin", "begin", "end", "invalid"]


def test_a_lane_that_joins_a_round_having_ended_the_one_before_is_waited_for() -> None:
    told = rounds(
        ("1", "begin"), ("2", "begin"), ("1", "valid"), ("1", "begin"), ("2", "valid"), ("2", "begin"), ("1", "valid"), ("2", "invalid")
    )
    assert told[-2:] == ["end", "invalid"]
    assert "valid" not in told
