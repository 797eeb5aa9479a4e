"""Waiting for conditions, never for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Late", "until"]


class Late(Exception):
    """A condition did not come true in time."""


def until(condition: Callable[[], bool], timeout: float, what: str, *, every: float = 0.005) -> None:
    """Return when it is true. Raises ``Late``."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Late(f"waited {timeout:.0f} s for {what}")
        time.sleep(every)
