"""One target's link, without a target."""

from __future__ import annotations

import asyncio
import gc
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from valkeep.migrate.sink import LinkState, TargetLink
from valkeep.migrate.spool import Spool
from valkeep.wire import psync
from valkeep.wire.resp import encode

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
        channel: Any = SimpleNamespace(replid=REPLID, begins=0, ends=0, said=0, complete=False, snapshot=spool, stream=spool)
        reasons: list[str] = []
        ended = asyncio.Event()

        def closed(_link: TargetLink, reason: str) -> None:
            reasons.append(reason)
            ended.set()

        link = TargetLink(psync.PrimarySide(), lambda _l, _v: channel, closed, lambda _l: None, frozenset({"127.0.0.1"}))
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
        channel: Any = SimpleNamespace(replid=REPLID, begins=0, ends=0, said=0, complete=False, snapshot=spool, stream=spool)
        reasons: list[str] = []
        link = TargetLink(
            psync.PrimarySide(), lambda _l, _v: channel, lambda _l, why: reasons.append(why), lambda _l: None, frozenset({"127.0.0.1"})
        )
        link.connection_made(Transport())
        link.data_received(encode("REPLCONF", "capa", "eof", "capa", "psync2") + encode("PSYNC", "?", "-1"))
        link.connection_lost(None)  # before the loop turned once
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        spool.close()
        return reasons

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert asyncio.run(scenario()) == ["the target hung up"]
        gc.collect()
    assert not seen
