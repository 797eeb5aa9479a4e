"""The example programs do what they say, on real topologies, while a primary is killed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run_beside_a_kill(deployment: LocalDeployment, example: str, begun: str, ended: str, *arguments: str) -> str:
    """All that the program prints. n1 is killed when the program has printed ``begun``; it is given the time to print ``ended``."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-u", EXAMPLES / example, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        printed = ""
        assert program.stdout is not None
        async with asyncio.timeout(150):
            async for line in program.stdout:
                printed += line.decode()
                if begun in line.decode():
                    await asyncio.sleep(0.2)  # some writes before the kill
                    await deployment.machines["n1"].kill()
            code = await program.wait()
        assert ended in printed, printed
        (lost,) = re.findall(r"numbers acknowledged, (\d+) missing", printed)
        assert code == (0 if lost == "0" else 1), printed
        return printed
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


def test_ha_client_finds_the_new_primary_and_every_acknowledged_write_on_it() -> None:
    async def check() -> None:
        async with LocalDeployment(TopologySpec.sentinel()) as deployment:
            urls = [machine.endpoint.display for machine in deployment.of("sentinel")]
            printed = await run_beside_a_kill(deployment, "ha_client.py", "the primary is", " now; number", *urls, "--seconds", "4")
            assert "created, read, updated and deleted user:1" in printed
            assert re.search(r"\d+ numbers acknowledged, 0 missing", printed), printed

    asyncio.run(check())


def test_cluster_client_spreads_keys_follows_moved_and_outlives_a_primary() -> None:
    async def check() -> None:
        async with LocalDeployment(TopologySpec.cluster()) as deployment:
            urls = [machine.endpoint.display for machine in deployment.of("primary")]
            printed = await run_beside_a_kill(deployment, "cluster_client.py", "says: MOVED", "was promoted", *urls, "--seconds", "4")
            counted = [(int(by_slot), int(size)) for by_slot, size in re.findall(r":\d+ (\d+) \(DBSIZE (\d+)\)", printed)]
            assert len(counted) == 3
            assert all(900 < by_slot < 1100 and 0 <= size - by_slot <= 1 for by_slot, size in counted), printed  # one more: the canary
            # the write that was acknowledged in the very moment of the kill may not have reached the replica
            assert re.search(r"\d+ numbers acknowledged, [01] missing", printed), printed

    asyncio.run(check())


@pytest.mark.parametrize("example", ["ha_test.py", "cluster_test.py"])
def test_the_example_tests_pass(example: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", f"examples/{example}"]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("example", ["ha_client.py", "cluster_client.py"])
def test_an_example_that_finds_nobody_says_what_to_do(example: str) -> None:
    async def check() -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable, EXAMPLES / example, "valkey://127.0.0.1:1", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await program.communicate()
        assert program.returncode == 1
        assert "127.0.0.1:1 refused the connection" in out.decode()
        assert "check that" in out.decode()
        assert "Traceback" not in out.decode()

    asyncio.run(check())
