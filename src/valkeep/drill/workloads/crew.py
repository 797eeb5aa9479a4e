"""The clients of a drill at work, recording into one history.

A client has a few *lanes*. A lane sends one batch at a time, on a connection of its own to the node that its tags live on; in a cluster
each lane has the tags of one shard, so that a dead shard stops one lane and not the client. A batch is one block: its operations are
invoked at one moment and return at one moment.

    no reply within ``OPERATION_S``, or the connection broke    what was not answered is ``info``; never sent again; a new connection
    an error reply                                              ``fail`` with its first word
    no connection                                               ``fail`` UNREACHED, without anything sent
    MOVED                                                       ``fail``; the redirect is noted; the slot goes to the node that was named
    ASK                                                         ``fail``; a new operation of the same kind goes there, after ASKING
    WAIT counted fewer replicas than asked for                  the batch's writes are ``info`` "WAIT k"

After a failure a lane asks its client's route where to write now, pauses for 2–20 ms, and tries single operations until one is answered.

A process of the history is one connection: the order of its operations is then the order in which one node saw them, and a connection
that left something in doubt is never used again. ``processes`` tells whose it was. Attempts without a connection count as the process
that the lane got at its start.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from valkeep.drill.history import History, Outcome
from valkeep.drill.script import ClientSpec, Load
from valkeep.drill.workloads.link import Link
from valkeep.drill.workloads.mixes import Command, Mix, Step, mix_of
from valkeep.drill.workloads.routes import Route, route_of
from valkeep.drill.workloads.targets import Place, Targets
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import Kind
from valkeep.wire import resp

__all__ = ["OPERATION_S", "Crew", "Process", "Redirect"]

OPERATION_S: Final = 0.5
LANES: Final = 3  # of each client, where the topology does not say
CATCHING_UP: Final = 20  # periods that a lane catches up after a stall

_ELSEWHERE: Final = frozenset({"MOVED", "ASK"})
_ASKING: Final[tuple[Command, ...]] = ((b"ASKING",),)


class Process(NamedTuple):
    """Whose connection it was, and to which node ("" for attempts that had none)."""

    client: str
    node: str


class Redirect(NamedTuple):
    """A node said that the slot is elsewhere. ``at``: ns; ``kind``: MOVED or ASK; ``answered``: the node that said so."""

    at: int
    kind: str
    answered: str
    named: str
    slot: int


@dataclass(slots=True)
class Tally:
    """What happened so far. ``acked_at``: node → ns of its last ack. ``troubles``: (client, text) → how often."""

    acked: int = 0
    refused: int = 0
    acked_at: dict[str, int] = field(default_factory=dict)
    moved: list[Redirect] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    troubles: dict[tuple[str, str], int] = field(default_factory=dict)

    def process(self, client: str, node: str) -> int:
        """A number that no other connection had."""
        self.processes.append(Process(client, node))
        return len(self.processes) - 1

    def trouble(self, client: str, text: str) -> None:
        self.troubles[client, text] = self.troubles.get((client, text), 0) + 1


class Gate:
    """Lanes pass it before each batch, or wait. ``shut`` returns when nothing is in flight."""

    def __init__(self) -> None:
        self.over = False
        self._open = asyncio.Event()
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        self._open.set()

    def end(self) -> None:
        """Everybody goes home."""
        self.over = True
        self._open.set()

    async def shut(self) -> None:
        self._open.clear()
        await self._quiet.wait()

    async def rest(self) -> None:
        await self._open.wait()

    def enter(self) -> None:
        self._busy += 1
        self._quiet.clear()

    def leave(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._quiet.set()


class Lane:
    """One batch at a time. ``share``: (this lane's number, of how many), so that they do not all send at once."""

    def __init__(
        self, crew: Crew, client: ClientSpec, mix: Mix, route: Route, tags: Sequence[bytes], share: tuple[int, int], rng: random.Random
    ) -> None:
        self._crew, self._client, self._mix, self._route, self._rng = crew, client, mix, route, rng
        self._tags = [(tag, key_slot(tag)) for tag in tags]
        self._share = share
        self._links: dict[str, tuple[Link, int]] = {}  # by node: the connection and its process
        self._alone = crew.tally.process(client.name, "")
        self._probing = False
        self._failures = 0  # in a row
        self._timeout = OPERATION_S + (client.wait_ms / 1000 if client.wait else 0)
        self._wait: tuple[Command, ...] = ((b"WAIT", client.wait, client.wait_ms),) if client.wait else ()

    async def run(self) -> None:
        """Until the gate says that it is over."""
        gate, load = self._crew.gate, self._crew.load
        number, lanes = self._share
        period = load.batch * lanes / load.rate
        due, turn = 0.0, 0
        try:
            while not gate.over:
                if not gate.is_open:
                    await gate.rest()
                    await asyncio.sleep(period * number / lanes)
                    due = time.monotonic()
                    continue
                turn += 1
                tag, slot = self._tags[turn % len(self._tags)]
                gate.enter()
                try:
                    good = await self._batch(tag, slot)
                finally:
                    gate.leave()
                if not good:
                    await self._recover()
                    continue
                now = time.monotonic()
                due = max(due + period, now - CATCHING_UP * period)  # catches up after a stall, within reason
                if due > now:
                    await asyncio.sleep(due - now)
        finally:
            for link, _ in self._links.values():
                link.close()

    async def _recover(self) -> None:
        self._probing = True
        self._failures += 1
        await self._route.again()
        await asyncio.sleep(min(0.02, self._rng.uniform(0.002, 0.004 * self._failures)))

    async def _batch(self, tag: bytes, slot: int) -> bool:
        """Send operations where the route says; whether to go on at once."""
        place = self._route.place(slot)
        found = await self._link(place)
        steps = self._mix.batch(tag, 1 if self._probing or found is None else self._crew.load.batch)
        if found is None:
            now = time.monotonic_ns()
            for number in self._invoke(self._alone, steps, now):
                self._crew.history.fail(number, now, place.name, "UNREACHED")
            self._crew.tally.refused += len(steps)
            return False
        return await self._exchange(place, found, slot, steps)

    async def _exchange(self, place: Place, found: tuple[Link, int], slot: int, steps: Sequence[Step], *, asking: bool = False) -> bool:
        """One block with all commands of these steps, each step after ASKING if so; whether to go on at once."""
        link, process = found
        before = _ASKING if asking else ()
        commands = [command for step in steps for command in (*before, *step.commands)]
        count = len(commands)
        commands += self._wait
        numbers = self._invoke(process, steps, time.monotonic_ns())
        replies = await link.ask(resp.encode_many(commands), len(commands), self._timeout)
        returned = time.monotonic_ns()
        waited = self._waited(replies, count)
        history, tally, understood = self._crew.history, self._crew.tally, self._mix.understood
        name = place.name
        taken = acked = refused = 0
        redirects: list[tuple[Step, ServerError]] = []
        for step, number in zip(steps, numbers, strict=True):
            end = taken + len(before) + len(step.commands)
            if end > len(replies):
                history.info(number, returned, name, link.lost)
                taken = end
                continue
            its = replies[taken + len(before) : end]
            taken = end
            outcome, result, error = understood(step, its)
            if outcome is Outcome.OK:
                if waited and step.writes:
                    history.info(number, returned, name, waited)
                else:
                    history.ok(number, returned, name, result)
                    acked += 1
            elif outcome is Outcome.FAIL:
                history.fail(number, returned, name, error)
                refused += 1
                if error in _ELSEWHERE:
                    redirects += [(step, reply) for reply in its if isinstance(reply, ServerError) and reply.kind == error][:1]
            else:
                history.info(number, returned, name, error)
        tally.acked += acked
        tally.refused += refused
        if acked:
            tally.acked_at[name] = returned
        if redirects:
            return await self._redirected(place, slot, redirects, again=not asking)
        if link.lost or refused:
            return False
        self._probing, self._failures = False, 0
        return True

    def _invoke(self, process: int, steps: Sequence[Step], at: int) -> list[int]:
        invoke = self._crew.history.invoke
        return [invoke(process, step.function, step.key, step.value, at) for step in steps]

    def _waited(self, replies: Sequence[Any], at: int) -> str:
        """Why the writes of a batch are in doubt though they were acked: too few replicas have them. "" when they are not."""
        if not self._wait or len(replies) <= at:
            return "WAIT" if self._wait else ""
        counted = replies[at]
        if isinstance(counted, int) and counted >= self._client.wait:
            return ""
        return f"WAIT {counted.kind if isinstance(counted, ServerError) else counted}"

    async def _redirected(self, place: Place, slot: int, redirects: Sequence[tuple[Step, ServerError]], *, again: bool) -> bool:
        """Note where the slot is said to be, and go there (``again``: also where one has to ask first); whether to go on at once."""
        crew = self._crew
        asked: list[Step] = []
        elsewhere = place
        for step, error in redirects:
            number, _, address = error.text.partition(" ")
            host, _, port = address.rpartition(":")
            elsewhere = crew.targets.place(host or place.endpoint.host, int(port))
            crew.tally.moved.append(Redirect(time.monotonic_ns(), error.kind, place.name, elsewhere.name, int(number)))
            if error.kind == "MOVED":
                self._route.moved(slot, elsewhere)
            elif again:
                asked.append(self._mix.again(step))
        if not self._client.follow:
            return False
        if asked:
            found = await self._link(elsewhere)
            return found is not None and await self._exchange(elsewhere, found, slot, asked, asking=True)
        self._probing = True
        self._failures += 1
        return self._failures <= 3  # two nodes that name each other are not asked without a pause

    async def _link(self, place: Place) -> tuple[Link, int] | None:
        found = self._links.get(place.name)
        if found is None or found[0].lost:
            client = self._client
            try:
                link = await Link.open(place.endpoint, f"valkeep-{client.name}", OPERATION_S, client.source)
            except ValkeepError as error:
                self._crew.tally.trouble(client.name, error.message)
                return None
            found = self._links[place.name] = link, self._crew.tally.process(client.name, place.name)
        return found


class Crew:
    """All clients of a load on one event loop. ``begin`` finds the nodes, ``run`` works until the gate ends it."""

    def __init__(self, load: Load, targets: Targets, seed: int) -> None:
        self.load, self.targets = load, targets
        self.history = History(time.time_ns() - time.monotonic_ns())
        self.tally = Tally()
        self.gate = Gate()
        self._rngs = [random.Random(seed * 1_000_003 + number) for number in range(len(load.clients))]
        self._routes = [route_of(client, targets, rng, self.tally.trouble) for client, rng in zip(load.clients, self._rngs, strict=True)]

    async def begin(self) -> None:
        """Raises ``ValkeepError`` when a client finds nobody to write to."""
        for route in self._routes:
            await route.begin()

    async def run(self) -> None:
        lanes: list[tuple[int, Sequence[bytes]]] = []
        for number, route in enumerate(self._routes):
            lanes += [(number, tags) for tags in self._shares(route)]
        try:
            async with asyncio.TaskGroup() as group:
                mixes = [mix_of(self.load.mix, number + 1, rng) for number, rng in enumerate(self._rngs)]
                for at, (number, tags) in enumerate(lanes):
                    lane = Lane(
                        self, self.load.clients[number], mixes[number], self._routes[number], tags, (at, len(lanes)), self._rngs[number]
                    )
                    group.create_task(lane.run())
        finally:
            for route in self._routes:
                route.end()

    def _shares(self, route: Route) -> list[Sequence[bytes]]:
        """The tags of each lane of a client."""
        tags = self.targets.tags
        if self.targets.kind is not Kind.CLUSTER:
            return [tags[number::LANES] for number in range(min(LANES, len(tags)))]
        by_owner: dict[str, list[bytes]] = {}
        for tag in tags:
            by_owner.setdefault(route.place(key_slot(tag)).name, []).append(tag)
        return list(by_owner.values())
