"""Differences found so far: counts, some examples, and all names in a file, so that any number of them can be repaired."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from valkeep.migrate.verify.result import EXAMPLES, Difference
from valkeep.migrate.verify.shards import Stray

__all__ = ["KINDS", "Found", "NameFile", "read_names"]

# One name in a file:  kind: 1 byte | database: 4 bytes LE | size: 4 bytes LE | key
_HEAD = struct.Struct("<BII")

KNOWN = 100_000  # differing keys that are told apart; beyond, one that is written on and looked at again may count twice

KINDS = ("missing", "extra", "different", "expiry", "again")
"""What a name file says about a key; ``again``: not judged yet, to be looked at."""


class NameFile:
    """Appends names; ``counts`` by kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._file: IO[bytes] = path.open("wb")

    def add(self, kind: str, database: int, key: bytes) -> None:
        self._file.write(_HEAD.pack(KINDS.index(kind), database, len(key)) + key)
        self.counts[kind] += 1

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_names(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(kind, database, key) in the order written."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            kind, database, size = _HEAD.unpack(head)
            yield KINDS[kind], database, file.read(size)


class Found:
    """All final differences of a run, of the keys that ``counts``. A key that differs counts once, however often it is looked at."""

    def __init__(self, directory: Path, counts: Callable[[bytes], bool] = lambda _key: True) -> None:
        self._directory = directory
        self._counts = counts
        self._number = 0
        self._file = self._next()
        self.counts: Counter[str] = Counter()
        self.examples: list[Difference] = []
        self.functions = 0
        self.misplaced = 0
        self._known: set[tuple[int, bytes]] = set()

    def _next(self) -> NameFile:
        self._number += 1
        return NameFile(self._directory / f"differences-{self._number}")

    def __len__(self) -> int:
        return sum(self.counts.values()) + self.functions + self.misplaced

    def add(self, kind: str, database: int, key: bytes, detail: str = "") -> None:
        if (database, key) in self._known or not self._counts(key):
            return
        if len(self._known) < KNOWN:
            self._known.add((database, key))
        self.counts[kind] += 1
        self._file.add(kind, database, key)
        if len(self.examples) < EXAMPLES:
            self.examples.append(Difference(database, key, kind, detail))

    def judge_functions(self, differing: dict[str, str]) -> None:
        """Library → how it differs; in place of what was found of functions before."""
        self.functions = len(differing)
        self.examples = [one for one in self.examples if one.what != "function"]
        for library, detail in differing.items():
            if len(self.examples) < EXAMPLES:
                self.examples.append(Difference(0, library.encode(), "function", detail))

    def judge_places(self, count: int, strays: Iterable[Stray]) -> None:
        """So many keys lie where no client reads them, some of them by name; in place of what was found of that before."""
        self.misplaced = count
        self.examples = [one for one in self.examples if one.what != "misplaced"]
        for one in strays:
            if len(self.examples) >= EXAMPLES:
                break
            text = f"on {one.where}, and its slot is {one.owner}'s: no client reads it"
            self.examples.append(Difference(0, one.key, "misplaced", text))

    def take(self) -> Iterator[tuple[str, int, bytes]]:
        """All names, for a repair; the counts and examples start anew (functions and misplaced keys stay)."""
        self._file.close()
        path = self._file.path
        self._file = self._next()
        self.counts.clear()
        self._known.clear()
        self.examples = [one for one in self.examples if one.what in ("function", "misplaced")]
        yield from read_names(path)
        path.unlink()

    def close(self) -> None:
        self._file.close()
