"""Blocks of commands and the count of their replies: which came, which were odd, and what a break does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from valkeep.client.bulk import Bulk
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, ServerError


@contextlib.asynccontextmanager
async def talking(answer: bytes, *, seed: int = 0, hang_up: bool = False) -> AsyncIterator[Bulk]:
    """A bulk connection to a server that logs us in and then says ``answer``, in pieces, once anything comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rng = random.Random(seed)
        await reader.readuntil(b"SETNAME\r\n$4\r\nbulk\r\n")
        writer.write(b"+PONG\r\n+OK\r\n")
        await reader.read(1)
        left = answer
        while left:
            size = rng.randint(1, 40)
            writer.write(left[:size])
            await writer.drain()
            await asyncio.sleep(0)
            left = left[size:]
        if not hang_up:
            with contextlib.suppress(OSError):
                await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        served.set()

    served = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        bulk = Bulk(await Connection.open(Endpoint("127.0.0.1", port), client_name="bulk"))
        try:
            yield bulk
        finally:
            bulk.close()
            await served.wait()


@pytest.mark.parametrize("seed", range(5))
def test_plain_replies_are_counted_and_odd_ones_kept_with_their_place(seed: int) -> None:
    async def run() -> None:
        answer = (
            b"+OK\r\n" * 500
            + b"-OOM no memory\r\n"
            + b":7\r\n$3\r\nabc\r\n"
            + b"+QUEUED\r\n" * 3
            + b"*2\r\n+OK\r\n-ERR x\r\n"
            + b"+OK\r\n" * 9
        )
        async with talking(answer, seed=seed) as bulk:
            bulk.write(b"anything")
            blocks = [bulk.expect(400), bulk.expect(103), bulk.expect(4), bulk.expect(9)]
            first, second, third, last = [await block for block in blocks]
        assert (first, last) == ([], [])
        (place, error) = second[0]
        assert (place, isinstance(error, ServerError), len(second)) == (100, True, 1)
        (place, answers) = third[0]
        assert place == 3
        assert isinstance(answers, list)
        assert answers[0] == b"OK"
        assert isinstance(answers[1], ServerError)

    asyncio.run(run())


def test_how_many_replies_there_will_be_may_be_said_after_they_came() -> None:
    async def run() -> None:
        async with talking(b"+OK\r\n-ERR early\r\n" + b"+OK\r\n" * 3) as bulk:
            bulk.write(b"anything")
            await asyncio.sleep(0.05)
            assert [place for place, _ in await bulk.expect(2)] == [1]
            assert await bulk.expect(3) == []

    asyncio.run(run())


def test_a_break_ends_what_is_in_flight_and_whatever_comes_after_it() -> None:
    async def run() -> None:
        async with talking(b"+OK\r\n", hang_up=True) as bulk:
            bulk.write(b"anything")
            whole, broken = bulk.expect(1), bulk.expect(1)
            assert await whole == []
            with pytest.raises(ConnectionLost) as found:
                await broken
            assert not found.value.definite
            for again in (lambda: bulk.write(b"more"), lambda: bulk.expect(1).result()):
                with pytest.raises(ConnectionLost):
                    again()
            with pytest.raises(ConnectionLost):
                await bulk.room()

    asyncio.run(run())


def test_a_peer_that_says_nothing_is_given_up_after_a_while() -> None:
    async def run() -> None:
        async with talking(b"+OK\r\n") as bulk:
            bulk.patience = 0.1
            bulk.write(b"anything")
            with pytest.raises(ConnectionLost, match="has said nothing"):
                await bulk.answer(bulk.expect(2))
            with pytest.raises(ConnectionLost):
                bulk.write(b"more")

    asyncio.run(run())
