"""The machine loses power: what was written but not synced to disk is gone.

A killed process can not show this, because what it wrote is in the kernel's page cache and survives it (see `runtime.synced`).
"""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines, start_again
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    struck = machines(stage, targets)
    await each(struck, lambda machine: machine.crash())
    return Deed(start_again(struck))


FAULT = Fault(
    "crash", "power loss: killed, and what was not synced to disk is gone; started again when healed", inject, needs=frozenset({"fsync"})
)
