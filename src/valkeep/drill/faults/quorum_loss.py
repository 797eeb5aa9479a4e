"""Too few are left to decide on a failover: sentinels below the quorum, or half of a cluster's primaries.

What the remaining nodes do then is the point: a Sentinel topology serves on and can not fail over; a cluster without the majority of its
primaries stops taking writes after its node-timeout.
"""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault, only_on
from valkeep.drill.faults.processes import each, machines, start_again
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.topology.spec import Kind


async def inject(stage: Stage, _step: Step, targets: tuple[str, ...]) -> Deed:
    spec = stage.spec
    if spec.kind is Kind.SENTINEL:
        voters = [node.name for node in spec.nodes() if node.role == "sentinel"]
        count = spec.sentinels - spec.quorum + 1
    else:
        voters = [stage.primary(shard) for shard in range(spec.shards)]
        count = spec.shards // 2 + 1
    chosen = [name for name in targets if name in voters]
    chosen = [*chosen, *(name for name in reversed(voters) if name not in chosen)][:count]
    struck = machines(stage, chosen)
    await each(struck, lambda machine: machine.kill())
    return Deed(start_again(struck), f"{len(voters) - count} of {len(voters)} voters left", tuple(chosen))


FAULT = Fault(
    "quorum-loss",
    "kills as many sentinels, or primaries of a cluster, as it takes that no failover can be decided; the targets first",
    inject,
    only_on(Kind.SENTINEL, Kind.CLUSTER),
)
