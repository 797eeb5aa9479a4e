"""What a translation says for the ledger: values, handed to whoever keeps it. The translations themselves write nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from valkeep.migrate.transform.target import FieldTtl

__all__ = ["LedgerNote", "TakeNote", "field_ttls_lost"]


class LedgerNote(NamedTuple):
    """One line of the ledger; see ``migrate.ledger`` for its members, of which ``things`` is called ``count``. A tuple, because a snapshot can make hundreds of
    thousands, and a dataclass takes as long to make as its line to write."""

    action: str
    what: str
    why: str
    policy: str = ""
    key: bytes | None = None
    database: int = 0
    source_offset: int = -1
    things: int = 1


TakeNote = Callable[[LedgerNote], None]

_WHY_FIELD_TTL: Final[Mapping[FieldTtl, str]] = {
    FieldTtl.KEEP_FIELD: "the target has no field TTLs: the field stays until the application deletes it or the source expires it",
    FieldTtl.DROP_FIELD: "the target has no field TTLs: fields with a TTL do not cross",
    FieldTtl.REFUSE: "the target has no field TTLs",
}


def field_ttls_lost(policy: FieldTtl, key: bytes, database: int, source_offset: int, count: int) -> LedgerNote:
    """``count`` fields of this hash had a TTL that the target cannot have."""
    return LedgerNote("degraded", "field-ttl", _WHY_FIELD_TTL[policy], policy.value, key, database, source_offset, count)
