"""What the faults that end processes share: the same verb for all targets at once, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from valkeep.drill.faults.fault import Undo
from valkeep.drill.stage import Stage
from valkeep.runtime.deployment import Machine

__all__ = ["each", "machines", "start_again"]


def machines(stage: Stage, names: Iterable[str]) -> list[Machine]:
    return [stage.machine(name) for name in names]


async def each(targets: Iterable[Machine], verb: Callable[[Machine], Awaitable[None]]) -> None:
    """All at once; when one fails the others are done all the same, and then it is raised."""
    results = await asyncio.gather(*map(verb, targets), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def start_again(targets: Iterable[Machine]) -> Undo:
    """Start those that still are down."""
    listed = list(targets)

    async def undo() -> None:
        await each([machine for machine in listed if not machine.alive], lambda machine: machine.start())

    return undo
