"""What a scanning feed has given so far, by digests on the disk: which keys have another value now?

    given-NNN   one row for each key as it was given, and its name; the first row of a key counts
    now-NNN     the same of the round that has just been read

Rows and names are those of the verification (`verify.side.Spill`); a partition is in memory at a time. When the keys of a partition that differ were given
anew, their rows are put before those of ``now``, which then is ``given``. A key that was gone gets a row that equals none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from struct import Struct

from valkeep.migrate.keyread import Seen
from valkeep.migrate.verify.assembled import Assembled
from valkeep.migrate.verify.mode import Mode
from valkeep.migrate.verify.side import Spill, names_path, rows_path
from valkeep.migrate.verify.written import Key
from valkeep.wire.rdb.decode import Decoder
from valkeep.wire.rows import ABSENT, AMBIGUOUS, DIFFERENT, DUPLICATE, EXPIRED, NAME, compare, pick
from valkeep.wire.spiller import Spiller, policy

__all__ = ["Given"]

BATCH = 2000  # names at a time
_CHANGED = bytes((ABSENT, DIFFERENT, AMBIGUOUS, EXPIRED))
_GONE_NOW = bytes((ABSENT, EXPIRED))
_CHANGED_NOW = bytes((ABSENT, DIFFERENT, AMBIGUOUS, EXPIRED, DUPLICATE))
_NOT_THERE = Struct("=16s16sqq")  # `wire.rows`, with the digest of no value


class Given:
    """``first`` for the snapshot; then for each round ``now``, and for each partition ``changed``, ``give`` and ``advance``."""

    def __init__(self, folder: Path, key: bytes, partitions: int) -> None:
        self.partitions = partitions
        self._folder = folder
        self._key = key
        self._spiller = Spiller(key, policy(Mode.EXACT), partitions)
        self._decoder = Decoder(self._spiller)
        self._assembled = Assembled()
        self._rows, self._names = bytearray(), bytearray()  # of what was given since the last ``advance``

    def first(self) -> Spill:
        """Takes the keys of the snapshot."""
        return Spill(self._folder, "given", self._key, self.partitions, Mode.EXACT)

    def now(self) -> Spill:
        """Takes the keys of a round."""
        return Spill(self._folder, "now", self._key, self.partitions, Mode.EXACT)

    def partition(self, key: Key) -> int:
        return self._spiller.key_digest(*key)[0] & (self.partitions - 1)

    def changed(self, partition: int) -> Iterator[list[Key]]:
        """The keys of a partition that are otherwise now, a batch at a time; perhaps one twice."""
        left, right = rows_path(self._folder, "given", partition).read_bytes(), rows_path(self._folder, "now", partition).read_bytes()
        outcome = compare(left, right, b"", 0)
        del left, right
        yield from self._named("given", partition, outcome.left, _GONE_NOW)
        yield from self._named("now", partition, outcome.right, _CHANGED_NOW)

    def _named(self, side: str, partition: int, states: bytearray, wanted: bytes) -> Iterator[list[Key]]:
        if not any(states.count(state) for state in wanted):
            return
        data = names_path(self._folder, side, partition).read_bytes()
        row = pos = 0
        while row < len(states):
            hits, row, pos = pick(data, states, wanted, row, pos, BATCH)
            if hits:
                yield [(database, key) for _, database, key in hits]

    def give(self, partition: int, database: int, keys: Sequence[tuple[bytes, Seen | None]]) -> None:
        """These keys of one partition are given as they are here."""
        rows, names = self.rows(partition, database, keys)
        self._rows += rows
        self._names += names

    def correct(self, partition: int, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Keys of this partition were given otherwise than by a round. Between two partitions only; see ``rows``."""
        for row, name in rows:
            self._rows += row
            self._names += name
        self.advance(partition, whole=False)

    def rows(self, partition: int, database: int, keys: Sequence[tuple[bytes, Seen | None]]) -> tuple[bytes, bytes]:
        """Rows and names of these keys of one partition."""
        there = [(key, seen) for key, seen in keys if seen is not None]
        rows, names = self._spiller.rows[partition], self._spiller.names[partition]
        if there:
            if not self._assembled.version:
                self._decoder.feed(self._assembled.begin(there[0][1].payload))
            self._decoder.feed(self._assembled.page(database, there))
        odd = {key for _, key, _ in self._assembled.odd}
        self._assembled.odd.clear()
        for key, seen in keys:
            if seen is None or key in odd:
                rows += _NOT_THERE.pack(self._spiller.key_digest(database, key), bytes(16), -1, -1)
                names += NAME.pack(database, len(key)) + key
        made = bytes(rows), bytes(names)
        rows.clear()
        names.clear()
        return made

    def advance(self, partition: int, *, whole: bool = True) -> None:
        """``whole``: all of the partition's changes were given, so that ``now`` is what the next round is compared with; else the old rows stay, behind those
        of the keys that were."""
        side = "now" if whole else "given"
        for path, head in ((rows_path, self._rows), (names_path, self._names)):
            new, base = path(self._folder, side, partition), path(self._folder, "given", partition)
            if head:
                joined = base.with_suffix(f"{base.suffix}-new")
                with joined.open("wb") as out, new.open("rb") as rest:
                    out.write(head)
                    shutil.copyfileobj(rest, out, 1 << 20)
                joined.replace(base)
                if whole:
                    new.unlink()
            elif whole:
                new.replace(base)
            head.clear()
