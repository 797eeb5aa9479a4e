"""Enter on the terminal says go to a migration that waits for its cut-over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valkeep.migrate.cutover.handover import Ready

__all__ = ["key_decides"]

KEY_SECONDS = 0.05


@contextlib.asynccontextmanager
async def key_decides(ready: Ready, *, enabled: bool) -> AsyncIterator[None]:
    """Enter on the terminal means go, once the migration waits for it."""
    if not enabled or not sys.stdin.isatty():
        yield
        return
    listening = asyncio.create_task(_listen(sys.stdin.fileno(), ready), name="the key")
    try:
        yield
    finally:
        listening.cancel()


async def _listen(terminal: int, ready: Ready) -> None:
    """The end of input (Ctrl-D, a closed terminal) is nobody's decision. The terminal is asked and not waited for: what is typed while we are in the
    background is for somebody else, and reading it would stop this process (SIGTTIN) in the middle of a migration."""
    with contextlib.suppress(OSError):  # it was closed
        while True:
            await asyncio.sleep(KEY_SECONDS)
            if not _in_foreground(terminal) or not select.select([terminal], [], [], 0)[0]:
                continue
            if os.read(terminal, 1024) and ready.waiting:
                ready.go.set()


def _in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # not the terminal that controls us: there is no job control
        return True
