"""A client of a primary behind sentinels: create, read, update, delete, and go on through a failover.

    python examples/ha_client.py valkey://127.0.0.1:26379 valkey://127.0.0.1:26380 --seconds 30

Kill the primary meanwhile. The client finds the new one through the sentinels, tries again what surely was not done, and at the end reads back through the
new primary what the servers had acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from valkeep.client.endpoint import Endpoint
from valkeep.client.resilient import ResilientClient
from valkeep.client.retry import Patience
from valkeep.client.sentinel import SentinelDirectory
from valkeep.errors import ValkeepError

PATIENCE = Patience(call=60.0)  # for a call: an election that nobody wins is held again, after twice the failover-timeout


async def create_read_update_delete(client: ResilientClient) -> None:
    """Each of the four, checked by a read through the primary."""
    await client.call("SET", "user:1", "Ada")
    assert await client.call("GET", "user:1") == b"Ada"
    await client.call("SET", "user:1", "Ada Lovelace")
    assert await client.call("GET", "user:1") == b"Ada Lovelace"
    await client.call("DEL", "user:1", idempotent=True)  # whether it was there means nothing to us, so it may be done twice
    assert await client.call("GET", "user:1") is None
    print("created, read, updated and deleted user:1")


async def write_for(client: ResilientClient, seconds: float) -> list[int]:
    """Write numbers, each confirmed by a replica, and tell of every new primary; the numbers that were acknowledged."""
    acked: list[int] = []
    known = await client.primaries()
    print(f"the primary is {known[0].address}")
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        began = time.monotonic()
        try:
            await client.call("SET", f"number:{number}", number, wait=1)
            acked.append(number)
        except ValkeepError as error:
            print(f"number {number}: {error.message}")
        if (now := await client.primaries()) != known:
            print(f"the primary is {now[0].address} now; number {number} took {time.monotonic() - began:.2f} s")
            known = now
        await asyncio.sleep(0.001)
    return acked


async def missing(client: ResilientClient, acked: list[int]) -> list[int]:
    """The acknowledged numbers that the primary does not have."""
    values = await client.pipeline([("GET", f"number:{number}") for number in acked])
    return [number for number, value in zip(acked, values, strict=True) if value != str(number).encode()]


async def main(urls: list[str], name: str, seconds: float) -> int:
    sentinels = [Endpoint.parse(url) for url in urls]
    replicas = await SentinelDirectory(sentinels, name).replicas()
    print(f"replicas: {', '.join(replica.address for replica in replicas) or 'none'}")
    async with ResilientClient.sentinel(sentinels, name, patience=PATIENCE) as client:
        await create_read_update_delete(client)
        acked = await write_for(client, seconds)
        lost = await missing(client, acked)
        print(f"{len(acked)} numbers acknowledged, {len(lost)} missing; {client.counts}")
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A client of a primary behind sentinels.")
    parser.add_argument("sentinels", nargs="+", metavar="URL", help="a sentinel: valkey://[[user]:password@]host:port")
    parser.add_argument("--name", default="valkeep", help="what the sentinels call the primary")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to write")
    arguments = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(arguments.sentinels, arguments.name, arguments.seconds)))
    except ValkeepError as problem:
        sys.exit(f"{problem.message}\n{problem.remedy}")
