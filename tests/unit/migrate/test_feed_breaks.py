"""The source's link breaks: the feed goes on where it was, by the same bytes, or says why it cannot; it never begins a full sync by itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from tests.support.scripted_primary import REPLID, ScriptedPrimary, Value, command, payload, until
from valkeep.client import replication
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.migrate.feed import Position, ReplicationGap
from valkeep.migrate.feed.history import OtherSource
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.report.events import Event, Note

OTHER = "a0b1" * 10
SET = command("SET key value")


class Kept:
    """A receiver that keeps what came."""

    def __init__(self) -> None:
        self.snapshots = bytearray()
        self.streamed = bytearray()
        self.full_syncs = 0
        self.ended = 0
        self.goes_on: list[tuple[str, int]] = []

    def full_resync(self, replid: str, offset: int) -> None:
        self.full_syncs += 1

    def continued(self, replid: str, offset: int) -> None:
        self.goes_on.append((replid, offset))

    def snapshot(self, data: memoryview) -> None:
        self.snapshots += data

    def snapshot_end(self) -> None:
        self.ended += 1

    def stream(self, data: memoryview) -> None:
        self.streamed += data


class Story:
    """A feed that follows a primary, and what it said."""

    def __init__(self, primary: ScriptedPrimary, patience: float) -> None:
        self.primary = primary
        self.kept = Kept()
        self.events: list[Event] = []
        self.feed = PsyncFeed(Endpoint("127.0.0.1", primary.port), patience=patience, emit=self.events.append, rng=Random(1))
        self.running: asyncio.Task[None]

    async def begin(self, since: Position | None = None) -> None:
        await self.feed.look()
        await self.feed.start(self.kept, 0, since)
        self.running = asyncio.create_task(self.feed.run())
        await until(lambda: self.kept.ended or self.kept.goes_on or self.running.done())

    async def end(self) -> ValkeepError:
        """The error that it ended with."""
        with pytest.raises(ValkeepError) as raised:
            await asyncio.wait_for(asyncio.shield(self.running), 20)
        assert raised.value.remedy
        return raised.value

    @property
    def said(self) -> str:
        return "\n".join(f"{event.level}: {event.text}" for event in self.events if isinstance(event, Note))


@asynccontextmanager
async def following(primary: ScriptedPrimary | None = None, *, patience: float = 20.0) -> AsyncIterator[Story]:
    async with primary or ScriptedPrimary(b"snapshot") as there:
        story = Story(there, patience)
        await story.begin()
        try:
            yield story
        finally:
            await story.feed.close()
            if not story.running.done():
                await story.running
            else:
                story.running.exception()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_a_link_that_breaks_in_the_middle_of_a_command_goes_on_with_its_next_byte() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            sent = b""
            for cut in (1, len(SET) // 2, len(SET) - 1, len(SET)):
                await primary.send(SET[:cut])
                sent += SET[:cut]
                await until(lambda: story.kept.streamed == sent)  # noqa: B023
                await primary.hang_up()
                primary.happen(SET[cut:] + SET)
                sent += SET[cut:] + SET
                await until(lambda: story.kept.streamed == sent)  # noqa: B023
            assert story.feed.received == primary.offset == 1000 + len(sent)
            await until(lambda: primary.acked == primary.offset)
            assert (primary.full_syncs, primary.continued, story.kept.full_syncs) == (1, 4, 1)
            assert [replid for replid, _ in story.kept.goes_on] == [REPLID] * 4
            assert "in the stream, at offset 1001" in story.said
            assert f"with {2 * len(SET) - 1} bytes of its backlog" in story.said

    run(work())


class Brief(ScriptedPrimary):
    """Whoever goes on gets ten bytes more, and is hung up on at once."""

    async def _psync(self, args: list[bytes], writer: asyncio.StreamWriter) -> None:
        wanted = int(args[2])
        if args[1] == b"?" or wanted > self.offset:
            await super()._psync(args, writer)
            return
        self.continued += 1
        start = wanted - self.backlog_begins
        writer.write(b"+CONTINUE\r\n" + self.backlog[start : start + 10])
        writer.close()


def test_a_link_that_breaks_as_soon_as_it_went_on_is_asked_for_what_comes_next_and_not_again() -> None:
    async def work() -> None:
        async with following(Brief(b"snapshot")) as story:
            primary = story.primary
            primary.happen(SET * 3)
            await primary.hang_up()
            await until(lambda: len(story.kept.streamed) >= 3 * len(SET))
            assert story.kept.streamed == SET * 3
            assert story.feed.received == primary.offset
            assert primary.continued >= 3 * len(SET) // 10

    run(work())


class Fickle(ScriptedPrimary):
    """Whoever goes on is hung up on before a byte has come."""

    async def _psync(self, args: list[bytes], writer: asyncio.StreamWriter) -> None:
        await super()._psync(args, writer)
        if args[1] != b"?":
            writer.close()


def test_a_source_that_takes_us_back_and_drops_us_again_is_given_up_and_not_asked_in_a_tight_loop() -> None:
    async def work() -> None:
        async with following(Fickle(b"snapshot"), patience=0.8) as story:
            await story.primary.hang_up()
            error = await story.end()
            assert error.code == "VK-SOURCE-LOST"
            assert "times in a row" in error.message
            assert 2 <= story.primary.continued <= 30
            assert story.primary.full_syncs == 1

    run(work())


def test_a_source_that_is_away_is_waited_for_and_each_reason_is_told_once() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            primary.info["loading"] = "1"
            await primary.hang_up()
            await until(lambda: "loads its data" in story.said)
            primary.info |= {"loading": "0", "role": "slave", "master_link_status": "down"}
            await until(lambda: "without a link to its primary" in story.said)
            primary.info |= {"role": "master"}
            await until(lambda: primary.continued)
            await primary.send(SET)
            await until(lambda: story.kept.streamed == SET)
            assert story.said.count("loads its data") == 1
            assert primary.full_syncs == 1

    run(work())


def test_a_source_that_does_not_come_back_ends_the_feed_when_its_patience_ends() -> None:
    async def work() -> None:
        primary = ScriptedPrimary(b"snapshot")
        story: Story
        async with primary:
            story = Story(primary, 0.3)
            await story.begin()
        error = await story.end()
        assert error.code == "VK-SOURCE-LOST"
        assert "in 0.3 s" in error.message
        await story.feed.close()

    run(work())


def test_a_silent_source_is_left_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "SILENCE_SECONDS", 0.2)

    async def work() -> None:
        async with following() as story:
            await until(lambda: story.primary.continued)
            assert "said nothing for" in story.said

    run(work())


def test_another_name_of_the_same_history_is_told_and_used_from_then_on() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            await primary.send(SET)
            await until(lambda: story.kept.streamed == SET)
            primary.rename(OTHER)
            await primary.hang_up()
            await until(lambda: story.kept.goes_on)
            assert story.kept.goes_on == [(OTHER, 1000 + len(SET))]
            del primary.info["master_replid2"]
            await primary.hang_up()
            await until(lambda: len(story.kept.goes_on) == 2)
            assert story.kept.goes_on[1] == (OTHER, 1000 + len(SET))

    run(work())


async def _gap(story: Story, code: str) -> ValkeepError:
    """It ends so, and nothing was asked of the source, nor taken from it."""
    taken = bytes(story.kept.snapshots), bytes(story.kept.streamed)
    await story.primary.hang_up()
    error = await story.end()
    assert isinstance(error, ReplicationGap)
    assert error.code == code, error.message
    assert (bytes(story.kept.snapshots), bytes(story.kept.streamed)) == taken
    assert (story.primary.continued, story.kept.full_syncs) == (0, 1)
    return error


def test_another_server_at_the_same_address_is_not_asked_for_anything() -> None:
    async def work() -> None:
        async with following() as story:
            story.primary.info["master_replid"] = OTHER
            error = await _gap(story, "VK-SOURCE-OTHER")
            assert isinstance(error, OtherSource)
            assert REPLID in error.message
            assert OTHER in error.message
            assert story.primary.full_syncs == 1

    run(work())


def test_an_offset_that_left_the_backlog_is_told_with_the_size_that_would_have_done() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            primary.happen(bytes(3 << 20))
            primary.backlog_begins = primary.offset - 100
            error = await _gap(story, "VK-SOURCE-GAP")
            assert f"offset 1000 left the source's backlog, which begins at {primary.backlog_begins}" in error.message
            assert "repl-backlog-size there to 8mb" in error.remedy
            assert primary.full_syncs == 1

    run(work())


def test_a_promoted_replica_that_has_less_than_we_do_is_told_with_the_bytes_between() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            primary.rename(OTHER)
            await primary.send(SET)
            await until(lambda: story.kept.streamed == SET)
            error = await _gap(story, "VK-SOURCE-GAP")
            assert f"promoted at offset 1000 of {REPLID}" in error.message
            assert f"the {len(SET)} bytes between" in error.message
            assert primary.full_syncs == 1

    run(work())


@pytest.mark.parametrize("broken", [False, True])
def test_a_source_has_to_have_what_the_furthest_target_has_also_where_it_is_asked_for_less(broken: bool) -> None:
    """Channels are gone on with at the lowest of their offsets; who was promoted behind that, and before the highest, has another history."""

    async def work() -> None:
        since = Position(REPLID, 1000, reached=1000 + 2 * len(SET))
        async with ScriptedPrimary(b"snapshot") as primary:
            story = Story(primary, 5.0)
            if broken:
                primary.offset = since.reached  # it has them, and the link breaks before it has sent them
                await story.begin(since)
            await story.feed.look()
            primary.offset = 1000 + len(SET)
            primary.rename(OTHER)
            primary.offset += 3 * len(SET)
            if broken:
                await primary.hang_up()
                error = await story.end()
            else:
                with pytest.raises(ReplicationGap) as raised:
                    await story.feed.start(story.kept, 0, since)
                error = raised.value
            await story.feed.close()
            assert f"promoted at offset {1000 + len(SET)} of {REPLID}" in error.message
            assert f"the {len(SET)} bytes between" in error.message
            assert (primary.full_syncs, primary.continued) == (0, int(broken))

    run(work())


def test_a_source_that_was_set_back_is_told_with_the_bytes_between() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            await primary.send(SET)
            await until(lambda: story.kept.streamed == SET)
            primary.offset = 1000
            error = await _gap(story, "VK-SOURCE-GAP")
            assert f"the {len(SET)} bytes between" in error.message

    run(work())


def test_a_full_sync_that_is_answered_all_the_same_is_not_taken() -> None:
    async def work() -> None:
        async with following() as story:
            story.primary.continues = False
            error = await _gap(story, "VK-SOURCE-GAP")
            assert "began a full sync" in error.message
            assert story.primary.full_syncs == 2  # that one could not be foreseen

    run(work())


def test_a_source_of_a_newer_release_is_not_followed() -> None:
    async def work() -> None:
        async with following() as story:
            story.primary.info["redis_version"] = "8.6.0"
            error = await _gap(story, "VK-SOURCE-OTHER")
            assert "is Redis 8.6.0 now, and was Redis 8.4.0" in error.message

    run(work())


def test_a_link_that_breaks_in_the_snapshot_is_the_end_and_says_how_far_it_was() -> None:
    async def work() -> None:
        async with ScriptedPrimary(b"snapshot" * 1000, framing="length") as primary:
            primary.second_half.clear()
            story = Story(primary, 20.0)
            await story.feed.look()
            await story.feed.start(story.kept, 0)
            story.running = asyncio.create_task(story.feed.run())
            await until(lambda: story.kept.snapshots)
            await primary.hang_up()
            error = await story.end()
            assert error.code == "VK-SOURCE-LOST"
            assert re.search(r"in the snapshot, after 3\d\d\d of 8000 bytes", error.message)
            assert "client-output-buffer-limit" in error.remedy
            assert primary.continued == 0
            await story.feed.close()

    run(work())


def test_a_feed_begins_behind_a_position_that_is_known_and_only_there() -> None:
    async def work() -> None:
        async with ScriptedPrimary(b"snapshot") as primary:
            primary.happen(SET + SET)
            story = Story(primary, 0.0)
            await story.begin(Position(REPLID, 1000 + len(SET)))
            await until(lambda: story.kept.streamed == SET)
            assert (story.kept.goes_on, primary.full_syncs) == ([(REPLID, 1000 + len(SET))], 0)
            await story.feed.close()
            await story.running

            late = Story(primary, 0.0)
            await late.feed.look()
            with pytest.raises(ReplicationGap):
                await late.feed.start(late.kept, 0, Position(REPLID, 10_000))
            await late.feed.close()
            assert primary.full_syncs == 0

    run(work())


def test_a_key_is_handed_over_when_the_stream_has_come_to_where_it_was_read() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            primary.values[0, b"key"] = Value(payload(b"\x00\x05value"))
            primary.offset += len(SET)  # on its way
            reading = asyncio.create_task(story.feed.read([(0, b"key")]))
            await until(lambda: primary.copied)
            await asyncio.sleep(0.05)
            assert not reading.done()
            primary.offset -= len(SET)
            await primary.send(SET)
            (copy,) = await reading
            assert copy.offset == 1000 + len(SET)

    run(work())


def test_a_key_of_a_history_that_we_do_not_follow_is_not_handed_over() -> None:
    async def work() -> None:
        async with following() as story:
            primary = story.primary
            primary.values[0, b"key"] = Value(payload(b"\x00\x05value"))
            primary.rename(OTHER)
            with pytest.raises(ConnectionLost, match=f"at offset 1000 of {OTHER}, and we follow 1000 of {REPLID}"):
                await story.feed.read([(0, b"key")])
            primary.offset += len(SET)
            reading = asyncio.create_task(story.feed.read([(0, b"key")]))
            await primary.hang_up()  # before the stream came there
            with pytest.raises(ConnectionLost):
                await reading

    run(work())
