"""The network falls into two halves: the targets on one side, every other node and client on the other.

``way=out``: only what the targets send is lost; ``way=in``: only what is sent to them. One-way partitions come from broken switches and
firewalls, and are the ones that failure detectors judge worst.
"""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.topology.spec import TopologySpec

WAYS = ("both", "in", "out")


async def inject(stage: Stage, step: Step, targets: tuple[str, ...]) -> Deed:
    network, way = stage.deployment.network, step.option("way", "both")
    side = frozenset(targets)
    rest = frozenset(stage.deployment.machines) | {client.name for client in stage.load.clients}
    rest -= side
    if way != "in":
        await network.cut(side, rest)
    if way != "out":
        await network.cut(rest, side)
    return Deed(network.heal, f"{network.how}, {way}")


def fits(_spec: TopologySpec, step: Step) -> str:
    way = step.option("way", "both")
    return "" if way in WAYS else f"way={way} is none of {', '.join(WAYS)}"


FAULT = Fault(
    "partition",
    "cuts the targets (nodes and clients) off from all others",
    inject,
    fits,
    needs=frozenset({"partition"}),
    clients=True,
    options=(("way", "both, in or out: which direction is lost, as seen from the targets"),),
)
