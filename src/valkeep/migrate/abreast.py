"""Several gateways of one migration, each of a shard of the source: whatever is waited for ends when any of them does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valkeep.migrate.gateway import Gateway

__all__ = ["beside", "together"]


async def beside(gateways: Iterable[Gateway], work: Awaitable[object]) -> None:
    """Wait for ``work``, which is cancelled when one of them fails first: that error is raised then."""
    task: asyncio.Future[Any] = asyncio.ensure_future(work)
    watches = [asyncio.ensure_future(gateway.watch()) for gateway in gateways]
    try:
        await asyncio.wait({task, *watches}, return_when=asyncio.FIRST_COMPLETED)
        for watch in watches:
            if watch.done():
                watch.result()
        await task
    finally:
        await _end([task, *watches])


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
