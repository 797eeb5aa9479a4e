"""Sources read by SCAN, under writers of every kind and under links that break, again and again: ``python tests/soak/scanning.py [SEED [RUNS]]``.

The judge is the servers' own: source and target are the same Valkey, and DEBUG DIGEST of both must be equal once the writers have stopped, the last round has
arrived, and what expired has gone on both. The verification by two scans must say the same.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import valkey

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import nodes
from tests.support.managed import managed
from tests.support.verifying import Writers, endpoint, fill
from tests.support.waiting import until
from valkeep.migrate.feed.scan import ScanFeed
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.migrate.verify import Verifier
from valkeep.runtime.node import Process

SPEC = "valkey-9.1"


def digest(node: Process) -> bytes:
    with valkey.Valkey(port=node.port) as client:
        return bytes(client.execute_command("DEBUG", "DIGEST"))


def nobody(_event: object) -> None: ...


async def once(seed: int, source: Process, target: Process, folder: Path) -> str:
    rng = random.Random(seed)
    here, there = valkey.Valkey(port=source.port), valkey.Valkey(port=target.port)
    fill(here)
    login = managed(lambda _node: here, source)
    feed = ScanFeed(login, folder / "scan", nobody, time.monotonic)
    options = GatewayOptions((TargetFormat((9, 1, 0)),), FieldTtl.REFUSE, ("127.0.0.1", 0), frozenset({"127.0.0.1"}), folder)
    with Writers(source.port, True):
        async with Gateway(feed, options, Ledger(None), nobody, time.monotonic) as gateway:
            await gateway.snapshot_taken()
            there.replicaof("127.0.0.1", gateway.address[1])
            await gateway.online(gateway.channels[0])
            until_ = time.monotonic() + rng.uniform(1, 4)
            cuts = 0
            while time.monotonic() < until_:
                asked = asyncio.create_task(feed.reach(0))
                await asyncio.sleep(rng.uniform(0, 0.1))
                if rng.random() < 0.3:
                    cuts += 1
                    here.execute_command("CLIENT", "KILL", "USER", "managed")
                if rng.random() < 0.05:
                    here.flushdb()
                await gateway.beside(asked)
            here.config_set("min-replicas-to-write", 255)  # the writers get errors from here on
            await gateway.drained(await feed.reach(0))

            async def barrier(offset: int) -> None:
                await gateway.drained(await feed.reach(offset))

            async with Verifier(login, endpoint(target), FieldTtl.REFUSE, barrier, source_read="scan") as verifier:
                found = await verifier.full()
            rounds = feed.rounds[-1].number
            gateway.expect_departure()
            there.replicaof("NO", "ONE")
    here.config_set("min-replicas-to-write", 0)
    until(lambda: digest(source) == digest(target), f"equal digests (seed {seed}; the verification said {found.verdict})", 10)
    assert found.verdict == "valid", (seed, found)
    return f"seed {seed}: {rounds} rounds, {cuts} cuts, {found.keys_source} keys, equal"


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    for number in range(seed, seed + runs):
        with (
            nodes.start(SPEC, {"enable-debug-command": "yes"}) as source,
            nodes.start(SPEC, {"enable-debug-command": "yes", "propagation-error-behavior": "panic"}) as target,
            tempfile.TemporaryDirectory() as folder,
        ):
            print(asyncio.run(once(number, source, target, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
