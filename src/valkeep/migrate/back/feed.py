"""The feed of the way back: the new server's stream from its promotion on, or from where we were; begun by making the old server our replica.

The order matters. First the new server is asked whether it can go on (``look``, nothing is changed); then the old one becomes a replica, in a
transaction that reads its offset; from that offset our channel begins, and only then the stream is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from valkeep.migrate.feed import Position
from valkeep.migrate.feed.psync import PsyncFeed

if TYPE_CHECKING:
    from random import Random

    from valkeep.client.endpoint import Endpoint
    from valkeep.client.replication import Receiver
    from valkeep.migrate.gateway.channel import Joined
    from valkeep.report.events import Emit

__all__ = ["BackFeed"]


class BackFeed(PsyncFeed):
    """``since``: where the new server goes on, the first time. ``attach(port)``: makes the old server a replica of our port, and says where it stands
    (``joined``)."""

    def __init__(
        self,
        new: Endpoint,
        since: Position,
        attach: Callable[[int], Awaitable[Joined]],
        *,
        patience: float,
        emit: Emit,
        clock: Callable[[], float],
        rng: Random | None = None,
    ) -> None:
        super().__init__(new, patience=patience, emit=emit, clock=clock, rng=rng)
        self._begin = since
        self._attach = attach
        self._joined: Joined | None = None

    def joined(self) -> Joined:
        assert self._joined is not None  # the new server goes on after the old one was attached
        return self._joined

    async def start(self, receiver: Receiver, listening_port: int, since: Position | None = None) -> None:
        self._joined = await self._attach(listening_port)
        await super().start(receiver, listening_port, since or self._begin)
