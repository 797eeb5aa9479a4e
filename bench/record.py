"""How many operations a second the recorder records on this machine: ``python bench/record.py [--rate N] [--seconds S] [--mix NAME]``."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from valkeep.client.endpoint import Endpoint
from valkeep.drill.script import Load
from valkeep.drill.workloads.recorder import Recorder
from valkeep.drill.workloads.targets import Targets
from valkeep.runtime import servers
from valkeep.runtime.node import Node
from valkeep.topology.spec import Kind


async def measure(rate: int, seconds: float, mix: str) -> None:
    async with Node.start(servers.find("newest-valkey")) as node:
        targets = Targets(Kind.STANDALONE, {"n1": Endpoint(*node.address)})
        with tempfile.TemporaryDirectory() as folder:
            async with Recorder(Load(mix, rate=rate), targets, Path(folder) / "work", 1) as recorder:
                await recorder.start()
                await asyncio.sleep(seconds)
                await recorder.pause()
                recorded = recorder.operations
                result = await recorder.finish()
    print(f"{mix}: asked for {rate}/s, recorded {recorded / seconds:.0f}/s: {result.history.counts()}, {len(result.stalls)} stalls")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--mix", default="mixed")
    options = parser.parse_args()
    asyncio.run(measure(options.rate, options.seconds, options.mix))
