"""``elasticache:ID``: a replication group named as a target, and where its API is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from valkeep.errors import UsageError

__all__ = ["GroupAddress"]

PREFIX: Final = "elasticache:"
_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")  # API reference, CreateReplicationGroup: 1 to 40 letters, digits and hyphens


@dataclass(frozen=True, slots=True)
class GroupAddress:
    """``region``, ``url``: of the API; None for what boto3 finds by itself (environment, profile, the instance's role)."""

    group: str
    region: str | None = None
    url: str | None = None

    @property
    def display(self) -> str:
        return f"{PREFIX}{self.group}"

    @staticmethod
    def names(target: str) -> bool:
        """Whether this target is of that form, and no URL."""
        return target.strip().lower().startswith(PREFIX)

    @classmethod
    def parse(cls, target: str, region: str | None = None, url: str | None = None) -> GroupAddress:
        """Raises ``UsageError``."""
        group = target.strip()[len(PREFIX) :]
        if "//" in target or ":" in group or "." in group:
            raise UsageError(
                f"{target!r} mixes two forms of a target",
                remedy="name the replication group (--target elasticache:my-group), or give a server's URL (--target valkey://host:6379), not both",
            )
        if not _ID.fullmatch(group) or group.endswith("-") or "--" in group:
            raise UsageError(
                f"{target!r} names no replication group: an id has 1 to 40 letters, digits and single hyphens, and begins with a letter",
                remedy="see the ids with: aws elasticache describe-replication-groups --query 'ReplicationGroups[].ReplicationGroupId'",
            )
        return cls(group.lower(), region or None, url or None)
