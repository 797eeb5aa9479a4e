"""Whoever can tell the target whom to follow, where we may not: a person, or the control plane of a managed service.

    prepare    find out whether the target could replicate from the gateway
    begin      let it
    watch      meanwhile: does it say that it gave up?
    promote    let it become the primary, with what it has
    undo       let it leave, because the move ended before its cut-over

What these return says only that they were *asked*. Whether the target attached or was promoted is never believed from here: `external` looks at the
target itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = ["Person", "Promoter"]

PERSON_SECONDS = 60.0


class Promoter(Protocol):
    """``name``: for people ("a person", "ElastiCache"). ``seconds``: how long the target may take to be a primary after ``promote``; the source refuses writes
    meanwhile. ``binding``: what ``promote`` asked for cannot be taken back: a promotion that is late may still come, so nothing is called off then, and
    the source stays fenced. ``detach_by``: how a person takes the target away from the gateway; goes into the state file and into messages."""

    @property
    def name(self) -> str: ...

    @property
    def seconds(self) -> float: ...

    @property
    def binding(self) -> bool: ...

    @property
    def detach_by(self) -> str: ...

    async def prepare(self, gateway: tuple[str, int]) -> None:
        """Before ``begin``: changes nothing. Raises ``ValkeepError`` where the target surely would not come."""
        ...

    async def begin(self, gateway: tuple[str, int]) -> None:
        """Have the target replicate from the gateway at this address, which is ready. Returns once that was asked for. Raises ``ValkeepError`` when it surely
        will not come."""
        ...

    async def taken_up(self, gateway: tuple[str, int]) -> None:
        """Instead of both: an earlier run that was killed had asked for it already, or was about to, and the target follows the gateway, or will."""
        ...

    async def watch(self) -> None:
        """Runs from ``begin`` until the target is promoted or the move ends (it is cancelled then). Never returns; raises when the target gave up."""
        ...

    async def promote(self) -> None:
        """Have the target leave the gateway and be a primary. Returns once that was asked for. Raises ``ValkeepError``: with ``definite`` True it was not
        asked for and will not come (the source gets its writers back); else nobody knows."""
        ...

    async def undo(self) -> list[str]:
        """The move ended before its cut-over, and the target may be attached: detach it where that can be asked for. Returns what was done, and what is left to
        a person, in sentences."""
        ...


class Person:
    """A `Promoter`: somebody who reads what we print. ``say``: prints it. ``target``: its address; ``seconds``: how long they may take."""

    name = "a person"
    binding = False  # they read "do not promote it any more", too

    def __init__(self, target: str, say: Callable[[str], None], seconds: float = PERSON_SECONDS) -> None:
        self.seconds = seconds
        self.detach_by = f"REPLICAOF NO ONE on {target}, or your provider's way to end its replication"
        self._target = target
        self._say = say

    async def prepare(self, gateway: tuple[str, int]) -> None:
        del gateway  # they see for themselves

    async def begin(self, gateway: tuple[str, int]) -> None:
        host, port = gateway
        self._say(f"let the target {self._target} replicate from {host}:{port} (REPLICAOF {host} {port}, or your provider's way)")

    async def taken_up(self, gateway: tuple[str, int]) -> None:
        host, port = gateway
        self._say(f"the target {self._target} goes on replicating from the gateway (if it does not: REPLICAOF {host} {port})")

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def promote(self) -> None:
        self._say(f"promote the target {self._target} now, within {self.seconds:.0f} s: {self.detach_by}")

    async def undo(self) -> list[str]:
        return [
            f"the target may still replicate from the gateway, and was not detached by us: detach it by {self.detach_by}; it keeps what was copied"
        ]
