"""Delivery by push under writes that must not be done twice, while connections are killed, the target hangs, and Valkeep is killed and started again:
``python tests/soak/pushing.py [SEED [RUNS]]``. Judged by ordinary commands: both sides have the same values.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import valkey

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import nodes
from tests.support.counting import Counting, kill_pushing, same
from tests.support.pair import Pair
from tests.support.valkeep_process import Valkeep

PAIRS = (("redis-7.0", "valkey-8.0"), ("redis-8.0", "valkey-8.1"), ("redis-8.0", "valkey-9.1"))
EVENTS = 12


def once(seed: int, pair: Pair) -> str:
    rng = random.Random(seed)
    pair.here.mset({f"k{number}": "v" * rng.randint(1, 2000) for number in range(rng.choice([100, 20_000]))})
    kills = hangs = 0
    with Counting(pair.here, seed) as load:
        run = started(pair, "run 0")
        for number in range(EVENTS):
            time.sleep(rng.uniform(0, 0.4))
            match rng.randint(0, 5):
                case 0 if number < EVENTS - 2:
                    run.kill()
                    run.__exit__()
                    kills += 1
                    time.sleep(rng.uniform(0, 0.2))
                    run = started(pair, f"run {kills}")
                case 1:
                    hangs += 1
                    pair.target.pause()
                    time.sleep(rng.uniform(0, 0.5))
                    pair.target.resume()
                case _:
                    kill_pushing(pair.there)
        assert pair.valkeep("cutover").process.returncode == 0, (seed, run.stderr)
        load.stop()
        assert run.wait() == 0, (seed, run.stderr)
        run.__exit__()
    same(pair.here, pair.there)
    return f"seed {seed}: {load.done} pipelines, {kills} × kill -9, {hangs} hangs, {EVENTS - kills - hangs} broken connections: the same on both sides"


def started(pair: Pair, name: str) -> Valkeep:
    run = pair.run("--deliver", "push", "--cutover", "manual", name=name)
    run.__enter__()
    run.wait_for("waiting")
    return run


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    for number in range(seed, seed + runs):
        here, there = PAIRS[number % len(PAIRS)]
        with (
            nodes.start(here, {"repl-backlog-size": "256mb"}) as source,
            nodes.start(there) as target,
            tempfile.TemporaryDirectory() as folder,
        ):
            pair = Pair(source, target, valkey.Valkey(port=source.port), valkey.Valkey(port=target.port), Path(folder))
            print(once(number, pair), flush=True)


if __name__ == "__main__":
    main()
