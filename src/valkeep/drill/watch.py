"""Watching a topology while it is drilled: what each node says of itself, about every 20 ms, each on a connection of its own.

Every node has a loop of its own, so one that hangs does not slow the news of the others. A sample is the node's word between two
moments: it was asked at ``at`` and had answered by ``answered``. What a primary's offset was when it was *asked* bounds a loss:
whatever had been acked before lies at or before the offset that the answer names.

The watcher connects from an address that is never cut off, so it sees both sides of a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.slots import SLOTS
from valkeep.topology.spec import MONITORED, Kind
from valkeep.topology.view import PROBES, NodeView, SentinelView, View, data_view, sentinel_probes, sentinel_view

__all__ = ["Sample", "Watch"]

EVERY, PATIENCE = 0.02, 0.5


class Sample(NamedTuple):
    """``at``, ``answered``: ns on the monotonic clock. ``online``: replicas that it calls online. Fields as in `NodeView`."""

    at: int
    answered: int
    role: str
    replid: str
    offset: int
    online: int
    primary: str
    slots: int
    old: str = ""
    old_offset: int = -1


class Watch:
    """``async with Watch(kind, data, sentinels)``: name → where it is asked; ``samples`` of the data nodes grow meanwhile. ``monitored``: what the sentinels
    call the primary.

    ``coverage``: of a cluster (at, slots without a reachable primary, slots that two claim), whenever it changed.
    ``claimed``: data node → when (ns) it said that it is a primary, if that was the last that was heard of it, else 0.
    ``since``: data node → since when (ns) it has been what it is now, by role and replication id.
    """

    def __init__(self, kind: Kind, data: Mapping[str, Endpoint], sentinels: Mapping[str, Endpoint], monitored: str = MONITORED) -> None:
        self.samples: dict[str, list[Sample]] = {name: [] for name in data}
        self.since: dict[str, int] = dict.fromkeys(data, 0)
        self.claimed: dict[str, int] = dict.fromkeys(data, 0)
        self.coverage: list[tuple[int, int, int]] = []
        self._kind = kind
        self._monitored = monitored
        self._last: dict[str, NodeView] = {name: NodeView(name, reached=False) for name in data}
        self._named: dict[str, SentinelView] = {name: SentinelView(name, reached=False) for name in sentinels}
        self._endpoints = {**data, **sentinels}
        self._probes = PROBES[:3] if kind is Kind.CLUSTER else PROBES[:1]  # nobody here asks what clients are told
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def view(self) -> View:
        """The newest word of each node."""
        return View(time.monotonic_ns(), dict(self._last), dict(self._named))

    @property
    def named(self) -> str:
        """The host:port that most of the sentinels that answer call the primary; "" where none does."""
        votes = Counter(seen.primary for seen in self._named.values() if seen.reached and seen.primary)
        return votes.most_common(1)[0][0] if votes else ""

    async def until(self, condition: Callable[[View], bool], timeout: float) -> bool:
        """Whether ``condition(view)`` came true within ``timeout`` s; looked at whenever a node says something new."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: condition(self.view))
                return True
        return False

    async def _follow(self, name: str, endpoint: Endpoint) -> None:
        probes = (sentinel_probes(self._monitored)[0],) if name in self._named else self._probes
        connection: Connection | None = None
        try:
            while True:
                at = time.monotonic_ns()
                replies: list[Value] = []
                with contextlib.suppress(ValkeepError):
                    if connection is None or connection.closed:
                        connection = await Connection.open(endpoint, timeout=PATIENCE, client_name="valkeep-watch")
                        at = time.monotonic_ns()
                    replies = await connection.pipeline(probes, timeout=PATIENCE)
                await self._note(name, [None if isinstance(reply, ServerError) else reply for reply in replies], at)
                await asyncio.sleep(EVERY)
        finally:
            if connection is not None:
                await connection.close()

    async def _note(self, name: str, replies: list[Value], at: int) -> None:
        if name in self._named:
            self._named[name] = sentinel_view(name, replies)
        else:
            seen, before = data_view(name, replies), self._last[name]
            if (seen.role, seen.replid) != (before.role, before.replid):
                self.since[name] = at
            self._last[name] = seen
            if self._kind is Kind.CLUSTER:
                self._cover(time.monotonic_ns())
            if seen.reached:
                self.claimed[name] = time.monotonic_ns() if seen.claims else 0
                self.samples[name].append(
                    Sample(
                        at,
                        time.monotonic_ns(),
                        seen.role,
                        seen.replid,
                        seen.offset,
                        len(seen.online),
                        seen.primary,
                        seen.slot_count,
                        seen.old,
                        seen.old_offset,
                    )
                )
        async with self._changed:
            self._changed.notify_all()

    def _cover(self, at: int) -> None:
        if any(not node.reached and not self.samples[name] for name, node in self._last.items()):
            return  # not everybody was asked yet
        owned = [span for node in self._last.values() if node.reached and node.role == "primary" for span in node.ranges]
        claimed = sum(last - first + 1 for first, last in owned)
        covered = claimed - sum(_overlap(one, other) for number, one in enumerate(owned) for other in owned[:number])
        found = (SLOTS - covered, claimed - covered)
        if not self.coverage or self.coverage[-1][1:] != found:
            self.coverage.append((at, *found))

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._follow(name, endpoint)) for name, endpoint in self._endpoints.items()]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]) + 1)
