"""Our link to the source: snapshot and stream are told apart by the framing alone, and every way it can end is said."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.support.scripted_primary import MARK, REPLID, ScriptedPrimary, command, until
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, ValkeepError
from valkeep.migrate.source import SourceLink

# full of what could be the mark's beginning
LIKE_THE_MARK = MARK[:39] + b"!" + MARK[:12] + b"7d2" + b"$EOF:" + MARK[:20] + MARK[5:30] + b"\r\n"


class Kept:
    """A receiver that keeps what came."""

    def __init__(self) -> None:
        self.began: list[tuple[str, int]] = []
        self.snapshots = bytearray()
        self.ended = 0
        self.streamed = bytearray()
        self.refuse: Exception | None = None

    def full_resync(self, replid: str, offset: int) -> None:
        self.began.append((replid, offset))

    def snapshot(self, data: memoryview) -> None:
        assert not self.ended
        self.snapshots += data

    def snapshot_end(self) -> None:
        self.ended += 1

    def stream(self, data: memoryview) -> None:
        assert self.ended == 1
        if self.refuse is not None:
            raise self.refuse
        self.streamed += data


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@pytest.mark.parametrize("chunk", [0, 1, 2, 7, 39, 40, 41])
@pytest.mark.parametrize("framing", ["mark", "length"])
@pytest.mark.parametrize("data", [b"", b"s", LIKE_THE_MARK], ids=["empty", "short", "like the mark"])
def test_snapshot_and_stream_are_told_apart_in_any_pieces(data: bytes, framing: str, chunk: int) -> None:
    async def work() -> None:
        kept = Kept()
        async with ScriptedPrimary(data, framing=framing, chunk=chunk) as primary:
            link = await SourceLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept, listening_port=1)
            await until(lambda: primary.acked == 1000)  # our first ACK is what a source waits for
            assert (kept.began, bytes(kept.snapshots), kept.ended) == ([(REPLID, 1000)], data, 1)
            stream = MARK + command("SET k v")
            await primary.send(stream)
            await until(lambda: kept.streamed == stream)
            assert link.received == 1000 + len(stream)
            link.acknowledge()
            await until(lambda: primary.acked == link.received)
            link.close()
            assert await link.lost is None  # type: ignore[func-returns-value]
            assert primary.unknown == []

    run(work())


def test_a_source_that_goes_away_is_told_with_the_place_and_the_offset() -> None:
    async def work() -> None:
        kept = Kept()
        async with ScriptedPrimary(b"snapshot") as primary:
            link = await SourceLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept, listening_port=1)
            await until(lambda: kept.ended)
            await primary.send(command("PING"))
            await until(lambda: kept.streamed)
            await primary.hang_up()
            with pytest.raises(ConnectionLost, match=r"in the stream, at offset 1014") as lost:
                await link.lost
            assert lost.value.remedy

    run(work())


def test_a_source_that_goes_away_in_its_snapshot_is_told_so() -> None:
    async def work() -> None:
        kept = Kept()
        async with ScriptedPrimary(b"snapshot" * 1000) as primary:
            primary.second_half.clear()
            link = await SourceLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept, listening_port=1)
            await until(lambda: kept.snapshots)
            await primary.hang_up()
            with pytest.raises(ConnectionLost, match="in the snapshot"):
                await link.lost
            assert not kept.ended

    run(work())


@pytest.mark.parametrize("refusal", [ValkeepError("no room", remedy="make some"), OSError(28, "No space left on device")])
def test_what_the_receiver_cannot_take_ends_the_link_with_that_reason(refusal: Exception) -> None:
    async def work() -> None:
        kept = Kept()
        kept.refuse = refusal
        async with ScriptedPrimary(b"snapshot") as primary:
            link = await SourceLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept, listening_port=1)
            await until(lambda: kept.ended)
            await primary.send(command("PING"))
            with pytest.raises(ValkeepError, match=r"(?i)no (room|space)") as lost:
                await link.lost
            assert lost.value.remedy

    run(work())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING|loading"),
        (b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n", "NOMASTERLINK|master|primary"),
        (b"-NOPERM this user has no permissions to run the 'psync' command\r\n", "(?i)permission|NOPERM"),
        (b"-ERR unknown command 'PSYNC'\r\n", "(?i)psync|unknown"),
        (b"+FULLRESYNC short 1\r\n", "FULLRESYNC"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
    ],
)
def test_a_source_that_does_not_replicate_is_told_why(answer: bytes, words: str) -> None:
    async def work() -> None:
        async def refuse(writer: asyncio.StreamWriter) -> None:
            writer.write(answer)

        async with ScriptedPrimary(b"") as primary:
            primary._full_resync = refuse  # type: ignore[method-assign]
            link = await SourceLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), Kept(), listening_port=1)
            with pytest.raises(ValkeepError) as lost:
                await asyncio.wait_for(link.lost, 5)
            assert lost.value.remedy
            if words:
                lost.match(words)

    run(work())
