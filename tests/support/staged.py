"""A stage for one fault: a topology that is proven ready, watched, and nobody else on it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from valkeep.client.connection import Connection
from valkeep.drill.faults import Injected, check, strike
from valkeep.drill.script import Load, parse_schedule
from valkeep.drill.stage import Stage
from valkeep.drill.watch import Watch
from valkeep.runtime import network as networks
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import TopologySpec
from valkeep.topology.view import View

__all__ = ["ask", "becomes", "staged", "struck"]

PATIENCE = 30.0


@contextlib.asynccontextmanager
async def standing(deployment: LocalDeployment) -> AsyncIterator[LocalDeployment]:
    """Up and ready; what the nodes logged is shown where it does not come to that."""
    try:
        await deployment.up()
        try:
            await deployment.ready()
        except BaseException:
            for machine in deployment.machines.values():
                print(machine, machine.log()[-3000:], sep="\n")
            raise
        yield deployment
    finally:
        await deployment.down()


@contextlib.asynccontextmanager
async def staged(spec: TopologySpec, how: str = "none", needs: frozenset[str] = frozenset()) -> AsyncIterator[Stage]:
    async with standing(LocalDeployment(spec, network=networks.make(spec, how), needs=needs)) as deployment:
        data = {name: machine.endpoint for name, machine in deployment.machines.items() if machine.spec.role != "sentinel"}
        sentinels = {name: machine.endpoint for name, machine in deployment.machines.items() if machine.spec.role == "sentinel"}
        async with Watch(spec.kind, data, sentinels) as watch:
            assert await watch.until(lambda view: all(node.reached for node in view.nodes.values()), PATIENCE)
            if sentinels:
                assert await watch.until(lambda _view: bool(watch.named), PATIENCE)
            yield Stage(deployment, watch, Load(), random.Random(1), lambda _event: None, time.monotonic_ns())


async def struck(stage: Stage, text: str) -> Injected:
    """Do the one step that ``text`` is, as a drill would."""
    (step,) = parse_schedule(text if "@" in text else f"{text}@0")
    check([step], stage.spec, stage.load, stage.deployment.abilities)
    return await strike(stage, step)


async def ask(stage: Stage, name: str, *words: str | int) -> Any:
    connection = await Connection.open(stage.machine(name).endpoint, timeout=2.0)
    try:
        return await connection.call(*words, timeout=5.0)
    finally:
        await connection.close()


async def becomes(stage: Stage, condition: Callable[[View], bool]) -> None:
    assert await stage.watch.until(condition, PATIENCE), stage.watch.view
