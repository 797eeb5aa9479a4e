"""Each target loses its links to all other *nodes*; clients still reach every node, on both sides.

So, unlike after a `partition`, all clients can go on writing to a primary that has been deposed, and none of them sees a reason not to.
"""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    network = stage.deployment.network
    for name in targets:
        others = frozenset(stage.deployment.machines) - {name}
        await network.cut(frozenset({name}), others)
        await network.cut(others, frozenset({name}))
    return Deed(network.heal, network.how)


FAULT = Fault("isolate", "cuts each target off from every other node; clients still reach all", inject, needs=frozenset({"partition"}))
