"""The recorded load on a topology that is not ours, while its owner breaks it: the same report, and nothing of it stays.

    discover ─► no key of ours there? ─► room? ─► say what is written, and where ─► load ─► final state ─► judge
       reads                                                                         └─ keys deleted, however it ends

No fault is ever injected: whoever has the topology breaks it, or has a tool that does. So there is no schedule, and what was done is not
known; `reigning` says what that does to the judgement of a loss.

A load that evicts, or fills a server, would be a fault of its own; it is refused before the first write. The keys' tags begin with
``valkeep-``. They are deleted on every node that says it is a primary, because one that was cut off and comes back has them too; a
replica gets the deletion from its primary. Only a kill -9 of this process leaves them there; the next run says so, and how to remove them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Self

from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint
from valkeep.client.sentinel import SentinelDirectory
from valkeep.client.server_info import ServerInfo
from valkeep.drill.conclusion import Clock, conclude
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.play import play
from valkeep.drill.script import Drill, Expectation, Load
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.mixes import mix_of
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import Refused, ServerError, ValkeepError
from valkeep.report.events import Emit, Note, Phase
from valkeep.runtime.remote import RemoteDeployment, discover
from valkeep.topology.spec import Kind, TopologySpec

__all__ = ["NAME", "Observation", "observe"]

NAME: Final = "observe"
BYTES: Final = 256  # of memory for an operation, more than any takes
DELETED_WITHIN: Final = 30.0  # seconds, for a topology that is still failing over
_EXPLAINED: Final = Expectation("unexplained", 0, 0, "whatever was done to it, every lost write has a cause")
_CLEAN: Final = "valkey-cli --scan --pattern '*{valkeep-*' | xargs valkey-cli UNLINK (in a cluster: on each primary)"


@dataclass(frozen=True, slots=True)
class Observation:
    """What to write, and for how long. ``login``, ``monitored``: as for `discover`. ``expects``: beside that every loss is explained."""

    endpoint: Endpoint
    login: Endpoint | None = None
    monitored: str = ""
    seconds: float = 60.0
    rate: int = 1000
    mix: str = "mixed"
    seed: int = 1
    expects: tuple[Expectation, ...] = ()


async def observe(options: Observation, emit: Emit) -> DrillOutcome:
    """Raises ``ValkeepError`` where nothing can be written, or may not be; then nothing was. What it writes is gone when this returns or raises."""
    clock = Clock()
    mix_of(options.mix, 1, Random(options.seed))
    emit(Phase(0.0, "start", detail=options.endpoint.address))
    found = await discover(options.endpoint, login=options.login, monitored=options.monitored)
    drill = Drill(
        NAME,
        "What the load of a drill sees of a topology that is not ours, while its owner breaks it.",
        found.spec,
        (),
        (_EXPLAINED, *options.expects),
        Load(options.mix, rate=options.rate),
        warm_up=options.seconds,
        warm_operations=0,
        settle=0.0,
    )
    for text in found.left_out:
        emit(Note(0.0, "warning", f"left out, because its topology calls it down: {text}"))
    async with RemoteDeployment(found) as deployment:
        targets = Targets.of(deployment, drill.load.tags)
        _must_have_room(found.nodes, found.infos, found.spec, round(options.rate * options.seconds))
        await _must_be_free(targets)
        emit(Phase(0.0, "start", done=True))
        emit(Note(0.0, "info", _announced(options, targets)))
        clock.ready = time.monotonic()
        try:
            played = await play(drill, deployment, options.seed, emit)
        finally:
            left = await asyncio.shield(asyncio.ensure_future(_delete(targets)))
            if left:
                emit(Note(0.0, "warning", _left(left)))
    outcome = conclude(played, deployment, clock, emit, seed=options.seed, replay=_replay(options))
    return replace(outcome, reasons=(*outcome.reasons, *([_left(left)] if left else [])))


def _announced(options: Observation, targets: Targets) -> str:
    places = ", ".join(f"{name} {endpoint.address}" for name, endpoint in (*targets.nodes.items(), *targets.sentinels.items()))
    return (
        f"writes {options.rate} operations/s ({options.mix}) for {options.seconds:g} s to keys with tags {{valkeep-…}}, and deletes them at the end; "
        f"no fault is injected; nodes: {places}"
    )


def _replay(options: Observation) -> str:
    words = [f"valkeep drill observe --url {options.endpoint.display} --allow-remote {options.endpoint.address}"]
    words += [f"--monitored {options.monitored}"] if options.monitored else []
    return " ".join([*words, f"--seconds {options.seconds:g} --rate {options.rate} --mix {options.mix} --seed {options.seed}"])


# ----------------------------------------------------------------------------------------------------- before the first write


def _must_have_room(nodes: Mapping[str, Endpoint], infos: Mapping[str, ServerInfo], spec: TopologySpec, operations: int) -> None:
    for name, info in infos.items():
        where, policy = nodes[name].address, info.fields.get("maxmemory_policy", "noeviction")
        limit = info.number("maxmemory")
        if limit and policy.startswith("allkeys"):
            raise Refused(
                f"{where} may evict any key (maxmemory-policy {policy}), so a lost write would prove nothing",
                remedy="drill a topology whose policy is noeviction or volatile-…",
            )
        limit = limit or info.number("total_system_memory")
        need = operations * BYTES // spec.shards
        if limit and limit - info.number("used_memory") < need:
            raise Refused(
                f"{where} has {max(limit - info.number('used_memory'), 0) >> 20} MB left, and this load may take {need >> 20} MB",
                remedy="a smaller --rate, or fewer --seconds",
            )


async def _must_be_free(targets: Targets) -> None:
    """Raises ``Refused`` where there is a key that the load would write."""
    async with _Nodes(targets) as nodes:
        for tag in targets.tags:
            names = keys.all_of(tag)
            for name, endpoint in targets.nodes.items():
                replies = await nodes.ask(endpoint, [("EXISTS", key) for key in names])
                unknown = [reply for reply in replies if isinstance(reply, ServerError) and reply.kind != "MOVED"]
                if unknown or not replies:
                    raise Refused(
                        f"{name} ({endpoint.address}) does not say whether it has keys of ours: {unknown[0].message if unknown else 'no answer'}",
                        remedy="permit EXISTS and UNLINK to this user, or name another; is a failover under way?",
                    )
                there = [key.decode() for key, reply in zip(names, replies, strict=False) if reply == 1]
                if there:
                    raise Refused(
                        f"{name} ({endpoint.address}) has the key {there[0]} already, and this load would write to it",
                        remedy=f"is another one running? If it was killed and these are its keys: {_CLEAN}",
                    )


# ------------------------------------------------------------------------------------------------------------------ afterwards


def _left(tags: tuple[bytes, ...]) -> str:
    return f"the keys of {len(tags)} tags could not be deleted, because no primary took it within {DELETED_WITHIN:g} s; when there is one: {_CLEAN}"


async def _delete(targets: Targets) -> tuple[bytes, ...]:
    """Every key of the load, on whoever is a primary; the tags for which that could not be done in time."""
    deadline = time.monotonic() + DELETED_WITHIN
    left = list(targets.tags)
    async with _Nodes(targets) as nodes:
        while left:
            reigning = await _reigning(targets)
            left = [tag for tag in left if not await nodes.delete(tag, reigning)]
            if left and time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2 if left else 0)
    return tuple(left)


async def _reigning(targets: Targets) -> Endpoint | None:
    """The one whose word counts: whom the sentinels name; a cluster's nodes know by themselves whose a slot is."""
    if targets.kind is Kind.CLUSTER:
        return None
    login = next(iter(targets.nodes.values()))
    if targets.kind is Kind.STANDALONE:
        return login
    with contextlib.suppress(ValkeepError):
        named = await SentinelDirectory(tuple(targets.sentinels.values()), targets.monitored, login=login).primary(2.0)
        return targets.place(named.host, named.port).endpoint
    return Endpoint("", 1)  # nobody


class _Nodes:
    """A connection to each node that was asked, opened anew when it broke."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._open: dict[Endpoint, Connection] = {}

    async def ask(self, endpoint: Endpoint, commands: list[tuple[str | bytes, ...]]) -> list[Value]:
        """The replies, errors among them; none where it does not answer."""
        with contextlib.suppress(ValkeepError):
            connection = self._open.get(endpoint)
            if connection is None or connection.closed:
                connection = self._open[endpoint] = await Connection.open(endpoint, 2.0, client_name="valkeep-keys")
            return await connection.pipeline(commands)
        return []

    async def delete(self, tag: bytes, reigning: Endpoint | None) -> bool:
        """Whether it was done where it counts: by the reigning primary, or (None) by whoever has the slot."""
        done, places = False, list(self._targets.nodes.values())
        if reigning is not None and reigning not in places:
            places.append(reigning)
        for place in places:
            for reply in await self.ask(place, [("UNLINK", *keys.all_of(tag))]):
                if isinstance(reply, ServerError) and reply.kind == "MOVED":
                    host, _, port = reply.text.partition(" ")[2].rpartition(":")
                    owner = self._targets.place(host or place.host, int(port)).endpoint
                    if owner not in places:
                        places.append(owner)
                elif isinstance(reply, int) and reigning in (None, place):
                    done = True
        return done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._open.values():
            await connection.close()
