"""Slots move from one primary to another while clients go on: what every resharding does.

From Valkey 9.0 on the server itself moves whole ranges (CLUSTER MIGRATESLOTS): keys stream over as to a replica, then the slots change hands
at once. Before, and on Redis, a tool moves key by key: target IMPORTING, source MIGRATING (clients are sent over with ASK), MIGRATE for each
key, and SETSLOT NODE at the end (MOVED from then on). Both are done here; which one is told in the fault's detail.

Unless told, the last half of the source's slots go: a shard is recognised by its first slot (`Stage.shard_of`), which therefore stays.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any, Final, Self

from valkeep.client.connection import Argument, Connection
from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.errors import Refused, ServerError, UsageError, ValkeepError
from valkeep.topology.slots import SLOTS, ranges_of, slots_of
from valkeep.topology.spec import Kind, TopologySpec

_PATIENCE: Final = 60.0
_LANES: Final = 16
_KEYS: Final = 100  # in one MIGRATE
_RANGE: Final = re.compile(r"(\d{1,5})-(\d{1,5})")


async def inject(stage: Stage, step: Step, targets: tuple[str, ...]) -> Deed:
    source = stage.primary(stage.shard_of(targets[0]))
    onto = stage.primary((int(step.option("to")) - 1) if step.option("to") else (stage.shard_of(source) + 1) % stage.spec.shards)
    if onto == source:
        raise UsageError(f"{step}: slots would move from {source} to itself", remedy="name another shard: to=2")
    view = stage.watch.view.nodes[source]
    ranges = _wanted(step) or _last_half(view.ranges)
    foreign = set(slots_of(ranges)) - set(slots_of(view.ranges))
    if foreign:
        raise UsageError(f"{step}: slot {min(foreign)} is not on {source}", remedy="leave slots= away for the last half of the source's")
    async with _Link(stage, source) as giver, _Link(stage, onto) as taker:
        how = "CLUSTER MIGRATESLOTS"
        if not await _by_server(giver, taker, ranges):
            how = "SETSLOT and MIGRATE"
            await _by_hand(giver, taker, list(slots_of(ranges)))
    count = sum(last - first + 1 for first, last in ranges)
    return Deed(None, f"{count} slots from {source} to {onto} by {how}", (source, onto))


class _Link:
    """A connection to one node, and the node's name in its cluster."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.name, self.endpoint = name, stage.machine(name).endpoint
        seen = stage.watch.view.nodes[name].me
        self.id = seen.id if seen is not None else ""

    async def __aenter__(self) -> Self:
        self.connection = await Connection.open(self.endpoint, timeout=5.0, client_name="valkeep-fault")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()

    async def call(self, *words: Argument) -> Any:
        return await self.connection.call(*words, timeout=_PATIENCE)

    async def all(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The replies, in order, of commands that do not depend on each other. Raises the first error among them.

        On several connections: since Valkey 8.0, SETSLOT blocks its connection until a replica has it too, some 2 ms.
        """
        lanes = await asyncio.gather(*(self._lane(commands[number::_LANES]) for number in range(_LANES)))
        replies: list[Any] = [None] * len(commands)
        for number, lane in enumerate(lanes):
            replies[number::_LANES] = lane
        for reply in replies:
            if isinstance(reply, ServerError):
                raise reply
        return replies

    async def _lane(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        connection = await Connection.open(self.endpoint, timeout=5.0, client_name="valkeep-fault")
        try:
            return list(await connection.pipeline(commands, timeout=_PATIENCE)) if commands else []
        finally:
            await connection.close()


async def _by_server(giver: _Link, taker: _Link, ranges: Sequence[tuple[int, int]]) -> bool:
    """False where the server does not know how."""
    bounds = [str(bound) for span in ranges for bound in span]
    try:
        await giver.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *bounds, "NODE", taker.id)
    except ServerError as error:
        if "unknown subcommand" in error.message.lower():
            return False
        raise
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        jobs = [_fields(job) for job in await giver.call("CLUSTER", "GETSLOTMIGRATIONS")]
        states = [job["state"] for job in jobs if job.get("target_node") == taker.id]
        if states and states[0] == "success":  # newest first
            return True
        if states and states[0] in ("failed", "canceled"):
            raise Refused(
                f"{giver.name} gave the move of slots up: {jobs[0].get('message') or states[0]}", remedy="see the logs of both nodes"
            )
        await asyncio.sleep(0.02)
    raise ValkeepError(f"slots did not move within {_PATIENCE:.0f} s", remedy="see CLUSTER GETSLOTMIGRATIONS on the source", definite=False)


def _fields(job: Sequence[Any]) -> dict[str, str]:
    texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in job]
    return dict(zip(texts[::2], texts[1::2], strict=False))


async def _by_hand(giver: _Link, taker: _Link, slots: list[int]) -> None:
    host, port, password = taker.endpoint.host, taker.endpoint.port, taker.endpoint.password
    login = ("AUTH2", taker.endpoint.username or "default", password) if password is not None else ()
    await taker.all([("CLUSTER", "SETSLOT", slot, "IMPORTING", giver.id) for slot in slots])
    await giver.all([("CLUSTER", "SETSLOT", slot, "MIGRATING", taker.id) for slot in slots])
    counts = await giver.all([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots])
    for slot, count in zip(slots, counts, strict=True):
        while count:
            keys = await giver.call("CLUSTER", "GETKEYSINSLOT", slot, _KEYS)
            if not keys:
                break
            await giver.call("MIGRATE", host, port, "", 0, 5000, *login, "KEYS", *keys)
    settled = [("CLUSTER", "SETSLOT", slot, "NODE", taker.id) for slot in slots]
    await taker.all(settled)  # first: should the source die now, somebody serves them
    await giver.all(settled)  # and the others learn it by gossip


def _wanted(step: Step) -> tuple[tuple[int, int], ...]:
    match = _RANGE.fullmatch(step.option("slots"))
    return ((int(match[1]), int(match[2])),) if match else ()


def _last_half(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    slots = list(slots_of(ranges))
    return ranges_of(slots[(len(slots) + 1) // 2 :])


def fits(spec: TopologySpec, step: Step) -> str:
    if spec.kind is not Kind.CLUSTER or spec.shards < 2:
        return f"slots move between the shards of a cluster, and this is {spec.described}"
    text, to = step.option("slots"), step.option("to")
    match = _RANGE.fullmatch(text)
    if text and (match is None or not int(match[1]) <= int(match[2]) < SLOTS):
        return f"slots={text} is no range; say 0-99"
    if to and not (to.isdecimal() and 1 <= int(to) <= spec.shards):
        return f"to={to} is no shard; say 1 … {spec.shards}"
    return ""


FAULT = Fault(
    "slot-migration",
    "moves slots of the target's shard to another shard, while clients go on",
    inject,
    fits,
    options=(
        ("slots", "FIRST-LAST; the last half of the source's unless told"),
        ("to", "the shard that gets them; the next one unless told"),
    ),
)
