"""The clients of a drill, all on one event loop, recording into one history.

A client has a few *lanes*, each with connections of its own. In a cluster each lane has the tags of one shard, so that a dead shard stops
one lane and not the client; elsewhere tags are dealt out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from valkeep.drill.script import ClientSpec, Load
from valkeep.drill.workloads.direct import Direct
from valkeep.drill.workloads.driver import driver_of
from valkeep.drill.workloads.lane import Gate, Worker, keep_pace
from valkeep.drill.workloads.library import ByLibrary
from valkeep.drill.workloads.mixes import Mix, mix_of
from valkeep.drill.workloads.record import Record
from valkeep.drill.workloads.routes import Route, route_of
from valkeep.drill.workloads.subscriber import Subscriber
from valkeep.drill.workloads.targets import Targets
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import Kind

__all__ = ["Crew"]

LANES: Final = 3  # of each client, where the topology does not say
SUBSCRIBERS: Final = 2  # clients that listen too, where messages are published


class _Member(NamedTuple):
    spec: ClientSpec
    mix: Mix
    route: Route
    rng: random.Random


class Crew:
    """``begin`` finds the nodes, ``run`` works until the gate ends it. Raises ``UsageError`` for a mix or driver that does not exist."""

    def __init__(self, load: Load, targets: Targets, seed: int) -> None:
        self.load, self.targets = load, targets
        self.record = Record()
        self.gate = Gate()
        self._driver = None if load.driver == "recorder" else driver_of(load.driver)
        self._members = [
            _Member(spec, mix_of(load.mix, number, rng), route_of(spec, targets, rng, self.record.trouble), rng)
            for number, spec in enumerate(load.clients, 1)
            for rng in [random.Random(seed * 1_000_003 + number)]
        ]

    async def begin(self) -> None:
        """Raises ``ValkeepError`` when a client finds nobody to write to, or the library is missing or does not fit."""
        for member in self._members:
            await member.route.begin()
        if self._driver is not None:
            session = await self._driver.open(self._members[0].spec, self.targets)
            await session.close()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                workers = [worker for member in self._members for worker in self._workers(member)]
                for number, worker in enumerate(workers):
                    group.create_task(keep_pace(worker, self.gate, self.load, number, len(workers)))
                for member in self._members[: SUBSCRIBERS if self.load.mix == "pubsub" else 0]:
                    group.create_task(Subscriber(member.spec, member.route, self.targets, self.record).run(self.gate))
        finally:
            for member in self._members:
                member.route.end()

    def _workers(self, member: _Member) -> list[Worker]:
        shares = self._shares(member.route)
        if self._driver is not None:
            return [ByLibrary(self._driver, member.spec, member.mix, tags, self.load.batch, self.targets, self.record) for tags in shares]
        return [
            Direct(member.spec, member.mix, member.route, tags, self.load.batch, self.targets, self.record, member.rng) for tags in shares
        ]

    def _shares(self, route: Route) -> list[Sequence[bytes]]:
        """The tags of each lane of a client."""
        tags = self.targets.tags
        if self.targets.kind is not Kind.CLUSTER:
            return [tags[number::LANES] for number in range(min(LANES, len(tags)))]
        by_owner: dict[str, list[bytes]] = {}
        for tag in tags:
            by_owner.setdefault(route.place(key_slot(tag)).name, []).append(tag)
        return list(by_owner.values())
