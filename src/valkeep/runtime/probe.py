"""Asking every node of a topology what it is now, whenever somebody wants to know (a drill's `watch` asks all the time).

One connection to each node, opened anew when it broke. A node that does not answer in time is not reached in this view, whatever it said before.
All nodes are asked at once, so a view is as old as its slowest answer, at most ``timeout``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Self

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.spec import MONITORED, Kind
from valkeep.topology.view import PROBES, NodeView, SentinelView, View, data_view, sentinel_probes, sentinel_view

__all__ = ["Prober"]


class Prober:
    """``async with Prober(…) as prober``. ``data`` and ``sentinels``: name → where it is asked."""

    def __init__(self, kind: Kind, data: Mapping[str, Endpoint], sentinels: Mapping[str, Endpoint], *, timeout: float = 0.5) -> None:
        self.endpoints = {**data, **sentinels}
        self._data, self._sentinels = tuple(data), tuple(sentinels)
        self._timeout = timeout
        self._probes = PROBES if kind is Kind.CLUSTER else PROBES[:1]
        self._connections: dict[str, Connection] = {}

    async def look(self) -> View:
        """What every node says now."""
        at = time.monotonic_ns()
        names = (*self._data, *self._sentinels)
        answers = dict(zip(names, await asyncio.gather(*map(self._asked, names)), strict=True))
        nodes = {name: _data(name, answers[name]) for name in self._data}
        return View(at, nodes, {name: _sentinel(name, answers[name]) for name in self._sentinels})

    async def call(self, name: str, *words: str | bytes | int, timeout: float | None = None) -> Value:
        """One command to one node. Raises what the server or the connection says."""
        connection = await self._connection(name)
        return await connection.call(*words, timeout=timeout or self._timeout)

    async def _asked(self, name: str) -> list[Value] | None:
        probes = sentinel_probes(MONITORED) if name in self._sentinels else self._probes
        with contextlib.suppress(ValkeepError):
            connection = await self._connection(name)
            return await connection.pipeline(probes, timeout=self._timeout)
        return None

    async def _connection(self, name: str) -> Connection:
        connection = self._connections.get(name)
        if connection is None or connection.closed:
            connection = await Connection.open(self.endpoints[name], timeout=self._timeout, client_name="valkeep-probe")
            self._connections[name] = connection
        return connection

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _texts(replies: Sequence[Value]) -> list[Value]:
    return [None if isinstance(reply, ServerError) else reply for reply in replies]


def _data(name: str, replies: Sequence[Value] | None) -> NodeView:
    if replies is None:
        return NodeView(name, reached=False)
    return data_view(name, _texts(replies))


def _sentinel(name: str, replies: Sequence[Value] | None) -> SentinelView:
    return SentinelView(name, reached=False) if replies is None else sentinel_view(name, _texts(replies))
