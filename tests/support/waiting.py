"""Waiting for a condition, never for ever: what tests do instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

__all__ = ["holds", "until"]


def until(condition: Callable[[], Any], what: str | Callable[[], str], timeout: float = 60.0, every: float = 0.005) -> Any:
    """Wait for a condition to hold and return what it said; fails with ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what() if callable(what) else what}"
        time.sleep(every)
    return value


async def holds(condition: Callable[[], Any], what: str, timeout: float = 60.0) -> None:
    """The same for who waits on an event loop, which goes on meanwhile. ``condition`` may have to be awaited."""
    deadline = time.monotonic() + timeout
    while not (await value if inspect.isawaitable(value := condition()) else value):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.01)
