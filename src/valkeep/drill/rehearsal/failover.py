"""Kill a primary, find out, promote its replica: one failover, taken apart on one clock.

    killed ──► detected ──► promoted ──► first ack
             3 refusals    REPLICAOF     as the writers
             50 ms apart   NO ONE        saw it

There is no Sentinel here: the rehearsal itself watches and promotes, so its detection time is its own choice (three refused
connections, 50 ms apart), and is shown apart from what the servers and clients need. Sentinel and Cluster have their own drills.

``OffsetSamples`` bounds what the failover may lose. A sample says: whatever was acked before we asked lies at or before the offset
that the answer names. When the promoted replica has that offset, everything acked before that moment must have survived.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import parse_info
from valkeep.errors import ServerError, ValkeepError
from valkeep.runtime.node import Node

__all__ = ["Failover", "OffsetSamples", "kill_and_promote"]

REFUSALS, APART = 3, 0.05


@dataclass(slots=True)
class OffsetSamples:
    """(ns when asked, the primary's offset), ascending."""

    samples: list[tuple[int, int]] = field(default_factory=list)

    async def watch(self, primary: Endpoint, every: float = 0.01) -> None:
        """Sample until cancelled, or until the primary is gone."""
        with contextlib.suppress(ValkeepError):
            async with await Connection.open(primary, client_name="rehearsal-offsets") as connection:
                while True:
                    asked = time.monotonic_ns()
                    info = parse_info(await connection.call("INFO", "replication", timeout=2.0))
                    self.samples.append((asked, int(info["master_repl_offset"])))
                    await asyncio.sleep(every)

    def promised_until(self, replica_offset: int) -> int | None:
        """The last moment by which everything acked is known to be in a replica with this offset; None without such a sample."""
        return max((asked for asked, offset in self.samples if offset <= replica_offset), default=None)


@dataclass(frozen=True, slots=True)
class Failover:
    """Moments in ns on the monotonic clock. ``replica_offset``: what the replica had when it was promoted."""

    killed: int
    detected: int
    promoted: int
    replica_offset: int
    promised_until: int | None


async def kill_and_promote(primary: Node, replica: Node) -> Failover:
    """SIGKILL the primary, notice it as a client would, promote the replica."""
    samples = OffsetSamples()
    address = Endpoint.parse(primary.endpoint)
    async with await Connection.open(Endpoint.parse(replica.endpoint), client_name="rehearsal-failover") as heir:
        watch = asyncio.create_task(samples.watch(address))
        await asyncio.sleep(0.3)
        killed = time.monotonic_ns()
        await primary.kill()
        await watch
        refused = 0
        while refused < REFUSALS:
            try:
                await (await Connection.open(address, timeout=0.5)).close()
                refused = 0
            except ValkeepError:
                refused += 1
            if refused < REFUSALS:
                await asyncio.sleep(APART)
        detected = time.monotonic_ns()
        replies = await heir.pipeline([("REPLICAOF", "NO", "ONE"), ("INFO", "replication")])
        promoted = time.monotonic_ns()
        for reply in replies:
            if isinstance(reply, ServerError):
                raise reply
        info = parse_info(replies[1])
        offset = int(info.get("second_repl_offset", "0")) - 1  # the first offset that is no longer the old primary's
        return Failover(killed, detected, promoted, offset, samples.promised_until(offset))
