"""Drills on servers that lie: a proxy that clients take for the server tells them what it did not do (see `lying_pump`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import lying_pump
from valkeep.drill.judging import judge
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.play import play
from valkeep.drill.script import Drill
from valkeep.runtime.local import LocalDeployment
from valkeep.runtime.network.addresses import Addresses
from valkeep.runtime.network.proxy import ProxyNetwork

__all__ = ["LyingNetwork", "lied_to"]


class LyingNetwork(ProxyNetwork):
    """The proxy's network, with this lie."""

    def __init__(self, addresses: Addresses, lie: str) -> None:
        super().__init__(addresses)
        self._lie = lie

    def _launch(self) -> None:
        self._pump = subprocess.Popen(
            [sys.executable, str(Path(lying_pump.__file__)), self._lie],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )


async def lied_to(drill: Drill, lie: str, seed: int = 1) -> DrillOutcome:
    """The outcome of this drill where every client is told this lie."""
    async with LocalDeployment(drill.topology, network=LyingNetwork(Addresses(drill.topology, "proxy"), lie)) as deployment:
        return judge(await play(drill, deployment, seed, lambda _event: None))
