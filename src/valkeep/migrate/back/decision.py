"""Who may decide about a way back that stands, and what they are told: `valkeep migrate commit` and `rollback`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from valkeep.errors import Refused, ValkeepError

__all__ = ["Asked", "Decision"]

STANDS_SECONDS: Final = 30.0
"""Who decides right behind the cut-over waits so long for the old server to be current."""

Asked = tuple[str, asyncio.Future[dict[str, Any]]]
"""What was said, and where its answer goes."""


class Decision:
    """Each is answered when it is done. ``due``: whether a way back is to stand soon, where it does not yet."""

    def __init__(self, due: Callable[[], bool] = lambda: True) -> None:
        self._due = due
        self._news = asyncio.Event()  # it stands, or is over
        self._over: ValkeepError | None = None
        self._asked: asyncio.Queue[Asked] = asyncio.Queue()
        self._open: asyncio.Future[dict[str, Any]] | None = None

    def stand(self) -> None:
        self._news.set()

    async def stands(self) -> None:
        """Return when there is something to decide about. Raises why there never will be, or is not any more."""
        await self._news.wait()
        if self._over is not None:
            raise self._over.saying()

    async def commit(self) -> dict[str, Any]:
        return await self._ask("commit")

    async def rollback(self) -> dict[str, Any]:
        return await self._ask("rollback")

    async def _ask(self, what: str) -> dict[str, Any]:
        if not self._news.is_set() and not self._due():
            raise _not_yet("the migration is not cut over")
        try:
            async with asyncio.timeout(STANDS_SECONDS):
                await self.stands()
        except TimeoutError:
            raise _not_yet("the old server is not current") from None
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((what, answer))
        return await answer

    async def next(self) -> Asked:
        while (asked := await self._asked.get())[1].cancelled():  # whoever asked has gone
            pass
        self._open = asked[1]
        return asked

    def ended(self, error: ValkeepError) -> None:
        """Nothing is left to decide about: whoever asked is told why. Said again, it is as it was said first."""
        self._over = self._over or error
        self._news.set()
        waiting = [self._open] if self._open is not None else []
        while not self._asked.empty():
            waiting.append(self._asked.get_nowait()[1])
        for answer in waiting:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # retrieved: whoever asked may be gone


def _not_yet(why: str) -> Refused:
    return Refused(
        f"there is no way back yet: {why}",
        remedy="wait until the migration says that the way back stands (`valkeep migrate run --rollback`)",
        code="VK-ROLLBACK-NOT-YET",
    )
