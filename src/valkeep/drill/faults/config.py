"""CONFIG SET on the targets: ``config:primary(min-replicas-to-write=1)``. Healed by setting the former values again."""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault, ask
from valkeep.drill.faults.processes import each, machines
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.errors import UsageError
from valkeep.runtime.deployment import Machine
from valkeep.topology.spec import TopologySpec


async def inject(stage: Stage, step: Step, targets: tuple[str, ...]) -> Deed:
    struck = machines(stage, targets)
    former: dict[str, list[bytes]] = {}

    async def change(machine: Machine) -> None:
        before: list[bytes] = []
        for name, _ in step.options:
            said = await ask(machine, "CONFIG", "GET", name)
            if len(said) != 2:
                raise UsageError(f"{machine.spec.name} has no setting {name}", remedy="CONFIG GET '*' lists them")
            before += said
        former[machine.spec.name] = before
        for name, value in step.options:
            await ask(machine, "CONFIG", "SET", name, value)

    async def restore(machine: Machine) -> None:
        before = former.get(machine.spec.name, [])
        for name, value in zip(before[::2], before[1::2], strict=True):
            if machine.alive:
                await ask(machine, "CONFIG", "SET", name, value)

    await each(struck, change)

    async def undo() -> None:
        await each(struck, restore)

    return Deed(undo, ", ".join(f"{name} = {value}" for name, value in step.options))


def fits(_spec: TopologySpec, step: Step) -> str:
    return "" if step.options else "it sets nothing: config:primary(min-replicas-to-write=1)"


FAULT = Fault("config", "CONFIG SET of its options; set back when healed", inject, fits, options=(("*", "any setting of the server"),))
