"""Slots go from lane to lane, or are nobody's: never two lanes'."""

from __future__ import annotations

import asyncio
import functools
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.waiting import holds
from valkeep.client.cluster_nodes import ClusterNodes, NodeWord
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.shard_primary import ShardPrimary
from valkeep.errors import ConnectionLost
from valkeep.migrate.fence import Aborted
from valkeep.migrate.resharding import Holder, Resharding
from valkeep.migrate.resharding.handover import Handover
from valkeep.migrate.resharding.keys import AT_ONCE, portions
from valkeep.migrate.transform.territory import Territory
from valkeep.report.events import Event, Note
from valkeep.topology.members import cluster_members

A, B = "a" * 40, "b" * 40
NOBODY = Endpoint("127.0.0.1", 1)


class Gateway:
    """Everything is drained at once."""

    history = "h"

    def __init__(self) -> None:
        self.channels = [SimpleNamespace(source_offset=5, checkpoint=SimpleNamespace(source=3))]
        self.asked: list[int] = []

    @functools.cached_property
    def ended(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        self.ended.set_exception(error)

    async def drained(self, offset: int) -> None:
        self.asked.append(offset)


class Feed:
    def __init__(self) -> None:
        self.followed: list[int] = []
        self.closed = False

    def follow(self, primary: Endpoint) -> None:
        self.followed.append(primary.port)

    async def close(self) -> None:
        self.closed = True


class Story:
    """Two lanes of 10 slots each. ``says``: what the nodes answer; None: nobody does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gateways: list[Any] = [Gateway(), Gateway()]
        self.feeds = [Feed(), Feed()]
        self.territories = [Territory(range(10)), Territory(range(10, 20))]
        self.recorded: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.lines: dict[str, str] = {}
        holders = [
            Holder(name, gateway, territory, ShardPrimary([NOBODY], node), feed)
            for name, node, gateway, territory, feed in zip("12", (A, B), self.gateways, self.territories, self.feeds, strict=True)
        ]
        self.slots = Resharding(holders, NOBODY, lambda told: self.recorded.append(dict(told)), self._hear, lambda: 0.0)

        async def look(*_: object, **__: object) -> dict[str, NodeWord]:
            return {
                node: NodeWord(Endpoint("127.0.0.1", port), _members(node, self.lines)) for port, node in ((1, A), (2, B)) if self.lines
            }

        monkeypatch.setattr(ClusterNodes, "look", look)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Note):
            self.said.append(event.text)


def _members(me: str, lines: dict[str, str]) -> Any:
    rows = [f"{node} 127.0.0.1:{port}@1 {'myself,' * (node == me)}{lines[node]}" for port, node in ((1, A), (2, B))]
    return cluster_members("\n".join(rows))


STILL = {A: "master - 0 0 1 connected 0-9", B: "master - 0 0 2 connected 10-19"}
MOVED = {A: "master - 0 0 1 connected 0-4", B: "master - 0 0 3 connected 5-19"}
OVER = {A: f"slave {B} 0 0 3 connected", B: "master - 0 0 3 connected 0-19"}


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(monkeypatch)


async def look(story: Story, times: int = 1) -> None:
    for _ in range(times):
        await story.slots._look()
        if story.slots._work is not None:
            await asyncio.wait({story.slots._work})


def test_slots_that_cannot_be_handed_over_are_nobodys_and_are_tried_again(story: Story) -> None:
    story.lines = MOVED
    asyncio.run(look(story, 2))
    giver, taker = story.territories
    assert giver.ranges == ((0, 4),)
    assert taker.ranges == ((10, 19),)
    assert story.slots.standing == {"1": ((0, 4),), "2": ((10, 19),)}
    assert story.recorded[-1] == story.slots.standing
    assert sum("could not be handed over yet" in one for one in story.said) == 1
    assert story.gateways[0].asked == [5, 5]  # what the giver said is in the target; and again, when nobody has them
    assert story.gateways[1].asked == [5, 5]  # and whatever the taker had said already


def test_what_nobody_can_put_right_ends_the_watch_and_whoever_waits(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> None:
        raise ConnectionLost("no target is attached", remedy="see its log", code="VK-TARGET-LOST")

    story.lines = MOVED
    monkeypatch.setattr(Gateway, "drained", lost)

    async def watched() -> None:
        watch = asyncio.create_task(story.slots.run())
        for waits in (watch, story.slots.settled()):
            with pytest.raises(ConnectionLost, match="no target") as error:
                await waits
            assert error.value.code == "VK-TARGET-LOST"

    asyncio.run(asyncio.wait_for(watched(), 10))


def test_what_ends_the_watch_ends_every_lane_of_a_run_that_waits_for_nothing_else(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> None:
        raise ConnectionLost("no target is attached", remedy="see its log", code="VK-TARGET-LOST")

    async def run() -> None:
        async with story.slots.watching():
            for gateway in story.gateways:
                with pytest.raises(ConnectionLost, match="no target"):
                    await gateway.ended

    story.lines = MOVED
    monkeypatch.setattr(Gateway, "drained", lost)
    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_watch_that_is_not_needed_any_more_ends_nothing(story: Story) -> None:
    async def run() -> list[bool]:
        async with story.slots.watching():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [gateway.ended.done() for gateway in story.gateways]

    story.lines = STILL
    assert asyncio.run(asyncio.wait_for(run(), 10)) == [False, False]


def test_a_shard_that_is_over_has_its_feed_closed_and_is_not_asked_for(story: Story) -> None:
    for slot in range(10):
        story.territories[0].leave(slot)
    story.slots._brought = {"1": frozenset(), "2": frozenset(range(20))}
    story.lines = OVER
    asyncio.run(look(story))
    assert story.slots.retired == {"1"}
    assert story.feeds[0].closed
    assert not story.feeds[1].closed


def test_a_shard_that_is_over_is_let_go_while_others_still_copy_what_it_had(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_long(*_: object) -> None:
        await asyncio.Event().wait()

    async def looks() -> None:
        story.lines = OVER
        await story.slots._look()
        assert story.slots._work is not None
        assert not story.feeds[0].closed  # what it said is not in the target yet
        await holds(lambda: "1" not in story.slots._needed, "what it said is in the target")
        await story.slots._look()
        story.slots._work.cancel()

    monkeypatch.setattr(Handover, "run", for_long)
    asyncio.run(looks())
    assert story.slots.retired == {"1"}
    assert story.feeds[0].closed


def test_a_primary_is_followed_when_it_is_another_one(story: Story) -> None:
    story.lines = STILL
    asyncio.run(look(story, 3))
    assert [feed.followed for feed in story.feeds] == [[1], [2]]


def test_where_nobody_answers_there_is_no_cut_over(story: Story) -> None:
    with pytest.raises(Aborted) as error:
        asyncio.run(story.slots.expect_still())
    assert error.value.code == "VK-CUTOVER-SLOTS"


def test_that_nobody_has_slots_is_recorded_before_anything_of_them_is_left_out(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, object]] = []
    record = story.slots._record

    def recorded(standing: Any) -> None:
        seen.append((story.territories[0].ranges == ((0, 9),), standing["1"]))
        record(standing)

    monkeypatch.setattr(story.slots, "_record", recorded)
    story.lines = MOVED
    asyncio.run(look(story))
    assert (True, ((0, 4),)) in seen


def test_before_slots_that_nobody_has_are_taken_every_other_lane_has_said_its_last_of_them(story: Story) -> None:
    story.territories[0].leave(5)
    story.territories[1].leave(12)
    story.slots._brought = {"1": frozenset({0, 1, 2, 3, 4, 6, 7, 8, 9}), "2": frozenset(range(10, 20)) - {12}}
    story.lines = STILL  # 5 is lane 1's again, 12 lane 2's
    asyncio.run(look(story))
    assert [gateway.asked[:1] for gateway in story.gateways] == [[5], [5]]


@pytest.fixture
def answering(story: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Nothing moves, and both servers have the history that is followed."""

    async def info(_: object) -> Any:
        return SimpleNamespace(replid="h")

    story.lines = STILL
    monkeypatch.setattr(Connection, "open", lambda *_, **__: _opened())
    monkeypatch.setattr("valkeep.migrate.resharding.server_info", info)
    return story


def test_a_primary_that_was_promoted_behind_the_fence_is_not_taken_for_the_fenced_one(answering: Story) -> None:
    asyncio.run(answering.slots.expect_still())
    asyncio.run(answering.slots.expect_still({"1": "h", "2": "h"}))
    with pytest.raises(Aborted, match="became a primary when the one before it was fenced") as error:
        asyncio.run(answering.slots.expect_still({"1": "h", "2": "of the one that was fenced"}))
    assert error.value.code == "VK-CUTOVER-SLOTS"


def test_there_is_no_cut_over_where_another_server_than_the_followed_one_is_written_to(answering: Story) -> None:
    answering.gateways[1].history = "of the one before"
    with pytest.raises(Aborted, match="and we follow of the one before"):
        asyncio.run(answering.slots.expect_still())


def test_there_is_no_cut_over_while_slots_are_handed_over(answering: Story) -> None:
    async def ask() -> None:
        answering.slots._work = asyncio.create_task(asyncio.sleep(60))
        try:
            await answering.slots.expect_still()
        finally:
            answering.slots._work.cancel()

    with pytest.raises(Aborted, match="slots are handed over"):
        asyncio.run(ask())


def test_a_slot_that_has_arrived_is_recorded(story: Story) -> None:
    story.slots._brought = {"1": frozenset(range(5)), "2": frozenset(range(10, 20))}
    story.slots._arrived("2", [5, 6])
    assert story.recorded == [{"1": ((0, 4),), "2": ((5, 6), (10, 19))}]


def test_slots_stand_still_only_when_they_have_for_a_while(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools move slot after slot, with a breath between two of them."""
    story.lines = {A: "master - 0 0 1 connected 0-9 [5->-" + B + "]", B: "master - 0 0 2 connected 10-19"}
    asyncio.run(look(story))
    story.lines = STILL
    asyncio.run(look(story))
    assert story.slots._seen == 0
    monkeypatch.setattr("valkeep.migrate.resharding.QUIET", 0.0)
    asyncio.run(look(story))
    assert story.slots._seen == 3


class _Opened:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


async def _opened() -> _Opened:
    return _Opened()


def test_large_slots_are_listed_one_by_one_and_small_ones_together() -> None:
    assert list(portions({1: 1, 2: AT_ONCE, 3: AT_ONCE - 1, 4: 1, 5: 0, 6: 3 * AT_ONCE}.items(), AT_ONCE)) == [[1], [2], [3, 4, 5], [6]]
