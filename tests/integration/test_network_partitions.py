"""Partitions between real servers: each case of the networks' contract, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.network_contract import CASES
from valkeep.runtime.network import namespace

pytestmark = pytest.mark.server


def run(how: str, case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.network_contract", how, case], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", sorted(CASES))
def test_namespace_keeps_the_contract_of_networks(case: str) -> None:
    why_not = namespace.possible()
    if why_not:
        pytest.skip(why_not)
    run("namespace", case)


@pytest.mark.parametrize("case", sorted(CASES))
def test_proxy_keeps_the_contract_of_networks(case: str) -> None:
    run("proxy", case)
