"""The pipe between a run and the process that writes for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from valkeep.drill.workloads.conversation import Child, obey
from valkeep.errors import LocalProtocolError, ValkeepError

PARROT = """
import os, sys
from valkeep.drill.workloads.conversation import converse, say

async def work(workdir, settings, messages):
    print("a library says hello")
    os.write(1, b"and another one\\n")
    async for message in messages:
        match message["do"]:
            case "repeat":
                say(event="said", word=settings["word"], folder=str(workdir))
            case "fail":
                say(event="failed", why="it is broken", remedy="mend it")
            case "vanish":
                os._exit(3)
    return False

if __name__ == "__main__":
    sys.exit(converse(work))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A program that `Child` can start by its name."""
    (tmp_path / "a_parrot.py").write_text(PARROT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_parrot"


async def told(module: str, workdir: Path, *words: str) -> Child:
    child = Child(module, "the parrot")
    await child.begin(workdir)
    child.tell({"word": "polly"})
    for word in words:
        child.tell({"do": word})
    return child


def test_what_a_library_prints_does_not_disturb_the_conversation(module: str, tmp_path: Path) -> None:
    async def test() -> None:
        child = await told(module, tmp_path / "work", "repeat", "repeat")
        try:
            for _ in range(2):
                assert await child.hear("said", 10) == {"event": "said", "word": "polly", "folder": str(tmp_path / "work")}
        finally:
            await child.end()

    asyncio.run(test())


def test_a_failure_that_the_process_tells_is_raised_with_its_remedy(module: str, tmp_path: Path) -> None:
    async def test() -> None:
        child = await told(module, tmp_path / "work", "fail")
        try:
            with pytest.raises(ValkeepError, match="the parrot could not go on: it is broken") as caught:
                await child.hear("said", 10)
            assert caught.value.remedy == "mend it"
        finally:
            await child.end()

    asyncio.run(test())


def test_a_process_that_ends_by_itself_is_an_error_each_time_that_it_is_asked(module: str, tmp_path: Path) -> None:
    async def test() -> None:
        child = await told(module, tmp_path / "work", "vanish")
        try:
            for _ in range(2):
                with pytest.raises(ValkeepError, match="the parrot ended by itself"):
                    await child.hear("said", 10)
        finally:
            await child.end()

    asyncio.run(test())


def test_a_process_that_says_nothing_is_not_waited_for_without_end(module: str, tmp_path: Path) -> None:
    async def test() -> None:
        child = await told(module, tmp_path / "work")
        try:
            with pytest.raises(ValkeepError, match="did not answer within 0 s"):
                await child.hear("said", 0.05)
        finally:
            await child.end()

    asyncio.run(test())


@pytest.mark.parametrize("said", ['{"workdir": "%s"}\n', '{"workdir": "%s"}\n{"word": "polly"}\n'])
def test_a_process_whose_parent_is_gone_removes_its_folder(module: str, tmp_path: Path, said: str) -> None:
    process = subprocess.run([sys.executable, "-m", module], input=(said % (tmp_path / "work")).encode(), capture_output=True, check=False)
    assert process.returncode == 1
    assert not (tmp_path / "work").exists()


# ------------------------------------------------------------------------------------------------------------------ obeying


async def obeyed(work: Coroutine[Any, Any, None], *words: str, vanishes: bool = True) -> tuple[bool, list[str]]:
    """What `obey` says when the parent says these words, and what it did."""
    done: list[str] = []

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for word in words:
            yield {"do": word}
        if not vanishes:
            await asyncio.Event().wait()

    async def pause() -> None:
        done.append("paused")

    answer = await asyncio.wait_for(
        obey(
            messages(), work, start=lambda: done.append("started"), pause=pause, stop=lambda: done.append("stopped"), tick=lambda: None
        ), 10
    )  # fmt: skip
    return answer, done


def test_a_load_is_started_paused_and_stopped_as_the_parent_says() -> None:
    assert asyncio.run(obeyed(asyncio.sleep(0), "start", "pause", "start", "stop", vanishes=False)) == (
        True, ["started", "paused", "started", "stopped"],
    )  # fmt: skip


def test_the_work_of_a_parent_that_vanished_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    assert asyncio.run(obeyed(work(), "start")) == (False, ["started"])
    assert ended == ["cancelled"]


def test_work_that_fails_is_known_before_anybody_says_stop() -> None:
    async def work() -> None:
        raise ValkeepError("a writer is broken", remedy="mend it")

    with pytest.raises(ValkeepError, match="a writer is broken"):
        asyncio.run(obeyed(work(), "start", vanishes=False))


def test_a_word_that_nobody_agreed_on_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="dance"):
        asyncio.run(obeyed(asyncio.Event().wait(), "dance"))  # type: ignore[arg-type]
