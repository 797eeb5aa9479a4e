"""Several gateways of one migration, each of a shard of the source: whatever is waited for ends when any of them does, and what they tell is told as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from valkeep.report.events import Note, Progress

if TYPE_CHECKING:
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.report.events import Emit, Event

__all__ = ["Chorus", "beside", "together"]

Done = TypeVar("Done")


class Chorus:
    """Each voice's progress is told as the sum of all; what it says in words, with its name; everything else as it is. The voice "" sings alone."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._told: dict[str, dict[str, Progress]] = {}  # by phase and voice

    def voice(self, name: str) -> Emit:
        if not name:
            return self._emit

        def emit(event: Event) -> None:
            if isinstance(event, Note):
                event = replace(event, text=f"shard {name}: {event.text}")
            if isinstance(event, Progress):
                voices = self._told.setdefault(event.phase, {})
                voices[name] = event
                event = Progress(
                    event.at,
                    event.phase,
                    sum(one.keys for one in voices.values()),
                    sum(one.bytes for one in voices.values()),
                    sum(one.total_keys for one in voices.values()),
                    sum(one.total_bytes for one in voices.values()),
                )
            self._emit(event)

        return emit


async def beside(gateways: Iterable[Gateway], work: Awaitable[Done]) -> Done:
    """What ``work`` comes to; it is cancelled when one of them fails first: that error is raised then."""
    task: asyncio.Future[Done] = asyncio.ensure_future(work)
    watches = [asyncio.ensure_future(gateway.watch()) for gateway in gateways]
    tasks: list[asyncio.Future[Any]] = [task, *watches]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for watch in watches:
            if watch.done():
                watch.result()
        return await task
    finally:
        await _end(tasks)


async def together(works: Iterable[Awaitable[object]]) -> None:
    """All of them, or the first error, and then none goes on."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: list[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
