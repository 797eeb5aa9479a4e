"""The proxy's process, looked at closely: no byte is lost, doubled or out of order, whatever is cut and delayed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from valkeep.runtime import ports
from valkeep.runtime.network.pump import Exchange

CALLER, NODE, DOOR = "127.0.2.77", "127.0.1.77", "127.0.4.77"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def exchange(echo: bool = True) -> AsyncIterator[tuple[Exchange, int, asyncio.Queue[Streams]]]:
    """An exchange before a node that sends back what it gets (or hands its connections over); and the port of both."""
    taken: asyncio.Queue[Streams] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if not echo:
            taken.put_nowait((reader, writer))
            return
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    reservation = ports.reserve(host=NODE)
    server = await asyncio.start_server(serve, NODE, reservation.port)
    try:
        made = Exchange()
        await made.open((DOOR, reservation.port), (NODE, reservation.port))
        yield made, reservation.port, taken
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        reservation.release()


async def call(port: int) -> Streams:
    return await asyncio.open_connection(DOOR, port, local_addr=(CALLER, 0))


def run(test: object) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40):
            await test  # type: ignore[misc]

    asyncio.run(bounded())


@pytest.mark.parametrize("seed", range(3))
def test_every_byte_arrives_once_and_in_order_through_cuts_and_delays(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        sent = rng.randbytes(3_000_000)
        async with exchange() as (made, port, _):
            reader, writer = await call(port)

            async def send() -> None:
                at = 0
                while at < len(sent):
                    size = rng.randrange(1, 60_000)
                    writer.write(sent[at : at + size])
                    at += size
                    await writer.drain()

            async def trouble() -> None:
                for _ in range(40):
                    await asyncio.sleep(rng.random() * 0.02)
                    match rng.randrange(4):
                        case 0:
                            made.cut([CALLER], [NODE])
                        case 1:
                            made.cut([NODE], [CALLER])
                        case 2:
                            made.make_late([rng.choice((CALLER, NODE))], rng.random() * 0.03)
                        case _:
                            made.heal()
                made.heal()

            sending, troubling = asyncio.create_task(send()), asyncio.create_task(trouble())
            assert await reader.readexactly(len(sent)) == sent
            await asyncio.gather(sending, troubling)
            writer.close()
            await writer.wait_closed()

    run(main())


def test_the_end_of_a_connection_does_not_cross_a_cut_and_arrives_after_the_heal() -> None:
    async def main() -> None:
        async with exchange(echo=False) as (made, port, taken):
            _, writer = await call(port)
            writer.write(b"hello")
            reader, far = await taken.get()
            assert await reader.readexactly(5) == b"hello"
            made.cut([CALLER], [NODE])
            writer.close()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            made.heal()
            assert await reader.read(1) == b""
            far.close()

    run(main())


def test_a_node_sees_the_callers_own_address() -> None:
    async def main() -> None:
        async with exchange(echo=False) as (_, port, taken):
            _, writer = await call(port)
            _, far = await taken.get()
            assert far.get_extra_info("peername")[0] == CALLER
            writer.close()
            far.close()

    run(main())


def test_a_closed_port_resets_the_caller() -> None:
    async def main() -> None:
        reservation = ports.reserve(host=NODE)
        try:
            made = Exchange()
            await made.open((DOOR, reservation.port), (NODE, reservation.port))
            reader, writer = await call(reservation.port)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(1) == b""
            writer.close()
        finally:
            reservation.release()

    run(main())


def test_a_reader_that_stands_still_holds_its_sender_and_nobody_else() -> None:
    async def main() -> None:
        async with exchange(echo=False) as (_, port, taken):
            _, writer = await call(port)
            await taken.get()  # and never read
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    while True:
                        writer.write(b"x" * (1 << 20))
                        await writer.drain()
            _, other = await call(port)
            other.write(b"y")
            reader, _ = await taken.get()
            assert await reader.readexactly(1) == b"y"
            for one in (writer, other):
                one.transport.abort()

    run(main())
