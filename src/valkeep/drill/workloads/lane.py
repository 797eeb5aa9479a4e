"""Lanes: each sends one batch at a time, at its share of the load's rate, through a gate that can be shut."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from valkeep.drill.script import Load

__all__ = ["Gate", "Worker", "keep_pace"]

CATCHING_UP: Final = 50  # periods that a lane makes up for after a stall


class Gate:
    """Lanes pass it before each batch, or wait. ``shut`` returns when nothing is in flight."""

    def __init__(self) -> None:
        self.over = False
        self._open = asyncio.Event()
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        self._open.set()

    def end(self) -> None:
        """Everybody goes home."""
        self.over = True
        self._open.set()

    async def shut(self) -> None:
        self._open.clear()
        await self._quiet.wait()

    async def rest(self) -> None:
        await self._open.wait()

    def enter(self) -> None:
        self._busy += 1
        self._quiet.clear()

    def leave(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._quiet.set()


class Worker(Protocol):
    """What a lane does."""

    async def batch(self) -> bool:
        """Perform and record some operations; whether to go on at once."""

    async def recover(self) -> None:
        """After a batch that did not go well: what there is to do before the next."""

    async def close(self) -> None: ...


async def keep_pace(worker: Worker, gate: Gate, load: Load, number: int, lanes: int) -> None:
    """Until the gate says that it is over. ``number``: this lane's among all ``lanes``, so that they do not all send at once."""
    period = load.batch * lanes / load.rate
    due = 0.0
    try:
        while not gate.over:
            if not gate.is_open:
                await gate.rest()
                await asyncio.sleep(period * number / lanes)
                due = time.monotonic()
                continue
            gate.enter()
            try:
                good = await worker.batch()
            finally:
                gate.leave()
            if not good:
                await worker.recover()
                continue
            now = time.monotonic()
            due = max(due + period, now - CATCHING_UP * period)
            if due > now:
                await asyncio.sleep(due - now)
    finally:
        await worker.close()
