"""The disk is full: files can not grow. What follows depends on persistence, and surprises most people.

With ``appendfsync everysec`` the server refuses writes (MISCONF) until there is room again; with ``always`` it exits, because it can not keep
what it promised; with snapshots alone, writes are refused after the first one that fails (``stop-writes-on-bgsave-error``).

Healed by making room, and by starting those again that have exited.
"""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines, start_again
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.errors import Refused
from valkeep.runtime.deployment import HasDisk, Machine


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    struck = machines(stage, targets)
    await each(struck, lambda machine: _disk(machine).fill_disk())

    async def undo() -> None:
        await each(struck, lambda machine: _disk(machine).free_disk())
        await start_again(struck)()

    return Deed(undo)


def _disk(machine: Machine) -> HasDisk:
    if not isinstance(machine, HasDisk):
        raise Refused(f"the disk of {machine.spec.name} can not be filled here", remedy="use the local runtime on Linux")
    return machine


FAULT = Fault("disk-full", "the server's files can not grow any more", inject, needs=frozenset({"full-disk"}))
