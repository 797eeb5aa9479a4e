"""A process that comes back by itself without its data: a container without a volume, a primary without persistence.

Faster than any failover notices, so it is killed and not shut down: a primary that restarts empty is followed by its replicas, which
then empty themselves.
"""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.runtime.deployment import Machine


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    async def restart(machine: Machine) -> None:
        await machine.kill()
        await machine.empty()
        await machine.start()

    await each(machines(stage, targets), restart)
    return Deed()


FAULT = Fault("restart-empty", "SIGKILL, its data files removed, and started again at once", inject)
