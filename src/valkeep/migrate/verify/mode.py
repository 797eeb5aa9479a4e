"""What the target should have made of the source's fields that expire."""

from __future__ import annotations

from enum import StrEnum

from valkeep.client.server_info import ServerInfo
from valkeep.migrate.transform.target import FieldTtl

__all__ = ["Mode"]


class Mode(StrEnum):
    """The f of "T = f(S)"; the values are those of `wire.spiller.policy`."""

    EXACT = "exact"  # they are there, and expire
    KEEP_FIELD = "keep-field"  # they are there, for ever
    DROP_FIELD = "drop-field"  # they are not there

    @classmethod
    def of(cls, policy: FieldTtl, target: ServerInfo) -> Mode:
        """Whatever the policy: from Valkey 9 (or Redis 7.4) on a target has fields that expire."""
        if policy is FieldTtl.REFUSE or target.version >= ((9, 0) if target.kind == "valkey" else (7, 4)):
            return cls.EXACT
        return cls.KEEP_FIELD if policy is FieldTtl.KEEP_FIELD else cls.DROP_FIELD
