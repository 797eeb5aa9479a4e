"""A replica is made primary on purpose, in every way that there is.

    plain           SENTINEL FAILOVER: promotes at once, while the old primary still takes writes; what it acks until it is told is lost
    coordinated     SENTINEL FAILOVER … COORDINATED (Valkey 9.0): the old primary stops writing and hands over at an equal offset
    cluster         CLUSTER FAILOVER on a replica: the same by the cluster's own means
    cluster-force   … FORCE: without asking the primary
    takeover        … TAKEOVER: without asking anybody, not even for votes

The target is the primary to be replaced, or, in a cluster, the replica that shall follow it.
"""

from __future__ import annotations

from typing import Final

from valkeep.drill.faults.fault import Deed, Fault, ask
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.errors import Refused, ServerError, UsageError
from valkeep.runtime.deployment import Machine
from valkeep.topology.spec import MONITORED, Kind, TopologySpec

_MODES: Final[dict[Kind, dict[str, tuple[str, ...]]]] = {
    Kind.SENTINEL: {"plain": (), "coordinated": ("COORDINATED",)},
    Kind.CLUSTER: {"cluster": (), "cluster-force": ("FORCE",), "takeover": ("TAKEOVER",)},
}


async def inject(stage: Stage, step: Step, targets: tuple[str, ...]) -> Deed:
    modes = _MODES[stage.spec.kind]
    mode = step.option("mode", next(iter(modes)))
    if stage.spec.kind is Kind.SENTINEL:
        words: tuple[str, ...] = ("SENTINEL", "FAILOVER", MONITORED, *modes[mode])
        asked = _sentinel(stage)
        met = targets
    else:
        words = ("CLUSTER", "FAILOVER", *modes[mode])
        asked = stage.machine(_successor(stage, targets[0]))
        met = (stage.primary(stage.shard_of(targets[0])),)
    try:
        await ask(asked, *words)
    except ServerError as error:
        raise Refused(
            f"{asked.spec.name} answers {' '.join(words)} with: {error.message}",
            remedy="COORDINATED needs Valkey 9.0; INPROG: let the failover before it end; NOGOODSLAVE: a replica has to be connected",
        ) from error
    return Deed(None, f"{' '.join(words)} to {asked.spec.name}", met)


def _sentinel(stage: Stage) -> Machine:
    for node in stage.spec.nodes():
        if node.role == "sentinel" and stage.machine(node.name).alive:
            return stage.machine(node.name)
    raise Refused("no sentinel is alive to ask for a failover", remedy="heal the step that ended them first")


def _successor(stage: Stage, name: str) -> str:
    replicas = stage.replicas(stage.shard_of(name))
    if name in replicas:
        return name
    if not replicas:
        raise UsageError(f"{name} has no replica that could follow it", remedy="let the step before wait until the topology is redundant")
    return replicas[0]


def fits(spec: TopologySpec, step: Step) -> str:
    modes = _MODES.get(spec.kind)
    if modes is None:
        return f"nobody decides on a failover in {spec.described}"
    mode = step.option("mode", next(iter(modes)))
    return "" if mode in modes else f"mode={mode} is none of {', '.join(modes)} on {spec.described}"


FAULT = Fault(
    "promote",
    "a failover on purpose, of the target primary",
    inject,
    fits,
    options=(("mode", "plain or coordinated (Sentinel); cluster, cluster-force or takeover (Cluster)"),),
)
