"""The rehearsal's writers at work, in a process of their own (the parent's end is `writers`; what they write is in `operations`).

Each writer has one connection a node and one pipeline of ``batch`` operations in flight. On a refusal that means "not here" (a fence,
a replica, a lost connection) it turns to the next node at once, and with single operations instead of batches until one is acked.
What was in flight on a lost connection is ``info``, and never sent again: whether it happened is for the checkers to find out.

The conversation (see `conversation`), after ``ready``::

    parent → {"nodes": [[name, url], …], "writers": 8, "databases": [0,1,2], "seed": 1, "rate": 6500, "batch": 8}
    parent → {"do": "start" | "pause" | "stop"}
    worker → {"event": "acked", "at": ns, "acked": n, "refused": n, "node": name}      every 100 ms
    worker → {"event": "paused", "operations": n, "keys": {function: […]}} … {"event": "history", "path": …}

Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.drill.history import History
from valkeep.drill.rehearsal.operations import Step, Writer, understood
from valkeep.drill.workloads.conversation import converse, obey, say
from valkeep.errors import ValkeepError

__all__ = ["ELSEWHERE", "Squad", "WriterSettings", "writers_of"]

ELSEWHERE: Final = frozenset({"NOREPLICAS", "READONLY", "MASTERDOWN", "LOADING", "EXECABORT", "UNBLOCKED", "LOST", "UNREACHED"})
"""Refusals that mean "another node is the primary": expected while it moves. Any other error of a writer is a finding."""

PATIENCE: Final = 20.0  # seconds for a reply: more than any lease of a cut-over holds a writer


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """``nodes``: (name, URL), the one to begin with first; ``rate``: operations/s of all writers together; ``batch``: in one pipeline."""

    nodes: tuple[tuple[str, str], ...]
    writers: int = 8
    databases: tuple[int, ...] = (0, 1, 2)
    seed: int = 1
    rate: int = 6500
    batch: int = 8

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("nodes", "writers", "databases", "seed", "rate", "batch")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WriterSettings:
        nodes = tuple((str(name), str(url)) for name, url in data["nodes"])
        return cls(nodes, data["writers"], tuple(data["databases"]), data["seed"], data["rate"], data["batch"])


def writers_of(settings: WriterSettings) -> list[Writer]:
    """The writers of these settings, always the same for a seed."""
    return [
        Writer(number, settings.databases[number % len(settings.databases)], random.Random(settings.seed * 1_000_003 + number))
        for number in range(settings.writers)
    ]


@dataclass(slots=True)
class _Post:
    """Where a writer stands: the node it writes to and its open connections."""

    at: int = 0
    probing: bool = False
    tried: int = 0
    connections: dict[int, Connection] = field(default_factory=dict)


class Squad:
    """All writers on one event loop, recording into one history."""

    def __init__(self, settings: WriterSettings) -> None:
        self.settings = settings
        self.history = History(time.time_ns() - time.monotonic_ns())
        self.acked = 0
        self.refused = 0
        self.node = settings.nodes[0][0]
        self.touched: dict[str, set[bytes]] = {}  # function -> the keys that it was called for
        self._names = [name for name, _ in settings.nodes]
        self._endpoints = [Endpoint.parse(url) for _, url in settings.nodes]
        self._go = asyncio.Event()
        self._stopping = False
        self._idle = 0  # writers that wait for _go
        self._all_idle = asyncio.Event()

    async def run(self) -> None:
        """Until ``stop``."""
        async with asyncio.TaskGroup() as group:
            for writer in writers_of(self.settings):
                group.create_task(self._work(writer))

    def start(self) -> None:
        self._all_idle.clear()
        self._go.set()

    async def pause(self) -> None:
        """Returns when nothing is in flight any more."""
        self._go.clear()
        await self._all_idle.wait()

    def stop(self) -> None:
        self._stopping = True
        self._go.set()

    async def _rest(self) -> None:
        self._idle += 1
        if self._idle == self.settings.writers:
            self._all_idle.set()
        await self._go.wait()
        self._idle -= 1

    async def _work(self, writer: Writer) -> None:
        period = self.settings.batch * self.settings.writers / self.settings.rate
        post = _Post()
        due = 0.0
        try:
            while True:
                if not self._go.is_set():
                    await self._rest()
                    due = time.monotonic() + period * writer.number / self.settings.writers  # not all at once
                    await asyncio.sleep(due - time.monotonic())
                if self._stopping:
                    return
                acked = await self._batch(writer, post)
                if not acked and post.tried >= len(self._names):
                    post.tried = 0
                    await asyncio.sleep(0.002)
                if acked:  # a refusal costs no time: the next attempt follows at once
                    now = time.monotonic()
                    due = max(due + period, now - 20 * period)  # catches up after a stall, within reason
                    if due > now:
                        await asyncio.sleep(due - now)
        finally:
            for connection in post.connections.values():
                await connection.close()

    async def _batch(self, writer: Writer, post: _Post) -> bool:
        """Send operations to the node where the writer stands; whether any was acked. Turns to the next node when told so."""
        history, name = self.history, self._names[post.at]
        try:
            connection = await self._connection(writer, post)
        except ValkeepError:
            self._turn(post)
            return False
        steps = [writer.step() for _ in range(1 if post.probing else self.settings.batch)]
        commands = [command for step in steps for command in step.commands]
        invoked = time.monotonic_ns()
        numbers = [history.invoke(writer.number, step.function, step.key, step.value, invoked) for step in steps]
        for step in steps:
            self.touched.setdefault(step.function, set()).add(step.key)
        try:
            replies = await connection.pipeline(commands, timeout=PATIENCE)
        except ValkeepError as error:
            returned = time.monotonic_ns()
            for number in numbers:
                if error.definite:
                    history.fail(number, returned, name, "UNREACHED")
                else:
                    history.info(number, returned, name, "LOST")
            self._turn(post)
            return False
        return self._complete(steps, numbers, replies, post)

    def _complete(self, steps: Sequence[Step], numbers: Sequence[int], replies: Sequence[Any], post: _Post) -> bool:
        history, name = self.history, self._names[post.at]
        returned = time.monotonic_ns()
        taken = acked = 0
        elsewhere = False
        for step, number in zip(steps, numbers, strict=True):
            meaning = understood(step, replies[taken : taken + len(step.commands)])
            taken += len(step.commands)
            if meaning.error:
                history.fail(number, returned, name, meaning.error)
                self.refused += 1
                elsewhere = elsewhere or meaning.error in ELSEWHERE
            else:
                history.ok(number, returned, name, meaning.result)
                acked += 1
        self.acked += acked
        if elsewhere:
            self._turn(post)
            return False
        if acked:
            post.probing, post.tried = False, 0
            self.node = name
        return acked > 0

    def _turn(self, post: _Post) -> None:
        post.at = (post.at + 1) % len(self._names)
        post.probing = True
        post.tried += 1

    async def _connection(self, writer: Writer, post: _Post) -> Connection:
        connection = post.connections.get(post.at)
        if connection is None or connection.closed:
            endpoint = replace(self._endpoints[post.at], db=writer.database)
            connection = await Connection.open(endpoint, timeout=1.0, client_name=f"rehearsal-writer-{writer.number}")
            post.connections[post.at] = connection
        return connection


# ------------------------------------------------------------------------------------------------------------- the process


async def _work(workdir: Path, settings: dict[str, Any], messages: AsyncIterator[dict[str, Any]]) -> bool:
    squad = Squad(WriterSettings.from_json(settings))

    async def pause() -> None:
        await squad.pause()
        keys = {function: [key.decode("latin-1") for key in sorted(found)] for function, found in squad.touched.items()}
        say(event="paused", operations=len(squad.history), keys=keys)

    def tick() -> None:
        say(event="acked", at=time.monotonic_ns(), acked=squad.acked, refused=squad.refused, node=squad.node)

    if not await obey(messages, squad.run(), start=squad.start, pause=pause, stop=squad.stop, tick=tick):
        return False
    path = workdir / "history.vkh"
    await asyncio.to_thread(path.write_bytes, b"".join(squad.history.packed()))
    say(event="history", path=str(path), operations=len(squad.history))
    return True


if __name__ == "__main__":
    sys.exit(converse(_work))
