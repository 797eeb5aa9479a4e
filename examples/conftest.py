"""Fixtures of the example tests: servers of this machine, gone with the test. They stand in for those of Valkeep's pytest plugin, under the same names."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from valkeep.client.connection import Connection
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec

sys.path.insert(0, str(Path(__file__).parent))  # so that the tests find the programs beside them


class Servers:
    """A running topology. ``urls``: what a client is given; sentinels, or the nodes of a cluster."""

    def __init__(self, deployment: LocalDeployment, loop: asyncio.AbstractEventLoop) -> None:
        self._deployment, self._loop = deployment, loop
        self.urls = [machine.endpoint.display for machine in deployment.of("sentinel") or deployment.of("primary", "replica")]

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def kill_primary(self) -> str:
        """SIGKILL for a node that is a primary now; its address."""
        for machine in self._deployment.of("primary", "replica"):
            if machine.alive and self.wait_for(_role(machine)) == b"master":
                self.wait_for(machine.kill())
                return machine.endpoint.address
        raise AssertionError("there is no primary")


async def _role(machine: Any) -> bytes:
    async with await Connection.open(machine.endpoint) as connection:
        role = await connection.call("ROLE")
        return bytes(role[0])


@contextmanager
def _running(spec: TopologySpec) -> Iterator[Servers]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    deployment = LocalDeployment(spec)
    try:
        asyncio.run_coroutine_threadsafe(deployment.__aenter__(), loop).result(90)
        try:
            yield Servers(deployment, loop)
        finally:
            asyncio.run_coroutine_threadsafe(deployment.down(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def valkey_sentinel() -> Iterator[Servers]:
    """A primary, two replicas, three sentinels."""
    with _running(TopologySpec.sentinel()) as servers:
        yield servers


@pytest.fixture
def valkey_cluster() -> Iterator[Servers]:
    """Three primaries, three replicas."""
    with _running(TopologySpec.cluster()) as servers:
        yield servers
