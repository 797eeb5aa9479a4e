"""The feed of a replica: the source's own snapshot and stream, by PSYNC.

A key is read again on a connection of its own. What makes the offset exact: ``MULTI; DUMP k; PEXPIRETIME k; INFO replication; EXEC`` runs as one on the
source, so the value is that of offset O, whatever is written before and after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.replication import NotNow, ReplicationLink, Silent
from valkeep.client.server_info import ServerInfo, parse_info, server_info
from valkeep.errors import ConnectionLost, Refused, ServerError
from valkeep.migrate.feed import Origin, Position, ReplicationGap
from valkeep.migrate.keyread import KeyRead
from valkeep.migrate.transform.stream import Copy, Place

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.replication import Receiver

__all__ = ["PsyncFeed"]

COPY_TIMEOUT = 60.0


class PsyncFeed:
    """A `Feed`. ``source``: whom to replicate."""

    def __init__(self, source: Endpoint) -> None:
        self._source = source
        self._info: ServerInfo | None = None
        self._link: ReplicationLink | None = None
        self._connection: Connection | None = None
        self._reading = asyncio.Lock()

    @property
    def received(self) -> int:
        return self._link.received if self._link is not None else 0

    @property
    def length(self) -> int:
        return self._link.length if self._link is not None else 0

    async def look(self) -> Origin:
        async with await Connection.open(self._source, client_name="valkeep-gateway") as connection:
            info = self._info = await server_info(connection)
        valkey = info.kind == "valkey"
        return Origin(info.name, info.version, info.version if valkey else info.redis_version, valkey, sum(info.keys.values()))

    async def start(self, receiver: Receiver, listening_port: int, since: Position | None = None) -> None:
        if since is not None:
            raise ReplicationGap("this feed begins with a snapshot", remedy="start with a full sync")
        info = self._info
        assert info is not None  # it was looked at
        present_as = ".".join(map(str, info.version)) if info.kind == "valkey" else ""
        self._link = await ReplicationLink.open(
            self._source, receiver, listening_port=listening_port, present_as=present_as, role="the source"
        )

    async def run(self) -> None:
        assert self._link is not None  # it was started
        try:
            await asyncio.shield(self._link.lost)
        except NotNow as error:
            raise error.saying(code="VK-SOURCE-NOT-READY") from None
        except Silent as error:
            raise error.saying(code="VK-SOURCE-SILENT") from None
        except ConnectionLost as error:
            raise error.saying(code="VK-SOURCE-LOST") from None

    def acknowledge(self) -> None:
        if self._link is not None:
            self._link.acknowledge()

    async def read(self, places: Sequence[Place]) -> list[Copy]:
        async with self._reading:
            return await self._read(places)

    async def _read(self, places: Sequence[Place]) -> list[Copy]:
        assert self._info is not None  # it was looked at
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = await Connection.open(self._source, client_name="valkeep-copy")
        read = KeyRead.of(self._info.redis_version)
        copies: list[Copy] = []
        for database in sorted({place[0] for place in places}):
            keys = [key for at, key in places if at == database]
            commands = [command for key in keys for command in read.commands(key)]
            try:
                await connection.call("SELECT", database)
                *replies, info = await connection.execute([*commands, ("INFO", "replication")], timeout=COPY_TIMEOUT)
                seen = [read.seen(replies[at : at + read.width]) for at in range(0, len(replies), read.width)]
                if isinstance(info, ServerError):
                    raise info
            except ServerError as error:
                raise Refused(
                    f"the source does not let us copy a key again: {error.message}",
                    remedy="permit SELECT, DUMP, PEXPIRETIME, PTTL, TIME, INFO and MULTI to this user",
                    code="VK-COPY-DENIED",
                ) from None
            offset = int(parse_info(info).get("master_repl_offset", "0"))
            for key, one in zip(keys, seen, strict=True):
                copies.append(Copy(database, key, offset, one.payload, one.expire_ms) if one else Copy(database, key, offset, None))
        return copies

    async def close(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._connection is not None:
            await self._connection.close()
