"""SIGSTOP: the process hangs with its sockets open, as under a stalled disk, a long fork or a frozen virtual machine."""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    struck = machines(stage, targets)
    await each(struck, lambda machine: machine.pause())

    async def undo() -> None:
        await each([machine for machine in struck if machine.alive], lambda machine: machine.resume())

    return Deed(undo)


FAULT = Fault("pause", "SIGSTOP: the process hangs, its sockets stay open; it goes on when healed", inject)
