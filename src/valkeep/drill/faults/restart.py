"""An orderly shutdown and a start at once, as for an upgrade or a change of the configuration file."""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.runtime.deployment import Machine


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    async def restart(machine: Machine) -> None:
        await machine.stop()
        await machine.start()

    await each(machines(stage, targets), restart)
    return Deed()


FAULT = Fault("restart", "SIGTERM, and started again at once with the files it left", inject)
