"""The recorder's own client: one block of operations at a time, each with its own outcome, and nothing done twice.

A batch is one block on one connection: its operations are invoked at one moment and return at one moment.

    no reply within ``OPERATION_S``, or the connection broke    what was not answered is ``info``; never sent again; a new connection
    an error reply                                              ``fail`` with its first word
    no connection                                               ``fail`` UNREACHED, without anything sent
    MOVED                                                       ``fail``; the redirect is noted; the slot goes to the node that was named
    ASK                                                         ``fail``; a new operation of the same kind goes there, after ASKING
    WAIT counted fewer replicas than asked for                  the batch's writes are ``info`` "WAIT k"

After a failure it asks its client's route where to write now, pauses for 2–20 ms, and tries single operations until one is answered.

A process of the history is one connection: the order of its operations is then the order in which one node saw them, and a connection
that left something in doubt is never used again. ``Record.processes`` tells whose it was. Attempts without a connection
count as a process that was made at the start.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from valkeep.drill.checkers.redirects import Redirect
from valkeep.drill.history import Outcome
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.link import Link
from valkeep.drill.workloads.mixes import Command, Mix, Step
from valkeep.drill.workloads.record import Record
from valkeep.drill.workloads.routes import Route
from valkeep.drill.workloads.targets import Place, Targets
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.slots import key_slot
from valkeep.wire import resp

__all__ = ["OPERATION_S", "Direct"]

OPERATION_S: Final = 0.5  # seconds that an operation waits for its reply
CONNECTION_S: Final = 0.25  # seconds for a connection and its login: shorter, because meanwhile the primary may be elsewhere

_ELSEWHERE: Final = frozenset({"MOVED", "ASK"})
_ASKING: Final[tuple[Command, ...]] = ((b"ASKING",),)


class Direct:
    """A lane's worker. ``tags``: whose keys it works on, in turn; ``batch_size``: operations in one block."""

    def __init__(
        self,
        client: ClientSpec,
        mix: Mix,
        route: Route,
        tags: Sequence[bytes],
        batch_size: int,
        targets: Targets,
        record: Record,
        rng: random.Random,
    ) -> None:
        self._client, self._mix, self._route, self._size, self._targets = client, mix, route, batch_size, targets
        self._record, self._rng = record, rng
        self._turns = itertools.cycle([(tag, key_slot(tag)) for tag in tags])
        self._links: dict[str, tuple[Link, int]] = {}  # by node: the connection and its process
        self._alone = record.process(client.name)
        self._probing = False
        self._failures = 0  # in a row
        self._timeout = OPERATION_S + (client.wait_ms / 1000 if client.wait else 0)
        self._wait: tuple[Command, ...] = ((b"WAIT", client.wait, client.wait_ms),) if client.wait else ()

    async def close(self) -> None:
        for link, _ in self._links.values():
            link.close()

    async def recover(self) -> None:
        self._probing = True
        self._failures += 1
        await self._route.again()
        await asyncio.sleep(min(0.02, self._rng.uniform(0.002, 0.004 * self._failures)))

    async def batch(self) -> bool:
        """Send operations where the route says."""
        tag, slot = next(self._turns)
        place = self._route.place(slot)
        found = await self._link(place)
        steps = self._mix.batch(tag, 1 if self._probing or found is None else self._size)
        if found is None:
            now = time.monotonic_ns()
            for number in self._invoke(self._alone, steps, now):
                self._record.history.fail(number, now, place.name, "UNREACHED")
            self._record.refused += len(steps)
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
        history, record, understood = self._record.history, self._record, self._mix.understood
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
        record.acked += acked
        record.refused += refused
        if acked:
            record.acked_at[name] = returned
        if redirects:
            return await self._redirected(place, slot, redirects, again=not asking)
        if link.lost or refused:
            return False
        self._probing, self._failures = False, 0
        return True

    def _invoke(self, process: int, steps: Sequence[Step], at: int) -> list[int]:
        invoke = self._record.history.invoke
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
        asked: list[Step] = []
        elsewhere = place
        for step, error in redirects:
            number, _, address = error.text.partition(" ")
            host, _, port = address.rpartition(":")
            elsewhere = self._targets.place(host or place.endpoint.host, int(port))
            self._record.moved.append(Redirect(time.monotonic_ns(), error.kind, place.name, elsewhere.name, int(number)))
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
                link = await Link.open(place.endpoint, f"valkeep-{client.name}", CONNECTION_S, client.source)
            except ValkeepError as error:
                self._record.trouble(client.name, error.message)
                return None
            found = self._links[place.name] = link, self._record.process(client.name, place.name)
        return found
