"""Shards that are cut over together: all of them, or none."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from valkeep.migrate.cutover.joint import Joint
from valkeep.migrate.fence import Aborted

NAMES = ("shard 1", "shard 2", "shard 3")


class Attempt:
    """Three shards that go through the gates; ``promoted``: who was told that it is decided; ``off``: who was called off, and by what."""

    def __init__(self, seconds: float = 5.0, moved: bool = False, looking: float = 0.0) -> None:
        self.looks = 0
        self.decided = asyncio.Event()
        self.promoted: list[str] = []
        self.off: dict[str, BaseException] = {}
        self._moved = moved
        self._looking = looking
        self._seconds = seconds
        self.joint = Joint(NAMES, seconds, self._look)

    async def _look(self) -> None:
        assert self.promoted == []
        self.looks += 1
        await asyncio.sleep(self._looking)
        if self._moved:
            raise Aborted("slot 7 is on its way", remedy="wait", code="VK-CUTOVER-SLOTS")

    async def shard(self, name: str, *, before: float = 0.0, between: float = 0.0, error: Exception | None = None) -> None:
        """One shard's cut-over; ``error``: what goes wrong there between the gates."""
        member = self.joint.member(name)
        try:
            await asyncio.sleep(before)
            until = asyncio.get_running_loop().time() + self._seconds
            await member.all_drained(self._seconds)
            await asyncio.sleep(between)
            if error is not None:
                raise error
            await member.decide(max(until - asyncio.get_running_loop().time(), 0.0))
            self.decided.set()
        except BaseException as why:
            member.left(why)
            self.off[name] = why
            raise
        self.promoted.append(name)

    async def run(self, **of_the_second: object) -> None:
        await asyncio.gather(
            self.shard(NAMES[0]),
            self.shard(NAMES[1], **of_the_second),  # type: ignore[arg-type]
            self.shard(NAMES[2], before=0.01),
            return_exceptions=True,
        )


def test_shards_that_all_arrive_are_all_promoted_after_one_look_at_the_whole() -> None:
    attempt = Attempt()
    asyncio.run(attempt.run(before=0.02))
    assert sorted(attempt.promoted) == list(NAMES)
    assert (attempt.looks, attempt.off, attempt.joint.decided) == (1, {}, True)


def test_nobody_is_promoted_when_one_shard_fails_after_the_others_were_waited_for() -> None:
    attempt = Attempt()
    asyncio.run(attempt.run(error=Aborted("its source was restarted", remedy="look", code="VK-CUTOVER-FENCE-LOST")))
    assert (attempt.promoted, attempt.looks) == ([], 0)
    assert sorted(attempt.off) == list(NAMES)
    for name in (NAMES[0], NAMES[2]):
        why = attempt.off[name]
        assert isinstance(why, Aborted)
        assert why.code == "VK-CUTOVER-SHARD"
        assert "shard 2 was called off" in why.message
        assert "its source was restarted" in why.message


def test_a_shard_that_does_not_arrive_calls_all_off_before_writers_are_kept_out_for_longer() -> None:
    attempt = Attempt(seconds=0.05)
    asyncio.run(attempt.run(before=1.0))
    assert attempt.promoted == []
    first = attempt.off[NAMES[0]]
    assert isinstance(first, Aborted)
    assert first.code == "VK-CUTOVER-LEASE"
    assert "shard 2" in first.message
    late = attempt.off[NAMES[1]]  # it comes when nobody waits for it any more
    assert isinstance(late, Aborted)


def test_nobody_is_promoted_when_the_look_at_the_whole_speaks_against_it() -> None:
    attempt = Attempt(moved=True)
    asyncio.run(attempt.run())
    assert (attempt.promoted, attempt.joint.decided) == ([], False)
    assert sorted(attempt.off) == list(NAMES)
    assert {getattr(why, "code", "") for why in attempt.off.values()} == {"VK-CUTOVER-SLOTS", "VK-CUTOVER-SHARD"}


def test_a_look_at_the_whole_that_takes_too_long_calls_all_off() -> None:
    attempt = Attempt(seconds=0.05, looking=1.0)
    asyncio.run(attempt.run())
    assert (attempt.promoted, attempt.joint.decided) == ([], False)


async def _stopped_when(attempt: Attempt, decided: bool) -> None:
    shards = [asyncio.create_task(attempt.shard(name)) for name in NAMES[:2]]
    await asyncio.sleep(0.01)
    if decided:
        shards.append(asyncio.create_task(attempt.shard(NAMES[2])))
        await attempt.decided.wait()
    shards[0].cancel()
    await asyncio.gather(*shards, return_exceptions=True)


def test_a_stop_before_the_decision_calls_all_shards_off() -> None:
    attempt = Attempt()
    asyncio.run(_stopped_when(attempt, decided=False))
    assert attempt.promoted == []
    assert isinstance(attempt.off[NAMES[0]], asyncio.CancelledError)
    assert isinstance(attempt.off[NAMES[1]], Aborted)


def test_a_stop_after_the_decision_comes_too_late_for_every_shard() -> None:
    attempt = Attempt()
    asyncio.run(_stopped_when(attempt, decided=True))
    assert sorted(attempt.promoted) == list(NAMES)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_to_whom_and_when_all_are_promoted_or_none(seed: int) -> None:
    chance = random.Random(seed)

    async def story() -> Attempt:
        attempt = Attempt(seconds=0.02, looking=chance.uniform(0, 0.01))
        shards = [
            asyncio.create_task(
                attempt.shard(
                    name,
                    before=chance.uniform(0, 0.015),
                    between=chance.uniform(0, 0.015),
                    error=RuntimeError("a bug") if chance.random() < 0.15 else None,
                )
            )
            for name in NAMES
        ]
        await asyncio.sleep(chance.uniform(0, 0.03))
        if chance.random() < 0.5:
            chance.choice(shards).cancel()
        await asyncio.gather(*shards, return_exceptions=True)
        return attempt

    attempt = asyncio.run(story())
    assert len(attempt.promoted) in (0, len(NAMES))
    assert (len(attempt.promoted) > 0) == attempt.joint.decided


def test_patience_that_ends_in_the_moment_of_the_decision_takes_nobody_out_of_it() -> None:
    async def story() -> Attempt:
        attempt = Attempt(seconds=0.5)
        looking, looked = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def look() -> None:
            looking.set()
            await looked

        def late() -> None:  # the last one goes on in the very turn of the loop in which the first one's time is over
            looked.set_result(None)
            time.sleep(0.6)

        attempt.joint = Joint(NAMES, 0.5, look)
        shards = [asyncio.create_task(attempt.shard(name)) for name in NAMES]
        await looking.wait()
        asyncio.get_running_loop().call_soon(late)
        await asyncio.gather(*shards, return_exceptions=True)
        return attempt

    attempt = asyncio.run(story())
    assert attempt.joint.decided
    assert sorted(attempt.promoted) == list(NAMES)
    assert attempt.off == {}


def test_writers_are_kept_out_for_one_lease_in_all_and_not_for_one_at_each_gate() -> None:
    attempt = Attempt(seconds=1.5)
    asyncio.run(attempt.run(before=1.0, between=1.0))  # the second gate opens when the first one's lease is over, and within another one
    assert attempt.promoted == []
