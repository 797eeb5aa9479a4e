"""Delivery by push in a process of its own: a gateway and `Push` as ``valkeep migrate run --deliver push`` composes them, held at a start line.

Standard input: one JSON line (source, target, spool); it begins when that line comes. Standard output: ``ready`` when everything is imported, ``online`` when
the target has the snapshot and takes the stream; then it ends, and puts the target in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import valkeep.migrate.run.pipeline  # noqa: F401 - what the command would have imported
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.delivery import Parts
from valkeep.migrate.delivery.push import Push
from valkeep.migrate.delivery.target import look
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import RunOptions
from valkeep.migrate.state import StateFile
from valkeep.migrate.transform.target import FieldTtl


async def deliver(given: dict[str, Any]) -> None:
    source, target = Endpoint.parse(given["source"]), Endpoint.parse(given["target"])
    folder = Path(given["spool"])
    options = RunOptions(source=source, target=target, deliver="push", state=folder)
    journal = Journal(None, lambda _event: None, time.monotonic)
    async with await Connection.open(target) as connection:
        found = await look(connection, FieldTtl.REFUSE, wipe=False)
        ledger = Ledger(None, journal.emit, time.monotonic)
        gateway_options = GatewayOptions((found.format,), FieldTtl.REFUSE, ("127.0.0.1", 0), frozenset(), folder)
        async with Gateway(PsyncFeed(source), gateway_options, ledger, journal.emit, time.monotonic) as gateway:
            push = Push(Parts(options, {"": gateway}, connection, found, StateFile(folder), journal, []))
            async with push.held():
                print("online", flush=True)


def main() -> None:
    print("ready", flush=True)
    line = sys.stdin.readline()
    if not line:
        return
    work = deliver(json.loads(line))
    profile = os.environ.get("VALKEEP_BENCH_PROFILE")
    if profile:
        import cProfile

        with cProfile.Profile() as measured:
            asyncio.run(work)
        measured.dump_stats(profile)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main()
