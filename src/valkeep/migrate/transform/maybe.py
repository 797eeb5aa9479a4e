"""A set that may say yes wrongly, never no wrongly, in little memory: a Bloom filter over (database, key).

Used for the keys that lost fields on the way: a command that depends on a lost field must not run verbatim on the target. A false
yes costs one key's re-copy, for which the stream waits; a false no would cost correctness.

It grows in layers, each twice the one before and asked one after the other; a layer takes keys until it has sixteen bits for each, which keeps its
false yeses near 0.5%. The last one takes whatever comes: 500,000 keys need 1 MiB, five million 15, and no number of keys more than 31.
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["MaybeSet"]

_FIRST_BITS = 1 << 23
_LAYERS = 5
_BITS_FOR_A_KEY = 16


class _Layer:
    """``mask``: for a position; ``room``: keys that it still takes well."""

    def __init__(self, bits: int) -> None:
        self.mask = bits - 1
        self.room = bits // _BITS_FOR_A_KEY
        self.bits = bytearray(bits // 8)

    def probes(self, one: int, step: int) -> tuple[int, int, int]:
        return one & self.mask, (one + step) & self.mask, (one + 2 * step) & self.mask


class MaybeSet:
    """``add`` and ``in`` over (database, key); without memory until something was added."""

    def __init__(self) -> None:
        self._layers: list[_Layer] = []
        self._names: dict[int, int] = {}  # a database -> the number that its keys were added under, since databases were swapped

    def swap(self, one: int, other: int) -> None:
        """SWAPDB: what was said of one database now holds for the other."""
        names = self._names
        names[one], names[other] = names.get(other, other), names.get(one, one)

    def add(self, database: int, key: bytes) -> None:
        layers = self._layers
        if not layers or (layers[-1].room <= 0 and len(layers) < _LAYERS):
            layers.append(_Layer(_FIRST_BITS << len(layers)))
        layer = layers[-1]
        fresh = False
        for probe in layer.probes(*self._hashes(database, key)):
            bit = 1 << (probe & 7)
            fresh = fresh or not layer.bits[probe >> 3] & bit
            layer.bits[probe >> 3] |= bit
        layer.room -= fresh

    def __contains__(self, item: tuple[int, bytes]) -> bool:
        if not self._layers:
            return False
        hashes = self._hashes(*item)
        return any(all(layer.bits[probe >> 3] >> (probe & 7) & 1 for probe in layer.probes(*hashes)) for layer in self._layers)

    def _hashes(self, database: int, key: bytes) -> tuple[int, int]:
        first = crc32(key, self._names.get(database, database))
        return first, crc32(key, first ^ 0x9E3779B9) | 1
