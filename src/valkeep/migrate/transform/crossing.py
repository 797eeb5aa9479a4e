"""What becomes of commands that a cluster refuses: each command there may touch keys of one slot only.

    DEL, UNLINK, MSET, MSETNX    the same for the keys of each slot (MSETNX is replicated when it set them all: MSET)
    SMOVE                        SREM and SADD: it is replicated when it moved the member
    others                       the keys that it writes are copied again: RENAME, COPY, LMOVE, SUNIONSTORE … of several slots, SORT … BY or GET,
                                 and commands of more words than a script of the target can hand on (`MOST_WORDS`)
    EVAL, EVALSHA, FCALL         hold: nobody knows what keys they write. Servers since Redis 5 replicate what came of them instead
    other databases              hold: a cluster has one

So what comes out of a channel for a cluster has one slot for each command, whoever owns it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from valkeep.migrate.transform.outcomes import Drop, Hold, Outcome, Pass, Recopy, Replace, Situation
from valkeep.migrate.transform.unsayable import recopy
from valkeep.topology.slots import key_slot
from valkeep.wire.commands import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MOST_WORDS", "NO_DATABASE", "PLAIN", "SINGLE", "crossed"]

MOST_WORDS: Final = 5_000
"""Of one command: Lua hands on fewer than 8,000 values at a time."""

SINGLE: Final = frozenset(
    b"""SET SETNX SETEX PSETEX GETSET GETDEL GETEX APPEND SETRANGE INCR DECR INCRBY DECRBY INCRBYFLOAT SETBIT EXPIRE EXPIREAT PEXPIRE PEXPIREAT PERSIST
    LPOP RPOP LINSERT LSET LREM LTRIM ZINCRBY ZPOPMIN ZPOPMAX ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE HSETNX HINCRBY HINCRBYFLOAT XTRIM XSETID
    PING MULTI EXEC FLUSHDB FLUSHALL PUBLISH SPUBLISH SCRIPT""".split()
)
"""Names of one key and few words, or without keys: they need no look."""

PLAIN: Final[Mapping[bytes, int]] = dict.fromkeys((b"LPUSH", b"RPUSH", b"SADD", b"SREM", b"ZREM", b"HDEL"), 3) | {
    b"DEL": 2,
    b"UNLINK": 2,
    b"ZADD": 4,
    b"HSET": 4,
}
"""Names that need none with so many words: one key, one element."""

NO_DATABASE: Final = (
    "the target is a cluster, which has database 0 only",
    "move the data of other databases to targets of their own, keep writers from them, then start the migration again",
)

_SCRIPTS: Final = frozenset({b"EVAL", b"EVALSHA", b"FCALL"})


def crossed(outcome: Outcome, args: list[bytes], situation: Situation) -> Outcome:
    """What to send to a cluster where ``outcome`` is right for a single server. Raises IndexError or ValueError on arguments that make no sense."""
    match outcome:
        case Pass():
            pieces = _pieces(args, situation)
            return outcome if pieces is None else pieces
        case Replace(instead, note):
            sent: list[tuple[bytes, ...]] = []
            for command in instead:
                pieces = _pieces([*command], situation)
                if pieces is None:
                    sent.append(command)
                elif isinstance(pieces, Replace):
                    sent += pieces.instead
                else:
                    return recopy(args, situation)
            return Replace(tuple(sent), note)
        case Drop() | Recopy() | Hold():
            return outcome


def _pieces(args: list[bytes], situation: Situation) -> Replace | Recopy | Hold | None:
    """None: it can go as it is."""
    name = args[0].upper()
    if name in _SCRIPTS:
        return Hold(
            f"{name.decode()} at source offset {situation.offset}: a cluster takes no script whose keys nobody knows",
            "let the source replicate what scripts do instead (lua-replicate-commands yes, Redis 3.2 to 6), then start again with a full sync",
        )
    keys = keys_of(args, situation.database)
    if keys is None:
        return _unsayable(args, situation)
    slots = {key_slot(key) for _, key in (*keys.written, *keys.read)}
    if len(slots) > 1:
        if name in (b"DEL", b"UNLINK"):
            return Replace(tuple(_by_slot(name, ((key,) for key in args[1:]))))
        if name in (b"MSET", b"MSETNX"):
            return Replace(tuple(_by_slot(b"MSET", zip(args[1::2], args[2::2], strict=True))))
        if name == b"SMOVE":
            return Replace(((b"SREM", args[1], args[3]), (b"SADD", args[2], args[3])))
    elif len(args) <= MOST_WORDS and not (name == b"SORT" and any(b"*" in arg for arg in args[2:])):
        return None
    elif name in (b"DEL", b"UNLINK"):
        return Replace(tuple(_by_slot(name, ((key,) for key in args[1:]))))
    return _unsayable(args, situation)


def _unsayable(args: list[bytes], situation: Situation) -> Recopy | Hold:
    outcome = recopy(args, situation)
    assert isinstance(outcome, Recopy | Hold)
    return outcome


def _by_slot(name: bytes, parts: Iterable[tuple[bytes, ...]]) -> Iterable[tuple[bytes, ...]]:
    """Commands of this name for these parts, each of which begins with a key; none too long."""
    found: dict[int, list[bytes]] = {}
    for part in parts:
        words = found.setdefault(key_slot(part[0]), [])
        if len(words) + len(part) >= MOST_WORDS:
            yield (name, *words)
            words.clear()
        words += part
    for words in found.values():
        yield (name, *words)
