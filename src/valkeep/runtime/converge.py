"""Making a topology what its spec says, and proving that it is ready: look, plan, act, until nothing is missing.

``ready`` means proven. A replica that its primary calls ``online`` may not have got one byte of the stream yet (the stream starts with
the replica's first acknowledgement), so after the plan is fulfilled a canary is written to every shard and WAIT has to count every
replica. The canary stays: it is one key a shard, ``valkeep:canary:{tag}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

from valkeep.client.server_info import text_of
from valkeep.errors import ValkeepError
from valkeep.runtime.probe import Prober
from valkeep.topology.plan import plan_for
from valkeep.topology.slots import tag_for
from valkeep.topology.spec import Kind, TopologySpec
from valkeep.topology.view import View

__all__ = ["NotReady", "converge", "prove", "told"]

CANARY = b"valkeep:canary"


class NotReady(ValkeepError):
    """The topology did not become what its spec says in time; the message names what is missing."""


async def converge(spec: TopologySpec, prober: Prober, addresses: Mapping[str, str], *, timeout: float = 60.0) -> View:
    """Send what the plan says until nothing is missing; the view that showed it. Raises ``NotReady`` after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while True:
        view = await prober.look()
        plan = plan_for(spec, view, addresses)
        if not plan.missing:
            return view
        for command in plan.commands:
            # refused (it knows already, it is not empty yet): the next look tells what is still missing
            with contextlib.suppress(ValkeepError):
                await prober.call(command.node, *command.words)
        if time.monotonic() > deadline:
            shown = "; ".join(plan.missing[:6])
            raise NotReady(
                f"the topology is not whole after {timeout:.0f} s: {shown}",
                remedy="read the nodes' logs; on a busy machine give it more time (a larger --timeout-ms also calms it)",
            )
        await asyncio.sleep(0.01)


async def told(spec: TopologySpec, prober: Prober, addresses: Mapping[str, str], *, timeout: float = 30.0) -> None:
    """Until every node names every replica to clients; after `prove`, whose write is what they wait for. Raises ``NotReady``."""
    deadline = time.monotonic() + timeout
    while untold := plan_for(spec, await prober.look(), addresses).untold:
        if time.monotonic() > deadline:
            raise NotReady(
                f"clients are not told of the whole cluster after {timeout:.0f} s: {'; '.join(untold[:6])}", remedy="read the nodes' logs"
            )
        await asyncio.sleep(0.01)


async def prove(spec: TopologySpec, prober: Prober, view: View, *, timeout: float = 30.0) -> None:
    """Write the canary to every shard's primary; every replica has to acknowledge it."""
    deadline = time.monotonic() + timeout
    for primary in view.primaries():
        replicas = len(primary.online) if spec.kind is Kind.CLUSTER else spec.replicas
        canary = CANARY if spec.kind is not Kind.CLUSTER else CANARY + b":{%s}" % tag_for(primary.ranges[0][0])
        while True:
            try:
                await prober.call(primary.name, "SET", canary, str(view.at))
                acked = await prober.call(primary.name, "WAIT", replicas, 1000, timeout=3.0)
                if isinstance(acked, int) and acked >= replicas:
                    break
                why = f"WAIT counted {acked} of {replicas} replicas"
            except ValkeepError as error:  # NOREPLICAS while the lag is not known yet, CLUSTERDOWN while the news spreads, a late answer
                why = text_of(error.message)
                await asyncio.sleep(0.02)
            if time.monotonic() > deadline:
                raise NotReady(f"{primary.name} is not ready after {timeout:.0f} s: {why}", remedy="read its log and its replicas' logs")
