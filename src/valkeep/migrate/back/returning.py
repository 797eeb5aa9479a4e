"""The old server as the successor of the new one: who takes over when it is rolled back to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from valkeep.client.server_info import server_info
from valkeep.migrate.cutover import promotion
from valkeep.migrate.delivery.native import confirm

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.migrate.back.old import OldServer
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.state import StateFile
    from valkeep.report.events import Emit

__all__ = ["Returning"]


class Returning:
    """A `Successor`. ``connection``: to the old server; ``done`` gets what was put back, in sentences."""

    def __init__(
        self,
        gateway: Gateway,
        old: OldServer,
        connection: Connection,
        state: StateFile,
        emit: Emit,
        clock: Callable[[], float],
        done: list[str],
    ) -> None:
        self._gateway = gateway
        self._old = old
        self._connection = connection
        self._state = state
        self._emit = emit
        self._clock = clock
        self._done = done

    async def identify(self) -> str:
        return (await server_info(self._connection)).run_id

    async def drained(self, source_offset: int) -> None:
        await self._gateway.drained(source_offset)
        (channel,) = self._gateway.channels
        ours = channel.covering(source_offset)
        assert ours is not None  # it was drained
        await confirm(self._connection, channel.replid, ours)

    async def promote(self, run_id: str) -> float:
        """Promoted it still refuses, by the fence of the first cut-over; that one goes last."""
        self._gateway.expect_departure()
        await promotion.promote(self._connection, run_id, self._state, self._emit, self._clock)
        self._done += await self._old.unfence()
        return self._clock()
