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

The file is append-only and flushed at every phase change; a ledger that cannot be written stops the migration (nothing unrecorded
crosses).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO

from valkeep.errors import ValkeepError

__all__ = ["Ledger", "LedgerCounts"]

SCHEMA = 1

LedgerCounts = Counter[tuple[str, str, str]]
"""(action, what, policy) -> how many things (the sum of ``count``)."""


def _text(key: bytes | None) -> str:
    """The two JSON members that name a key: ``"key":…,"key_hex":…``."""
    if key is None:
        return '"key":null,"key_hex":null'
    try:
        return f'"key":{json.dumps(key.decode())},"key_hex":null'
    except UnicodeDecodeError:
        return f'"key":null,"key_hex":"{key.hex()}"'


class Ledger:
    """An append-only JSON-lines file and its running counts. ``path = None`` keeps the counts only."""

    def __init__(self, path: Path | None, *, watch: Callable[[str, str, str, bytes | None], None] | None = None) -> None:
        self.path = path
        self.counts: LedgerCounts = Counter()
        self.lines = 0
        self._watch = watch
        self._heads: dict[tuple[str, str, str, str], str] = {}
        self._file: IO[str] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", buffering=1 << 16)

    def record(
        self,
        action: str,
        what: str,
        why: str,
        *,
        policy: str = "",
        key: bytes | None = None,
        database: int = 0,
        source_offset: int = -1,
        count: int = 1,
    ) -> None:
        """Write one line. Raises ``ValkeepError`` when the file can no longer be written (disk full)."""
        self.counts[action, what, policy] += count
        self.lines += 1
        if self._file is not None:
            # The constant part of a line is formatted once a kind: bulk degradations write hundreds of thousands of lines.
            head = self._heads.get((action, what, why, policy))
            if head is None:
                members = json.dumps({"schema": SCHEMA, "action": action, "what": what, "why": why, "policy": policy})
                head = self._heads[action, what, why, policy] = members[:-1]
            try:
                self._file.write(f'{head},{_text(key)},"database":{database},"source_offset":{source_offset},"count":{count}}}\n')
            except OSError as error:
                raise self._unwritable(error) from error
        if self._watch is not None and action in {"refused", "held", "recopied"}:
            self._watch(action, what, why, key)

    def flush(self) -> None:
        """Hand what was recorded to the operating system."""
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                raise self._unwritable(error) from error

    def close(self) -> None:
        """Flush and close; further ``record`` calls only count."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None

    def summary(self) -> list[dict[str, object]]:
        """The counts as rows ``{action, what, policy, count}``, the most frequent first: what reports and JSON show."""
        rows = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return [{"action": a, "what": w, "policy": p, "count": n} for (a, w, p), n in rows]

    def _unwritable(self, error: OSError) -> ValkeepError:
        return ValkeepError(
            f"the ledger {self.path} cannot be written: {error.strerror}",
            remedy="free space on that disk or choose another --report folder, then start again; nothing unrecorded was sent",
            code="VK-LEDGER-WRITE",
        )
