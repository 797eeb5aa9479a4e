"""Who may decide about a way back that stands, and what they are told: `valkeep migrate commit` and `rollback`."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from valkeep.errors import Refused, ValkeepError

__all__ = ["Asked", "Decision"]

STANDS_SECONDS: Final = 10.0
"""Who decides right behind the cut-over waits so long for the old server to be current."""

Asked = tuple[str, asyncio.Future[dict[str, Any]]]
"""What was said, and where its answer goes."""


class Decision:
    """Each is answered when it is done. ``standing``: there is something to decide about."""

    def __init__(self) -> None:
        self._standing = asyncio.Event()
        self._asked: asyncio.Queue[Asked] = asyncio.Queue()
        self._open: asyncio.Future[dict[str, Any]] | None = None

    def stand(self) -> None:
        self._standing.set()

    async def stands(self) -> None:
        """Return when there is something to decide about."""
        await self._standing.wait()

    async def commit(self) -> dict[str, Any]:
        return await self._ask("commit")

    async def rollback(self) -> dict[str, Any]:
        return await self._ask("rollback")

    async def _ask(self, what: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(STANDS_SECONDS):
                await self._standing.wait()
        except TimeoutError:
            raise Refused(
                "there is no way back yet: the old server is not current",
                remedy="wait until the migration says that the way back stands (`valkeep migrate run --rollback`)",
                code="VK-ROLLBACK-NOT-YET",
            ) from None
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((what, answer))
        return await answer

    async def next(self) -> Asked:
        asked = await self._asked.get()
        self._open = asked[1]
        return asked

    def ended(self, error: ValkeepError) -> None:
        """Nothing is left to decide about: whoever asked is told why."""
        self._standing.clear()
        waiting = [self._open] if self._open is not None else []
        while not self._asked.empty():
            waiting.append(self._asked.get_nowait()[1])
        for answer in waiting:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # retrieved: whoever asked may be gone
