"""What a target can take: the facts that decide how a record or a command has to look when it is sent.

Sources: valkey rdb.h and the acceptance rules of ``rdbLoadRio`` (8.0, 8.1, 9.1), checked against running servers in
tests/integration. Valkey 7.2-8.1 read ``REDIS0011``; 9.x also reads it, but takes hashes with field TTLs only under ``VALKEY080``,
so 9.x is always addressed in its own dialect.

A Redis is a target on the way back only (``migrate.back``): it has all data already and gets a stream. What matters is which commands it knows,
and which payloads its RESTORE takes. 7.0 is the oldest: before it, small values are packed in ways that no newer server writes, and commands that
every newer server replicates (``XGROUP SETID … ENTRIESREAD``) are errors, which a replica does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from valkeep.errors import Refused
from valkeep.wire.rdb import convert
from valkeep.wire.rdb.opcodes import DIALECT_REDIS, DIALECT_VALKEY

__all__ = ["OLDEST_REDIS", "FieldTtl", "TargetFormat", "convert_mode"]

OLDEST_REDIS = (7, 0)
"""That can take a Valkey's stream."""


class FieldTtl(StrEnum):
    """What to do with a hash field's TTL when the target has none (Valkey before 9.0)."""

    KEEP_FIELD = "keep-field"  # the field crosses, its TTL does not: it lives until the application deletes it
    DROP_FIELD = "drop-field"  # the field does not cross
    REFUSE = "refuse"  # nothing is sent


@dataclass(frozen=True, slots=True)
class TargetFormat:
    """A target's version and number of databases, and what follows from them.

    ``version``: (major, minor) or longer, the product's own. ``databases``: SELECT works for 0 … databases - 1. ``valkey``: else it is a Redis.
    ``cluster``: keys of one slot only in each command, and one database.
    """

    version: tuple[int, ...]
    databases: int = 16
    valkey: bool = True
    cluster: bool = False

    def __post_init__(self) -> None:
        if not self.valkey and self.version < OLDEST_REDIS:
            raise Refused(
                f"Redis {self.display} cannot take what a Valkey writes: it is too old for its commands and its payloads",
                remedy="migrate without --rollback, or upgrade the source to Redis 7.0 or later before",
                code="VK-ROLLBACK-VERSION",
            )
        if self.valkey and self.version < (7, 2):
            raise Refused(
                f"the target speaks version {self.display}; Valkeep moves to Valkey 7.2 and later",
                remedy="choose a Valkey target of version 7.2 or later",
                code="VK-TARGET-VERSION",
            )

    @property
    def display(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def name(self) -> str:
        """Product and version, for people."""
        return f"{'Valkey' if self.valkey else 'Redis'} {self.display}"

    @property
    def dialect(self) -> int:
        """Which magic the snapshot gets: the same type number means different things under each."""
        return DIALECT_VALKEY if self.valkey and self.version >= (9, 0) else DIALECT_REDIS

    @property
    def rdb_version(self) -> int:
        """What it takes. A Redis after 8.4 writes newer ones and takes 12, too."""
        if self.valkey:
            return 80 if self.version >= (9, 0) else 11
        return 12 if self.version >= (7, 4) else 11 if self.version >= (7, 2) else 10

    @property
    def header(self) -> bytes:
        """The first nine bytes of a snapshot: ``VALKEY080`` or ``REDIS0011``."""
        return b"VALKEY080" if self.dialect == DIALECT_VALKEY else b"REDIS%04d" % self.rdb_version

    @property
    def field_ttl(self) -> bool:
        """Whether hash fields can have TTLs there (HASH_2 or HASH_METADATA, HPEXPIREAT)."""
        return self.version >= ((9, 0) if self.valkey else (7, 4))


def convert_mode(target: TargetFormat, policy: FieldTtl) -> int:
    """How hashes with field TTLs are rewritten for this target (a mode of ``wire.rdb.convert``)."""
    if target.field_ttl:
        return convert.TO_HASH_2 if target.valkey else convert.TO_REDIS_EX
    return convert.DROP_FIELD if policy is FieldTtl.DROP_FIELD else convert.KEEP_FIELD
