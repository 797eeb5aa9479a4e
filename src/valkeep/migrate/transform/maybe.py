"""A set that may say yes wrongly, never no wrongly, in little memory: a Bloom filter over (database, key).

Used for the keys that lost fields on the way: a command that depends on a lost field must not run verbatim on the target. A false
yes costs one key's re-copy, for which the stream waits; a false no would cost correctness.

It grows in layers, each twice the one before and asked one after the other; a layer takes keys until it has sixteen bits for each, which keeps its
false yeses near 0.5%. The last one takes whatever comes: 500,000 keys need 1 MiB, five million 15, and no number of keys more than 31.

It can be written down (``dump``) and read again (``loaded``); what changes later is told to ``changed`` in records that ``dump`` may be followed by.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from zlib import crc32

__all__ = ["MaybeSet"]

_FIRST_BITS = 1 << 23
_LAYERS = 5
_BITS_FOR_A_KEY = 16


_HEAD = struct.Struct("<cQQ")
"""A record: its kind, and two numbers. L: a layer's (mask, room), its bits follow · N: a database and its name · S: two databases were swapped ·
A: a database and the length of a key, which follows."""


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
        self.changed: Callable[[bytes], None] | None = None
        self._layers: list[_Layer] = []
        self._names: dict[int, int] = {}  # a database -> the number that its keys were added under, since databases were swapped

    def swap(self, one: int, other: int) -> None:
        """SWAPDB: what was said of one database now holds for the other."""
        names = self._names
        names[one], names[other] = names.get(other, other), names.get(one, one)
        if self.changed is not None:
            self.changed(_HEAD.pack(b"S", one, other))

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
        if self.changed is not None:
            self.changed(_HEAD.pack(b"A", database, len(key)) + key)

    def dump(self) -> Iterator[bytes]:
        for layer in self._layers:
            yield _HEAD.pack(b"L", layer.mask, max(layer.room, 0))
            yield bytes(layer.bits)
        for database, name in self._names.items():
            yield _HEAD.pack(b"N", database, name)

    @classmethod
    def loaded(cls, data: bytes) -> MaybeSet:
        """What was dumped, and what was told of it later. Raises ``ValueError`` for anything else."""
        found = cls()
        at = 0
        while at < len(data):
            if len(data) - at < _HEAD.size:
                raise ValueError("a record is cut short")
            kind, one, other = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            size = (one + 1) // 8 if kind == b"L" else other if kind == b"A" else 0
            body = data[at : at + size]
            if len(body) != size:
                raise ValueError("a record is cut short")
            at += size
            if kind == b"L":
                layer = _Layer(one + 1)
                layer.room, layer.bits = other, bytearray(body)
                found._layers.append(layer)
            elif kind == b"N":
                found._names[one] = other
            elif kind == b"S":
                found.swap(one, other)
            elif kind == b"A":
                found.add(one, body)
            else:
                raise ValueError(f"a record of kind {kind!r}")
        return found

    def __contains__(self, item: tuple[int, bytes]) -> bool:
        if not self._layers:
            return False
        hashes = self._hashes(*item)
        return any(all(layer.bits[probe >> 3] >> (probe & 7) & 1 for probe in layer.probes(*hashes)) for layer in self._layers)

    def _hashes(self, database: int, key: bytes) -> tuple[int, int]:
        first = crc32(key, self._names.get(database, database))
        return first, crc32(key, first ^ 0x9E3779B9) | 1
