"""Some sentinels are killed, and the quorum still stands: nothing may happen to the data, and a failover still works."""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.faults.processes import each, machines, start_again
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.topology.spec import Kind, TopologySpec


async def inject(stage: Stage, step: Step, targets: tuple[str, ...]) -> Deed:
    sentinels = [node.name for node in stage.spec.nodes() if node.role == "sentinel"]
    chosen = [*targets, *(name for name in reversed(sentinels) if name not in targets)][: int(step.option("count", str(len(targets))))]
    struck = machines(stage, chosen)
    await each(struck, lambda machine: machine.kill())
    return Deed(start_again(struck), f"{len(sentinels) - len(chosen)} of {len(sentinels)} sentinels left", tuple(chosen))


def fits(spec: TopologySpec, step: Step) -> str:
    if spec.kind is not Kind.SENTINEL:
        return f"it needs sentinels, and this is {spec.described}"
    count = step.option("count", "1")
    if not count.isdecimal() or not 1 <= int(count) <= spec.sentinels - spec.quorum:
        return f"count={count}: 1 … {spec.sentinels - spec.quorum} of {spec.sentinels} sentinels can be lost with the quorum standing"
    return ""


FAULT = Fault(
    "sentinel-loss",
    "kills sentinels, as many as the quorum can miss",
    inject,
    fits,
    options=(("count", "how many; the targets first"),),
)
