"""The longest time between two acknowledged writes that a client sees at the cut-over, at 5,000 writes/s: ``valkeep migrate run`` as users run it.

The writers (``writers.py``) turn to the target as soon as the source refuses. Afterwards the target must have the last write that each of them got
acknowledged.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.figures import Figure
from bench.options import BenchOptions
from bench.servers import server
from bench.writers import KEYS

__all__ = ["measure"]

CLIENTS: Final = 20
RATE: Final = 5_000
SOURCE: Final = "redis-8.0"
TARGET: Final = "valkey-9.1"


def measure(options: BenchOptions) -> list[Figure]:
    snapshot = options.snapshots.mixed(SOURCE, options.cutover_keys)
    gaps: list[float] = []
    pauses: list[float] = []
    rates: list[float] = []
    for number in range(1, options.cutovers + 1):
        with (
            server(SOURCE, folder=options.snapshots.place(snapshot)) as source,
            server(TARGET, propagation_error_behavior="panic") as target,
            tempfile.TemporaryDirectory(prefix="valkeep-bench-move-") as folder,
        ):
            seen, run = _move(source.port, target.port, Path(folder))
            behind = [name for name, last in seen["last"].items() if int(target.client.get(f"{name}:{last % KEYS}") or 0) < last]
        if behind or seen["moved"] != CLIENTS:
            raise RuntimeError(f"acknowledged writes are missing of {len(behind)} clients; {seen['moved']} of {CLIENTS} moved")
        gaps.append(max(seen["gaps_ms"]))
        pauses.append(run["write_pause_ms"])
        rates.append(seen["acked_per_second"])
        options.say(
            f"cutover {number}/{options.cutovers}: longest gap {gaps[-1]:.1f} ms, write pause {pauses[-1]:.1f} ms, {seen['refusals']}"
        )
    said = (
        f"of {options.cutovers} cut-overs, {CLIENTS} clients, {median(rates):,.0f} acked writes/s: median {median(gaps):.1f}, max {max(gaps):.1f} ms "
        f"(write pause by the job's own clock: median {median(pauses):.1f} ms)"
    )
    samples = {"longest gap": gaps, "write pause": pauses}
    return [
        Figure("cutover, median", median(gaps), "ms", 100.0, said=said, samples=samples),
        Figure("cutover, max", max(gaps), "ms", 100.0, said="the same, the worst of them"),
    ]


def _move(source: int, target: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    writers = Path(__file__).parent.parent / "writers.py"
    load = subprocess.Popen(
        [sys.executable, str(writers), str(source), str(target), str(CLIENTS), str(RATE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert load.stdin is not None
    assert load.stdout is not None
    try:
        if load.stdout.readline() != "running\n":
            raise RuntimeError("the writers did not start")
        run = _migrate(source, target, folder)
        load.stdin.close()
        return json.loads(load.stdout.read()), run
    finally:
        if load.poll() is None:
            try:
                load.wait(10)
            except subprocess.TimeoutExpired:
                load.kill()
                load.wait()
        load.stdout.close()


def _migrate(source: int, target: int, folder: Path) -> dict[str, Any]:
    result = folder / "run.json"
    command = [
        sys.executable,
        "-m",
        "valkeep",
        "migrate",
        "run",
        "--source",
        f"redis://127.0.0.1:{source}",
        "--target",
        f"valkey://127.0.0.1:{target}",
    ]
    command += ["--acknowledge", "all", "--field-ttl", "keep-field", "--state", str(folder / "state"), "--json", str(result)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"migrate run ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found
