"""Work that many wait for is done once, and whoever goes away takes nothing from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from valkeep.client.shared import Shared
from valkeep.errors import ConnectionLost, LocalProtocolError


def run(test: Awaitable[None]) -> None:
    async def alone() -> None:
        await test
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(alone())


class Work:
    """Ends when it is told to; counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        await self.end.wait()
        if self.error is not None:
            raise self.error
        return self.begun


def test_many_ask_and_it_is_done_once_and_again_when_it_is_over() -> None:
    async def check() -> None:
        work = Work()
        shared = Shared(work)
        waiting = [asyncio.create_task(shared.result()) for _ in range(5)]
        await asyncio.sleep(0)
        shared.begin()
        work.end.set()
        assert await asyncio.gather(*waiting) == [1] * 5
        assert await shared.result() == 2

    run(check())


def test_one_who_is_cancelled_does_not_call_it_off_for_the_others() -> None:
    async def check() -> None:
        work = Work()
        shared = Shared(work)
        leaving, staying = (asyncio.create_task(shared.result()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        work.end.set()
        assert await staying == 1

    run(check())


def test_all_are_told_of_a_failure_by_an_error_of_their_own() -> None:
    async def check() -> None:
        work = Work()
        work.error = ConnectionLost("gone", remedy="wait")
        work.end.set()
        shared = Shared(work)
        errors = await asyncio.gather(shared.result(), shared.result(), return_exceptions=True)
        assert [str(error) for error in errors] == ["gone", "gone"]
        assert errors[0] is not errors[1]

    run(check())


def test_closing_ends_the_work_and_tells_those_who_wait() -> None:
    async def check() -> None:
        shared = Shared(Work())
        waiting = asyncio.create_task(shared.result())
        await asyncio.sleep(0)
        await shared.close()
        await shared.close()
        for asking in (waiting, shared.result()):
            with pytest.raises(LocalProtocolError, match="the client is closed"):
                await asking

    run(check())
