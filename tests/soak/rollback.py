"""``make soak``: kill -9 of Valkeep at every step of the way back, with writers on both sides; see ``returning`` for what must hold.

    python tests/soak/rollback.py [--kills 30] [--seed 1] [--jobs 2] [--point rollback:fence …]

Every point is visited in turn; the seed decides the rest, so that a failed line can be run again alone. Exit code 1 on a violation.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.soak.returning import POINTS, Outcome, Return, perform

PAIRS = (("redis-8.0", "valkey-9.1"), ("redis-7.0", "valkey-9.1"), ("redis-7.0", "valkey-8.1"), ("valkey-8.0", "valkey-9.1"))


def plan(kills: int, seed: int, points: tuple[str, ...]) -> list[Return]:
    """Points in turn."""
    rng = random.Random(seed)
    chosen: list[Return] = []
    while len(chosen) < kills:
        for point in points or POINTS:
            old, new = rng.choice(PAIRS)
            delay = round(rng.choice((0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.5))), 4)
            again = round(rng.choice((0.0, rng.uniform(0.3, 2.5))), 4)
            end = "commit" if point.startswith("commit") or rng.random() < 0.2 else "rollback"
            chosen.append(Return(point, delay, again, end, old, new))
    return chosen[:kills]


def one(kill: Return) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="valkeep-soak-") as folder:
        try:
            return perform(kill, Path(folder))
        except AssertionError as error:
            return Outcome(kill, "", (0, 0), (str(error),))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--point", action="append", choices=POINTS, default=[])
    options = parser.parse_args()
    kills = plan(options.kills, options.seed, tuple(options.point))
    began, bad, rolled, acked = time.monotonic(), 0, 0, 0
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(one, kill): number for number, kill in enumerate(kills, 1)}
        for job in as_completed(jobs):
            outcome = job.result()
            kill = outcome.kill
            bad += bool(outcome.violations)
            rolled += outcome.ended == "rolled-back"
            acked += sum(outcome.acked)
            print(
                f"{jobs[job]:4} {'VIOLATED' if outcome.violations else 'held':9} {kill.point:24} +{kill.delay * 1000:4.0f} ms, again "
                f"{kill.again:.1f} s, {kill.end:8} ended {outcome.ended:12} {outcome.acked[0]:5} + {outcome.acked[1]:5} acked  {kill.old} -> {kill.new}",
                flush=True,
            )
            for violation in outcome.violations:
                print(f"     {violation}", flush=True)
    print(
        f"{len(kills)} kills in {time.monotonic() - began:.0f} s (seed {options.seed}): {rolled} rolled back, {len(kills) - rolled} committed; "
        f"{acked} acknowledged writes; {bad} violations"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
