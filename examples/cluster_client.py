"""A client of a cluster: keys spread by slot, MOVED followed, keys counted for each shard, and on through a failover.

    python examples/cluster_client.py valkey://127.0.0.1:7001 valkey://127.0.0.1:7002 --seconds 30

Kill a primary meanwhile. Its replica is promoted, the client learns of it from the other nodes, and the keys of that shard are served again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter

from valkeep.client.cluster import ClusterDirectory
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.resilient import ResilientClient
from valkeep.client.retry import Patience
from valkeep.errors import ServerError, ValkeepError
from valkeep.topology.slots import key_slot

PATIENCE = Patience(call=60.0)  # for a call: an election that nobody wins is held again, some node-timeouts later


async def spread(client: ResilientClient, count: int) -> dict[str, int]:
    """Write ``count`` keys; how many each primary has, by the client's table of slots. Each primary's own DBSIZE has to agree."""
    keys = [f"spread:{number}" for number in range(count)]
    await client.pipeline([("SET", key, "x") for key in keys])
    counted = Counter([(await client.owner(key)).address for key in keys])
    sizes = {node.address: size for node, size in (await client.each_primary("DBSIZE")).items()}
    print("keys by shard:", ", ".join(f"{address} {counted[address]} (DBSIZE {size})" for address, size in sizes.items()))
    return dict(counted)


async def follow_moved(client: ResilientClient, key: str) -> str:
    """Ask a node that does not have the key: it says MOVED. The client goes where that leads."""
    owner = await client.owner(key)
    stranger = next(node for node in await client.primaries() if node != owner)
    async with await Connection.open(stranger) as connection:
        try:
            await connection.call("GET", key)
        except ServerError as error:
            print(f"{stranger.address} says: {error.message} (slot {key_slot(key.encode())} is at {owner.address})")
            said = error.message
    await client.call("GET", key)
    return said


async def write_for(client: ResilientClient, seconds: float) -> list[int]:
    """Write numbers to all shards and tell of every promotion; the numbers that were acknowledged.

    Without ``wait=1``: where a shard has one replica, nobody is left to confirm anything once that one was promoted.
    """
    acked: list[int] = []
    known = set(await client.primaries())
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        began = time.monotonic()
        try:
            await client.call("SET", f"number:{number}", number)
            acked.append(number)
        except ValkeepError as error:
            print(f"number {number}: {error.message}")
        if (now := set(await client.primaries())) != known:
            new = ", ".join(node.address for node in now - known)
            print(f"{new or 'nobody'} was promoted; number {number} took {time.monotonic() - began:.2f} s")
            known = now
        await asyncio.sleep(0.001)
    return acked


async def missing(client: ResilientClient, acked: list[int]) -> list[int]:
    """The acknowledged numbers that their shard's primary does not have."""
    values = await client.pipeline([("GET", f"number:{number}") for number in acked])
    return [number for number, value in zip(acked, values, strict=True) if value != str(number).encode()]


async def main(urls: list[str], seconds: float) -> int:
    seeds = [Endpoint.parse(url) for url in urls]
    table = await ClusterDirectory(seeds).table()
    print(f"primaries: {', '.join(primary.address for primary in table.primaries)}")
    async with ResilientClient.cluster(seeds, patience=PATIENCE) as client:
        await spread(client, 3000)
        await follow_moved(client, "spread:0")
        acked = await write_for(client, seconds)
        lost = await missing(client, acked)
        print(f"{len(acked)} numbers acknowledged, {len(lost)} missing; {client.counts}")
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A client of a cluster.")
    parser.add_argument("nodes", nargs="+", metavar="URL", help="a node: valkey://[[user]:password@]host:port")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to write")
    arguments = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(arguments.nodes, arguments.seconds)))
    except ValkeepError as problem:
        sys.exit(f"{problem.message}\n{problem.remedy}")
