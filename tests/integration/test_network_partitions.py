"""Partitions between real servers: each case of the networks' contract, in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.support.network_contract import CASES
from valkeep.errors import Refused, UsageError
from valkeep.runtime import network as networks
from valkeep.runtime.network import namespace
from valkeep.topology.spec import TopologySpec

pytestmark = pytest.mark.server


def run(how: str, case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.network_contract", how, case], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", sorted(CASES))
def test_namespace_keeps_the_contract_of_networks_or_the_proxy_takes_its_place(case: str) -> None:
    if namespace.possible():
        assert networks.choose(frozenset({"partition"})) == "proxy"
    else:
        assert networks.choose(frozenset({"partition"})) == "namespace"
        run("namespace", case)


@pytest.mark.parametrize("case", sorted(CASES))
def test_proxy_keeps_the_contract_of_networks(case: str) -> None:
    run("proxy", case)


def test_delay_is_the_proxys_business_and_a_person_has_the_last_word() -> None:
    assert networks.choose(frozenset({"partition", "delay"})) == "proxy"
    assert networks.choose(frozenset({"partition"}), "none") == "none"
    with pytest.raises(UsageError, match="no way to connect"):
        networks.choose(frozenset(), "wire")


def test_a_process_with_threads_can_not_move_into_a_namespace() -> None:
    code = (
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "from valkeep.runtime.network import namespace; namespace.enter()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert "this process has 2 threads" in done.stderr


def test_without_a_network_between_them_nodes_can_not_be_cut_off() -> None:
    async def main() -> None:
        network = networks.make(TopologySpec.sentinel(), "none")
        for deed in (network.cut(frozenset({"n1"}), frozenset({"n2"})), network.delay(frozenset({"n1"}), 5)):
            with pytest.raises(Refused) as caught:
                await deed
            assert caught.value.remedy
        await network.heal()
        await network.close()

    asyncio.run(main())
