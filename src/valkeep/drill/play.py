"""A drill as it is played on a deployment: load, faults, recovery, and what was left; everything recorded, nothing judged.

    ready ─► load ─► warm ─► step ─► condition ─► step … ─► settle ─► healed ─► final state ─► logs
             recorder ≥ 2 s   fault    promoted,                        all passes  ordinary
             process  and     healed   recovered,                       again       commands
                      10,000  or not   redundant

The recorder has a process of its own; the watcher and the faults run here. Conditions are looked at, never slept for. A condition that does
not come is noted, not raised: that a topology did not recover is a finding.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from valkeep.client.connection import Connection
from valkeep.client.server_info import text_of
from valkeep.drill.checkers.evidence import FinalState
from valkeep.drill.checkers.promise import Settings
from valkeep.drill.faults import Injected, strike
from valkeep.drill.reigning import Struck
from valkeep.drill.script import HEAL, Drill, Step
from valkeep.drill.serverlog import Said, said
from valkeep.drill.stage import Stage
from valkeep.drill.watch import Sample, Watch
from valkeep.drill.workloads.final import read_final
from valkeep.drill.workloads.recorder import Recorder, RecorderResult, Tick
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ValkeepError
from valkeep.report.events import Emit, Fault, Note, Phase, Pulse
from valkeep.runtime.deployment import Deployment
from valkeep.topology.spec import Kind, TopologySpec

__all__ = ["Played", "play"]

PATIENCE = 90.0  # seconds for a condition, beside what the topology's own timers take
FINAL_PATIENCE = 30.0
HEARD = 2_000_000_000  # ns: so long a node is believed to be what it last said, when it does not answer


@dataclass(frozen=True, slots=True)
class Played:
    """What a drill left behind. ``origin``: ns on the monotonic clock when the load began. ``struck``: the faults as they were done;
    ``coverage``: as in `Watch`.
    ``missed``: conditions that did not come, in words. ``drift_ms``: how much the wall clock was set against the monotonic one meanwhile.
    ``primaries``: shard → its primary at the end;
    ``keys``: shard → how many keys that one counts. ``final``: None where some shard had nobody to ask. ``phases``: seconds."""

    drill: Drill
    settings: Settings
    origin: int
    ended: int
    recorded: RecorderResult
    samples: dict[str, list[Sample]]
    coverage: tuple[tuple[int, int, int], ...]
    struck: tuple[Struck, ...]
    said: tuple[Said, ...]
    primaries: dict[int, str]
    keys: dict[int, int]
    final: FinalState | None
    missed: tuple[str, ...] = ()
    drift_ms: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)


async def play(drill: Drill, deployment: Deployment, seed: int, emit: Emit) -> Played:
    """Play ``drill`` on a deployment that is ready. Raises ``ValkeepError`` where it can't be played; the deployment may then be in any state."""
    spec = deployment.spec
    clients = tuple(replace(client, source=deployment.network.source(client.name)) for client in drill.load.clients)
    load = replace(drill.load, clients=clients)
    targets = Targets.of(deployment, load.tags)
    async with Watch(spec.kind, targets.nodes, targets.sentinels, targets.monitored) as watch:
        origin = time.monotonic_ns()
        stage = Stage(deployment, watch, load, random.Random(seed), emit, origin)
        pulse = _Pulse(stage)
        async with Recorder(load, targets, deployment.folder / "recorder", seed, pulse.tick) as recorder:
            return await _Play(drill, stage, recorder, targets).run()


class _Pulse:
    """Ticks of the recorder as events for who watches."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._last = Tick(0, 0, 0, 0, {})

    def tick(self, tick: Tick) -> None:
        last, self._last = self._last, tick
        seconds = max((tick.at - last.at) / 1e9, 1e-3)
        silent = (tick.at - max(tick.nodes.values(), default=tick.at)) / 1e6
        primaries = []
        for shard in range(self._stage.spec.shards):
            with contextlib.suppress(ValkeepError):
                primaries.append(self._stage.primary(shard))
        self._stage.emit(
            Pulse(
                (tick.at - self._stage.origin_ns) / 1e9, tick.acked, tick.refused, tick.operations - tick.acked - tick.refused,
                (tick.acked - last.acked) / seconds if last.at else 0.0, silent, tuple(primaries),
            )
        )  # fmt: skip


def _wall() -> int:
    """What the wall clock is ahead of the monotonic one, in ns: of three looks the one that was held up least."""
    looks = []
    for _ in range(3):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        looks.append((after - before, wall - (before + after) // 2))
    return min(looks)[1]


class _Play:
    def __init__(self, drill: Drill, stage: Stage, recorder: Recorder, targets: Targets) -> None:
        self.drill, self.stage, self.recorder, self.targets = drill, stage, recorder, targets
        self.injected: list[Injected] = []
        self.missed: list[str] = []
        self.phases: dict[str, float] = {}

    async def run(self) -> Played:
        stage, drill = self.stage, self.drill
        wall = _wall()
        settings = await live_settings(stage)
        async with self._phase("load"):
            await self.recorder.start()
            begun = time.monotonic()
            while time.monotonic() - begun < drill.warm_up or self.recorder.operations < drill.warm_operations:
                if time.monotonic() - begun > drill.warm_up + 60:
                    raise ValkeepError(
                        f"{self.recorder.operations} operations in a minute, and a drill needs {drill.warm_operations} before its first fault",
                        remedy="is this machine overloaded?",
                    )
                await asyncio.sleep(0.02)
        async with self._phase("faults"):
            for step in drill.steps:
                await self._step(step)
        async with self._phase("settle"):
            await stage.deployment.network.heal()
            await asyncio.sleep(drill.settle)
            recorded = await self.recorder.finish()
            primaries, keys, final = await self._final()
        ended = time.monotonic_ns()
        drift = (_wall() - wall) / 1e6
        lines = [line for name, machine in stage.deployment.machines.items() for line in said(name, machine.log(), wall)]
        lines = sorted((line for line in lines if line.at >= stage.origin_ns), key=lambda line: line.at)
        struck = tuple(Struck(one.step, one.nodes, one.at, one.done, one.healed) for one in self.injected)
        return Played(
            drill, settings, stage.origin_ns, ended, recorded, dict(stage.watch.samples), tuple(stage.watch.coverage), struck, tuple(lines), primaries, keys,
            final, tuple(self.missed), drift, self.phases,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        begun = time.monotonic()
        self.stage.emit(Phase(self._now(), name))
        yield
        self.phases[name] = time.monotonic() - begun
        self.stage.emit(Phase(self._now(), name, done=True))

    def _now(self) -> float:
        return (time.monotonic_ns() - self.stage.origin_ns) / 1e9

    async def _step(self, step: Step) -> None:
        await asyncio.sleep(step.after)
        before = {shard: self._primary(shard) for shard in range(self.stage.spec.shards)}
        if step.fault == HEAL:
            for injected in self.injected:
                if step.target in ("all", injected.step.fault):
                    await self._heal(injected)
            hit: set[int] = set()
        else:
            injected = await strike(self.stage, step)
            self.injected.append(injected)
            self.stage.emit(Fault(self._now(), step.fault, step.target, injected.nodes, lasting=injected.lasting))
            if step.lasts:
                await asyncio.sleep(step.lasts)
                await self._heal(injected)
            hit = {shard for shard, name in before.items() if name in injected.nodes}
        if not await self._until(self._condition(step, hit, before, time.monotonic_ns())):
            self.missed.append(f"after {step} the topology was not {step.until} within {self._patience():.0f} s")
            self.stage.emit(Note(self._now(), "warning", self.missed[-1]))

    async def _heal(self, injected: Injected) -> None:
        if injected.lasting:
            await injected.heal()
            self.stage.emit(Fault(self._now(), injected.step.fault, injected.step.target, injected.nodes, healed=True))

    def _primary(self, shard: int) -> str:
        """The reigning primary, when its process runs; "" where there is none."""
        with contextlib.suppress(ValkeepError):
            name = self.stage.primary(shard)
            return name if self.stage.machine(name).alive else ""
        return ""

    def _condition(self, step: Step, hit: set[int], before: dict[int, str], since: int) -> Callable[[], bool]:
        shards = range(self.stage.spec.shards)

        def promoted() -> bool:
            return all((name := self._primary(shard)) and (shard not in hit or name != before[shard]) for shard in shards)

        def recovered() -> bool:
            acked = self.recorder.last.nodes
            untold = acked.get("", 0)  # a client library that does not tell who answered it
            return all((name := self._primary(shard)) and max(acked.get(name, 0), untold) > since for shard in shards)

        def redundant() -> bool:
            return recovered() and all(self._followed(shard) for shard in shards)

        match step.until:
            case "none":
                return lambda: True
            case "promoted":
                return promoted
            case "moved":
                return lambda: promoted() and recovered()
            case "redundant":
                return redundant
            case "settled":
                return lambda: promoted() and redundant()
            case _:
                return recovered

    def _followed(self, shard: int) -> bool:
        """Whether every node of this shard that runs follows its one primary."""
        stage, primary = self.stage, self._primary(shard)
        view = stage.watch.view
        mates = [name for name, node in view.nodes.items() if stage.machine(name).alive and stage.shard_of(name) == shard]
        replicas = [view.nodes[name] for name in mates if name != primary]
        return (
            bool(primary)
            and all(node.reached and node.role == "replica" and node.link_up for node in replicas)
            and len(view.nodes[primary].online) >= len(replicas)
        )

    def _patience(self) -> float:
        spec = self.stage.spec
        return PATIENCE + 4 * spec.timeout_ms / 1000 + (2 * spec.failover_timeout_ms / 1000 if spec.kind is Kind.SENTINEL else 0)

    async def _until(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + self._patience()
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    def _claims(self, shard: int) -> int:
        """How many nodes of this shard say that they are its primary. Who was just too slow to answer has not changed its mind."""
        stage, recent = self.stage, time.monotonic_ns() - HEARD
        claiming = [name for name, at in stage.watch.claimed.items() if at > recent and stage.machine(name).alive]
        return sum(stage.shard_of(name) == shard for name in claiming)

    async def _final(self) -> tuple[dict[int, str], dict[int, int], FinalState | None]:
        """Read what is there from the reigning primaries, once each shard has only one: of two, one is still to be told, and what it has will
        go. None where a shard has none."""
        stage = self.stage
        deadline = time.monotonic() + FINAL_PATIENCE
        while True:
            primaries = {shard: self._primary(shard) for shard in range(stage.spec.shards)}
            disputed = [shard for shard in primaries if self._claims(shard) > 1]
            if all(primaries.values()) and not disputed:
                break
            if time.monotonic() > deadline:
                if all(primaries.values()):
                    self.missed += [f"two nodes said at the end that they are the primary of shard {shard + 1}" for shard in disputed]
                    break
                missing = ", ".join(str(shard + 1) for shard, name in primaries.items() if not name)
                self.missed.append(f"shard {missing} had no primary at the end, so what is there could not be read")
                return primaries, {}, None
            await asyncio.sleep(0.02)
        connections = {
            shard: await Connection.open(stage.machine(name).endpoint, client_name="valkeep-final") for shard, name in primaries.items()
        }
        try:
            keys = {shard: int(str(await connection.call("DBSIZE"))) for shard, connection in connections.items()}
            return primaries, keys, await read_final(connections, stage.spec, self.targets)
        finally:
            for connection in connections.values():
                await connection.close()


async def live_settings(stage: Stage) -> Settings:
    """What the reigning primary itself says of the settings that bound a loss."""
    spec: TopologySpec = stage.spec
    if not await stage.watch.until(lambda view: bool(view.primaries()), FINAL_PATIENCE):
        raise ValkeepError("no node says that it is a primary", remedy="read the nodes' logs")
    async with await Connection.open(stage.machine(stage.primary(0)).endpoint, client_name="valkeep-settings") as connection:
        found: dict[str, str] = {}
        for name in ("min-replicas-to-write", "min-replicas-max-lag", "cluster-node-timeout"):
            (reply,) = await connection.pipeline([("CONFIG", "GET", name)])  # where this is not permitted, an error, and stock values count
            if isinstance(reply, list) and len(reply) == 2:
                found[name] = text_of(reply[1])
    return Settings(
        spec.kind,
        spec.persistence,
        int(found.get("min-replicas-to-write", 0)),
        int(found.get("min-replicas-max-lag", 10)),
        int(found.get("cluster-node-timeout", spec.timeout_ms)),
    )
