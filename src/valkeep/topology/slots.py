"""Which of the 16384 slots a key belongs to, and sets of slots as ranges.

A key's slot is CRC16 (XMODEM) of the key modulo 16384, or of what stands between the first ``{`` and the next ``}`` where that is
not empty (the hash tag). Source: the cluster specification of Valkey, section "Key distribution model".
"""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from valkeep.errors import RemoteProtocolError

__all__ = ["SLOTS", "Ranges", "even_ranges", "key_slot", "ranges_of", "slots_of", "tag_for"]

SLOTS: Final = 16384

Ranges = tuple[tuple[int, int], ...]
"""Slots as ranges (first, last), both inclusive; (): none."""


def key_slot(key: bytes) -> int:
    """0 … 16383."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) & (SLOTS - 1)


def even_ranges(shards: int) -> tuple[tuple[int, int], ...]:
    """``shards`` contiguous ranges (first, last), both inclusive, that cover all slots and differ by one slot at most. 1 … 16384 shards."""
    edges = [number * SLOTS // shards for number in range(shards + 1)]
    return tuple((first, after - 1) for first, after in itertools.pairwise(edges))


def ranges_of(slots: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """The fewest inclusive ranges that hold exactly these slots, ascending."""
    found: list[tuple[int, int]] = []
    for slot in sorted(set(slots)):
        if found and found[-1][1] == slot - 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return tuple(found)


def slots_of(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Every slot of these inclusive ranges. Raises ``RemoteProtocolError`` for one outside 0 … 16383."""
    for first, last in ranges:
        if not 0 <= first <= last < SLOTS:
            raise RemoteProtocolError(f"{first}-{last} is no range of slots", remedy="slots are 0 … 16383; who sent this is no Valkey")
        yield from range(first, last + 1)


_tags: Final[dict[bytes, dict[int, bytes]]] = {}  # prefix → slot → its text, for all texts tried so far
_untried: Final[dict[bytes, Iterator[int]]] = {}


def tag_for(slot: int, prefix: bytes = b"") -> bytes:
    """The shortest decimal text, after ``prefix``, that hashes to ``slot``: ``{tag}`` in a key puts it there."""
    if not 0 <= slot < SLOTS:
        raise RemoteProtocolError(f"{slot} is no slot", remedy="slots are 0 … 16383")
    tags = _tags.setdefault(prefix, {})
    untried = _untried.setdefault(prefix, itertools.count())
    while slot not in tags:
        text = b"%b%d" % (prefix, next(untried))
        tags.setdefault(key_slot(text), text)
    return tags[slot]
