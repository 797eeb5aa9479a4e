"""What a target can take: the facts that decide how a record or a command has to look when it is sent.

Sources: valkey rdb.h and the acceptance rules of ``rdbLoadRio`` (8.0, 8.1, 9.1), checked against running servers in
tests/integration. Valkey 7.2-8.1 read ``REDIS0011``; 9.x also reads it, but takes hashes with field TTLs only under ``VALKEY080``,
so 9.x is always addressed in its own dialect.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from valkeep.errors import Refused
from valkeep.wire.rdb import convert
from valkeep.wire.rdb.opcodes import DIALECT_REDIS, DIALECT_VALKEY

__all__ = ["FieldTtl", "TargetFormat", "convert_mode"]


class FieldTtl(StrEnum):
    """What to do with a hash field's TTL when the target has none (Valkey before 9.0)."""

    KEEP_FIELD = "keep-field"  # the field crosses, its TTL does not: it lives until the application deletes it
    DROP_FIELD = "drop-field"  # the field does not cross
    REFUSE = "refuse"  # nothing is sent


@dataclass(frozen=True, slots=True)
class TargetFormat:
    """A target's version and number of databases, and what follows from them.

    ``version``: (major, minor) or longer. ``databases``: SELECT works for 0 … databases - 1.
    """

    version: tuple[int, ...]
    databases: int = 16

    def __post_init__(self) -> None:
        if self.version < (7, 2):
            raise Refused(
                f"the target speaks version {self.display}; Valkeep moves to Valkey 7.2 and later",
                remedy="choose a Valkey target of version 7.2 or later",
                code="VK-TARGET-VERSION",
            )

    @property
    def display(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def dialect(self) -> int:
        """Which magic the snapshot gets: the same type number means different things under each."""
        return DIALECT_VALKEY if self.version >= (9, 0) else DIALECT_REDIS

    @property
    def rdb_version(self) -> int:
        return 80 if self.version >= (9, 0) else 11

    @property
    def header(self) -> bytes:
        """The first nine bytes of a snapshot: ``VALKEY080`` or ``REDIS0011``."""
        return b"VALKEY080" if self.version >= (9, 0) else b"REDIS0011"

    @property
    def field_ttl(self) -> bool:
        """Whether hash fields can have TTLs there (HASH_2, HPEXPIREAT, HSETEX)."""
        return self.version >= (9, 0)


def convert_mode(target: TargetFormat, policy: FieldTtl) -> int:
    """How hashes with field TTLs are rewritten for this target (a mode of ``wire.rdb.convert``)."""
    if target.field_ttl:
        return convert.TO_HASH_2
    return convert.DROP_FIELD if policy is FieldTtl.DROP_FIELD else convert.KEEP_FIELD
