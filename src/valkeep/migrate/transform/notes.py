"""What a translation says for the ledger: values, handed to whoever keeps it. The translations themselves write nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from valkeep.migrate.transform.target import FieldTtl

__all__ = ["LedgerNote", "TakeNote", "field_ttls_lost"]


@dataclass(frozen=True, slots=True)
class LedgerNote:
    """One line of the ledger; see ``migrate.ledger`` for its members."""

    action: str
    what: str
    why: str
    policy: str = ""
    key: bytes | None = None
    database: int = 0
    source_offset: int = -1
    count: int = 1


TakeNote = Callable[[LedgerNote], None]

_WHY_FIELD_TTL: Final[Mapping[FieldTtl, str]] = {
    FieldTtl.KEEP_FIELD: "Valkey before 9.0 has no field TTLs: the field stays until the application deletes it or the source expires it",
    FieldTtl.DROP_FIELD: "Valkey before 9.0 has no field TTLs: fields with a TTL do not cross",
    FieldTtl.REFUSE: "Valkey before 9.0 has no field TTLs",
}


def field_ttls_lost(policy: FieldTtl, key: bytes, database: int, source_offset: int, count: int) -> LedgerNote:
    """``count`` fields of this hash had a TTL that the target cannot have."""
    return LedgerNote("degraded", "field-ttl", _WHY_FIELD_TTL[policy], policy.value, key, database, source_offset, count)
