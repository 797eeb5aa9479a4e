"""Faults: what a drill does to a topology. One file each; `FAULTS` is the list that the command line, the documents and the fuzzer read.

    check(steps, spec, load, abilities)      before anything starts: every step can be done here, or UsageError
    needs(steps)                             what the deployment has to be able to do
    injected = await strike(stage, step)     the fault is in force
    await injected.heal()                    and is over; does nothing where there is nothing to heal

Each fault is one coroutine, ``inject(stage, step, targets) -> Deed``, whose ``undo`` it knows itself. Names of targets are resolved when the
moment comes, because after a failover ``primary`` is another node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from valkeep.drill.faults import (
    config,
    crash,
    disk_full,
    isolate,
    kill,
    partition,
    pause,
    promote,
    quorum_loss,
    restart,
    restart_empty,
    sentinel_loss,
    slot_migration,
    slow_link,
    term,
)
from valkeep.drill.faults.fault import Deed, Fault, Inject
from valkeep.drill.script import CONDITIONS, HEAL, Load, Step
from valkeep.drill.stage import Stage, check_targets
from valkeep.errors import UsageError
from valkeep.topology.spec import TopologySpec

__all__ = ["FAULTS", "Deed", "Fault", "Inject", "Injected", "check", "needs", "strike"]

_MODULES: Final = (
    kill,
    pause,
    term,
    restart,
    restart_empty,
    promote,
    partition,
    isolate,
    slow_link,
    sentinel_loss,
    quorum_loss,
    slot_migration,
    config,
    disk_full,
    crash,
)
FAULTS: Final[dict[str, Fault]] = {module.FAULT.name: module.FAULT for module in _MODULES}


def _fault(step: Step) -> Fault:
    fault = FAULTS.get(step.fault)
    if fault is None:
        raise UsageError(f"{step.fault!r} is no fault", remedy=f"one of {', '.join(FAULTS)}")
    return fault


def needs(steps: Iterable[Step]) -> frozenset[str]:
    """Abilities of a deployment that these steps need: partition, delay, fsync, full-disk."""
    return frozenset().union(*(_fault(step).needs for step in steps if step.fault != HEAL))


def check(steps: Iterable[Step], spec: TopologySpec, load: Load, abilities: frozenset[str] | None = None) -> None:
    """Raises ``UsageError`` for the first step that can not be done: no such fault, target or option, or nothing for this topology, or
    (where ``abilities`` are given) more than the deployment is able to do."""
    clients = {client.name for client in load.clients}
    for step in steps:
        if step.until not in CONDITIONS:
            raise UsageError(f"{step} waits for {step.until!r}, which is no condition", remedy=f"one of {', '.join(CONDITIONS)}")
        if step.fault == HEAL:
            if step.target not in ("all", *FAULTS):
                raise UsageError(f"{step} heals {step.target!r}, which is no fault", remedy="heal:all, or the name of a fault: heal:kill")
            continue
        fault = _fault(step)
        fault.check_options(step)
        check_targets(spec, load, step.target)
        named = sorted(clients & set(step.target.split(",")))
        if named and not fault.clients:
            raise UsageError(
                f"{step}: {named[0]} is a client, and {fault.name} is for nodes", remedy="name nodes: primary, replica:1, n2, s1"
            )
        why_not = fault.fits(spec, step)
        if why_not:
            raise UsageError(
                f"{step} does not fit: {why_not}", remedy="take another fault or another topology; see docs/reference/faults.md"
            )
        if abilities is not None and not fault.needs <= abilities:
            missing = ", ".join(sorted(fault.needs - abilities))
            raise UsageError(
                f"{step} needs what this deployment can not do: {missing}",
                remedy="partition, delay: --network proxy, in tests @pytest.mark.valkey(network='proxy'); full-disk: Linux; "
                "fsync: a C compiler when Valkeep was installed",
            )


@dataclass(slots=True)
class Injected:
    """A fault that was done. ``nodes``: whom it met. ``at``: just before, ``done``: when it was in force, ``healed``: when it was over, None while it
    is not; ns on the monotonic clock. A fault without anything to undo is over when it is done."""

    step: Step
    nodes: tuple[str, ...]
    at: int
    done: int
    deed: Deed
    healed: int | None = None

    @property
    def lasting(self) -> bool:
        """Whether there still is something to heal."""
        return self.deed.undo is not None and self.healed is None

    async def heal(self) -> None:
        """Undo it; nothing happens the second time."""
        if self.lasting and self.deed.undo is not None:
            await self.deed.undo()
            self.healed = time.monotonic_ns()


async def strike(stage: Stage, step: Step) -> Injected:
    """Resolve the target, do the fault, return when it is in force. Raises what the fault raises; nothing is undone then."""
    fault = _fault(step)
    targets = stage.resolve(step.target)
    if not targets:
        raise UsageError(f"{step}: there is no {step.target} now", remedy="let the step before wait until the topology has recovered")
    at = time.monotonic_ns()
    deed = await fault.inject(stage, step, targets)
    done = time.monotonic_ns()
    return Injected(step, deed.nodes or targets, at, done, deed, None if deed.undo else done)
