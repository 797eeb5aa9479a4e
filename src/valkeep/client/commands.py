"""What a client has to know of a command before it may send it somewhere, or send it again: its slot, whether it only reads, whether it may be repeated.

**Repeated** means: nobody knows whether the first time did it. Reads may. Of writes only those in ``REPEATABLE``, whose second run leaves the same value
*and* gives the same answer as the first: SET may, INCR may not, and neither may DEL or SADD: the value would be the same, but the answer "0: there was
nothing to do" is wrong for who did it the first time. A caller to whom the answer means nothing says ``idempotent=True``.

What that can not see: another client's write between the two runs. A repeated SET then writes its value over the newer one. Where several clients write
one key, say ``idempotent=False``, or keep them apart (a lock, a version in the value).

A command that is in no table is a write that may not be repeated, and its first argument is its key. Both are the safe side: a wrong slot only costs a
redirection. Source of the reads: the flag ``readonly`` of COMMAND, compared with the real servers in tests/integration/test_client_commands.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from valkeep.client.connection import Argument
from valkeep.client.endpoint import Secret
from valkeep.topology.slots import key_slot
from valkeep.wire.commands import keys_of

__all__ = ["BLOCKING", "READS", "REPEATABLE", "may_be_repeated", "name_of", "only_reads", "slot_of"]

#: Commands that change nothing and may be asked of a replica.
READS: Final = frozenset(
    b"BITCOUNT BITFIELD_RO BITPOS DBSIZE DUMP EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO "
    b"GEOSEARCH GET GETBIT GETRANGE HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS KEYS LCS "
    b"LINDEX LLEN LPOS LRANGE MGET OBJECT PEXPIRETIME PFCOUNT PTTL RANDOMKEY SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO "
    b"SRANDMEMBER SSCAN STRLEN SUBSTR SUNION TOUCH TTL TYPE VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VSIM XINFO XLEN XPENDING XRANGE "
    b"XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE "
    b"ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION".split()
)

#: Writes whose second run leaves the same value and gives the same answer. (EXPIRE counts from its last run.)
REPEATABLE: Final = frozenset(b"SET SETEX PSETEX MSET HMSET SETRANGE EXPIRE PEXPIRE EXPIREAT PEXPIREAT PFMERGE".split())

#: Options that make a REPEATABLE command depend on what it finds, or answer with it.
_CONDITIONS: Final = frozenset(b"NX XX GT LT GET IFEQ IFNE IFDEQ IFDNE".split())

#: Commands about a server, not about a key; nothing is harmed when they are asked twice.
_ABOUT_SERVER: Final = frozenset(b"PING ECHO INFO TIME ROLE LASTSAVE COMMAND LOLWUT PUBSUB WAIT WAITAOF".split())

#: Commands about a server that may change it.
_TO_SERVER: Final = frozenset(b"ACL BGREWRITEAOF BGSAVE CLIENT CLUSTER CONFIG DEBUG LATENCY SAVE SCRIPT SLOWLOG".split())

#: Commands that may wait for something; they hold up all others of their connection meanwhile.
BLOCKING: Final = frozenset(b"BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP XREAD XREADGROUP WAIT WAITAOF".split())

_NO_KEY: Final = _ABOUT_SERVER | _TO_SERVER | frozenset((b"DBSIZE", b"KEYS", b"SCAN", b"RANDOMKEY", b"LOLWUT"))
_KEY_SECOND: Final = frozenset((b"OBJECT", b"XINFO", b"MEMORY"))
_KEY_AFTER_COUNT: Final = frozenset((b"SINTERCARD", b"ZDIFF", b"ZINTER", b"ZINTERCARD", b"ZUNION"))


def name_of(args: Sequence[Argument]) -> bytes:
    """The command's name in upper case."""
    return _bytes(args[0]).upper() if args else b""


def only_reads(args: Sequence[Argument]) -> bool:
    """Whether the command may be asked of a replica."""
    name = name_of(args)
    return name in READS or (name == b"MEMORY" and len(args) > 1 and _bytes(args[1]).upper() == b"USAGE")


def may_be_repeated(args: Sequence[Argument]) -> bool:
    """Whether the command may be sent again when nobody knows whether it was done."""
    name = name_of(args)
    if name in REPEATABLE:
        # keys and values may look like an option; then the command is taken for one that may not be repeated, which is the safe side
        return name in {b"MSET", b"HMSET", b"PFMERGE"} or not _CONDITIONS.intersection(_bytes(arg).upper() for arg in args[3:])
    return name in _ABOUT_SERVER or only_reads(args)


def slot_of(args: Sequence[Argument]) -> int | None:
    """The slot of the command's first key; None for a command without keys."""
    key = _first_key([_bytes(arg) for arg in args])
    return None if key is None else key_slot(key)


def _first_key(words: list[bytes]) -> bytes | None:
    name = words[0].upper() if words else b""
    if name in _NO_KEY:
        return None
    if name == b"SPUBLISH":
        return words[1] if len(words) > 1 else None  # a sharded channel lives in a slot as a key does
    keys = keys_of(words)
    if keys is not None:
        places = keys.written or keys.read
        return places[0][1] if places else None
    at = 1
    if name in _KEY_SECOND or name in _KEY_AFTER_COUNT:
        at = 2
    elif name == b"XREAD":
        at = next((number + 1 for number, word in enumerate(words) if word.upper() == b"STREAMS"), 1)
    return words[at] if at < len(words) else None


def _bytes(arg: Argument) -> bytes:
    if isinstance(arg, bytes):
        return arg
    if isinstance(arg, str):
        return arg.encode("utf-8", "surrogateescape")
    if isinstance(arg, Secret):
        return b""
    if isinstance(arg, (bytearray, memoryview)):
        return bytes(arg)
    return repr(arg).encode()
