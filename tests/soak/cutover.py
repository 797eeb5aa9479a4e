"""``make soak``: kill -9 of Valkeep at every step of the cut-over, again and again, with blocked writers; see ``killing`` for what must hold.

    python tests/soak/cutover.py [--kills 60] [--seed 1] [--jobs 2] [--point cutover:fence …]

Every point is visited in turn; the seed decides delays and server versions, so that a failed line can be run again alone. Exit code 1 on a violation.
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

from tests.soak.killing import POINTS, Kill, Outcome, perform

PAIRS = (("redis-8.0", "valkey-9.1"), ("redis-7.0", "valkey-8.1"), ("redis-8.0", "valkey-8.0"), ("valkey-8.1", "valkey-9.1"))
CUT = tuple(point for point in POINTS if point.startswith(("cutover:", "wire:")))


def plan(kills: int, seed: int, points: tuple[str, ...]) -> list[Kill]:
    """Points in turn; two rounds of three visit only those of the cut-over."""
    rng = random.Random(seed)
    chosen: list[Kill] = []
    while len(chosen) < kills:
        for point in points or (*POINTS, *CUT, *CUT):
            source, target = rng.choice(PAIRS)
            delay = rng.choice((0.0, rng.uniform(0, 0.01), rng.uniform(0, 0.06)))
            fence = "pause" if "pause" in point or rng.random() < 0.75 else "direct"
            chosen.append(Kill(point, round(delay, 4), source, target, rng.choice((2, 4, 8)), fence))
    return chosen[:kills]


def one(kill: Kill) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="valkeep-soak-") as folder:
        try:
            return perform(kill, Path(folder))
        except AssertionError as error:
            return Outcome(kill, "", "", False, False, 0, 0, (str(error),))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--point", action="append", choices=POINTS, default=[])
    options = parser.parse_args()
    kills = plan(options.kills, options.seed, tuple(options.point))
    began, bad, promoted, fenced, acked = time.monotonic(), 0, 0, 0, 0
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(one, kill): number for number, kill in enumerate(kills, 1)}
        for job in as_completed(jobs):
            outcome = job.result()
            kill = outcome.kill
            promoted += outcome.promoted
            fenced += outcome.fenced
            acked += outcome.acked
            bad += bool(outcome.violations)
            word = "VIOLATED" if outcome.violations else "held"
            what = "promoted" if outcome.promoted else "fenced" if outcome.fenced else "writable"
            print(
                f"{jobs[job]:4} {word:9} {kill.point:26} +{kill.delay * 1000:4.0f} ms  reached {outcome.reached:26} {what:9} "
                f"{outcome.held} of {kill.writers} held, {outcome.acked:6} acked  {kill.source} -> {kill.target} {kill.fence}",
                flush=True,
            )
            for violation in outcome.violations:
                print(f"     {violation}", flush=True)
    print(
        f"{len(kills)} kills in {time.monotonic() - began:.0f} s (seed {options.seed}): {promoted} found the target promoted, {fenced - promoted} "
        f"the source fenced, {len(kills) - fenced} the source writable; {acked} acknowledged writes; {bad} violations"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
