"""A set that may say yes wrongly, never no wrongly, in fixed memory: a Bloom filter over (database, key).

Used for the keys that lost fields on the way: a command that depends on a lost field must not run verbatim on the target. A false
yes costs one key's re-copy; a false no would cost correctness. 2^23 bits and three probes keep false yeses under 1% up to 700,000 keys.
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["MaybeSet"]

_BITS = 1 << 23
_MASK = _BITS - 1


class MaybeSet:
    """``add`` and ``in`` over (database, key); 1 MiB once anything was added."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._names: dict[int, int] = {}  # a database -> the number that its keys were added under, since databases were swapped

    def swap(self, one: int, other: int) -> None:
        """SWAPDB: what was said of one database now holds for the other."""
        names = self._names
        names[one], names[other] = names.get(other, other), names.get(one, one)

    def add(self, database: int, key: bytes) -> None:
        if not self._bits:
            self._bits = bytearray(_BITS // 8)
        for probe in self._probes(database, key):
            self._bits[probe >> 3] |= 1 << (probe & 7)

    def __contains__(self, item: tuple[int, bytes]) -> bool:
        return bool(self._bits) and all(self._bits[probe >> 3] >> (probe & 7) & 1 for probe in self._probes(*item))

    def _probes(self, database: int, key: bytes) -> tuple[int, int, int]:
        first = crc32(key, self._names.get(database, database))
        second = crc32(key, first ^ 0x9E3779B9) | 1
        return first & _MASK, (first + second) & _MASK, (first + 2 * second) & _MASK
