"""Our link to a server as its replica: snapshot and stream are told apart by the framing alone, and every way it can end is said."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.support.scripted_primary import MARK, REPLID, ScriptedPrimary, command, until
from valkeep.client import replication
from valkeep.client.endpoint import Endpoint
from valkeep.client.replication import HungUp, NotNow, ReplicationLink, Silent
from valkeep.client.replication_reader import ENOUGH, ReplicationReader
from valkeep.errors import RemoteProtocolError, ValkeepError
from valkeep.wire.psync import ReplicationDenied

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

    def continued(self, replid: str, offset: int) -> None:
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
            link = await ReplicationLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept)
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
            link = await ReplicationLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept)
            await until(lambda: kept.ended)
            await primary.send(command("PING"))
            await until(lambda: kept.streamed)
            await primary.hang_up()
            with pytest.raises(HungUp, match=r"^127\.0\.0\.1:\d+ closed .* in the stream, at offset 1014") as lost:
                await link.lost
            assert lost.value.remedy

    run(work())


def test_a_source_that_goes_away_in_its_snapshot_is_told_so() -> None:
    async def work() -> None:
        kept = Kept()
        async with ScriptedPrimary(b"snapshot" * 1000) as primary:
            primary.second_half.clear()
            link = await ReplicationLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept)
            await until(lambda: kept.snapshots)
            await primary.hang_up()
            with pytest.raises(HungUp, match="in the snapshot"):
                await link.lost
            assert not kept.ended

    run(work())


@pytest.mark.parametrize("refusal", [ValkeepError("no room", remedy="make some"), ZeroDivisionError("a bug")])
def test_what_the_receiver_cannot_take_ends_the_link_with_that_reason(refusal: Exception) -> None:
    async def work() -> None:
        kept = Kept()
        kept.refuse = refusal
        async with ScriptedPrimary(b"snapshot") as primary:
            link = await ReplicationLink.open(Endpoint.parse(f"redis://127.0.0.1:{primary.port}"), kept)
            await until(lambda: kept.ended)
            await primary.send(command("PING"))
            with pytest.raises(type(refusal)) as lost:
                await link.lost
            assert lost.value is refusal

    run(work())


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", NotNow, "cannot replicate now: LOADING"),
        (b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n", NotNow, "cannot replicate now: NOMASTERLINK"),
        (f"+FULLRESYNC {REPLID} 7\r\n-ERR fork failed\r\n".encode(), NotNow, "could not make a snapshot: ERR fork failed"),
        (b"-NOPERM this user has no permissions to run the 'psync' command\r\n", ReplicationDenied, "permissions to run"),
        (b"-ERR unknown command 'PSYNC'\r\n", ReplicationDenied, "unknown command"),
        (b"+FULLRESYNC short 1\r\n", RemoteProtocolError, "names no replication id"),
        (b"+CONTINUE\r\n", RemoteProtocolError, "although we asked for a full sync"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RemoteProtocolError, "HTTP"),
        (None, HungUp, "while we waited for the reply to PSYNC"),
    ],
)
def test_a_server_that_does_not_replicate_is_named_with_the_reason(answer: bytes | None, kind: type[ValkeepError], words: str) -> None:
    async def work() -> None:
        async with answering(answer) as primary:
            link = await ReplicationLink.open(Endpoint("127.0.0.1", primary.port), Kept(), role="the source")
            with pytest.raises(kind, match=words) as lost:
                await link.lost
            assert lost.value.message.startswith(f"the source 127.0.0.1:{primary.port} ")
            assert lost.value.remedy

    run(work())


def test_a_server_that_misses_the_first_acks_gets_another_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "ACK_SECONDS", 3600.0)

    async def work() -> None:
        async with ScriptedPrimary(b"snapshot") as primary:
            link = await ReplicationLink.open(Endpoint("127.0.0.1", primary.port), Kept())
            for _ in range(3):
                await until(lambda: primary.acked == 1000)
                primary.acked = -1  # it has not yet seen that its child ended
            link.close()

    run(work())


def test_a_silent_server_ends_the_link_but_not_while_we_do_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "SILENCE_SECONDS", 0.3)

    async def work() -> None:
        kept = Kept()
        async with ScriptedPrimary(b"snapshot") as primary:
            link = await ReplicationLink.open(Endpoint("127.0.0.1", primary.port), kept)
            await until(lambda: kept.ended)
            link.pause()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(link.lost), 0.8)
            link.resume()
            with pytest.raises(Silent, match="said nothing for"):
                await link.lost

    run(work())


def test_what_a_reader_has_not_taken_waits_in_the_server() -> None:
    snapshot = bytes(range(256)) * (1 << 16)  # 16 MB: more than sockets hold

    async def work() -> None:
        async with ScriptedPrimary(snapshot) as primary:
            reader = await ReplicationReader.open(Endpoint("127.0.0.1", primary.port), present_as="9.1.0")
            assert (reader.replid, reader.offset) == (REPLID, 1000)
            await until(lambda: reader._link._paused)
            waiting = reader._queue._size
            assert ENOUGH <= waiting <= ENOUGH + replication.BUFFER
            await asyncio.sleep(0.05)
            assert reader._queue._size == waiting
            assert b"".join([piece async for piece in reader.snapshot()]) == snapshot
            stream = command("SET k v") * 300_000
            sending = asyncio.create_task(primary.send(stream))
            got = bytearray()
            async for piece in reader.stream():
                got += piece
                if len(got) == len(stream):
                    break
            assert got == stream
            await sending
            await reader.close()

    run(work())


def test_a_reader_gets_all_that_came_before_it_is_told_that_the_server_went_away() -> None:
    async def work() -> None:
        async with ScriptedPrimary(b"snapshot") as primary:
            reader = await ReplicationReader.open(Endpoint("127.0.0.1", primary.port), present_as="")
            assert [piece async for piece in reader.snapshot()] == [b"snapshot"]
            await primary.send(command("PING"))
            await until(lambda: reader._queue._size)
            await primary.hang_up()
            await until(reader._link.lost.done)
            stream = reader.stream()
            assert await anext(stream) == command("PING")
            with pytest.raises(HungUp, match="in the stream"):
                await anext(stream)
            await reader.close()

    run(work())


def test_a_reader_waits_for_a_server_that_is_not_ready() -> None:
    async def work() -> None:
        async with answering(b"-LOADING Redis is loading the dataset in memory\r\n") as primary:
            endpoint = Endpoint("127.0.0.1", primary.port)
            with pytest.raises(NotNow, match="LOADING"):
                await ReplicationReader.open(endpoint, present_as="", patience=0)
            opening = asyncio.create_task(ReplicationReader.open(endpoint, present_as=""))
            await until(lambda: primary.asked >= 3)
            primary.ready = True
            reader = await opening
            assert b"".join([piece async for piece in reader.snapshot()]) == b"snapshot"
            await reader.close()

    run(work())


class Answering(ScriptedPrimary):
    """Answers PSYNC with ``answer`` (None: hangs up) until it is ``ready``."""

    answer: bytes | None
    asked = 0
    ready = False

    async def _full_resync(self, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        if self.ready:
            await super()._full_resync(writer)
        elif self.answer is None:
            writer.close()
        else:
            writer.write(self.answer)


def answering(answer: bytes | None) -> Answering:
    primary = Answering(b"snapshot")
    primary.answer = answer
    return primary
