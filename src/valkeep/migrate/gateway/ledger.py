"""The ledger: what was changed, degraded or refused on the way, and why — one JSON line for each, and counts for the report.

A migration that changes something silently is worse than one that stops. So whatever reaches the target in another form than the
source had it is written here before it is sent: action, what, why, the policy that allowed it, the key, its database and the source
offset it happened at. Conversions that lose nothing (a hash written in the target's own encoding) are counted, one line a kind;
whatever loses something has a line a key.

A line (schema 1)::

    {"schema":1,"action":"degraded","what":"field-ttl","why":"…","policy":"keep-field","key":"cart:7","key_hex":null,
     "database":0,"source_offset":812,"count":3}

``key`` is text where the key is valid UTF-8; otherwise it is null and ``key_hex`` holds its bytes. ``count`` is how many things of
that kind the line stands for (fields of one hash, records of one conversion).

Whoever watches is told by events (``LedgerEntry``), which are fewer: ten million degraded fields are one event in a second.

The file is append-only and flushed at every phase change; a ledger that cannot be written stops the migration (nothing unrecorded
crosses).
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from valkeep.errors import ValkeepError
from valkeep.report.events import Emit, LedgerEntry

if TYPE_CHECKING:
    from valkeep.migrate.transform.notes import LedgerNote

__all__ = ["Kind", "Ledger", "LedgerCounts", "LedgerMark", "summary_of"]

SCHEMA = 1

TELL_SECONDS: Final = 1.0
AT_ONCE: Final = frozenset({"held", "refused", "recopied"})
"""What a person may have to act on does not wait for ``tell``, unless its kind was told within the last second."""

Kind = tuple[str, str, str]
"""(action, what, policy)."""

LedgerCounts = Counter[Kind]
"""How many things of each kind (the sum of ``count``)."""


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """How far a ledger was written: its ``size`` in bytes, and the counts of what stands there."""

    size: int = 0
    counts: tuple[tuple[Kind, int], ...] = ()


def _text(key: bytes | None) -> str:
    """The two JSON members that name a key: ``"key":…,"key_hex":…``."""
    if key is None:
        return '"key":null,"key_hex":null'
    try:
        return f'"key":{json.dumps(key.decode())},"key_hex":null'
    except UnicodeDecodeError:
        return f'"key":null,"key_hex":"{key.hex()}"'


class Ledger:
    """An append-only JSON-lines file and its running counts. ``path = None`` keeps the counts only; ``emit``, ``clock``: who is told, and when it is.
    ``since``: go on with the file of a Valkeep that was killed; what it wrote behind that is cut off, because it will be found again."""

    def __init__(
        self,
        path: Path | None,
        emit: Emit = lambda _event: None,
        clock: Callable[[], float] = lambda: 0.0,
        since: LedgerMark | None = None,
    ) -> None:
        self.path = path
        self.counts: LedgerCounts = Counter(dict(since.counts) if since is not None else {})
        self.lines = 0
        self._marked = (-1, LedgerMark())  # the lines when the mark was made
        self._flushed = 0  # lines
        self._size = 0
        self._emit = emit
        self._clock = clock
        self._untold: dict[Kind, LedgerNote] = {}  # the last one of each kind that was recorded since it was told
        self._told: LedgerCounts = Counter(self.counts)
        self._told_at: dict[Kind, float] = {}
        self._heads: dict[tuple[str, str, str, str], str] = {}
        self._file: IO[str] | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8", buffering=1 << 16)
                self._size = os.fstat(self._file.fileno()).st_size
                if since is not None:
                    self._cut(path, since.size)
            except OSError as error:
                raise self._unwritable(error) from error

    def record(self, note: LedgerNote) -> None:
        """Write one line. Raises ``ValkeepError`` when the file can no longer be written (disk full)."""
        action, what, why, policy, key, database, source_offset, count = note
        kind = (action, what, policy)
        self.counts[kind] += count
        self.lines += 1
        if self._file is not None:
            # The constant part of a line is formatted once a kind: bulk degradations write hundreds of thousands of lines.
            head = self._heads.get((action, what, why, policy))
            if head is None:
                members = json.dumps({"schema": SCHEMA, "action": action, "what": what, "why": why, "policy": policy})
                head = self._heads[action, what, why, policy] = members[:-1]
            line = f'{head},{_text(key)},"database":{database},"source_offset":{source_offset},"count":{count}}}\n'
            self._size += len(line)  # it is ASCII
            try:
                self._file.write(line)
            except OSError as error:
                raise self._unwritable(error) from error
        self._untold[kind] = note
        if action in AT_ONCE:
            self.tell()

    def tell(self) -> None:
        """Emit what was recorded since: one event for each kind, at most one in a second, with the number of things and the last of them."""
        if self._untold:
            now = self._clock()
            for kind in [kind for kind in self._untold if now - self._told_at.get(kind, -math.inf) >= TELL_SECONDS]:
                self._tell(kind, now)

    def _tell(self, kind: Kind, now: float) -> None:
        count = self.counts[kind] - self._told[kind]
        self._told[kind] = self.counts[kind]
        self._told_at[kind] = now
        note = self._untold.pop(kind)
        self._emit(LedgerEntry(now, *kind[:2], note.why, note.policy, note.key, note.database, note.source_offset, count))

    def mark(self) -> LedgerMark:
        """How far it is written now."""
        if self._marked[0] != self.lines:
            self._marked = self.lines, LedgerMark(self._size, tuple(self.counts.items()))
        return self._marked[1]

    def flush(self) -> None:
        """Hand what was recorded to the operating system."""
        if self._file is not None and self._flushed != self.lines:
            try:
                self._file.flush()
            except OSError as error:
                raise self._unwritable(error) from error
            self._flushed = self.lines

    def close(self) -> None:
        """Tell what is left, flush and close; further ``record`` calls only count."""
        now = self._clock()
        for kind in list(self._untold):
            self._tell(kind, now)
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None

    def summary(self) -> list[dict[str, object]]:
        """The counts as rows ``{action, what, policy, count}``, the most frequent first: what reports and JSON show."""
        return summary_of([self])

    def _cut(self, path: Path, size: int) -> None:
        if self._size < size:
            raise ValkeepError(
                f"the ledger {path} has {self._size} bytes, and {size} were written to it",
                remedy="put it back where it was; or start anew with a full sync: --fresh",
                code="VK-SPOOL-DAMAGED",
            )
        os.truncate(path, size)
        self._size = size

    def _unwritable(self, error: OSError) -> ValkeepError:
        return ValkeepError(
            f"the ledger {self.path} cannot be written: {error.strerror}",
            remedy="free space on that disk or choose another place (--report, --ledger of the gateway), then start again; nothing unrecorded was sent",
            code="VK-LEDGER-WRITE",
        )


def summary_of(ledgers: Iterable[Ledger]) -> list[dict[str, object]]:
    """As `Ledger.summary`, of several together."""
    counts: Counter[Kind] = Counter()
    for ledger in ledgers:
        counts.update(ledger.counts)
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"action": a, "what": w, "policy": p, "count": n} for (a, w, p), n in rows]
