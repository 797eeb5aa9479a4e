"""Two sides' partitions, one after the other: counts, and the names of what differs. Bounded: one partition is in memory at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from valkeep.migrate.marker import is_marker
from valkeep.migrate.verify.found import NameFile
from valkeep.migrate.verify.side import names_path, rows_path, written_path
from valkeep.wire.rows import ABSENT, AMBIGUOUS, DIFFERENT, EXPIRED, compare, pick

__all__ = ["OURS", "compare_partitions"]

BATCH = 10_000  # names at a time
OURS = "ours"
_WANTED = bytes((ABSENT, DIFFERENT, AMBIGUOUS))
_WANTED_RIGHT = bytes((ABSENT, AMBIGUOUS))


async def compare_partitions(directory: Path, partitions: Iterable[int], deadline: int, *, final: bool, out: Path) -> dict[str, int]:
    """Compare ``source`` and ``target`` in ``directory``; names of differences go to the name file ``out``.

    ``final``: a difference of a key that was not written is final; else all of them are to be looked at again (kind "again").
    Returns counts: missing, extra, different, again, expired, and ours: offsets of Valkeep's own, which are no keys of anybody's.
    """
    counts: Counter[str] = Counter()
    names = NameFile(out)
    try:
        for partition in partitions:
            await asyncio.sleep(0)  # the source's stream comes in meanwhile, and must not pile up in its output buffer
            left, right = rows_path(directory, "source", partition).read_bytes(), rows_path(directory, "target", partition).read_bytes()
            written = written_path(directory, partition)
            outcome = compare(left, right, written.read_bytes() if written.exists() else b"", deadline)
            del left, right
            counts["expired"] += outcome.counts_left[EXPIRED] + outcome.counts_right[EXPIRED]
            if outcome.agree:
                continue
            _name(names, names_path(directory, "source", partition), outcome.left, _WANTED, "missing", final)
            _name(names, names_path(directory, "target", partition), outcome.right, _WANTED_RIGHT, "extra", final)
    finally:
        names.close()
    return dict(counts + names.counts)


def _name(names: NameFile, path: Path, states: bytearray, wanted: bytes, alone: str, final: bool) -> None:
    if not any(states.count(state) for state in wanted):
        return
    kinds = {ABSENT: alone, DIFFERENT: "different", AMBIGUOUS: "again"}
    data = path.read_bytes()
    row = pos = 0
    while row < len(states):
        hits, row, pos = pick(data, states, wanted, row, pos, BATCH)
        for state, database, key in hits:
            if is_marker(database, key):
                names.counts[OURS] += 1
            else:
                names.add(kinds[state] if final else "again", database, key)
