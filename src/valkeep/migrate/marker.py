"""The offset that delivery by push keeps in the target, in one transaction with the data that leads up to it.

    valkeep:push:offset          "<40 hex digits of the channel's replication id>:<offset>:<database>"    a string in database 0
    valkeep:push:offset{<tag>}   the same, of one shard of a cluster: the tag puts it into a slot that this shard owns
    valkeep:push:offset{<tag>}:<lane>   the same, where the source is a cluster, too: each of its shards has its own

So the target itself knows how far it is, whatever broke: data and marker were written together, or neither was. While it is there, the target is not
promoted; the promotion (and an abort) removes it. Verification does not count it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from valkeep.topology.slots import tag_for

if TYPE_CHECKING:
    from valkeep.client.connection import Connection

__all__ = ["DATABASE", "KEY", "Marker", "is_marker", "key_in", "read"]

KEY: Final = b"valkeep:push:offset"
DATABASE: Final = 0
_KEYS: Final = re.compile(re.escape(KEY) + rb"(\{\d+\}(:\w+)?)?")


@dataclass(frozen=True, slots=True)
class Marker:
    """``replid``: of the channel; ``offset``: the target has the channel's stream up to here; ``database``: selected there."""

    replid: str
    offset: int
    database: int = 0

    @classmethod
    def parse(cls, value: bytes) -> Self | None:
        """None where it is not one of ours."""
        parts = value.split(b":")
        if len(parts) != 3 or len(parts[0]) != 40 or not parts[1].isdigit() or not parts[2].isdigit():
            return None
        return cls(parts[0].decode("ascii", "replace"), int(parts[1]), int(parts[2]))

    @property
    def value(self) -> bytes:
        return f"{self.replid}:{self.offset}:{self.database}".encode()


def is_marker(database: int, key: bytes) -> bool:
    """Whether this is no key of anybody's data."""
    return database == DATABASE and _KEYS.fullmatch(key) is not None


def key_in(slot: int, lane: str = "") -> bytes:
    """The marker's key of a cluster's shard that owns this slot. ``lane``: which shard of the source it is of, where that is a cluster."""
    return KEY + b"{" + tag_for(slot) + b"}" + (b":" + lane.encode() if lane else b"")


async def read(target: Connection, key: bytes = KEY) -> bytes | None:
    """Its value as it stands there; None where there is none. Raises ``ServerError`` for a key of that name that is no string."""
    _, value = await target.execute([("SELECT", DATABASE), ("GET", key)])
    if isinstance(value, Exception):
        raise value
    assert value is None or isinstance(value, bytes)
    return value
