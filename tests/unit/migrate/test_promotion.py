"""The promotion, where a target or a person behaves as no server of ours does when asked to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from valkeep.client.connection import Connection
from valkeep.errors import ExitCode, ValkeepError
from valkeep.migrate.cutover.promotion import beyond_return, promote
from valkeep.migrate.state import StateFile
from valkeep.report.events import Event, Note


def test_a_target_that_stays_a_replica_after_it_was_told_is_no_promotion(tmp_path: Path) -> None:
    async def call(*command: str) -> object:
        return "OK" if command[0] == "REPLICAOF" else [b"slave", b"127.0.0.1", 7000, b"connected", 812]

    target = cast("Connection", SimpleNamespace(call=call))
    with pytest.raises(ValkeepError) as uncertain:
        asyncio.run(promote(target, "2" * 40, StateFile(tmp_path), lambda _event: None, lambda: 0.0))
    assert uncertain.value.code == "VK-CUTOVER-PROMOTE"
    assert "its role is still slave" in uncertain.value.message
    assert not uncertain.value.definite
    assert uncertain.value.exit_code is ExitCode.UNCERTAIN
    assert not list(tmp_path.iterdir())  # nothing says that it was promoted


def test_ctrl_c_within_the_promotion_waits_for_its_end_and_for_what_belongs_to_it() -> None:
    said: list[Event] = []
    done: list[str] = []

    async def story() -> None:
        running = asyncio.Event()

        async def finish() -> int:
            running.set()
            for what in ("promoted", "fence kept"):
                await asyncio.sleep(0)
                done.append(what)
            return 1

        work = asyncio.create_task(beyond_return(finish(), said.append, lambda: 0.0))
        await running.wait()
        for _ in range(3):
            work.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(story())
    assert done == ["promoted", "fence kept"]
    assert [note.level for note in said if isinstance(note, Note)] == ["warning"]
