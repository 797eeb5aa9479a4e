"""Looking at keys on several servers that hold one key space: each key on the server that owns its slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from valkeep.migrate.keyread import KeyRead, Seen
from valkeep.migrate.verify.look import Eye, Looked
from valkeep.migrate.verify.written import Key

__all__ = ["Eyes", "together"]

T = TypeVar("T")


class Eyes:
    """As an `look.Eye`. ``place(key)``: which of the ``eyes`` sees it. Redirections are not followed: whoever gets one knows that the slots have moved."""

    def __init__(self, eyes: Sequence[Eye], place: Callable[[bytes], int]) -> None:
        self._eyes = eyes
        self._place = place
        self.read = KeyRead(all(eye.read.exact for eye in eyes))

    async def parts(self, keys: Sequence[Key]) -> list[list[Key]]:
        """As `Eye.parts`; a part is of one server."""
        groups = [(place, [keys[at] for at in places]) for place, places in self._groups(keys)]
        listed = await together(*(self._eyes[place].parts(group) for place, group in groups))
        return [part for parts in listed for part in parts]

    async def light(self, keys: Sequence[Key], limit: int) -> list[Key]:
        """As `Eye.light`."""
        groups = [(place, [keys[at] for at in places]) for place, places in self._groups(keys)]
        listed = await together(*(self._eyes[place].light(group, limit) for place, group in groups))
        return [key for part in listed for key in part]

    async def look(self, keys: Sequence[Key]) -> Looked:
        """As `Eye.look`, on all servers at the same time. ``now``: the latest clock."""
        groups = self._groups(keys)
        looked = await together(*(self._eyes[place].look([keys[at] for at in places]) for place, places in groups))
        seen: list[Seen | None] = [None] * len(keys)
        for (_, places), one in zip(groups, looked, strict=True):
            for at, value in zip(places, one.seen, strict=True):
                seen[at] = value
        return Looked(seen, max((one.now for one in looked), default=0))

    async def clock(self) -> int:
        """The latest of all; 0: one does not tell."""
        clocks = await together(*(eye.clock() for eye in self._eyes))
        return max(clocks) if all(clocks) else 0

    async def offset(self) -> int:
        """The sum of all offsets: it grows when one does, and is no place in any stream."""
        return sum(await together(*(eye.offset() for eye in self._eyes)))

    def _groups(self, keys: Sequence[Key]) -> list[tuple[int, list[int]]]:
        """For each server that is asked, the places of its keys."""
        groups: dict[int, list[int]] = {}
        for at, (_, key) in enumerate(keys):
            groups.setdefault(self._place(key), []).append(at)
        return list(groups.items())


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Their results, at the same time. When one fails the others are ended first: they must not look on, unheard, while others use their connections."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
