"""Work that many ask for at the same time and that is done once: finding the primary, opening the connection to a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from valkeep.errors import LocalProtocolError, ValkeepError

__all__ = ["Shared"]

T = TypeVar("T")


class Shared(Generic[T]):
    """``work`` in a task of its own: a caller who is cancelled while he waits does not call it off for the others."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._closed = False

    def begin(self) -> None:
        """Do it, if nobody does now."""
        _ = self._begun()

    async def result(self) -> T:
        """What comes of the work that is under way now, or else begins now. Raises as it does, and ``LocalProtocolError`` once this is closed."""
        task = self._begun()
        await asyncio.wait({task})
        if task.cancelled():
            raise _closed()
        error = task.exception()
        if isinstance(error, ValkeepError):
            raise error.saying()
        return task.result()

    async def close(self) -> None:
        """Call it off and wait until it is over. Closing twice is fine."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _begun(self) -> asyncio.Task[T]:
        if self._closed:
            raise _closed()
        if self._task is None:
            self._task = asyncio.create_task(self._work())
            self._task.add_done_callback(self._over)
        return self._task

    def _over(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # those who wait have seen it, if there are any


def _closed() -> LocalProtocolError:
    return LocalProtocolError("the client is closed", remedy="make a new one")
