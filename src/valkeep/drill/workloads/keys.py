"""The keys that drills write: what each is called, and nothing else.

Every key carries a hash tag, so that a batch of operations goes to one node of a cluster; the tags' slots are spread evenly::

    j:{tag}      journal: RPUSH; the reply is the operation's place      c:{tag}      counter: INCR
    r:{tag}:N    register: SET, GET, DEL                                 s:{tag}      set: SADD
    x:{tag}:a,b  two keys that are always written together: MULTI, EVAL  q:{tag}      stream, read by the group g
    p:{tag}      pub/sub channel
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from valkeep.topology.slots import SLOTS, slots_of, tag_for

__all__ = [
    "FOREIGN",
    "GROUP",
    "REGISTERS",
    "TAGS",
    "all_of",
    "channel",
    "counter",
    "journal",
    "pair",
    "register",
    "stream",
    "tags_for",
    "tags_in",
    "uniques",
]

TAGS: Final = 12
REGISTERS: Final = 16  # of one tag
GROUP: Final = b"g"
FOREIGN: Final = b"valkeep-"
"""How tags begin on a topology that is not ours, so that its owner knows whose keys these are."""


def tags_for(count: int = TAGS) -> tuple[bytes, ...]:
    """``count`` tags whose slots divide the 16384 evenly; each shard of an evenly sliced cluster gets the same number when it divides ``count``."""
    return tuple(tag_for((2 * number + 1) * SLOTS // (2 * count)) for number in range(count))


def tags_in(slices: Sequence[Sequence[tuple[int, int]]], count: int = TAGS) -> tuple[bytes, ...]:
    """Tags for somebody else's topology: at least one for each shard, ``count`` or some more in all, spread evenly over the slots that the shard has."""
    each = -(-count // len(slices))
    found: list[bytes] = []
    for spans in slices:
        slots = list(slots_of(spans))
        found += [tag_for(slot, FOREIGN) for slot in dict.fromkeys(slots[(2 * at + 1) * len(slots) // (2 * each)] for at in range(each))]
    return tuple(found)


def all_of(tag: bytes) -> tuple[bytes, ...]:
    """Every key that a load may write with this tag."""
    two = pair(tag)
    return (
        journal(tag),
        counter(tag),
        uniques(tag),
        two + b":a",
        two + b":b",
        stream(tag),
        *(register(tag, at) for at in range(REGISTERS)),
    )


def journal(tag: bytes) -> bytes:
    return b"j:{%s}" % tag


def register(tag: bytes, number: int) -> bytes:
    return b"r:{%s}:%d" % (tag, number)


def counter(tag: bytes) -> bytes:
    return b"c:{%s}" % tag


def uniques(tag: bytes) -> bytes:
    """The set."""
    return b"s:{%s}" % tag


def pair(tag: bytes) -> bytes:
    """What a transaction is named by in a history; the keys are this and ``:a``, ``:b``."""
    return b"x:{%s}" % tag


def stream(tag: bytes) -> bytes:
    return b"q:{%s}" % tag


def channel(tag: bytes) -> bytes:
    return b"p:{%s}" % tag
