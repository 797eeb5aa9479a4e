"""Requests and answers between the verification's processes: an answer is taken by the request it is about, or by nobody."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

import pytest

from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, Refused
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.migrate.verify.crossing import Line, error_to
from valkeep.migrate.verify.lines import Worker
from valkeep.report.events import Event, Note

HERE = Endpoint.parse("redis://127.0.0.1")


async def talking(*lines: bytes) -> Worker:
    """A worker's end of a process that says these lines and ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; sys.stdout.buffer.write(b''.join(eval(sys.argv[1])))",
        repr(list(lines)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    return Worker(process, "side")


def test_an_answer_to_a_request_that_was_given_up_on_is_passed_over() -> None:
    async def story() -> None:
        worker = await talking(
            b'{"say": "compared", "about": 1, "counts": {"missing": 0}}\n',
            b'{"say": "error", "about": 1, "error": {}}\n',
            b'{"say": "compared", "about": 2, "counts": {"missing": 5}}\n',
        )
        given_up, asked = worker.ask("compare"), worker.ask("compare")
        assert given_up != asked
        assert (await worker.hear(asked))["counts"] == {"missing": 5}
        await worker.close()

    asyncio.run(story())


def test_a_worker_that_is_killed_in_mid_line_is_gone() -> None:
    async def story() -> None:
        worker = await talking(b'{"say": "result", "abo')
        with pytest.raises(ConnectionLost, match="side process ended"):
            await worker.line()
        await worker.close()

    asyncio.run(story())


class Scripted:
    """In place of a `Worker`: says what a test puts into ``lines``; ``asked``: what it was asked."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Line | Exception] = asyncio.Queue()
        self.asked: list[tuple[int, str, dict[str, Any]]] = []
        self.news = asyncio.Event()

    def ask(self, word: str, **more: Any) -> int:
        self.asked.append((len(self.asked) + 1, word, more))
        self.news.set()
        if word == "open":
            self.say("result", len(self.asked), result={"barrier": "none", "shards": [1, 1]})
        return len(self.asked)

    def say(self, word: str, about: int, **more: Any) -> None:
        self.lines.put_nowait({"say": word, "about": about, **more})

    async def line(self) -> Line:
        line = await self.lines.get()
        if isinstance(line, Exception):
            raise line
        return line

    async def close(self) -> None:
        pass

    async def asked_for(self, word: str) -> int:
        """The id of the last request of that name, once there is one."""
        while not (found := [number for number, asked, _ in self.asked if asked == word]):
            self.news.clear()
            await self.news.wait()
        return found[-1]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    worker = Scripted()

    async def start(_name: str) -> Worker:
        return cast("Worker", worker)

    monkeypatch.setattr(Worker, "start", start)
    return worker


VALID = Comparison(verdict="valid", keys_source=1).to_json()
INVALID = Comparison(verdict="invalid", missing=1).to_json()


def test_a_late_valid_is_not_taken_for_the_answer_to_the_next_request(scripted: Scripted) -> None:
    async def story() -> None:
        async with Verifier(HERE, HERE) as verifier:
            given_up = asyncio.create_task(verifier.full())
            first = await scripted.asked_for("full")
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            cancelled = scripted.asked[-1]
            assert (cancelled[1], cancelled[2]) == ("cancel", {"about": first})
            asking = asyncio.create_task(verifier.round())
            second = await scripted.asked_for("round")
            scripted.say("result", first, result=VALID)
            scripted.say("error", first, error=error_to(Refused("late", remedy="none")))
            scripted.say("result", second, result=INVALID)
            assert (await asking).verdict == "invalid"

    asyncio.run(story())


@pytest.mark.parametrize("wrong", [ValueError("Separator is not found, and chunk exceed the limit"), KeyError("say")])
def test_what_is_no_answer_ends_the_verification_and_nobody_waits_for_ever(scripted: Scripted, wrong: Exception) -> None:
    events: list[Event] = []

    async def story() -> None:
        async with Verifier(HERE, HERE, emit=events.append) as verifier, asyncio.timeout(5):
            asking = asyncio.create_task(verifier.full())
            await scripted.asked_for("full")
            scripted.lines.put_nowait(wrong)
            result = await asking
            assert result.verdict == "unknown"
            assert type(wrong).__name__ in result.reasons[0]
            assert (await verifier.round()).verdict == "unknown"

    asyncio.run(story())
    assert any("traceback" in event.fields for event in events if isinstance(event, Note))
