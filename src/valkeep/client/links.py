"""Connections to the nodes of a topology: one for each node, made when first needed, shared by all callers.

A connection for reading from replicas is another one: ``READONLY`` stays with it for life, and a node that was a primary yesterday would answer its reads
with old data without a word.
"""

from __future__ import annotations

import asyncio
from functools import partial

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.retry import Counts
from valkeep.client.shared import Shared
from valkeep.errors import LocalProtocolError, ValkeepError

__all__ = ["Links"]

_Key = tuple[Endpoint, bool]


class Links:
    """``timeout``: seconds to connect, and until a reply is late. ``source``: the address to connect from."""

    def __init__(self, timeout: float, source: str, counts: Counts) -> None:
        self._timeout, self._source, self._counts = timeout, source, counts
        self._opening: dict[_Key, Shared[Connection]] = {}
        self._open: dict[_Key, Connection] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def to(self, node: Endpoint, *, replica: bool = False) -> Connection:
        """An open connection; raises as `Connection.open` does."""
        if self._closed:
            raise LocalProtocolError("the client is closed", remedy="make a new one")
        key = (node, replica)
        connection = self._open.get(key)
        if connection is not None and not connection.closed:
            return connection
        if key not in self._opening:
            self._opening[key] = Shared(partial(self._begin, node, replica))
        return await self._opening[key].result()

    def leave(self, node: Endpoint) -> None:
        """New requests get a new connection; what is in flight on the old one may still be answered."""
        for key in [(node, False), (node, True)]:
            connection = self._open.pop(key, None)
            if connection is not None:
                task = asyncio.create_task(self._finish(connection))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Every connection, also those that are being opened. Closing twice is fine."""
        self._closed = True
        for opening in self._opening.values():
            await opening.close()
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        connections, self._open = list(self._open.values()), {}
        for connection in connections:
            await connection.close()

    async def _begin(self, node: Endpoint, replica: bool) -> Connection:
        connection = await Connection.open(node, self._timeout, source_address=self._source)
        self._counts.connections += 1
        try:
            if replica:
                await connection.pipeline([("READONLY",)])  # outside a cluster it is an error that means nothing
        except BaseException:
            await connection.close()
            raise
        self._open[node, replica] = connection
        return connection

    async def _finish(self, connection: Connection) -> None:
        try:
            await connection.call("PING", timeout=self._timeout)  # replies come in order: with this one, all before it have come
        except ValkeepError:
            pass
        finally:
            await connection.close()
