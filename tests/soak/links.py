"""``make soak``: links that break and gateways that are killed, under load, in a seeded order; and not one full sync more than the first.

    python tests/soak/links.py [--cuts 20] [--kills 10] [--seed 1] [--source redis-8.0] [--target valkey-9.1]

``valkeep migrate gateway --state`` stands between two proxies. In an order that the seed decides, ``--cuts`` connections are reset on each side and the gateway
gets ``--kills`` kill -9, while writes of every kind go on at the source. Then everything must have arrived: ``valkeep migrate verify`` finds no
difference, the servers' own digests of each key are equal, the source made one snapshot for us and the target loaded one. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import valkey

from tests.support import nodes
from tests.support.load import Load, digest
from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from valkeep.runtime import ports

SOURCE, TARGET, KILL = "cut at the source", "cut at the target", "kill -9"


def perform(folder: Path, cuts: int, kills: int, seed: int, source_spec: str, target_spec: str) -> list[str]:
    """What does not hold, in sentences."""
    chance = random.Random(seed)
    events = [SOURCE] * cuts + [TARGET] * cuts + [KILL] * kills
    chance.shuffle(events)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(nodes.start(source_spec, {"enable-debug-command": "yes", "repl-backlog-size": "256mb"}))
        target = stack.enter_context(
            nodes.start(target_spec, {"enable-debug-command": "yes", "propagation-error-behavior": "panic", "repl-timeout": "10"})
        )
        here: Any = stack.enter_context(valkey.Valkey(host="127.0.0.1", port=source.port))
        there: Any = stack.enter_context(valkey.Valkey(host="127.0.0.1", port=target.port))
        here.mset({f"k{number}": "x" * 50 for number in range(20_000)})
        taken = ports.reserve()
        stack.callback(taken.release)
        to_source = stack.enter_context(Proxy(("127.0.0.1", source.port)))
        to_gateway = stack.enter_context(Proxy(("127.0.0.1", taken.port)))
        lossy = "9" not in target_spec.rpartition("-")[2]
        command = ("--source", to_source.url(), "--listen", f"127.0.0.1:{taken.port}", "--allow", "127.0.0.1", "--field-ttl", "drop-field")
        version = target_spec.rpartition("-")[2]

        def start() -> Valkeep:
            arguments = ("migrate", "gateway", "--state", str(folder / "state"), *command, "--target-version", version)
            process = stack.enter_context(Valkeep(*arguments, folder=folder, report=False))
            until(lambda: "the gateway listens" in process.stderr or not process.running, lambda: process.stderr, 60)
            assert process.running, process.stderr
            return process

        load = stack.enter_context(Load(source.port, seed, pace=0.002))
        process = start()
        there.replicaof("127.0.0.1", to_gateway.port)
        until(lambda: there.execute_command("ROLE")[3] == b"connected", lambda: process.stderr, 60)
        for number, event in enumerate(events, 1):
            before = load.done
            load.pause(chance.uniform(0.02, 0.8))
            if event is SOURCE:
                to_source.cut()
            elif event is TARGET:
                to_gateway.cut()
            else:
                process.kill()
                load.pause(chance.uniform(0, 0.5))
                process = start()
            print(f"{number:4} {event:18} after {load.done - before:5} writes", flush=True)
            assert process.running, process.stderr
        load.stop()
        here.set("marker", seed)
        until(lambda: there.get("marker") == b"%d" % seed, lambda: f"{process.stderr}\n{there.info('replication')}", 120)
        wrong = []
        if (made := here.info("stats")["sync_full"]) != 1:
            wrong.append(f"the source made {made} snapshots")
        if (loaded := target.log().count("Full resync from primary")) != 1:
            wrong.append(f"the target loaded {loaded} snapshots")
        if digest(there, lasting=lossy) != digest(here, lasting=lossy):
            wrong.append("source and target differ")
        compare = ("migrate", "verify", "--source", source.endpoint, "--target", target.endpoint, "--field-ttl", "drop-field")
        with Valkeep(*compare, folder=folder / "verify", report=False) as verify:
            if (code := verify.wait(120)) != 0:
                wrong.append(f"valkeep migrate verify ended with {code}: {verify.stdout} {verify.stderr}")
        print(f"the source: {here.info('stats')['sync_partial_ok']} partial syncs; {load.done} rounds of writes")
        return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--source", default="redis-8.0")
    parser.add_argument("--target", default="valkey-9.1")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="valkeep-soak-") as folder:
        wrong = perform(Path(folder), options.cuts, options.kills, options.seed, options.source, options.target)
    for line in wrong:
        print(f"VIOLATED  {line}")
    print(
        f"{options.cuts} cuts on each side and {options.kills} kill -9 in {time.monotonic() - began:.0f} s (seed {options.seed}): {len(wrong)} violations"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
