"""What cannot be said to a target at all: the keys it writes are copied again, or, where nobody knows them, the stream is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from valkeep.migrate.transform.outcomes import Hold, Outcome, Recopy, Situation
from valkeep.wire.commands import VALKEY_COMMANDS, keys_of

if TYPE_CHECKING:
    from valkeep.migrate.transform.target import TargetFormat

__all__ = ["known", "recopy"]


def known(target: TargetFormat) -> frozenset[bytes]:
    """The replicable names of the newest table that is not newer than the target."""
    if not target.valkey:
        return _redis(target.version)
    return VALKEY_COMMANDS[max(version for version in VALKEY_COMMANDS if version <= target.version[:2])]


def _redis(version: tuple[int, ...]) -> frozenset[bytes]:
    """Of a Redis: what both knew when they parted, and what they have in common since, by the same name with the same meaning."""
    return VALKEY_COMMANDS[7, 2].union(*(names for since, names in _REDIS_SINCE.items() if since <= version))


_REDIS_SINCE: Final = {
    (7, 4): frozenset({b"HPEXPIREAT", b"HEXPIREAT", b"HPEXPIRE", b"HEXPIRE", b"HPERSIST"}),
    (8, 0): frozenset({b"HSETEX", b"HGETDEL"}),
}


def recopy(args: list[bytes], situation: Situation) -> Outcome:
    """Copy the keys that it writes again; a rule, for commands whose effect depends on state that the target does not have, or on an unknown name."""
    keys = keys_of(args, situation.database)
    if keys is not None and keys.written:
        return Recopy(keys.written)
    name = args[0].upper().decode("ascii", "replace")
    return Hold(
        f"{name} is not known to {situation.target.name}, and the keys it writes are not known to Valkeep",
        "move to a Valkey version or with a module that has this command, or stop using it on the source and start again with a full sync",
    )
