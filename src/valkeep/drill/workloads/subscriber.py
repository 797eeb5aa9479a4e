"""A client that listens to every channel of a load, and records what it hears.

    subscribe     until all channels were confirmed
    receive       a message: the value is its element; invoked and returned when it came
    unsubscribe   from when on nothing could be heard any more

A message that is published while nobody is subscribed is gone: that is what pub/sub promises, so a checker has to know when somebody was.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.direct import OPERATION_S
from valkeep.drill.workloads.lane import Gate
from valkeep.drill.workloads.link import Link
from valkeep.drill.workloads.record import Record
from valkeep.drill.workloads.routes import Route
from valkeep.drill.workloads.targets import Place, Targets
from valkeep.errors import ValkeepError
from valkeep.topology.slots import key_slot
from valkeep.wire import resp

__all__ = ["ALL", "Subscriber"]

ALL: Final = b"p:"
"""The key of subscribe and unsubscribe in a history."""
LOOK: Final = 0.05  # seconds between two looks at whether the primary is still the same


class Subscriber:
    """Listens at the node to which its client would write, and moves with it."""

    def __init__(self, client: ClientSpec, route: Route, targets: Targets, record: Record) -> None:
        self._client, self._route, self._record = client, route, record
        self._slot = key_slot(targets.tags[0])
        self._channels = [keys.channel(tag) for tag in targets.tags]

    async def run(self, gate: Gate) -> None:
        """Until the gate says that it is over."""
        while not gate.over:
            place = self._route.place(self._slot)
            try:
                await self._listen(gate, place)
            except ValkeepError as error:
                self._record.trouble(self._client.name, error.message)
            if not gate.over:
                await self._route.again()
                await asyncio.sleep(0.01)

    async def _listen(self, gate: Gate, place: Place) -> None:
        process = self._record.process(self._client.name, place.name)
        history = self._record.history

        def heard(message: Any) -> None:
            if isinstance(message, list) and message[0] == b"message":
                now = time.monotonic_ns()
                history.ok(history.invoke(process, "receive", message[1], int(message[2]), now), now, place.name)

        link = await Link.open(place.endpoint, f"valkeep-{self._client.name}-hears", OPERATION_S, self._client.source, heard)
        try:
            number = history.invoke(process, "subscribe", ALL, None, time.monotonic_ns())
            confirmed = await link.ask(resp.encode(b"SUBSCRIBE", *self._channels), len(self._channels), OPERATION_S)
            if len(confirmed) < len(self._channels):
                history.info(number, time.monotonic_ns(), place.name, link.lost)
                return
            history.ok(number, time.monotonic_ns(), place.name)
            while not gate.over and not link.lost and self._route.place(self._slot) == place:  # noqa: ASYNC110
                await asyncio.sleep(LOOK)
            if not link.lost:
                await asyncio.sleep(LOOK)  # what was published last is on its way
        finally:
            link.close()
        now = time.monotonic_ns()
        history.ok(history.invoke(process, "unsubscribe", ALL, None, now), now, place.name)
