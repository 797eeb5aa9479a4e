"""Who may decide about a running migration from outside, and what they are told: `valkeep migrate cutover` and `abort`.

Whoever says go waits for the outcome of the cut-over, and whoever says stop for what was undone; both get an answer however the migration ends.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from valkeep.errors import Refused, ValkeepError

if TYPE_CHECKING:
    from valkeep.migrate.state import StateFile

__all__ = ["Handover", "Ready"]

NOTHING_UNDONE = "nothing had been changed yet"


@dataclass(slots=True)
class Ready:
    """The hand-over point of a manual cut-over: ``go`` is set by whoever may decide (a key, ``valkeep migrate cutover``)."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: bool = False


class Handover:
    """Made in the task that migrates, which ``stop`` cancels. ``undone``: what was put back, in sentences; ``told_to_stop``: that the cancellation is ours."""

    def __init__(self, ready: Ready, state: StateFile) -> None:
        self.ready = ready
        self.told_to_stop = False
        self.undone: list[str] = []
        self._state = state
        self._task = asyncio.current_task()
        self._over = asyncio.Event()
        self._outcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def go(self) -> dict[str, Any]:
        """`valkeep migrate cutover`: answers when the cut-over is over. Raises ``Refused`` before there is something to be cut over, and afterwards."""
        self._refuse_when_rolled_back()
        if self.is_cut_over():
            raise Refused("the migration is cut over already: the target is the primary", remedy="move the writers to the target")
        if not self.ready.waiting:
            raise Refused("the migration is not ready to be cut over yet", remedy="wait until it says that it waits for the cut-over")
        self.ready.go.set()
        return await asyncio.shield(self._outcome)

    async def stop(self) -> dict[str, Any]:
        """`valkeep migrate abort`: as Ctrl-C, and answers what was undone. Raises ``Refused`` once the target is promoted."""
        self._refuse_when_promoted()
        if self._task is not None and not self.told_to_stop and not self._over.is_set():
            self.told_to_stop = True
            self._task.cancel()
        await self._over.wait()
        self._refuse_when_promoted()  # it was past the point of no return
        return {"done": self.undone or [NOTHING_UNDONE]}

    def _refuse_when_rolled_back(self) -> None:
        if self._step() == "rolled-back":
            raise Refused(
                "the migration was rolled back: the source is the primary, and nothing is left to decide",
                remedy="move the writers to the source",
            )

    def _refuse_when_promoted(self) -> None:
        self._refuse_when_rolled_back()
        if self.is_cut_over():
            raise Refused(
                "the cut-over is complete: the target is the primary, and the source refuses writes",
                remedy="move the writers to the target",
                code="VK-ABORT-PROMOTED",
            )

    def is_cut_over(self) -> bool:
        return self._step() in ("promoted", "committed")

    def _step(self) -> str:
        state = self._state.current
        return state.step if state is not None else ""

    def answer(self, outcome: dict[str, Any] | ValkeepError, *, again: bool = False) -> None:
        """Tell whoever said go. ``again``: the migration goes on, and may be told to go once more."""
        if not self._outcome.done():
            if isinstance(outcome, ValkeepError):
                self._outcome.set_exception(outcome)
                self._outcome.exception()  # retrieved: nobody may be asking
            else:
                self._outcome.set_result(outcome)
        if again:
            self._outcome = asyncio.get_running_loop().create_future()
            self.ready.go.clear()

    def ended(self) -> None:
        """The migration is over: whoever still waits is told so."""
        self._over.set()
        self.answer(ValkeepError("the migration ended before its cut-over", remedy="see its own output", code="VK-ABORTED"))

    def aborted(self) -> ValkeepError:
        """What the migration itself says when it was stopped."""
        if self.is_cut_over():
            return ValkeepError(
                "`valkeep migrate abort` came after the point of no return: the cut-over is complete, the target is the primary and the source refuses writes",
                remedy="move the writers to the target",
                definite=False,
                code="VK-ABORT-PROMOTED",
            )
        return ValkeepError(
            "the migration was ended by `valkeep migrate abort`: " + "; ".join(self.undone or [NOTHING_UNDONE]),
            remedy="start it again when you like",
            code="VK-ABORTED",
        )
