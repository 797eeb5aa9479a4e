"""SIGKILL: the process is gone in an instant; what it had written to files stays in them."""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines, start_again
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    struck = machines(stage, targets)
    await each(struck, lambda machine: machine.kill())
    return Deed(start_again(struck))


FAULT = Fault("kill", "SIGKILL: nothing saved, no goodbye; started again when healed", inject)
