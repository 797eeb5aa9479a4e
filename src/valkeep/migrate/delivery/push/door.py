"""How connections to the target are opened, and opened again after they broke: always to the same process, and with what it has to know of us."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.migrate.delivery.push.refusals import lost

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint

__all__ = ["NAME", "Door"]

NAME = "valkeep-push"
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.1


class Door:
    """``run_id``: of the target's process: one that was restarted may hold less than it acknowledged. ``import_source``: connections say that what they
    write is copied from elsewhere, so that nothing expires by the target's clock (`expiry`)."""

    def __init__(self, target: Endpoint, run_id: str) -> None:
        self.target = target
        self.run_id = run_id
        self.import_source = False

    async def open(self) -> Connection:
        """Raises ``ConnectionLost`` (trying again may help, unless it has a code) or ``Refused``."""
        connection = await Connection.open(self.target, client_name=NAME)
        try:
            run_id = (await server_info(connection)).run_id
            if run_id != self.run_id:
                raise lost(self.target.address, f"was restarted: its run_id was {self.run_id}, and is {run_id}")
            if self.import_source:
                await connection.call("CLIENT", "IMPORT-SOURCE", "ON")
        except ServerError as error:
            await connection.close()
            raise Refused(f"{self.target.address}: {error.message}", remedy=error.remedy, code="VK-PUSH-DENIED") from error
        except BaseException:
            await connection.close()
            raise
        return connection

    async def reopen(self) -> Connection:
        """The same after a connection broke, for as long as there is hope. Raises ``ConnectionLost`` with a code, or ``Refused``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        while True:
            try:
                return await self.open()
            except ConnectionLost as error:
                if not error.passing:
                    raise
                if loop.time() > until:
                    raise lost(self.target.address, f"has not answered for {PATIENCE_SECONDS:.0f} s: {error.message}") from error
            await asyncio.sleep(PAUSE_SECONDS)
