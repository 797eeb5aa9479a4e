"""Several cut-overs that are one: each shard of a cluster has its own source, and none is promoted before all are fenced and drained.

    each shard   begin ─▶ silence the writers ─▶ drain ─▶ all here ─▶ drain again ─▶ decided ─▶ promote
                                                           └── what fails before `decided` calls every shard off ──┘

It is a two-phase commit whose participants live in one process, so that the votes cost nothing. What outlives the process is the promotion itself, which is
one for all shards (`delivery.push`): before it the target is nobody's successor, whatever a kill -9 left fenced.

*Drain again* is the last look of each shard at its source after the others were waited for: a source may have been restarted meanwhile, which ends its fence.
Whoever comes last looks at the whole (``look``: do the slots lie where they did?), behind all fences, before it is decided.
Nobody waits longer than its writers may be kept (``seconds``), at both gates together: who does calls all off.

What it does not do: it fences and promotes nothing; that is each shard's `Cutover`, which asks here whether it may go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Final, Protocol

from valkeep.errors import ValkeepError
from valkeep.migrate.fence import Aborted

__all__ = ["Allies", "CalledOff", "Joint", "Member"]


class CalledOff(Aborted):
    """This shard's cut-over, because another's was."""

    code = "VK-CUTOVER-SHARD"


class _Gate(Enum):
    """What nobody passes alone."""

    HERE = "have drained their source behind the fence"
    DECIDED = "have looked at it once more"


class Joint:
    """One attempt of the shards called ``names``. ``seconds``: how long writers may be kept out at most. ``look``: at what belongs to all; raises what speaks
    against it."""

    def __init__(self, names: Iterable[str], seconds: float, look: Callable[[], Awaitable[None]]) -> None:
        self.decided = False
        self._names: Final = frozenset(names)
        self._seconds = seconds  # for messages: everybody counts his own
        self._look = look
        self._there: dict[_Gate, set[str]] = {gate: set() for gate in _Gate}
        self._open: dict[_Gate, asyncio.Event] = {gate: asyncio.Event() for gate in _Gate}
        self._failed: tuple[str, str] | None = None  # who called all off first, and why
        self._moved = asyncio.Event()

    def member(self, name: str) -> Member:
        assert name in self._names
        return Member(self, name)

    async def wait(self, name: str, gate: _Gate, seconds: float) -> None:
        """Return when everybody is at the gate. Raises ``Aborted`` when somebody will not come, or does not in time."""
        self._expect_all()
        self._there[gate].add(name)
        try:
            async with asyncio.timeout(seconds):
                if self._there[gate] == self._names:
                    await self._pass(gate)
                while not self._open[gate].is_set():
                    self._expect_all()
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            if self.decided:  # in this very moment: the others go on
                return
            late = sorted(self._names - self._there[gate]) or ["the cluster"]
            error = Aborted(
                f"{', '.join(late)} did not get there within {self._seconds:.2f} s, while the writers of the others were kept out; the source goes on writing",
                remedy="wait until the target's lag is smaller, or give a longer --lease",
                code="VK-CUTOVER-LEASE",
            )
            self.leave(name, error)
            raise error from None
        except asyncio.CancelledError as stop:
            if not self.decided:
                self.leave(name, stop)
                raise
            task = asyncio.current_task()  # too late: all shards are the target's, and half of them would help nobody
            assert task is not None
            task.uncancel()

    async def _pass(self, gate: _Gate) -> None:
        """The last one is here."""
        if gate is _Gate.DECIDED:
            await self._look()
            self._expect_all()  # somebody may have lost patience meanwhile
            self.decided = True
        self._open[gate].set()
        self._moved.set()

    def leave(self, name: str, why: BaseException) -> None:
        """This shard will not be cut over now, and so none is. Without effect once it is decided."""
        if self._failed is None and not self.decided:
            self._failed = name, why.message if isinstance(why, ValkeepError) else "it was told to stop"
            self._moved.set()

    def _expect_all(self) -> None:
        if self._failed is not None:
            name, why = self._failed
            raise CalledOff(f"{name} was called off, and all shards with it: {why}", remedy="see what is said of that shard")


class Allies(Protocol):
    """Other cut-overs that have to happen together with this one, or not at all (`joint`)."""

    async def all_drained(self, seconds: float) -> None:
        """Return when all of them are where we are: their source is fenced, and their successor has everything. Raises ``Aborted``, at the latest after
        ``seconds``."""

    async def decide(self, seconds: float) -> None:
        """Return when all have said so. Raises ``Aborted``, at the latest after ``seconds``; then none is promoted."""

    def left(self, why: BaseException) -> None:
        """We are called off."""


class Member:
    """What one shard's `Cutover` asks (`Allies`)."""

    def __init__(self, joint: Joint, name: str) -> None:
        self._joint = joint
        self._name = name

    async def all_drained(self, seconds: float) -> None:
        await self._joint.wait(self._name, _Gate.HERE, seconds)

    async def decide(self, seconds: float) -> None:
        await self._joint.wait(self._name, _Gate.DECIDED, seconds)

    def left(self, why: BaseException) -> None:
        self._joint.leave(self._name, why)
