"""SIGTERM: an orderly shutdown, as an operator or an orchestrator does it; saves, and says goodbye to its replicas."""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines, start_again
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    struck = machines(stage, targets)
    await each(struck, lambda machine: machine.stop())
    return Deed(start_again(struck))


FAULT = Fault("term", "SIGTERM: an orderly shutdown; started again when healed", inject)
