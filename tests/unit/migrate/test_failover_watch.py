"""What is done with the link when sentinels say something: scripted sentinels, in their exact words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.support.scripted_primary import until
from valkeep.client.endpoint import Endpoint
from valkeep.client.sentinel import Attempt, NoPrimary, SentinelDirectory, Switch, parse_attempt
from valkeep.migrate.feed import failover
from valkeep.migrate.feed.failover import FailoverWatch

SENTINEL, OLD, NEW = Endpoint("s", 26379), Endpoint("old", 1), Endpoint("new", 2)


class Sentinels(SentinelDirectory):
    """``said``: what they say, one after the other. ``answers``: whom they name when all of them are asked; None: nobody."""

    def __init__(self) -> None:
        super().__init__([SENTINEL])
        self.said: asyncio.Queue[Switch | Attempt] = asyncio.Queue()
        self.answers: list[Endpoint | None] = []

    async def news(self) -> AsyncGenerator[Switch | Attempt, None]:
        while True:
            yield await self.said.get()

    async def newest(self, timeout: float = 5.0) -> Endpoint:
        del timeout
        answer = self.answers.pop(0)
        if answer is None:
            raise NoPrimary("nobody", remedy="ask again")
        return answer


class Did:
    """A follower that notes what it was told."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def hold_back(self) -> None:
        self.all.append("hold back")

    def read_on(self) -> None:
        self.all.append("read on")

    def follow(self, primary: Endpoint) -> None:
        self.all.append(f"follow {primary.address}")


async def told(said: list[Switch | Attempt], answers: list[Endpoint | None], expected: list[str]) -> None:
    directory, did = Sentinels(), Did()
    directory.answers = answers
    for one in said:
        directory.said.put_nowait(one)
    watching = asyncio.create_task(FailoverWatch(directory, did).run())
    try:
        async with asyncio.timeout(10):
            await until(lambda: watching.done() or len(did.all) >= len(expected))
        assert did.all == expected
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_a_failover_holds_the_link_back_until_it_is_given_up() -> None:
    asyncio.run(told([Attempt(SENTINEL, True), Attempt(SENTINEL, False)], [], ["hold back", "read on"]))


def test_a_failover_that_nobody_ends_does_not_hold_the_link_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "HELD_BACK", 0.05)
    asyncio.run(told([Attempt(SENTINEL, True)], [], ["hold back", "read on"]))


def test_whoever_the_newest_configuration_names_is_followed_and_not_whom_a_late_sentinel_names() -> None:
    said: list[Switch | Attempt] = [Attempt(SENTINEL, True), Switch(SENTINEL, NEW, OLD), Switch(SENTINEL, OLD)]
    asyncio.run(told(said, [NEW, NEW], ["hold back", "follow new:2", "follow new:2"]))


def test_a_successor_that_is_not_promoted_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "AGAIN", 0.01)
    asyncio.run(told([Switch(SENTINEL, NEW, OLD)], [None, None, NEW], ["follow new:2"]))


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (b"master mymaster 10.0.0.1 6379", "mymaster"),
        (b"slave 10.0.0.2:6379 10.0.0.2 6379 @ mymaster 10.0.0.1 6379", "mymaster"),
        (b"slave 10.0.0.2:6379 10.0.0.2 6379 @", ""),
        (b"master", ""),
        (b"", ""),
    ],
)
def test_an_attempt_names_its_primary(payload: bytes, name: str) -> None:
    assert parse_attempt(payload) == name
