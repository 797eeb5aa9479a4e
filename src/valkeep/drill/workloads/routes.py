"""Where a client of a drill finds the node that takes its writes: one answer for each kind of topology.

A route belongs to one client, because it knows only what that client's side of a network can reach. It never sends a write; it is asked
for a place before each batch, and told after each failure to look again (``again``), which many lanes of a client may do at once and
which then happens once.

A client that does not follow keeps the place it first had: it is what an application does that resolved its primary at its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final, Protocol

from valkeep.client.endpoint import Endpoint
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.link import Link
from valkeep.drill.workloads.targets import Place, Targets
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import Kind
from valkeep.wire import resp

__all__ = ["ClusterRoute", "FixedRoute", "Route", "SentinelRoute", "Trouble", "route_of"]

PATIENCE: Final = 0.2  # seconds for a question to a sentinel or a node
PAUSE: Final = 0.02  # seconds between two times that a client looks again
FIRST_PATIENCE: Final = 5.0  # seconds for the first look: nothing is measured yet

_SLOTS: Final = resp.encode("CLUSTER", "SLOTS")


class Trouble(Protocol):
    """Called with what went wrong beside the operations: who, and why."""

    def __call__(self, client: str, text: str) -> None: ...


class Route(Protocol):
    """What a client's lanes ask."""

    async def begin(self) -> None:
        """Look for the first time. Raises ``ValkeepError`` when nobody knows where to write."""

    def place(self, slot: int) -> Place:
        """Where writes to this slot go now."""

    def moved(self, slot: int, place: Place) -> None:
        """A node said that this slot is elsewhere."""

    async def again(self) -> None:
        """Something failed: look again, where a client would. Never raises; returns when there may be news."""

    def end(self) -> None: ...


def route_of(client: ClientSpec, targets: Targets, rng: Random, trouble: Trouble) -> Route:
    match targets.kind:
        case Kind.SENTINEL:
            return SentinelRoute(client, targets, trouble)
        case Kind.CLUSTER:
            return ClusterRoute(client, targets, rng, trouble)
        case _:
            name, endpoint = next(iter(targets.nodes.items()))
            return FixedRoute(Place(name, endpoint))


class FixedRoute:
    """One node for ever."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def begin(self) -> None:
        pass

    def place(self, slot: int) -> Place:  # noqa: ARG002
        return self._place

    def moved(self, slot: int, place: Place) -> None:
        pass

    async def again(self) -> None:
        pass

    def end(self) -> None:
        pass


class _Inquiry:
    """Questions from one client's address, over connections that are kept: one for each peer, one question at a time."""

    def __init__(self, client: ClientSpec, trouble: Trouble) -> None:
        self._client, self._trouble = client, trouble
        self._links: dict[tuple[str, int], Link] = {}

    async def ask(self, endpoint: Endpoint, block: bytes) -> Any:
        """The reply, or None when there is none or it is an error."""
        where = (endpoint.host, endpoint.port)
        try:
            link = self._links.get(where)
            if link is None or link.lost:
                link = self._links[where] = await Link.open(endpoint, f"valkeep-{self._client.name}-asks", PATIENCE, self._client.source)
            replies = await link.ask(block, 1, PATIENCE)
        except ValkeepError as error:
            self._trouble(self._client.name, error.message)
            return None
        if not replies or isinstance(replies[0], ServerError):
            self._trouble(self._client.name, f"{endpoint.address}: {replies[0].message if replies else link.lost}")
            return None
        return replies[0]

    def end(self) -> None:
        for link in self._links.values():
            link.close()


class _OneAtATime:
    """Many lanes ask for the same thing; it is done once for all who came before it was over, and not more often than ``PAUSE``."""

    def __init__(self) -> None:
        self._running: asyncio.Task[None] | None = None
        self._over = 0.0

    async def __call__(self, look: Any) -> None:
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._after_a_pause(look))
        await asyncio.shield(self._running)

    async def _after_a_pause(self, look: Any) -> None:
        left = self._over + PAUSE - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        try:
            await look()
        finally:
            self._over = time.monotonic()

    def end(self) -> None:
        if self._running is not None:
            self._running.cancel()


async def _found(look: Callable[[], Awaitable[None]], known: Callable[[], bool]) -> bool:
    """Whether the first looks find what a client needs to begin with."""
    deadline = time.monotonic() + FIRST_PATIENCE
    while True:
        await look()
        if known() or time.monotonic() > deadline:
            return known()
        await asyncio.sleep(PAUSE)


class SentinelRoute:
    """The primary as the sentinels name it: asked after failures, heard from ``+switch-master`` in between."""

    def __init__(self, client: ClientSpec, targets: Targets, trouble: Trouble) -> None:
        self._client, self._targets, self._trouble = client, targets, trouble
        self._sentinels = list(targets.sentinels.values())
        self._inquiry = _Inquiry(client, trouble)
        self._once = _OneAtATime()
        self._question = resp.encode("SENTINEL", "GET-MASTER-ADDR-BY-NAME", targets.monitored)
        self._primary: Place | None = None
        self._listeners: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        if not await _found(self._look, lambda: self._primary is not None):
            raise ValkeepError(
                f"no sentinel tells the client {self._client.name} where {self._targets.monitored!r} is",
                remedy="are the sentinels up, and do they monitor this name?",
            )
        if self._client.follow:
            self._listeners = [asyncio.create_task(self._listen(endpoint)) for endpoint in self._sentinels]

    def place(self, slot: int) -> Place:  # noqa: ARG002
        assert self._primary is not None
        return self._primary

    def moved(self, slot: int, place: Place) -> None:
        pass

    async def again(self) -> None:
        if self._client.follow:
            await self._once(self._look)

    def end(self) -> None:
        self._once.end()
        for listener in self._listeners:
            listener.cancel()
        self._inquiry.end()

    async def _look(self) -> None:
        for _ in self._sentinels:
            answer = await self._inquiry.ask(self._sentinels[0], self._question)
            if isinstance(answer, list):
                self._primary = self._targets.place(answer[0].decode(), int(answer[1]))
                return
            self._sentinels.append(self._sentinels.pop(0))  # who answered last is asked first

    async def _listen(self, endpoint: Endpoint) -> None:
        subscribe = resp.encode("SUBSCRIBE", "+switch-master")
        while True:
            with contextlib.suppress(ValkeepError):  # a sentinel that is away is asked again soon; `again` reports it
                link = await Link.open(endpoint, f"valkeep-{self._client.name}-hears", 1.0, self._client.source, self._heard)
                try:
                    await link.ask(subscribe, 1, 1.0)
                    await link.gone()
                finally:
                    link.close()
            await asyncio.sleep(0.2)

    def _heard(self, message: Any) -> None:
        if isinstance(message, list) and message[:2] == [b"message", b"+switch-master"]:
            name, _, _, host, port = message[2].decode().split(" ")
            if name == self._targets.monitored:
                self._primary = self._targets.place(host, int(port))


class ClusterRoute:
    """The owner of each tag's slot, from CLUSTER SLOTS (which every version answers) and from MOVED."""

    def __init__(self, client: ClientSpec, targets: Targets, rng: Random, trouble: Trouble) -> None:
        self._client, self._targets, self._rng = client, targets, rng
        self._inquiry = _Inquiry(client, trouble)
        self._once = _OneAtATime()
        self._slots = [key_slot(tag) for tag in targets.tags]
        self._owners: dict[int, Place] = {}

    async def begin(self) -> None:
        if not await _found(self._look, lambda: len(self._owners) >= len(set(self._slots))):
            raise ValkeepError(
                f"no node tells the client {self._client.name} who serves all slots",
                remedy="is the cluster up, and are all slots assigned?",
            )

    def place(self, slot: int) -> Place:
        return self._owners[slot]

    def moved(self, slot: int, place: Place) -> None:
        if self._client.follow:
            self._owners[slot] = place

    async def again(self) -> None:
        if self._client.follow:
            await self._once(self._look)

    def end(self) -> None:
        self._once.end()
        self._inquiry.end()

    async def _look(self) -> None:
        known = list(self._targets.nodes.values())
        self._rng.shuffle(known)  # whoever is asked may be the one that has not heard
        for endpoint in known:
            answer = await self._inquiry.ask(endpoint, _SLOTS)
            if isinstance(answer, list):
                self._owners |= self._read(answer, endpoint.host)
                return

    def _read(self, answer: Sequence[Any], asked: str) -> dict[int, Place]:
        found: dict[int, Place] = {}
        for first, last, (host, port, *_), *_ in answer:
            name = host.decode() if isinstance(host, bytes) else ""
            place = self._targets.place(name if name not in {"", "?"} else asked, port)  # an empty name is the peer's own
            found |= {slot: place for slot in self._slots if first <= slot <= last}
        return found
