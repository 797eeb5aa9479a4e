"""Everything to and from the targets takes longer: another region, a congested link."""

from __future__ import annotations

from valkeep.drill.faults.fault import Deed, Fault
from valkeep.drill.script import Step
from valkeep.drill.stage import Stage
from valkeep.topology.spec import TopologySpec

MOST = 60_000.0


async def inject(stage: Stage, step: Step, targets: tuple[str, ...]) -> Deed:
    network, milliseconds = stage.deployment.network, float(step.option("ms", "100"))
    await network.delay(frozenset(targets), milliseconds)
    return Deed(network.heal, f"{milliseconds:g} ms each way")


def fits(_spec: TopologySpec, step: Step) -> str:
    text = step.option("ms", "100")
    try:
        good = 0 < float(text) <= MOST
    except ValueError:
        good = False
    return "" if good else f"ms={text} is no delay; say 1 … {MOST:.0f}"


FAULT = Fault(
    "slow-link",
    "makes packets to and from the targets late, each way",
    inject,
    fits,
    needs=frozenset({"delay"}),
    clients=True,
    options=(("ms", "milliseconds, 100 unless told"),),
)
