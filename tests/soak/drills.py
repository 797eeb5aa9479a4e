"""``make soak``: drills that must not lie. The kill drills again and again, with and without two processes that burn the CPU; random schedules; every mix of
operations; a WAIT that lies; then kill -9 of a drill.

    python tests/soak/drills.py [--repeats 20] [--chance 10] [--kills 20] [--drill NAME …] [--burners 2] [--keep FOLDER]

``invalid`` is a failure, always: what a busy machine may cause is ``unknown``, and only where the machine itself was measured to stand still.
After a kill -9 nothing of the drill may be left within two seconds. Exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.abandoned import kill_at_random
from tests.support.lying_network import lied_to
from valkeep.drill.catalogue import find
from valkeep.drill.workloads.mixes import MIXES

NAMES = ("sentinel-kill-primary", "cluster-kill-primary")


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """``count`` processes that do nothing but take a processor each; they end with the block, or with this process."""
    burn = "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent:\n    end = time.monotonic() + 0.2\n    while time.monotonic() < end: pass"
    children = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def drilled(name: str, seed: int, keep: Path, *more: str) -> dict[str, Any]:
    """The JSON of one run; what it printed and recorded stays in ``keep``."""
    command = [sys.executable, "-m", "valkeep", "drill", "run", name, "--seed", str(seed), "--json", "-", "--report", str(keep), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {"verdict": f"exit {done.returncode}", "reasons": [done.stderr[-400:]], "measures": {}}


def false_verdict(outcome: dict[str, Any]) -> bool:
    """Whether this is no verdict that a drill of a sound server may have. Unknown is, where the machine was measured to stand still."""
    stalled = any("stood still" in reason for reason in outcome["reasons"])
    return outcome["verdict"] != "valid" and not (outcome["verdict"] == "unknown" and stalled)


def repeated(names: list[str], repeats: int, burners: int, seed: int, keep: Path) -> int:
    """False verdicts among so many runs of each drill."""
    counts: Counter[str] = Counter()
    bad = 0
    with burning(burners):
        for number in range(repeats):
            for name in names:
                folder = keep / f"{name}-{burners}-{seed + number}"
                outcome = drilled(name, seed + number, folder)
                counts[outcome["verdict"]] += 1
                false = false_verdict(outcome)
                bad += false
                measures = outcome["measures"]
                shown = " ".join(f"{key} {measures.get(key)}" for key in ("gap_ms", "lost", "stall_ms", "operations_per_second"))
                print(
                    f"{'FALSE ' if false else ''}{name} seed {seed + number} burners {burners}: {outcome['verdict']}  {shown}", flush=True
                )
                for reason in outcome["reasons"]:
                    print(f"    {reason}", flush=True)
                if not false:
                    for file in (*folder.glob("*/history.vkh"), *folder.glob("*/drill.html")):
                        file.unlink()
    print(f"{burners} burners: {dict(counts)}, {bad} false", flush=True)
    return bad


def by_chance(drills: int, seed: int, keep: Path) -> int:
    """False verdicts of so many random schedules of each kind."""
    return sum(repeated(["sentinel-random", "cluster-random"], 1, 0, seed + number, keep) for number in range(drills))


def mixed(seed: int, keep: Path) -> int:
    """False verdicts of a failover and of slots on the move under every mix of operations."""
    bad = 0
    for name in ("sentinel-kill-primary", "cluster-slot-migration"):
        for mix in MIXES:
            outcome = drilled(name, seed, keep / f"{name}-{mix}", "--mix", mix)
            bad += false_verdict(outcome)
            print(f"{name} with {mix}: {outcome['verdict']} {' '.join(outcome['reasons'])}", flush=True)
    return bad


def lied(seed: int) -> int:
    """Whether a WAIT that counts replicas which have nothing is believed: then what the minority was acked is lost, and none may be."""
    outcome = asyncio.run(lied_to(find("sentinel-partition-with-wait"), "counts-replicas-that-have-nothing", seed))
    print(f"a WAIT that lies: {outcome.verdict}, {outcome.measures['lost']} lost", flush=True)
    return int(outcome.verdict != "invalid")


def killed(kills: int, seed: int) -> int:
    """Kills after which something was left."""
    rng, bad = random.Random(seed), 0
    commands = (
        (20.0, ("drill", "run", "--all", "--seed", str(seed))),
        (9.0, ("drill", "run", "sentinel-partition-primary", "--network", "proxy")),
        (5.0, ("up", "sentinel")),
        (5.0, ("up", "cluster", "--persistence", "everysec")),
    )
    for number in range(kills):
        most, command = commands[number % len(commands)]
        left = kill_at_random(rng, command, most)
        bad += bool(left.things)
        print(f"kill -9 of {' '.join(command)} after {left.after:.2f} s: {', '.join(left.things) or 'nothing left'}", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--chance", type=int, default=10)
    parser.add_argument("--drill", action="append", default=[])
    parser.add_argument("--burners", type=int, action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    began, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="valkeep-soak-") as folder:
        for burners in options.burners or (0, 2):
            bad += repeated(options.drill or list(NAMES), options.repeats, burners, options.seed, options.keep or Path(folder))
        bad += by_chance(options.chance, options.seed, options.keep or Path(folder))
        bad += mixed(options.seed, options.keep or Path(folder))
        bad += lied(options.seed)
        bad += killed(options.kills, options.seed)
    print(f"soak of drills: {bad} failures in {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
