"""What the arguments of a replicated command mean: which keys it writes and reads, and which servers know its name.

Two tables. ``keys_of`` answers from ``_RULES``: one row for a shape (``first last step`` as in COMMAND INFO, or a small function), the names that
have it beside it. ``VALKEY_COMMANDS`` says which replicable names each Valkey release knows: a name that is missing there would be dropped
by the target without a word (facts: "unknown command in the stream").

Written and read are told apart as ``COMMAND GETKEYSANDFLAGS`` does (RW, OW and RM are written), with two exceptions: XREADGROUP is
declared RO there but moves the group's position, and MOVE and COPY … DB have a second place that GETKEYS can't express, as it knows
no databases. BY and GET patterns of SORT read keys that no argument names; they are not listed.

Blocking commands replicate as their plain forms, conditional ones as what came of them; they have rows all the same, so that a server that
replicates them verbatim (Redis < 7 scripts, new releases) is understood.

Checked against the real servers' COMMAND LIST and GETKEYSANDFLAGS in tests/integration/test_commands.py. Redis 8.2–8.4 (XDELEX, XACKDEL,
DELEX, MSETEX) and Valkey 7.2, 9.0 are from their documentation and the ``since`` fields of COMMAND DOCS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["VALKEY_COMMANDS", "Keys", "Place", "keys_of", "named_by_a_key", "writes_first_argument_only"]

Place = tuple[int, bytes]  # database, key


@dataclass(frozen=True, slots=True)
class Keys:
    """``written``, ``read``: places (database, key). ``databases``: those changed as a whole (FLUSHDB, SWAPDB); ``everything``: FLUSHALL."""

    written: tuple[Place, ...] = ()
    read: tuple[Place, ...] = ()
    databases: tuple[int, ...] = ()
    everything: bool = False


Rule = Callable[[list[bytes], int], Keys]

NONE: Final = Keys()


def keys_of(args: list[bytes], database: int = 0) -> Keys | None:
    """What the command ``args`` touches when run in ``database``; None when its name, or its form, is not known.

    A command without keys (PING, PUBLISH, MULTI) has empty ``Keys``.
    """
    rule = _RULES.get(args[0].upper()) if args else None
    if rule is None:
        return None
    try:
        return rule(args, database)
    except (IndexError, ValueError):
        return None


def writes_first_argument_only(name: bytes) -> bool:
    """Whether the command of this name (in upper case) writes the key that its first argument names, and touches no other: its head says it all."""
    return _RULES.get(name) is _one


def named_by_a_key() -> frozenset[bytes]:
    """Names of the commands whose first argument is a key: where all keys have one slot, it says which."""
    return frozenset(
        name for name, rule in _RULES.items() if rule in (_one, _two, _all, _all_but_last, _every_other, _store_all, _store_one)
    )


# ---------------------------------------------------------------------------------------------------------------- shapes of keys


def _written(keys: list[bytes], database: int) -> Keys:
    if not keys:
        raise ValueError("no key")
    return Keys(written=tuple([(database, key) for key in keys]))


def _stored(target: bytes, sources: list[bytes], database: int) -> Keys:
    return Keys(written=((database, target),), read=tuple([(database, key) for key in sources]))


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 9:
        raise ValueError(text)
    return int(text)


def _counted(args: list[bytes], at: int) -> list[bytes]:
    """The keys behind their number, which stands at ``at``."""
    count = _number(args[at])
    if count > len(args) - at - 1:
        raise ValueError(count)
    return args[at + 1 : at + 1 + count]


def _no_keys(_args: list[bytes], _database: int) -> Keys:
    return NONE


def _one(args: list[bytes], database: int) -> Keys:
    """``NAME key …``"""
    return Keys(written=((database, args[1]),))


def _second(args: list[bytes], database: int) -> Keys:
    """``XGROUP CREATE key …``, ``PFDEBUG ENCODING key``; without a key (HELP) nothing."""
    return Keys(written=((database, args[2]),)) if len(args) > 2 else NONE


def _two(args: list[bytes], database: int) -> Keys:
    """``RENAME key key``: both change."""
    return _written([args[1], args[2]], database)


def _all(args: list[bytes], database: int) -> Keys:
    """``DEL key …``"""
    return _written(args[1:], database)


def _all_but_last(args: list[bytes], database: int) -> Keys:
    """``BLPOP key … timeout``"""
    return _written(args[1:-1], database)


def _every_other(args: list[bytes], database: int) -> Keys:
    """``MSET key value …``"""
    return _written(args[1::2], database)


def _store_all(args: list[bytes], database: int) -> Keys:
    """``SUNIONSTORE target source …``"""
    return _stored(args[1], args[2:], database)


def _store_one(args: list[bytes], database: int) -> Keys:
    """``ZRANGESTORE target source …``"""
    return _stored(args[1], [args[2]], database)


def _store_counted(args: list[bytes], database: int) -> Keys:
    """``ZUNIONSTORE target numkeys source … [WEIGHTS …]``"""
    return _stored(args[1], _counted(args, 2), database)


def _bitop(args: list[bytes], database: int) -> Keys:
    """``BITOP operation target source …``"""
    return _stored(args[2], args[3:], database)


def _counted_first(args: list[bytes], database: int) -> Keys:
    """``LMPOP numkeys key … LEFT``"""
    return _written(_counted(args, 1), database)


def _counted_second(args: list[bytes], database: int) -> Keys:
    """``BLMPOP timeout numkeys key … LEFT``"""
    return _written(_counted(args, 2), database)


def _script(args: list[bytes], database: int) -> Keys:
    """``EVAL script numkeys key … arg …``: what a script does with its keys is not known; numkeys may be 0."""
    return Keys(written=tuple([(database, key) for key in _counted(args, 2)]))


def _script_read(args: list[bytes], database: int) -> Keys:
    """``EVAL_RO script numkeys key … arg …``"""
    return Keys(read=tuple([(database, key) for key in _counted(args, 2)]))


def _pairs_counted(args: list[bytes], database: int) -> Keys:
    """``MSETEX numkeys key value [key value …] [NX|XX] [EX …]``"""
    count = _number(args[1])
    if not 0 < count <= (len(args) - 2) // 2:
        raise ValueError(count)
    return _written(args[2 : 2 + 2 * count : 2], database)


def _copy(args: list[bytes], database: int) -> Keys:
    """``COPY source target [DB n] [REPLACE]``"""
    target = database
    at = 3
    while at < len(args):
        if args[at].upper() == b"DB":
            at += 1
            target = _number(args[at])
        at += 1
    return Keys(written=((target, args[2]),), read=((database, args[1]),))


def _move(args: list[bytes], database: int) -> Keys:
    """``MOVE key database``"""
    return Keys(written=((database, args[1]), (_number(args[2]), args[1])))


def _sort(args: list[bytes], database: int) -> Keys:
    """``SORT key [BY p] [LIMIT a n] [GET p …] [ASC|DESC] [ALPHA] [STORE target]``: the last STORE counts."""
    target: bytes | None = None
    skip = {b"BY": 1, b"GET": 1, b"LIMIT": 2}
    at = 2
    while at < len(args):
        word = args[at].upper()
        at += 1 + skip.get(word, 0)
        if word == b"STORE":
            target = args[at]
            at += 1
    if target is None:
        return Keys(read=((database, args[1]),))
    return _stored(target, [args[1]], database)


def _georadius(args: list[bytes], database: int) -> Keys:
    """``GEORADIUS key lon lat radius unit […] [STORE|STOREDIST target]``, ``GEORADIUSBYMEMBER key member radius unit …``: the last one counts."""
    target: bytes | None = None
    at = 5
    while at < len(args) - 1:
        if args[at].upper() in (b"STORE", b"STOREDIST"):
            target = args[at + 1]
            at += 1
        at += 1
    if target is None:
        return Keys(read=((database, args[1]),))
    return _stored(target, [args[1]], database)


def _xreadgroup(args: list[bytes], database: int) -> Keys:
    """``XREADGROUP GROUP g c [COUNT n] [BLOCK ms] [NOACK] [CLAIM ms] STREAMS key … id …``"""
    skip = {b"GROUP": 2, b"COUNT": 1, b"BLOCK": 1, b"CLAIM": 1}
    at = 1
    while args[at].upper() != b"STREAMS":
        at += 1 + skip.get(args[at].upper(), 0)
    rest = args[at + 1 :]
    if not rest or len(rest) % 2:
        raise ValueError("keys without ids")
    return _written(rest[: len(rest) // 2], database)


def _migrate(args: list[bytes], database: int) -> Keys:
    """``MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH p] [AUTH2 u p] [KEYS key …]``"""
    if args[3]:
        return Keys(written=((database, args[3]),))
    skip = {b"AUTH": 1, b"AUTH2": 2}
    at = 6
    while args[at].upper() != b"KEYS":
        at += 1 + skip.get(args[at].upper(), 0)
    return _written(args[at + 1 :], database)


def _flushdb(_args: list[bytes], database: int) -> Keys:
    """``FLUSHDB [ASYNC]``"""
    return Keys(databases=(database,))


def _flushall(_args: list[bytes], _database: int) -> Keys:
    """``FLUSHALL [ASYNC]``"""
    return Keys(everything=True)


def _swapdb(args: list[bytes], _database: int) -> Keys:
    """``SWAPDB a b``"""
    return Keys(databases=(_number(args[1]), _number(args[2])))


# ------------------------------------------------------------------------------------------------------------------- the rows

_SHAPES: Final[tuple[tuple[Rule, str], ...]] = (
    # strings, counters, bits
    (_one, "SET SETNX SETEX PSETEX GETSET GETDEL GETEX APPEND SETRANGE INCR DECR INCRBY DECRBY INCRBYFLOAT SETBIT BITFIELD"),
    (_every_other, "MSET MSETNX"),
    (_pairs_counted, "MSETEX"),  # Redis 8.4, Valkey 9.1
    (_bitop, "BITOP"),
    (_one, "PFADD"),
    (_all, "PFCOUNT"),  # writes the cached cardinality, and replicates itself for it
    (_store_all, "PFMERGE"),
    (_second, "PFDEBUG"),
    # keys
    (_all, "DEL UNLINK"),
    (_one, "DELEX DELIFEQ"),  # Redis 8.4; Valkey 9.0
    (_one, "EXPIRE EXPIREAT PEXPIRE PEXPIREAT PERSIST RESTORE RESTORE-ASKING"),
    (_two, "RENAME RENAMENX"),
    (_copy, "COPY"),
    (_move, "MOVE"),
    (_migrate, "MIGRATE"),
    (_sort, "SORT"),
    (_flushdb, "FLUSHDB"),
    (_flushall, "FLUSHALL"),
    (_swapdb, "SWAPDB"),
    # lists
    (_one, "LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LINSERT LSET LREM LTRIM"),
    (_two, "RPOPLPUSH BRPOPLPUSH LMOVE BLMOVE"),
    (_all_but_last, "BLPOP BRPOP"),
    (_counted_first, "LMPOP"),
    (_counted_second, "BLMPOP"),
    # sets
    (_one, "SADD SREM SPOP"),
    (_two, "SMOVE"),
    (_store_all, "SDIFFSTORE SINTERSTORE SUNIONSTORE"),
    # sorted sets and geo
    (_one, "ZADD ZINCRBY ZREM ZPOPMIN ZPOPMAX ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE GEOADD"),
    (_store_counted, "ZUNIONSTORE ZINTERSTORE ZDIFFSTORE"),
    (_store_one, "ZRANGESTORE GEOSEARCHSTORE"),
    (_georadius, "GEORADIUS GEORADIUSBYMEMBER"),
    (_all_but_last, "BZPOPMIN BZPOPMAX"),
    (_counted_first, "ZMPOP"),
    (_counted_second, "BZMPOP"),
    # hashes
    (_one, "HSET HSETNX HMSET HINCRBY HINCRBYFLOAT HDEL"),
    (_one, "HEXPIRE HEXPIREAT HPEXPIRE HPEXPIREAT HPERSIST"),  # Redis 7.4, Valkey 9.0
    (_one, "HSETEX HGETEX HGETDEL"),  # Redis 8.0; Valkey 9.0, 9.0, 9.1
    # streams
    (_one, "XADD XDEL XTRIM XSETID XACK XCLAIM XAUTOCLAIM"),
    (_one, "XACKDEL XDELEX XCFGSET"),  # Redis 8.2, 8.2, 8.6
    (_second, "XGROUP"),
    (_xreadgroup, "XREADGROUP"),
    # vector sets (Redis 8.0)
    (_one, "VADD VREM VSETATTR"),
    # scripts and functions
    (_script, "EVAL EVALSHA FCALL"),
    (_script_read, "EVAL_RO EVALSHA_RO FCALL_RO"),
    # without keys
    (_no_keys, "PING SELECT MULTI EXEC DISCARD REPLCONF PUBLISH SPUBLISH FUNCTION SCRIPT"),
)

_RULES: Final[dict[bytes, Rule]] = {name.encode(): rule for rule, names in _SHAPES for name in names.split()}

#: Replicable names by the release of Valkey that brought them; a release knows all that came before it.
_SINCE: Final[dict[tuple[int, int], str]] = {
    (7, 2): """
        SET SETNX SETEX PSETEX GETSET GETDEL GETEX APPEND SETRANGE INCR DECR INCRBY DECRBY INCRBYFLOAT SETBIT BITFIELD BITOP MSET MSETNX
        PFADD PFCOUNT PFMERGE PFDEBUG
        DEL UNLINK EXPIRE EXPIREAT PEXPIRE PEXPIREAT PERSIST RESTORE RESTORE-ASKING RENAME RENAMENX COPY MOVE MIGRATE SORT
        FLUSHDB FLUSHALL SWAPDB
        LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LINSERT LSET LREM LTRIM RPOPLPUSH BRPOPLPUSH LMOVE BLMOVE BLPOP BRPOP LMPOP BLMPOP
        SADD SREM SPOP SMOVE SDIFFSTORE SINTERSTORE SUNIONSTORE
        ZADD ZINCRBY ZREM ZPOPMIN ZPOPMAX ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE ZINTERSTORE ZDIFFSTORE ZRANGESTORE
        BZPOPMIN BZPOPMAX ZMPOP BZMPOP
        GEOADD GEOSEARCHSTORE GEORADIUS GEORADIUSBYMEMBER
        HSET HSETNX HMSET HINCRBY HINCRBYFLOAT HDEL
        XADD XDEL XTRIM XSETID XACK XCLAIM XAUTOCLAIM XGROUP XREADGROUP
        EVAL EVALSHA FCALL FUNCTION SCRIPT
        PING SELECT MULTI EXEC REPLCONF PUBLISH SPUBLISH
        """,
    (8, 0): "",
    (8, 1): "",
    (9, 0): "HEXPIRE HEXPIREAT HPEXPIRE HPEXPIREAT HPERSIST HSETEX HGETEX DELIFEQ",
    (9, 1): "HGETDEL MSETEX",
}

VALKEY_COMMANDS: Final[dict[tuple[int, int], frozenset[bytes]]] = {
    version: frozenset(name.encode() for since, names in _SINCE.items() if since <= version for name in names.split()) for version in _SINCE
}
"""Which replicable names each Valkey release knows: every write command, those that may replicate (PFCOUNT, PUBLISH, scripts), and the
frame of the stream (PING, SELECT, MULTI, EXEC, REPLCONF). For a release in between or after, take the newest that is not newer."""
