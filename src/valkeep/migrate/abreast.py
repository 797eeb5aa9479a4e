"""Several gateways of one migration, each of a shard of the source: whatever is waited for ends when any of them does, and what they tell is told as one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from valkeep.report.events import Lag, Note, Phase, Progress, VerdictEvent

if TYPE_CHECKING:
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.report.events import Emit, Event

__all__ = ["Chorus", "beside", "together"]

STALE: Final = 3.0  # seconds after which a lag is that of a link that is no more

Done = TypeVar("Done")


class Chorus:
    """Each voice's progress is told as the sum of all, and what a target lacks of it, too; what it says in words, with its name; everything else but phases as
    it is. The voice "" sings alone.

    A phase is told once: it begins with the first voice that begins it, ends with the last that is in it, and its verdict is the worst of theirs. Who begins
    one again that the others are still in begins another *round* of it; so does whoever comes when it has ended.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._told: dict[str, dict[str, Progress]] = {}  # by phase and voice
        self._lags: dict[str, dict[str, Lag]] = {}  # by target and voice
        self._rounds: dict[str, _Round] = {}  # by phase
        self._gathering = False

    def voice(self, name: str) -> Emit:
        if not name:
            return self._emit

        def emit(event: Event) -> None:
            match event:
                case Note():
                    self._emit(replace(event, text=f"shard {name}: {event.text}"))
                case Progress():
                    self._emit(self._sum(name, event))
                case Lag():
                    self._emit(self._behind(name, event))
                case Phase(done=False):
                    self._begins(name, event)
                case Phase() if event.name in self._rounds:
                    self._rounds[event.name].ended[name] = event
                    self._end(self._rounds[event.name])
                case VerdictEvent(detail={"of": str(phase)}) if phase in self._rounds:
                    self._rounds[phase].verdicts[name] = event
                    self._end(self._rounds[phase])
                case _:
                    self._emit(event)

        return emit

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Within this block voices come one after the other: no phase ends before all are there."""
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            for one in self._rounds.values():
                self._end(one)

    def _sum(self, name: str, event: Progress) -> Progress:
        voices = self._told.setdefault(event.phase, {})
        voices[name] = event
        return Progress(
            event.at,
            event.phase,
            sum(one.keys for one in voices.values()),
            sum(one.bytes for one in voices.values()),
            sum(one.total_keys for one in voices.values()),
            sum(one.total_bytes for one in voices.values()),
        )

    def _behind(self, name: str, event: Lag) -> Lag:
        """Bytes of all who write to this target, and the longest time."""
        voices = self._lags.setdefault(event.target, {})
        voices[name] = event
        now = [one for one in voices.values() if event.at - one.at < STALE]
        known = [one.milliseconds for one in now if one.milliseconds is not None]
        return Lag(event.at, event.target, sum(one.bytes for one in now), max(known, default=None))

    def _begins(self, name: str, event: Phase) -> None:
        going = self._rounds.get(event.name)
        if going is not None and not going.over and name not in going.begun:
            going.begun.add(name)
            for kept in (going.ended, going.verdicts):  # those of the one before, in which it was left
                kept.pop(name, None)
            return
        left = going.voices - going.ended.keys() - {name} if going is not None and not going.over else set()
        self._rounds[event.name] = _Round({name}, left)
        self._emit(event)

    def _end(self, one: _Round) -> None:
        """Tell what is the same of all by now: that the phase has ended, and its verdict."""
        if self._gathering:
            return
        if not one.over and one.ended.keys() >= one.voices:
            one.over = True
            last = max(one.ended.values(), key=lambda event: event.at)
            self._emit(replace(last, detail=_together({name: event.detail for name, event in one.ended.items()})))
        if one.over and one.verdicts and one.verdicts.keys() >= one.voices:
            self._emit(max(one.verdicts.values(), key=lambda event: (_GRAVITY.get(event.verdict, 1), event.at)))
            one.verdicts.clear()


@dataclass(slots=True)
class _Round:
    """Of a phase. ``begun``: voices that have begun it; ``left``: those still in the one before, whose end is heard in this one. ``over``: whether its end was
    told."""

    begun: set[str]
    left: set[str]
    ended: dict[str, Phase] = field(default_factory=dict)
    verdicts: dict[str, VerdictEvent] = field(default_factory=dict)
    over: bool = False

    @property
    def voices(self) -> set[str]:
        return self.begun | self.left


_GRAVITY: Final = {"valid": 0, "unknown": 1, "invalid": 2}


def _together(details: Mapping[str, str]) -> str:
    """What they all say, or each what it says: "shard 1: 7 keys, shard 2: 9 keys"."""
    said = set(details.values())
    return said.pop() if len(said) == 1 else ", ".join(f"shard {name}: {detail}" for name, detail in sorted(details.items()))


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
