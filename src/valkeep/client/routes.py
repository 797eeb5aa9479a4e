"""Which node takes a request now: one answer for each kind of topology, and what makes an answer doubtful.

A route keeps the last answer and uses it until somebody says that it failed (`doubt`) or is told better (`moved`, a sentinel's message). However many callers
ask meanwhile, it is looked for once. Looking is all that a route does by the network; it never sends a request of its caller.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from random import Random
from typing import Any, Final, Generic, Protocol, TypeVar

from valkeep.client.cluster import ClusterDirectory
from valkeep.client.endpoint import Endpoint
from valkeep.client.sentinel import SentinelDirectory
from valkeep.client.shared import Shared
from valkeep.errors import ServerError

__all__ = ["ClusterRoute", "PrimaryRoute", "Route", "SentinelRoute"]

T = TypeVar("T")

_REFRESH_SECONDS: Final = 0.1  # between two tables that are fetched because of MOVED; each MOVED itself is believed at once


class Route(Protocol):
    """``slotted``: whether `node` wants to know the slot."""

    slotted: bool

    async def node(self, slot: int | None, *, replica: bool = False) -> Endpoint:
        """Who takes a request for this slot; ``replica``: one of its replicas, where there is one. Raises `ValkeepError`, definite, when nobody knows."""

    async def primaries(self) -> tuple[Endpoint, ...]:
        """All primaries."""

    async def slots(self) -> tuple[int | None, ...]:
        """One slot of each primary: to ask each, whoever it is by then."""

    def doubt(self, node: Endpoint, slot: int | None) -> None:
        """This node failed for this slot: look again before it is named once more."""

    def moved(self, slot: int, owner: Endpoint) -> None:
        """A node said that this slot is elsewhere for good."""

    def switches(self) -> AsyncGenerator[Endpoint, None]:
        """The old primary each time it was replaced, when `node` names the new one already. Ends at once where nobody tells."""

    async def close(self) -> None:
        """Stop looking."""


class _Answer(Generic[T]):
    """The last answer of ``look``, which is given ``timeout`` seconds."""

    def __init__(self, look: Callable[[float], Coroutine[Any, Any, T]], timeout: float) -> None:
        self.known: T | None = None
        self._look, self._timeout = look, timeout
        self.again = Shared(self._find)

    async def get(self) -> T:
        return self.known if self.known is not None else await self.again.result()

    async def _find(self) -> T:
        self.known = await self._look(self._timeout)
        return self.known


class PrimaryRoute:
    """One server for everything."""

    slotted = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def node(self, slot: int | None, *, replica: bool = False) -> Endpoint:  # noqa: ARG002
        return self._endpoint

    async def primaries(self) -> tuple[Endpoint, ...]:
        return (self._endpoint,)

    async def slots(self) -> tuple[int | None, ...]:
        return (None,)

    def doubt(self, node: Endpoint, slot: int | None) -> None:
        pass

    def moved(self, slot: int, owner: Endpoint) -> None:
        pass

    async def switches(self) -> AsyncGenerator[Endpoint, None]:
        return
        yield

    async def close(self) -> None:
        pass


class SentinelRoute:
    """The primary that sentinels name. A node that a ``+switch-master`` announces has to say itself that it is a primary before requests go there."""

    slotted = False

    def __init__(self, directory: SentinelDirectory, rng: Random, timeout: float) -> None:
        self._directory, self._rng = directory, rng
        self._primary = _Answer(directory.primary, timeout)
        self._replicas = _Answer(directory.replicas, timeout)

    async def node(self, slot: int | None, *, replica: bool = False) -> Endpoint:  # noqa: ARG002
        if replica and (replicas := await self._replicas.get()):
            return self._rng.choice(replicas)
        return await self._primary.get()

    async def primaries(self) -> tuple[Endpoint, ...]:
        return (await self._primary.get(),)

    async def slots(self) -> tuple[int | None, ...]:
        return (None,)

    def doubt(self, node: Endpoint, slot: int | None) -> None:  # noqa: ARG002
        if self._primary.known == node:
            self._primary.known = None
        if node in (self._replicas.known or ()):
            self._replicas.known = None

    def moved(self, slot: int, owner: Endpoint) -> None:
        pass

    async def switches(self) -> AsyncGenerator[Endpoint, None]:
        last: Endpoint | None = None
        async with contextlib.aclosing(self._directory.watch()) as told:
            async for switch in told:
                if switch.new == last or not await self._directory.is_primary(switch.new):
                    continue
                old, last = last, switch.new
                if old is not None:
                    self._primary.known, self._replicas.known = switch.new, None
                    yield old

    async def close(self) -> None:
        await self._primary.again.close()
        await self._replicas.again.close()


class ClusterRoute:
    """The owner of each slot by the last table. A failed owner, or MOVED, leads to a new one."""

    slotted = True

    def __init__(self, directory: ClusterDirectory, rng: Random, timeout: float) -> None:
        self._directory, self._rng = directory, rng
        self._table = _Answer(directory.table, timeout)
        self._refreshed = 0.0

    async def node(self, slot: int | None, *, replica: bool = False) -> Endpoint:
        table = await self._table.get()
        owner = table.owner(slot) if slot is not None else self._rng.choice(table.primaries)
        if owner is None:
            self._table.known = None
            raise ServerError(
                "CLUSTERDOWN", f"no node serves slot {slot}", remedy="assign the slot to a node, or bring its shard back (CLUSTER INFO)"
            )
        if replica and (replicas := table.replicas.get(owner)):
            return self._rng.choice(replicas)
        return owner

    async def primaries(self) -> tuple[Endpoint, ...]:
        return (await self._table.get()).primaries

    async def slots(self) -> tuple[int | None, ...]:
        table = await self._table.get()
        return tuple(table.owners.index(primary) for primary in table.primaries)

    def doubt(self, node: Endpoint, slot: int | None) -> None:
        table = self._table.known
        owner = table.owner(slot) if table is not None and slot is not None else None
        if table is None or owner is None or node == owner or node in table.replicas.get(owner, ()):
            self._table.known = None

    def moved(self, slot: int, owner: Endpoint) -> None:
        if self._table.known is not None:
            self._table.known = self._table.known.moved(slot, owner)
        now = asyncio.get_running_loop().time()
        if now - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = now
            self._directory.better = owner
            self._table.again.begin()

    async def switches(self) -> AsyncGenerator[Endpoint, None]:
        return
        yield

    async def close(self) -> None:
        await self._table.again.close()
