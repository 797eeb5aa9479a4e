"""How many operations a second the recorder records on this machine, beside the servers: ``python bench/record.py [--topology cluster] [--rate N]``."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from valkeep.drill.script import Load
from valkeep.drill.workloads.mixes import MIXES
from valkeep.drill.workloads.recorder import Recorder
from valkeep.drill.workloads.targets import Targets
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec

TOPOLOGIES = {"standalone": TopologySpec.standalone, "sentinel": TopologySpec.sentinel, "cluster": TopologySpec.cluster}


async def measure(topology: str, rate: int, seconds: float, mix: str) -> None:
    async with LocalDeployment(TOPOLOGIES[topology]()) as deployment:
        work = Path(deployment.folder) / "recorder"
        async with Recorder(Load(mix, rate=rate), Targets.of(deployment), work, 1) as recorder:
            await recorder.start()
            await asyncio.sleep(seconds)
            await recorder.pause()
            recorded = recorder.operations
            result = await recorder.finish()
    print(
        f"{topology}, {mix}: asked for {rate}/s, recorded {recorded / seconds:.0f}/s: {result.history.counts()}, {len(result.stalls)} stalls"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="cluster")
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--mix", choices=MIXES, default="mixed")
    options = parser.parse_args()
    asyncio.run(measure(options.topology, options.rate, options.seconds, options.mix))
