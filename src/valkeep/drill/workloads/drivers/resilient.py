"""Valkeep's own resilient client (`client.resilient`), with its defaults: what it claims, judged as the others are.

It tells how an operation ended (`definite`) and who answered, so histories are exact.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import valkeep
from valkeep.client.resilient import ResilientClient
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads.driver import Answer, Session, Shown
from valkeep.drill.workloads.mixes import Step
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.spec import Kind

__all__ = ["DRIVER"]


class _Resilient:
    name = "valkeep"

    @property
    def version(self) -> str:
        return valkeep.__version__

    async def open(self, client: ClientSpec, targets: Targets) -> Session:
        nodes, rng = list(targets.nodes.values()), random.Random(client.name)
        match targets.kind:
            case Kind.SENTINEL:
                opened = ResilientClient.sentinel(
                    list(targets.sentinels.values()), targets.monitored, login=nodes[0], rng=rng, source=client.source
                )
            case Kind.CLUSTER:
                opened = ResilientClient.cluster(nodes, rng=rng, source=client.source)
            case _:
                opened = ResilientClient.primary(nodes[0], rng=rng, source=client.source)
        return _Session(opened, client, targets)


class _Session:
    def __init__(self, client: ResilientClient, spec: ClientSpec, targets: Targets) -> None:
        self._client, self._spec, self._targets = client, spec, targets

    async def perform(self, step: Step) -> Answer:
        try:
            replies = await self._replies(step)
        except ServerError as error:
            if error.definite and len(step.commands) == 1:
                return Answer([error], self._node())
            if error.definite:
                raise
            raise Shown(error.kind, error.message, definite=False) from error
        except ValkeepError as error:
            raise Shown(type(error).__name__, error.message, definite=error.definite) from error
        return Answer(replies, self._node())

    def _node(self) -> str:
        last = self._client.last
        return self._targets.place(last.host, last.port).name if last is not None else ""

    async def _replies(self, step: Step) -> Sequence[Any]:
        if len(step.commands) > 1:
            results = await self._client.transaction(step.commands[1:-1])
            return [b"OK", *[b"QUEUED"] * (len(step.commands) - 2), results]
        wait = self._spec.wait if step.writes else 0
        return [await self._client.call(*step.commands[0], wait=wait, wait_ms=self._spec.wait_ms)]

    async def close(self) -> None:
        await self._client.close()


DRIVER: Final = _Resilient()
