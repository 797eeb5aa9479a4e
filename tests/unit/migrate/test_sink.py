"""One target's link, without a target."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.scripted_primary import until
from valkeep.errors import ConnectionLost
from valkeep.migrate.face import Guest
from valkeep.migrate.gateway.sink import LinkState, TargetLink
from valkeep.migrate.spool import Spool
from valkeep.wire import psync
from valkeep.wire.resp import encode

NOBODY = Guest(1, lambda _guest, _args: b"", 0.0)  # nobody asks anything here
REPLID = "a" * 40


class Transport(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def test_a_snapshot_that_broke_off_before_its_first_byte_ends_a_link_that_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        spool = Spool(tmp_path, "snapshot")
        channel: Any = SimpleNamespace(
            replid=REPLID, begins=0, ends=0, said=0, complete=False, snapshot=spool, stream=spool, knows=lambda *_: False, joined=None
        )
        reasons: list[str] = []
        ended = asyncio.Event()

        def closed(_link: TargetLink, reason: str) -> None:
            reasons.append(reason)
            ended.set()

        link = TargetLink(psync.PrimarySide(), lambda _l, _v: channel, closed, lambda _l: None, frozenset({"127.0.0.1"}), guest=NOBODY)
        link.connection_made(Transport())
        link.data_received(encode("REPLCONF", "capa", "eof", "capa", "psync2") + encode("PSYNC", "?", "-1"))
        await asyncio.sleep(0)
        assert link.state is LinkState.WAITING
        spool.seal()
        async with asyncio.timeout(5):
            await ended.wait()
        spool.close()
        return reasons

    assert "broke off" in asyncio.run(scenario())[0]


def test_a_target_that_hangs_up_right_behind_its_psync_leaves_no_work_behind(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        spool = Spool(tmp_path, "snapshot")
        channel: Any = SimpleNamespace(
            replid=REPLID, begins=0, ends=0, said=0, complete=False, snapshot=spool, stream=spool, knows=lambda *_: False, joined=None
        )
        reasons: list[str] = []
        link = TargetLink(
            psync.PrimarySide(),
            lambda _l, _v: channel,
            lambda _l, why: reasons.append(why),
            lambda _l: None,
            frozenset({"127.0.0.1"}),
            guest=NOBODY,
        )
        link.connection_made(Transport())
        link.data_received(encode("REPLCONF", "capa", "eof", "capa", "psync2") + encode("PSYNC", "?", "-1"))
        link.connection_lost(None)  # before the loop turned once
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        spool.close()
        return reasons

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore")
        gc.collect()  # what other tests left behind
        warnings.simplefilter("always")
        assert asyncio.run(scenario()) == ["the target hung up"]
        gc.collect()
    assert not seen


STREAM = b"0123456789"  # from offset 1000 on
ASK = encode("REPLCONF", "capa", "eof", "capa", "psync2")
FULL = encode("PSYNC", "?", "-1")


class Target:
    """A target's socket, and the gateway's end of it: a link that serves ``STREAM`` behind a snapshot of eight bytes."""

    def __init__(self, tmp_path: Path, *, complete: bool) -> None:
        self.snapshot = Spool(tmp_path, "snapshot")
        self.snapshot.append(b"snapshot")
        self.stream = Spool(tmp_path, "stream", start=1000)
        self.stream.append(STREAM)
        self.channel: Any = SimpleNamespace(
            replid=REPLID,
            begins=1000,
            ends=1010,
            said=1010,
            complete=complete,
            snapshot=self.snapshot,
            stream=self.stream,
            knows=lambda replid, offset: complete and replid == REPLID and offset >= 0,
            joined=None,
        )
        if complete:
            self.snapshot.seal()
        self.reasons: list[str] = []
        self.link: TargetLink
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    def end_snapshot(self) -> None:
        self.channel.complete = True
        self.snapshot.seal()

    def _accept(self) -> TargetLink:
        self.link = TargetLink(
            psync.PrimarySide(),
            lambda _l, _v: self.channel,
            lambda _l, why: self.reasons.append(why),
            lambda _l: None,
            frozenset({"127.0.0.1"}),
            guest=NOBODY,
        )
        return self.link

    @contextlib.asynccontextmanager
    async def attached(self, request: bytes) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        async with server, asyncio.timeout(10):
            self.reader, self.writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            self.writer.write(ASK + request)
            yield
            self.writer.close()
            with contextlib.suppress(ConnectionError):
                await self.writer.wait_closed()
            await until(lambda: self.reasons)
            self.snapshot.close()
            self.stream.close()


@pytest.mark.parametrize("request_", [FULL, encode("PSYNC", REPLID, "1007")], ids=["full sync", "continued"])
@pytest.mark.parametrize("too_much", [1011, 1 << 62])
def test_a_target_that_acknowledges_more_than_it_was_sent_is_cut_off_and_never_counts_as_drained(
    tmp_path: Path, request_: bytes, too_much: int
) -> None:
    async def scenario() -> None:
        target = Target(tmp_path, complete=True)
        async with target.attached(request_):
            assert await target.reader.readuntil(STREAM[-3:])
            target.writer.write(psync.ack(1010))
            await target.link.acknowledged_up_to(1010)
            drained = asyncio.create_task(target.link.acknowledged_up_to(1011))
            target.writer.write(psync.ack(too_much))
            with pytest.raises(ConnectionLost, match="closed its link"):
                await drained
            assert target.link.acknowledged == 1010
            assert target.link.state is LinkState.CLOSED
            assert f"acknowledged offset {too_much}, and it was sent no more than 1010" in target.reasons[0]
            assert await target.reader.read() == b""  # it is hung up on

    asyncio.run(scenario())


def test_the_first_ack_behind_the_end_mark_is_the_snapshots_offset_and_no_more(tmp_path: Path) -> None:
    async def scenario(ack: int) -> tuple[bytes, list[str]]:
        target = Target(tmp_path / str(ack), complete=False)
        async with target.attached(FULL):
            await target.reader.readuntil(b"snapshot")
            target.end_snapshot()
            await target.reader.readuntil(REPLID.encode())
            assert target.link.state is LinkState.LOADING
            target.writer.write(psync.ack(ack))
            return await target.reader.read(100), list(target.reasons)

    assert asyncio.run(scenario(1000)) == (STREAM, [])
    got, (reason,) = asyncio.run(scenario(1001))
    assert got == b""
    assert "sent no more than 1000" in reason


def test_an_ack_from_before_the_sync_is_of_another_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        target = Target(tmp_path, complete=False)
        async with target.attached(psync.ack(5000) + FULL):
            await target.reader.readuntil(b"snapshot")
            assert target.link.acknowledged == -1

    asyncio.run(scenario())
