"""The connection with real servers, and with peers that are none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.certificate import self_signed
from tests.support.scripted_primary import ScriptedPrimary, command, until
from valkeep.client.connection import Connection
from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.client.replication_reader import ReplicationReader
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, Refused, RemoteProtocolError, ServerError, UsageError, ValkeepError

Client = Callable[..., Any]
SPECS = ["redis-7.0", "redis-8.0", "valkey-8.0", "valkey-8.1", "valkey-9.1"]


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


async def refusal(endpoint: Endpoint, **options: Any) -> ValkeepError:
    """The error that opening ends with; it has a remedy, changed nothing and keeps the secret."""
    with pytest.raises(ValkeepError) as caught:
        await Connection.open(endpoint, **options)
    assert caught.value.remedy
    assert caught.value.definite
    assert "hunter2" not in repr(caught.value) + str(caught.value) + caught.value.remedy
    return caught.value


@contextlib.asynccontextmanager
async def peer(answer: bytes | None, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    """Somebody who answers everything with ``answer`` and hangs up; None: who never answers."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError):
            await reader.read(100)
            if answer is None:
                while await reader.read(1000):
                    pass
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as running:
        yield Endpoint("127.0.0.1", running.sockets[0].getsockname()[1])
        running.close()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("spec", SPECS)
def test_calls_pipelines_and_transactions_are_answered(server: Server, client: Client, spec: str) -> None:
    node = server(spec)
    oracle = client(node, db=3)

    async def story() -> None:
        async with await Connection.open(Endpoint("127.0.0.1", node.port, db=3)) as connection:
            assert await connection.call("SET", "k", b"\x00\xff") == b"OK"
            assert oracle.get("k") == b"\x00\xff"
            first, second, third = await connection.pipeline([("INCR", "n"), ("LPUSH", "k", "x"), ("INCR", "n")])
            assert (first, third) == (1, 2)
            assert second.kind == "WRONGTYPE"
            with pytest.raises(ServerError, match="WRONGTYPE"):
                await connection.call("LPUSH", "k", "x")
            dump, info = await connection.execute([("DUMP", "k"), ("INFO", "replication")])
            assert b"master_repl_offset" in info
            oracle.restore("copy", 0, dump)
            assert oracle.get("copy") == b"\x00\xff"
            with pytest.raises(ServerError, match="unknown command"):
                await connection.execute([("SET", "never", 1), ("NOSUCH",)])
            assert oracle.get("never") is None
            assert await connection.pipeline([]) == []
            found = await server_info(connection)
            assert (found.kind, found.version) == (node.binary.name, node.binary.version)
            assert (found.role, found.mode, found.databases, found.keys) == ("primary", "standalone", 16, {3: 3})
            assert len(found.replid) == 40
            assert [row["name"] for row in oracle.client_list() if row["name"]] == ["valkeep"]

    run(story())


def test_many_callers_on_one_connection_get_their_own_replies(server: Server) -> None:
    node = server("valkey-9.1")

    async def story() -> None:
        async with await Connection.open(Endpoint("127.0.0.1", node.port)) as connection:

            async def caller(name: int) -> None:
                for turn in range(100):
                    text = f"{name}:{turn}" * (1 + turn % 7 * 400)
                    assert await connection.call("ECHO", text) == text.encode()

            impatient = asyncio.create_task(connection.call("ECHO", "x"))
            await asyncio.sleep(0)
            impatient.cancel()  # its reply comes all the same, and must go to nobody
            await asyncio.gather(*[caller(name) for name in range(50)])
            assert connection.in_flight == 0
            big = b"x" * 30_000_000
            assert await connection.call("ECHO", big) == big

    run(story())


def test_requests_in_flight_at_a_killed_server_are_in_doubt_and_later_ones_are_not(server: Server) -> None:
    node = server("valkey-9.1")

    async def story() -> None:
        connection = await Connection.open(Endpoint("127.0.0.1", node.port))
        waiting = [asyncio.create_task(connection.call("BLPOP", "nothing", 0, timeout=0)) for _ in range(3)]
        await asyncio.sleep(0)
        assert connection.in_flight == 3
        await asyncio.to_thread(node.kill)
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, ConnectionLost)
            assert not result.definite
        with pytest.raises(ConnectionLost) as caught:
            await connection.call("PING")
        assert caught.value.definite
        assert connection.closed
        await connection.close()

    run(story())


def test_a_call_that_takes_too_long_closes_the_connection_and_is_in_doubt(server: Server) -> None:
    node = server("valkey-9.1")

    async def story() -> None:
        connection = await Connection.open(Endpoint("127.0.0.1", node.port))
        await asyncio.to_thread(node.pause)
        others = asyncio.create_task(connection.pipeline([("SET", "a", 1), ("SET", "b", 2)]))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionLost, match="did not answer SET within") as caught:
            await connection.call("SET", "k", 1, timeout=0.1)
        assert not caught.value.definite
        with pytest.raises(ConnectionLost) as caught:
            await others
        assert not caught.value.definite
        await connection.close()
        error = await refusal(Endpoint("127.0.0.1", node.port), timeout=0.2)
        assert "says nothing" in error.remedy
        await asyncio.to_thread(node.resume)

    run(story())


@pytest.mark.parametrize("spec", ["redis-7.0", "redis-8.0", "valkey-9.1"])
def test_a_wrong_login_is_refused_with_a_remedy(server: Server, spec: str, caplog: pytest.LogCaptureFixture) -> None:
    node = server(spec, {"user": ["default on >right ~* +@all", "alice on >wonder ~* +@all", "poor on >thirst ~* +get"]})
    here = Endpoint("127.0.0.1", node.port)
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        for url, says in (
            ("redis://:hunter2@h", "password of the default user"),
            ("redis://alice:hunter2@h", "password of user 'alice'"),
            ("redis://nobody:hunter2@h", "password of user 'nobody'"),
            ("redis://h", "wants a password"),
            ("redis://:right@h/99", "no database 99"),
            ("redis://poor:thirst@h/1", "no database 1: NOPERM"),
        ):
            given = Endpoint.parse(url)
            error = await refusal(Endpoint(here.host, here.port, given.db, given.username, given.password))
            assert isinstance(error, Refused)
            assert says in error.message
        for user, word in ((None, "right"), ("alice", "wonder"), ("poor", "thirst")):
            async with await Connection.open(Endpoint(here.host, here.port, 0, user, Secret(word))) as connection:
                assert word not in repr(connection) + str(vars(connection))
                await connection.call("GET", "k")
        async with await Connection.open(Endpoint(here.host, here.port, 0, None, Secret("right"))) as connection:
            with pytest.raises(ServerError) as caught:
                await connection.call("NOSUCH", Secret("hunter2"))
            assert "hunter2" not in str(caught.value)
            assert "right" not in str(caught.value)

    run(story())
    assert "hunter2" not in caplog.text


def test_a_password_for_a_server_without_one_is_refused(server: Server) -> None:
    node = server("valkey-9.1")

    async def story() -> None:
        error = await refusal(Endpoint("127.0.0.1", node.port, password=Secret("hunter2")))
        assert "has no password" in error.message

    run(story())


def test_a_full_server_says_so(server: Server, client: Client) -> None:
    node = server("valkey-9.1", maxclients=1)
    oracle = client(node)
    oracle.ping()

    async def story() -> None:
        error = await refusal(Endpoint("127.0.0.1", node.port))
        assert "max number of clients" in error.message

    run(story())


def test_peers_that_are_no_server_are_named() -> None:
    async def story() -> None:
        async with peer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as endpoint:
            error = await refusal(endpoint)
            assert isinstance(error, RemoteProtocolError)
            assert "HTTP" in error.message
        async with peer(b"\x00\x01garbage") as endpoint:
            assert isinstance(await refusal(endpoint), RemoteProtocolError)
        async with peer(b"") as endpoint:
            assert "hung up without a word" in (await refusal(endpoint)).message
        async with peer(None) as endpoint:
            assert "did not answer within" in (await refusal(endpoint, timeout=0.1)).message
        assert "refused the connection" in (await refusal(endpoint)).message
        assert "does not resolve" in (await refusal(Endpoint("no-such-host.invalid"))).message

    run(story())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority for the name ``valkeep.test``."""
    folder = tmp_path_factory.mktemp("tls")
    self_signed(folder, "DNS:valkeep.test")
    return folder


def test_tls_is_verified_and_each_failure_has_its_remedy(certificates: Path) -> None:
    cert, key = str(certificates / "cert.pem"), str(certificates / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def story() -> None:
        async with peer(b"+PONG\r\n+OK\r\n", context=context) as plain:

            def over(**options: Any) -> Endpoint:
                return Endpoint(plain.host, plain.port, tls=TLS(**options))

            error = await refusal(over())
            assert "certificate" in error.message
            assert "ca=" in error.remedy
            error = await refusal(over(ca=cert))
            assert "server_name=" in error.remedy
            for good in (over(ca=cert, server_name="valkeep.test"), over(ca=cert, verify="ca"), over(verify="none")):
                await (await Connection.open(good)).close()
            assert "TLS" in (error := await refusal(plain, timeout=1)).message + error.remedy
        async with peer(b"-ERR Protocol error\r\n") as plain:
            assert "does not speak TLS" in (await refusal(Endpoint(plain.host, plain.port, tls=TLS()))).message
        for wrong in (TLS(ca="/absent.pem"), TLS(cert=cert, key=cert), TLS(ca=key)):
            assert isinstance(await refusal(Endpoint("127.0.0.1", 1, tls=wrong)), UsageError)
        context.load_verify_locations(cert)
        context.verify_mode = ssl.CERT_REQUIRED
        async with peer(b"+PONG\r\n+OK\r\n", context=context) as plain:
            good = Endpoint(plain.host, plain.port, tls=TLS(verify="none", cert=cert, key=key))
            await (await Connection.open(good)).close()
            await refusal(Endpoint(plain.host, plain.port, tls=TLS(verify="none")))

    run(story())


@pytest.mark.parametrize("framing", ["mark", "length"])
def test_a_slow_reader_of_a_replication_link_over_tls_gets_every_byte(certificates: Path, framing: str) -> None:
    cert, key = str(certificates / "cert.pem"), str(certificates / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    snapshot, stream = bytes(range(256)) * (1 << 16), command("SET k v") * 100_000

    async def story() -> None:
        async with ScriptedPrimary(snapshot, framing=framing, tls=context) as primary:
            endpoint = Endpoint("127.0.0.1", primary.port, tls=TLS(ca=cert, server_name="valkeep.test"))
            reader = await ReplicationReader.open(endpoint, present_as="9.1.0")
            await until(lambda: reader._link._paused)
            assert b"".join([piece async for piece in reader.snapshot()]) == snapshot
            await until(lambda: primary.acked == 1000)
            sending = asyncio.create_task(primary.send(stream))
            await until(lambda: reader._link._paused)
            got = bytearray()
            async for piece in reader.stream():
                got += piece
                if len(got) == len(stream):
                    break
            assert got == stream
            await sending
            await until(lambda: primary.acked == 1000 + len(stream))
            await reader.close()

    run(story())


def test_a_server_that_asks_how_far_its_replicas_are_gets_an_answer_at_once(server: Server, client: Callable[..., Any]) -> None:
    source = server("valkey-9.1")

    async def story() -> None:
        here = client(source)
        reader = await ReplicationReader.open(Endpoint.parse(source.endpoint), present_as="255.255.255")
        try:
            async for _ in reader.snapshot():
                pass
            took = []
            for number in range(20):
                here.set("k", number)
                begun = time.monotonic()
                assert await asyncio.to_thread(here.wait, 1, 10_000) == 1, number
                took.append(time.monotonic() - begun)
            assert statistics.median(took) < 0.3  # an ACK each second would be too late for most
        finally:
            await reader.close()

    asyncio.run(story())
