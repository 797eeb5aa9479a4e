"""The socket by which other commands reach a migration."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from valkeep.migrate.control import SOCKET, Control, ask


def test_a_migration_that_is_cancelled_while_its_socket_opens_leaves_no_socket(tmp_path: Path) -> None:
    async def story() -> None:
        for turns in range(4):
            opening = asyncio.create_task(Control(tmp_path, {}).__aenter__())
            for _ in range(turns):
                await asyncio.sleep(0)
            if not opening.cancel():
                break  # it was open by then
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert not (tmp_path / SOCKET).exists(), turns
        assert turns > 1, "it was never cancelled in the middle"

    asyncio.run(story())


def test_only_its_user_may_ask_and_gets_an_answer(tmp_path: Path) -> None:
    async def cutover() -> dict[str, object]:
        return {"promoted": "here"}

    async def story() -> None:
        async with Control(tmp_path, {"cutover": cutover}):
            assert (tmp_path / SOCKET).stat().st_mode & 0o777 == 0o600
            assert await ask(tmp_path, "cutover") == {"promoted": "here"}
        assert not (tmp_path / SOCKET).exists()
        assert await ask(tmp_path, "cutover") is None

    asyncio.run(story())


def test_of_whoever_hangs_up_nothing_is_done_any_more(tmp_path: Path) -> None:
    async def story() -> None:
        begun, over = asyncio.Event(), asyncio.Event()

        async def slow() -> dict[str, object]:
            begun.set()
            try:
                await asyncio.Event().wait()
                return {}
            finally:
                over.set()

        async with Control(tmp_path, {"commit": slow}):
            asking = asyncio.create_task(ask(tmp_path, "commit"))
            await begun.wait()
            asking.cancel()
            await over.wait()

    asyncio.run(asyncio.wait_for(story(), 10))
