"""The pipe between a run and the process that writes for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from valkeep.drill.workloads.conversation import Child
from valkeep.errors import ValkeepError

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
