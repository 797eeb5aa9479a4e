"""The PSYNC conversation with real servers on the other side: our primary side feeds Valkey, our replica side is fed by all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import Server
from valkeep.wire import psync
from valkeep.wire.resp import encode
from valkeep.wire.stream import ATTENTION, CommandScanner

TARGETS = ["valkey-8.0", "valkey-8.1", "valkey-9.1"]
SOURCES = ["redis-7.0", "redis-8.0", *TARGETS]
REPLID = "0123456789abcdef0123456789abcdef01234567"
MARK = b"f" * 40
# REDIS0011, SELECTDB 0, one string key, EOF, no checksum
SNAPSHOT = bytes.fromhex("52454449533030 3131 fe00 00 03666f6f 03626172 ff 0000000000000000")

Client = Callable[..., Any]


class TinyPrimary:
    """What a gateway does at least: snapshot, then stream; every connection of a target is served so."""

    def __init__(self, *, marked: bool, password: str | None = None) -> None:
        self.marked = marked
        self.password = password
        self.stream = encode("SELECT", "0") + encode("SET", "streamed", "1")
        self.requests: list[psync.PsyncRequest] = []
        self.events: list[psync.PrimaryEvent] = []
        self.acked = -1
        self.unknown: tuple[str, ...] = ()
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        side = psync.PrimarySide(password=self.password)
        self.writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in side.receive(data):
                    self.events.append(event)
                    match event:
                        case psync.PsyncRequest():
                            self.requests.append(event)
                            if event.replid == REPLID and event.offset <= len(self.stream) + 1:
                                sent = event.offset - 1
                                side.continue_with(REPLID)
                            else:
                                side.full_resync(REPLID, 0)
                                side.keep_alive()
                                if self.marked:
                                    side.begin_payload(mark=MARK)
                                else:
                                    side.begin_payload(length=len(SNAPSHOT))
                                writer.write(side.data_to_send() + SNAPSHOT)
                                side.end_payload()
                        case psync.Ack(offset):
                            self.acked = offset
                        case psync.Command():
                            side.reply(psync.error_reply("ERR unknown"))
                        case _:
                            pass
                writer.write(side.data_to_send())
                if side.may_stream:
                    writer.write(self.stream[sent:])
                    sent = len(self.stream)
                self.unknown = side.replica.unknown
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(primary: TinyPrimary) -> AsyncIterator[TinyPrimary]:
    async with await asyncio.start_server(primary.serve, "127.0.0.1", 0) as running:
        primary.port = running.sockets[0].getsockname()[1]
        try:
            yield primary
        finally:
            running.close()
            for writer in primary.writers:
                writer.close()
            await asyncio.gather(*primary.tasks)


async def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
    return found


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


@pytest.mark.parametrize("marked", [True, False], ids=["end mark", "length"])
@pytest.mark.parametrize("spec", TARGETS)
def test_a_real_valkey_takes_snapshot_and_stream_from_the_primary_side(server: Server, client: Client, spec: str, marked: bool) -> None:
    node = server(spec)
    ask = client(node)

    async def story() -> None:
        async with serving(TinyPrimary(marked=marked)) as primary:
            await asyncio.to_thread(ask.replicaof, "127.0.0.1", primary.port)
            await until(lambda: ask.get("streamed") == b"1", "the streamed key")
            assert ask.get("foo") == b"bar"
            await until(lambda: primary.acked == len(primary.stream), "the ACK of the whole stream")
            (request,) = primary.requests
            assert request.replid != REPLID  # Valkey asks with its own id first: it might be an old replica of ours
            assert request.replica.listening_port == node.port
            assert {"eof", "psync2"} <= request.replica.capabilities
            assert request.replica.version == node.binary.version
            assert ask.info("replication")["master_link_status"] == "up"
            # the link breaks, and goes on where it was
            primary.writers[-1].close()
            primary.stream += encode("SET", "later", "2")
            await until(lambda: ask.get("later") == b"2", "the key written while the link was down")
            assert [(request.replid, request.offset) for request in primary.requests[1:]] == [
                (REPLID, len(primary.stream) - len(encode("SET", "later", "2")) + 1)
            ]
            assert ask.info("errorstats") == {} or "errorstat_ERR" not in ask.info("errorstats")
            assert ask.info("stats")["unexpected_error_replies"] == 0
            await asyncio.to_thread(ask.replicaof, "no", "one")

    run(story())


@pytest.mark.parametrize("spec", ["valkey-8.1", "valkey-9.1"])
def test_a_real_valkey_logs_in_at_the_primary_side_with_its_primaryauth(server: Server, client: Client, spec: str) -> None:
    node = server(spec, masterauth="wrong")
    ask = client(node)

    async def story() -> None:
        async with serving(TinyPrimary(marked=True, password="s3cret")) as primary:
            await asyncio.to_thread(ask.replicaof, "127.0.0.1", primary.port)
            await until(lambda: any(isinstance(event, psync.LoginFailed) for event in primary.events), "the refused login")
            assert primary.requests == []
            await asyncio.to_thread(ask.config_set, "masterauth", "s3cret")
            await until(lambda: ask.get("streamed") == b"1", "the streamed key")
            await asyncio.to_thread(ask.replicaof, "no", "one")

    run(story())


class Follower:
    """A replica that keeps what it is sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.snapshot = bytearray()
        self.stream = bytearray()
        self.offset = 0

    @contextlib.asynccontextmanager
    async def acknowledging(self) -> AsyncIterator[None]:
        """As replicas do. A single ACK can come before the source has seen its own child end; then it is dropped, and no stream begins."""

        async def again() -> None:
            while True:
                self.writer.write(psync.ack(self.offset))
                await asyncio.sleep(0.1)

        task = asyncio.create_task(again())
        try:
            yield
        finally:
            task.cancel()
            self.writer.close()
            await self.writer.wait_closed()

    async def handshake(self, side: psync.ReplicaSide) -> list[psync.ReplicaEvent]:
        seen: list[psync.ReplicaEvent] = []
        while True:
            self.writer.write(side.data_to_send())
            data = await self.reader.read(1000)
            if not data:
                return [*seen, side.lost()]
            seen += side.receive(data)
            if seen and isinstance(seen[-1], (psync.PayloadStart, psync.Continue, psync.Failed, psync.Retry)):
                return seen

    async def read_snapshot(self, start: psync.PayloadStart, rest: bytes) -> None:
        payload = psync.Payload(start)
        while True:
            size, used = payload.split(rest, len(rest))
            self.snapshot += rest[:size]
            if payload.done:
                self.stream += rest[used:]
                return
            more = await self.reader.read(1000)
            assert more
            rest = rest[used:] + more

    async def read_commands(self, name: bytes) -> list[list[bytes]]:
        """All commands of the stream until the first ``name``."""
        scanner = CommandScanner(frozenset())
        commands: list[list[bytes]] = []
        at = 0
        while True:
            at = scanner.scan(self.stream, at, len(self.stream))
            if scanner.stop == ATTENTION and (found := scanner.command(self.stream, at, len(self.stream))):
                commands.append(found[0])
                at = found[1]
                scanner.passed(scanner.name)
                if scanner.name == name:
                    return commands
                continue
            data = await self.reader.read(65536)
            assert data
            self.stream += data


@pytest.mark.parametrize("spec", SOURCES)
def test_a_real_source_serves_the_replica_side(server: Server, client: Client, spec: str) -> None:
    node = server(spec)
    ask = client(node)
    ask.mset({f"k{number}": os.urandom(100) for number in range(200)})

    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        follower = Follower(reader, writer)
        side = psync.ReplicaSide(listening_port=12345, ip_address="127.0.0.77", version="8.1.0")
        full, start = await follower.handshake(side)
        assert isinstance(full, psync.FullResync)
        assert isinstance(start, psync.PayloadStart)
        await follower.read_snapshot(start, side.rest())
        assert bytes(follower.snapshot[:5]) in (b"REDIS", b"VALKE")
        assert len(follower.snapshot) > 200 * 100
        assert follower.snapshot[-9] == 0xFF  # EOF opcode, then the checksum
        follower.offset = full.offset
        async with follower.acknowledging():
            await until(lambda: ask.info("replication")["slave0"]["state"] == "online", "the source calls us online")
            ask.set("after", "1")
            commands = await follower.read_commands(b"SET")
            assert commands[-1] == [b"SET", b"after", b"1"]
            slave = ask.info("replication")["slave0"]
            assert (slave["ip"], slave["port"]) == ("127.0.0.77", 12345)
        offset = full.offset + len(follower.stream)

        # and a second time, from where we were
        ask.set("offline", "2")
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        follower = Follower(reader, writer)
        side = psync.ReplicaSide(listening_port=12345, psync=(full.replid, offset + 1))
        (event,) = await follower.handshake(side)
        assert event == psync.Continue(None)
        follower.stream += side.rest()
        assert (await follower.read_commands(b"SET"))[-1] == [b"SET", b"offline", b"2"]
        writer.close()
        await writer.wait_closed()

    run(story())


@pytest.mark.parametrize("spec", ["redis-8.0", "valkey-9.1"])
def test_a_source_that_does_not_let_us_in_is_named_with_a_remedy_and_without_the_password(server: Server, spec: str) -> None:
    node = server(spec, {"user": ["default on >right ~* +@all", "poor on >poor ~* +get +ping"]})

    async def ask(**login: str | None) -> psync.ReplicaEvent:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        events = await Follower(reader, writer).handshake(psync.ReplicaSide(listening_port=1, **login))  # type: ignore[arg-type]
        writer.close()
        await writer.wait_closed()
        return events[-1]

    async def story() -> None:
        for login, says in (
            ({}, "wants a password"),
            ({"password": "hunter2"}, "did not accept the password"),
            ({"username": "poor", "password": "poor"}, "does not let this user replicate"),
        ):
            event = await ask(**login)
            assert isinstance(event, psync.Failed), event
            assert says in event.error.message
            assert event.error.remedy
            assert "hunter2" not in str(event)

    run(story())
