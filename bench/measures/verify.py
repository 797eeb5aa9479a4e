"""How fast a full verification is: ``valkeep migrate verify`` of two servers with the same data; keys of both sides together per second, by its own clock
(from asking for the snapshots to the verdict), and the peak memory of its processes, the command's own among them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.figures import Figure
from bench.memory import PeakMemory
from bench.options import BenchOptions
from bench.servers import server

__all__ = ["measure"]

SPEC: Final = "valkey-9.1"
RUNS: Final = 5
MB: Final = 1 << 20


def measure(options: BenchOptions) -> list[Figure]:
    snapshots = options.snapshots
    snapshot = snapshots.mixed(SPEC, options.verify_keys)
    rates: list[float] = []
    peaks: list[float] = []
    processes = 0
    with server(SPEC, folder=snapshots.place(snapshot)) as one, server(SPEC, folder=snapshots.place(snapshot)) as other:
        for number in range(RUNS):
            found, peak = _verify(one.url, other.url)
            if found["verdict"] != "valid" or found["keys_source"] != one.client.dbsize():
                raise RuntimeError(f"the verification says {found['verdict']} of {found['keys_source']} keys: {found['reasons']}")
            rates.append((found["keys_source"] + found["keys_target"]) / found["seconds"])
            peaks.append(peak.bytes / MB)
            processes = peak.processes
            options.say(f"verify {number + 1}/{RUNS}: {rates[-1]:,.0f} keys/s, {peaks[-1]:.0f} MB")
    said = f"{options.verify_keys:,} keys a side, {SPEC}, median of {RUNS}"
    return [
        Figure("verify", median(rates), "keys/s", 500_000.0, least=True, said=said, samples={"keys/s": rates}),
        Figure("verify, memory", max(peaks), "MB", 300.0, said=f"peaks of {processes} processes, summed", samples={"MB": peaks}),
    ]


def _verify(source: str, target: str) -> tuple[dict[str, Any], PeakMemory]:
    with TemporaryDirectory(prefix="valkeep-bench-verify-") as folder:
        result = Path(folder) / "verification.json"
        command = [sys.executable, "-m", "valkeep", "migrate", "verify", "--source", source, "--target", target, "--json", str(result)]
        process = subprocess.Popen([*command, "--workdir", folder], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            with PeakMemory(process.pid) as peak:
                _, complaint = process.communicate(timeout=300)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"migrate verify ended with {process.returncode}: {complaint.strip()[-500:]}")
        return json.loads(result.read_text()), peak
