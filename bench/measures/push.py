"""Delivery by push against what one writes oneself where a target may not replicate: SCAN, then DUMP and PTTL, then RESTORE, each in pipelines of valkey-py.

Both copy the same data from the same source into the same empty target, one right after the other in alternating order. *Native* in the names of the
samples is the copy with valkey-py. The clock: from the first connection until the last key is there (the copy), or until the target has the snapshot and takes
the stream (push; its interpreter is started before). Then both sides must have the same number of keys. The copy is no migration: what is written while it
runs is lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.figures import Figure
from bench.options import BenchOptions
from bench.pairs import Pairs, alternating
from bench.servers import Bench, server

__all__ = ["copy_by_commands", "measure"]

SPEC: Final = "valkey-9.1"
PAIRS: Final = 3
TARGET: Final = 5.0
AT_ONCE: Final = 1000  # keys in a pipeline


def measure(options: BenchOptions) -> list[Figure]:
    pairs = Pairs()
    count = options.pairs or PAIRS
    keys = options.keys
    with server(SPEC, folder=options.snapshots.place(options.snapshots.mixed(SPEC, keys))) as source, server(SPEC) as target:
        for pair, way in alternating(count):
            seconds = copy_by_commands(source.client, target.client) if way == "native" else _push(source, target)
            if target.client.dbsize() - target.client.exists("valkeep:push:offset") != source.client.dbsize():
                raise RuntimeError(f"{way}: {target.client.dbsize()} keys arrived of {source.client.dbsize()}")
            target.client.flushall()
            if pair:
                pairs.add(way, seconds)
                options.say(f"push {pair}/{count}, {'by commands' if way == 'native' else 'push'}: {seconds:.2f} s")
    said = (
        f"{keys:,} keys {SPEC} → {SPEC}: valkey-py, pipelined {median(pairs.native):.2f} s, push {median(pairs.through):.2f} s "
        f"({keys / median(pairs.through):,.0f} keys/s)"
    )
    ratios = sorted(one / other for one, other in zip(pairs.native, pairs.through, strict=True))
    return [
        Figure(
            "push",
            median(ratios),
            "x",
            TARGET,
            least=True,
            said=f"{said}; ratios {ratios[0]:.1f} to {ratios[-1]:.1f}",
            samples=pairs.samples,
        )
    ]


def copy_by_commands(source: Any, target: Any) -> float:
    """Seconds."""
    started = time.monotonic()
    cursor = 0
    while True:
        cursor, keys = source.scan(cursor, count=AT_ONCE)
        reading = source.pipeline(transaction=False)
        for key in keys:
            reading.dump(key).pttl(key)
        answers = reading.execute()
        writing = target.pipeline(transaction=False)
        for key, value, left in zip(keys, answers[0::2], answers[1::2], strict=True):
            if value is not None:
                writing.restore(key, max(left, 0), value, replace=True)
        writing.execute()
        if cursor == 0:
            return time.monotonic() - started


def _push(source: Bench, target: Bench) -> float:
    with tempfile.TemporaryDirectory(prefix="valkeep-bench-push-") as spool:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "push_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"push did not start: {process.communicate()[1].strip().splitlines()[-3:]}")
            started = time.monotonic()
            process.stdin.write(json.dumps({"source": source.url, "target": target.url, "spool": spool}) + "\n")
            process.stdin.flush()
            if process.stdout.readline() != "online\n":
                raise RuntimeError(f"push ended: {process.communicate()[1].strip().splitlines()[-3:]}")
            seconds = time.monotonic() - started
            if process.wait(30):
                raise RuntimeError("push ended badly")
            return seconds
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
