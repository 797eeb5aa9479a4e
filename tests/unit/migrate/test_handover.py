"""Telling a running migration to stop: what whoever said so is told, wherever it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from valkeep.errors import Refused
from valkeep.migrate.cutover.abort import to_the_end
from valkeep.migrate.cutover.handover import Handover, Ready
from valkeep.migrate.state import MigrationState, StateFile


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    file = StateFile(tmp_path)
    file.write(MigrationState("cutting", "redis://a:1", "redis://b:1", 1))
    return file


def test_a_stop_after_the_point_of_no_return_is_told_that_the_cut_over_is_complete(state: StateFile) -> None:
    async def story() -> None:
        handover = Handover(Ready(), state)
        stop = asyncio.create_task(handover.stop())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(10)
        state.step("promoted")  # the promotion was under way already, and nothing interrupts it
        said = handover.aborted()
        assert (said.code, said.definite) == ("VK-ABORT-PROMOTED", False)
        handover.ended()
        with pytest.raises(Refused) as refused:
            await stop
        assert refused.value.code == "VK-ABORT-PROMOTED"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("step", "go", "stop"),
    [
        ("promoted", "cut over already", "the cut-over is complete"),
        ("committed", "cut over already", "the cut-over is complete"),
        ("rolled-back", "was rolled back", "was rolled back"),
    ],
)
def test_who_comes_after_the_cut_over_is_told_who_is_the_primary(state: StateFile, step: str, go: str, stop: str) -> None:
    async def story() -> None:
        handover = Handover(Ready(waiting=True), state)
        state.step(step)
        handover.ended()
        for say, said in ((handover.go, go), (handover.stop, stop)):
            with pytest.raises(Refused, match=said) as refused:
                await say()
            assert refused.value.remedy == f"move the writers to the {'source' if step == 'rolled-back' else 'target'}"

    asyncio.run(story())


def test_what_an_earlier_migration_left_is_no_cut_over_of_this_one(state: StateFile) -> None:
    async def story() -> None:
        state.step("promoted")
        state.forget()
        assert not Handover(Ready(), state).is_cut_over()
        assert StateFile(state.directory).read() is not None  # the file is there still

    asyncio.run(story())


def test_a_second_stop_does_not_interrupt_what_the_first_one_undoes(state: StateFile) -> None:
    async def story() -> None:
        handover = Handover(Ready(), state)
        stops = [asyncio.create_task(handover.stop()) for _ in range(2)]
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(10)
        await asyncio.sleep(0)
        handover.undone = ["detached"]
        handover.ended()
        assert await asyncio.gather(*stops) == [{"done": ["detached"]}] * 2

    asyncio.run(story())


def test_calling_off_comes_to_its_end_however_often_it_is_cancelled_and_the_stop_is_not_forgotten() -> None:
    async def story() -> None:
        go, done = asyncio.Event(), asyncio.Event()

        async def call_off() -> None:
            await go.wait()
            done.set()

        task = asyncio.create_task(to_the_end(call_off()))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done.is_set()

    asyncio.run(story())


def test_who_says_go_before_there_is_something_to_cut_over_is_refused(state: StateFile) -> None:
    async def story() -> None:
        ready = Ready()
        with pytest.raises(Refused, match="not ready"):
            await Handover(ready, state).go()
        assert not ready.go.is_set()

    asyncio.run(story())
