"""Where the source is now, and whom its writers write to: both may change while a migration runs, by a failover, and are asked whenever they matter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from valkeep.client.connection import Connection
from valkeep.client.server_info import server_info
from valkeep.errors import ConnectionLost
from valkeep.migrate.fence import FenceMode, decide
from valkeep.migrate.preflight import PreflightReport, gather

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.named_primary import Source
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.run.reading import Reading

__all__ = ["Whereabouts", "fence_mode"]

LOOK_SECONDS: Final = 0.2  # between two looks for a source that is away


class Whereabouts:
    """``source``: what the person gave. ``primary``: of a source that is a replica, where the person knows better than the replica."""

    def __init__(self, source: Source, primary: Endpoint | None, journal: Journal) -> None:
        self._source = source
        self._primary = primary
        self._journal = journal

    async def source(self, gateway: Gateway, reading: Reading) -> Endpoint:
        """Who the source is now, and has the history that the gateway follows: what others have at some offset is something else. Whoever waits for a source
        that is away ends us."""
        told = ""
        while True:
            try:
                at = await self._source.resolve()
                async with await _open(at) as connection:
                    info = await server_info(connection)
                if reading.is_of(info, gateway.history):
                    return at
                why = f"{at.address} has the history {info.replid}, and the gateway follows {gateway.history}"
            except ConnectionLost as error:
                why = error.message
            if why != told:
                told = why
                self._journal.say("info", f"waiting for the source: {why}")
            await gateway.beside(asyncio.sleep(LOOK_SECONDS))

    async def writers(self, source: Endpoint) -> Connection:
        """A connection to where the writers are: the source, or the primary that the source follows."""
        async with await _open(source) as connection:
            info = await server_info(connection)
        if info.role == "primary":
            return await _open(source)
        primary = self._primary or source.at(info.fields.get("master_host", ""), info.number("master_port"))
        self._journal.say("info", f"the source is a replica; its writers are held and fenced at its primary {primary.address}")
        return await _open(primary)


async def fence_mode(writers: Connection, report: PreflightReport) -> FenceMode:
    """By what preflight found, or what it would find at the primary of a source that is a replica."""
    if writers.endpoint.address == report.source.address:
        return decide(report.source)
    return decide(await gather(writers.endpoint, rate_seconds=0, sample_keys=0))


async def _open(endpoint: Endpoint) -> Connection:
    return await Connection.open(endpoint, client_name="valkeep-migrate")
