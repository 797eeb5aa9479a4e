"""Measures the move side by side with native replication: ``make bench-move``, or with flags ``make bench-move ARGS='--only lag'``.

Ratios are taken of pairs that ran one after the other in the same minute, in alternating order, and the median of the ratios counts, so that what else the
machine does falls out. Absolute numbers are told for orientation only. What each figure means: docs/reference/benchmarks.md.

Exit code 0: every target met. 1: one was not. 3: a measurement failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.data import Snapshots
from bench.figures import Failure, Figure, table
from bench.measures import convert, cutover, drain, full_sync, lag, memory, push, verify
from bench.options import BenchOptions
from valkeep.errors import ExitCode
from valkeep.runtime.servers import find
from valkeep.wire.rdb import scan

MEASURES: dict[str, Callable[[BenchOptions], list[Figure]]] = {
    "full-sync": full_sync.measure,
    "convert": convert.measure,
    "memory": memory.measure,
    "lag": lag.measure,
    "drain": drain.measure,
    "cutover": cutover.measure,
    "verify": verify.measure,
    "push": push.measure,
}
SERVERS = ("redis-8.0", "valkey-8.1", "valkey-9.1")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-move ARGS=…", description="Measures the move side by side with native replication.")
    parser.add_argument("--only", action="append", choices=sorted(MEASURES), help="this measurement (repeatable); default: all")
    parser.add_argument("--pairs", type=int, help="interleaved pairs of each ratio (full-sync: 21 of 9.1 and 7 of 8.1, convert: 7)")
    parser.add_argument(
        "--keys", type=int, default=2_000_000, help="keys of the full syncs; half of them where Redis 8.0 is the source (2,000,000)"
    )
    parser.add_argument("--verify-keys", type=int, default=1_000_000, help="keys a side of the verification (1,000,000)")
    parser.add_argument("--big-fields", type=int, default=10_000_000, help="fields of the large hash (10,000,000)")
    parser.add_argument("--big-string", type=int, default=512, metavar="MB", help="size of the large string (512)")
    parser.add_argument("--stall", type=float, default=60.0, metavar="SECONDS", help="how long the target hangs (60)")
    parser.add_argument("--lag-seconds", type=float, default=10.0, help="how long markers are sent (10)")
    parser.add_argument("--drain-commands", type=int, default=5_000_000, help="commands on the spool (5,000,000)")
    parser.add_argument("--drain-pairs", type=int, default=3, help="releases of the spool (3)")
    parser.add_argument("--cutovers", type=int, default=5, help="migrations (5)")
    parser.add_argument("--cutover-keys", type=int, default=200_000, help="keys of each migration (200,000)")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep the snapshot files there for the next run; default: made anew, removed"
    )
    parser.add_argument("--json", metavar="PATH", help="write the figures and all samples there; - for stdout")
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    say = _teller(to_stderr=given.json == "-")
    started = time.monotonic()
    results: list[Figure | Failure] = []
    with tempfile.TemporaryDirectory(prefix="valkeep-bench-") as folder:
        options = BenchOptions(
            pairs=given.pairs,
            keys=given.keys,
            verify_keys=given.verify_keys,
            big_fields=given.big_fields,
            big_string=given.big_string << 20,
            stall_seconds=given.stall,
            lag_seconds=given.lag_seconds,
            drain_commands=given.drain_commands,
            drain_pairs=given.drain_pairs,
            cutovers=given.cutovers,
            cutover_keys=given.cutover_keys,
            snapshots=Snapshots(given.cache or Path(folder)),
            say=say,
        )
        for name in given.only or MEASURES:
            begun = time.monotonic()
            try:
                results += MEASURES[name](options)
            except Exception as error:  # noqa: BLE001 - the others are measured all the same, and the exit code says it
                results.append(Failure(name, f"{type(error).__name__}: {' | '.join(str(error).split(chr(10)))[:1500]}"))
                say(f"{name} FAILED: {error}")
            say(f"({name}: {time.monotonic() - begun:.0f} s)")
    elapsed = time.monotonic() - started
    say("\n" + table(results) + f"\n\n{elapsed:.0f} s in all; {os.cpu_count()} cores")
    if given.json:
        _write(given.json, results, given, elapsed)
    if any(isinstance(one, Failure) for one in results):
        return ExitCode.UNKNOWN
    return ExitCode.JUDGED_BAD if any(one.met is False for one in results if isinstance(one, Figure)) else ExitCode.GOOD


def _teller(*, to_stderr: bool) -> Callable[[str], None]:
    stream = sys.stderr if to_stderr else sys.stdout

    def say(line: str) -> None:
        print(line, file=stream, flush=True)

    return say


def _write(path: str, results: list[Figure | Failure], given: argparse.Namespace, elapsed: float) -> None:
    document: dict[str, Any] = {
        "schema": 1,
        "bench": "move",
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "compiled": not str(scan.__file__).endswith(".py"),
        "servers": {spec: str(find(spec)) for spec in SERVERS},
        "options": {name: value for name, value in vars(given).items() if name not in ("json", "cache")},
        "figures": [one.to_json() for one in results],
        "elapsed_seconds": round(elapsed, 1),
    }
    text = json.dumps(document, indent=1) + "\n"
    if path == "-":
        print(text, end="")
    else:
        Path(path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
