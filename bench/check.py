"""How long the checkers of drills take, and how much memory: ``python bench/check.py [--operations N] [--mix M] [--json FILE]``.

A history as a drill's recorder writes it (4 clients, 12 tags, batches of 12, one failover with a stale primary), made here
without servers, and then judged by every checker. Time and memory are those of reading the packed file and judging it, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from valkeep.drill.checkers.evidence import FinalState
from valkeep.drill.checkers.reigns import Bound, Cause, Deposition, Reign
from valkeep.drill.checkers.verdicts import Context, check_all
from valkeep.drill.history import History
from valkeep.topology.slots import tag_for

CLIENTS, TAGS, BATCH, REGISTERS = 4, 12, 12, 16
MIXES = {  # as `drill.workloads.mixes` has them
    "mixed": (("append", 20), ("write", 20), ("read", 14), ("delete", 6), ("incr", 14), ("add", 14), ("multi", 12)),
    "append": (("append", 1),),
    "registers": (("append", 4), ("write", 40), ("read", 44), ("delete", 12)),
}
STEP = 80_000  # ns from one operation to the next: 12,500 a second


class Node:
    """What one server holds, and how to undo it: a failover takes the last operations back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lists: dict[bytes, list[int]] = {}
        self.values: dict[bytes, int] = {}
        self.counts: dict[bytes, int] = {}
        self.sets: dict[bytes, set[int]] = {}

    def copy(self, name: str) -> Node:
        heir = Node(name)
        heir.lists = {key: list(found) for key, found in self.lists.items()}
        heir.values, heir.counts = dict(self.values), dict(self.counts)
        heir.sets = {key: set(found) for key, found in self.sets.items()}
        return heir

    def execute(self, function: str, key: bytes, value: int | None) -> int | None:
        if function == "read":
            return self.values.get(key)
        if function == "delete":
            return int(self.values.pop(key, None) is not None)
        if function == "incr":
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.counts[key]
        assert value is not None
        if function == "append":
            listed = self.lists.setdefault(key, [])
            listed.append(value)
            return len(listed)
        if function == "add":
            self.sets.setdefault(key, set()).add(value)
            return 1
        self.values[key] = value
        return None


def recorded(operations: int, mix: str = "mixed", seed: int = 1) -> tuple[History, FinalState, Context]:
    """The first half is n1's; then n2 has what n1 had a moment before, and one client stays with n1 for a tenth of the run."""
    rng, history = random.Random(seed), History()
    kinds = [function for function, weight in MIXES[mix] for _ in range(weight)]
    tags = [tag_for(slot * 16384 // TAGS) for slot in range(TAGS)]
    primary, stale = Node("n1"), Node("")
    heir: Node | None = None
    number = counter = 0
    cut = operations // 2
    back = cut + operations // 10
    while number < operations:
        client = number // BATCH % CLIENTS
        if heir is None and number >= cut - 20 * BATCH:
            heir = primary.copy("n2")
        if heir is not None and not stale.name and number >= cut:
            primary, stale = heir, primary
        server = stale if stale.name and client == 0 and number < back else primary
        tag, sent = rng.choice(tags), number * STEP
        middle = [kinds[int(rng.random() * len(kinds))] for _ in range(BATCH - 2)]
        batch = []
        for function in ("append", *middle, "append"):
            key = b"%s:{%s}" % ({"append": b"j", "incr": b"c", "add": b"s", "multi": b"x"}.get(function, b"r"), tag)
            if function in ("write", "read", "delete"):
                key += b":%d" % int(rng.random() * REGISTERS)
            value = None
            if function in ("append", "write", "add", "multi"):
                counter += 1
                value = client + 1 << 40 | counter
            batch.append((history.invoke(client, function, key, value, sent), server.execute(function, key, value)))
        for operation, result in batch:
            history.ok(operation, sent + 10 * STEP, server.name, result)
        number += BATCH
    at = cut * STEP
    deposed = Deposition(Cause.FAILOVER, at - 20 * BATCH * STEP, Bound(), until=(back + BATCH) * STEP, promoted=at)
    pairs = {key: (value, value) for key, value in primary.values.items() if key.startswith(b"x:")}
    registers = {key: value for key, value in primary.values.items() if key.startswith(b"r:")}
    final = FinalState(primary.lists, registers, primary.counts, primary.sets, pairs)
    return history, final, Context((Reign("n1", deposed=deposed), Reign("n2", at)), ((at, back * STEP),))


def measured(operations: int, mix: str) -> dict[str, Any]:
    """In this process: make, pack, forget; read and judge. The peak is the whole process's, the making included, so the making is thrifty."""
    history, final, context = recorded(operations, mix)
    with tempfile.TemporaryFile() as file:
        for piece in history.packed():
            file.write(piece)
        del history
        file.seek(0)
        begun = time.perf_counter()
        history = History.unpacked(file.read())
        read = time.perf_counter() - begun
    begun, busy = time.perf_counter(), time.process_time()
    verdicts = check_all(history, final, context)
    took, busy = time.perf_counter() - begun, time.process_time() - busy
    assert verdicts.loss is not None
    return {
        "operations": len(history),
        "seconds_to_read": round(read, 2),
        "seconds_to_judge": round(took, 2),
        "processor_seconds_to_judge": round(busy, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "verdict": verdicts.verdict,
        "lost": verdicts.loss.lost,
        "judgements": {judgement.checker: judgement.verdict for judgement in verdicts.judgements},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--mix", default="mixed", choices=MIXES)
    parser.add_argument("--json", default="", help="where to write the figures, - for standard output")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(options.operations, options.mix)))
        return 0
    command = [sys.executable, __file__, "--here", "--operations", str(options.operations), "--mix", options.mix]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if options.json == "-":
        print(json.dumps(found))
        return 0
    if options.json:
        Path(options.json).write_text(json.dumps(found) + "\n")
    print(
        f"{found['operations']:,} operations: judged in {found['seconds_to_judge']} s, {found['processor_seconds_to_judge']} of them on a processor"
    )
    print(
        f"peak {found['peak_mb']} MB; {found['verdict']}; {found['lost']:,} lost, all explained" if found["lost"] else f"{found['verdict']}"
    )
    return 0 if found["verdict"] == "valid" else 1


if __name__ == "__main__":
    sys.exit(main())
