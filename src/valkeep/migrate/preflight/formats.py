"""Which snapshot format a release writes and reads, and what native replication between two releases would do.

Source: the servers' rdb.h; the failures were observed on running servers (Redis 7.4.1, 8.0.2, 8.4.0 into Valkey 8.0.1, 8.1.1, 9.1.x).

    Redis    2.8-3.0: 6   3.2: 7   4.0: 8   5.0-6.2: 9   7.0: 10   7.2: 11   7.4-8.4: 12   8.6: 13   8.8: 14   8.10: 15     REDIS0012
    Valkey   7.2-8.1: 11 (REDIS0011)                                         9.0-9.1: 80 (VALKEY080)   9.2: 81

A Valkey calls 12 to 79 foreign. ``rdb-version-check relaxed`` exists since 8.1, but only 9.0 and later then load version 12, and no release
loads a hash with field TTLs from Redis: where it is tried, the server process *exits*.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "NEWEST_TESTED_REDIS",
    "NEWEST_TESTED_VALKEY",
    "OLDEST_SOURCE",
    "OLDEST_TESTED",
    "Native",
    "has_field_ttl",
    "native",
    "rdb_version",
    "signature",
    "writers",
]

OLDEST_SOURCE = (2, 8)  # PSYNC came with 2.8
OLDEST_TESTED = (7, 0)
NEWEST_TESTED_REDIS = (8, 4)
NEWEST_TESTED_VALKEY = (9, 1)

_REDIS = (
    ((8, 10), 15),
    ((8, 8), 14),
    ((8, 6), 13),
    ((7, 4), 12),
    ((7, 2), 11),
    ((7, 0), 10),
    ((5, 0), 9),
    ((4, 0), 8),
    ((3, 2), 7),
    ((2, 6), 6),
)
_VALKEY = (((9, 2), 81), ((9, 0), 80), ((7, 2), 11))


def rdb_version(kind: str, version: tuple[int, ...]) -> int | None:
    """The RDB version that this release writes; None for a release newer than this table, older than 2.6, or another product."""
    if kind not in ("redis", "valkey"):
        return None
    if version[:2] > ((8, 11) if kind == "redis" else (9, 2)):
        return None
    return next((number for first, number in (_REDIS if kind == "redis" else _VALKEY) if version >= first), None)


def writers(kind: str, number: int) -> tuple[tuple[int, ...], str]:
    """The first release that writes this RDB version, and all that do, for people; ``((), "")`` where the version is not known."""
    table = _REDIS if kind == "redis" else _VALKEY
    product = "Redis" if kind == "redis" else "Valkey"
    for place, (first, written) in enumerate(table):
        if written == number:
            until = f" and later, before {'.'.join(map(str, table[place - 1][0]))}" if place else " or later"
            return first, f"{product} {'.'.join(map(str, first))}{until}"
    return (), ""


def signature(kind: str, number: int) -> str:
    """The first nine bytes of a snapshot, for people."""
    return f"VALKEY{number:03}" if kind == "valkey" and number >= 80 else f"REDIS{number:04}"


def has_field_ttl(kind: str, version: tuple[int, ...]) -> bool:
    """Whether hash fields can have TTLs there."""
    return version >= ((9, 0) if kind == "valkey" else (7, 4))


@dataclass(frozen=True, slots=True)
class Native:
    """What ``REPLICAOF source`` on the target would do: ``works``, and why (not)."""

    works: bool
    why: str


def native(
    source_kind: str,
    source_rdb: int,
    target_version: tuple[int, ...],
    version_check: str | None,
    field_ttl_hashes: int | None,
) -> Native:
    """``version_check``: the target's ``rdb-version-check``; ``field_ttl_hashes``: how many hashes of the source have field TTLs, None unknown."""
    target = f"Valkey {'.'.join(map(str, target_version))}"
    reads = rdb_version("valkey", target_version) or 81
    mark = signature(source_kind, source_rdb)
    if mark.startswith("VALKEY"):
        if source_rdb <= reads:
            return Native(True, f"{target} reads {mark}")
        if reads < 80:
            return Native(
                False,
                f'{target} does not know the magic VALKEY: it logs "Wrong signature trying to load DB from file" and tries again for ever',
            )
        return Native(False, f'{target} refuses it with "Can\'t handle RDB format version {source_rdb}" and tries again for ever')
    if source_rdb <= 11:
        return Native(True, f"{target} reads {mark}")
    refusal = (
        f'{target} calls RDB versions 12 to 79 foreign: it refuses with "Can\'t handle RDB format version {source_rdb}" and tries again for ever; '
        'managed services report the same as "invalid RDB received"'
    )
    if version_check != "relaxed" or reads < 80:
        return Native(False, refusal)
    if field_ttl_hashes == 0:
        return Native(True, f"{target} has rdb-version-check relaxed, and no hash has field TTLs; the first one would break it")
    return Native(
        False, f"{target} has rdb-version-check relaxed, but refuses hashes with field TTLs (type 25) after it has deleted its own data"
    )
