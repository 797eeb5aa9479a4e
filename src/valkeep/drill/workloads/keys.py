"""The keys that drills write: what each is called, and nothing else.

Every key carries a hash tag, so that a batch of operations goes to one node of a cluster; the tags' slots are spread evenly::

    j:{tag}      journal: RPUSH; the reply is the operation's place      c:{tag}      counter: INCR
    r:{tag}:N    register: SET, GET, DEL                                 s:{tag}      set: SADD
    x:{tag}:a,b  two keys that are always written together: MULTI, EVAL  q:{tag}      stream, read by the group g
    p:{tag}      pub/sub channel
"""

from __future__ import annotations

from typing import Final

from valkeep.topology.slots import SLOTS, tag_for

__all__ = ["GROUP", "REGISTERS", "TAGS", "channel", "counter", "journal", "pair", "register", "stream", "tags_for", "uniques"]

TAGS: Final = 12
REGISTERS: Final = 16  # of one tag
GROUP: Final = b"g"


def tags_for(count: int = TAGS) -> tuple[bytes, ...]:
    """``count`` tags whose slots divide the 16384 evenly; each shard of an evenly sliced cluster gets the same number when it divides ``count``."""
    return tuple(tag_for((2 * number + 1) * SLOTS // (2 * count)) for number in range(count))


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
