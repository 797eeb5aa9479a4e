"""The checkers on live servers that lie: every planted violation is found, and a server that tells the truth is not accused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.lying_proxy import LIES, LyingProxy
from valkeep.drill.drill_outcome import DrillOutcome
from valkeep.drill.judging import judge
from valkeep.drill.play import play
from valkeep.drill.script import Drill, Load
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec

pytestmark = pytest.mark.server


def drilled(mix: str, lie: str) -> tuple[DrillOutcome, int]:
    """What a second of load without any fault comes to, and how many lies were told meanwhile."""
    drill = Drill("liar", "", TopologySpec.standalone(), (), (), Load(mix, rate=3000), warm_up=1.0, warm_operations=3000, settle=0.2)

    async def main() -> tuple[DrillOutcome, int]:
        async with LocalDeployment(drill.topology) as deployment:
            machine = deployment.machines["n1"]
            async with LyingProxy((machine.endpoint.host, machine.endpoint.port), lie, every=17) as proxy:
                host, port = proxy.address
                machine.endpoint = replace(machine.endpoint, host=host, port=port)
                return judge(await play(drill, deployment, 1, lambda _event: None)), proxy.told

    return asyncio.run(main())


@pytest.mark.parametrize("mix", ["mixed", "registers"])
@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_found_out(mix: str, lie: str) -> None:
    outcome, told = drilled(mix, lie)
    assert told > 0
    assert outcome.verdict == "invalid", outcome.reasons


@pytest.mark.parametrize("mix", ["mixed", "registers"])
def test_a_server_that_tells_the_truth_through_the_same_proxy_is_not_accused(mix: str) -> None:
    outcome, told = drilled(mix, "")
    assert told == 0
    assert outcome.verdict == "valid", outcome.reasons
