"""The promotion: the target becomes the primary. Nothing interrupts it, and where its reply was lost nobody guesses what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from valkeep.errors import ValkeepError
from valkeep.report.events import Emit, Note

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.state import StateFile

__all__ = ["beyond_return", "promote", "recorded", "uncertain"]

Done = TypeVar("Done")


async def promote(target: Connection, run_id: str, state: StateFile, emit: Emit, clock: Callable[[], float]) -> float:
    """REPLICAOF NO ONE; when it was done, on the clock. Raises ``ValkeepError`` with ``definite=False`` when nobody knows whether it was.

    ``run_id``: of the target's process, which took the source's writes.
    """
    try:
        await target.call("REPLICAOF", "NO", "ONE")
        role = (await target.call("ROLE"))[0]
    except ValkeepError as error:
        raise uncertain(error.message, run_id) from error
    if role != b"master":
        raise uncertain(f"its role is still {role.decode('ascii', 'replace')}", run_id)
    return recorded(state, emit, clock)


def recorded(state: StateFile, emit: Emit, clock: Callable[[], float]) -> float:
    """The target is promoted: into the state file; when it was."""
    promoted = clock()
    try:
        state.step("promoted")
    except ValkeepError as error:  # `abort` finds the target a primary all the same
        emit(Note(promoted, "warning", f"the target is promoted, and the cut-over complete; but {error.message}"))
    return promoted


async def beyond_return(
    promotion: Coroutine[Any, Any, Done], emit: Emit, clock: Callable[[], float], on_stop: Callable[[], None] = lambda: None
) -> Done:
    """Run it to its end: the target has everything, the source refuses, and half a promotion helps nobody. Ctrl-C counts after it. ``on_stop``: told of it,
    for a promotion that waits for somebody else."""
    work = asyncio.ensure_future(promotion)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        on_stop()
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        work.result()
        text = "stopped after the point of no return: the cut-over is complete, the target is the primary and the source refuses writes"
        emit(Note(clock(), "warning", text))
        raise


def uncertain(why: str, run_id: str) -> ValkeepError:
    """Nobody knows whether the target was promoted."""
    return ValkeepError(
        f"the target may or may not have been promoted ({why}); the source is fenced, so no write is lost either way",
        remedy=f"ask the target for its ROLE and run_id (INFO server): if it is a primary with run_id {run_id}, move the writers there; with another "
        "run_id it was restarted and may hold less than the source: do not use it; if it is no primary, `valkeep migrate abort` makes the source "
        "writable again",
        definite=False,
        code="VK-CUTOVER-PROMOTE",
    )
