"""Which keys a replication stream writes, and where: the cheap half of following a source.

A verifier that looks at two servers under load has to know every key that was written since a given offset. It needs names and offsets,
no values, so this reader gives out neither commands nor bodies: for the seventy commands that write the one key named by their first
argument – nearly all that a primary sends – it notes ``key → offset`` in the dict of the current database and steps over the rest,
whatever its size. What is left is collected for the caller, who knows the table of all commands (``wire.commands.keys_of``)::

    *3 $3 SET $5 key:1 $536870912 …    → databases[0][b"key:1"] = offset of the command's end; the body streams by
    *2 $6 SELECT $1 3                  → databases[3] is the current one
    *3 $3 DEL $1 a $1 b                → others.append(Command(0, offset, [b"DEL", b"a", b"b"]))
    *1 $4 PING                         → nothing

Arguments above 64 KiB are not kept: in ``others`` they are ``None``. Nobody can look at a key again whose name is that long, so that
the caller treats a key that is None as "anything may have changed".

An offset here is where the command *ends*: a key noted at offset o has not changed in (o, position] where ``position`` is the end of
what was fed. Memory: the names noted (the caller takes them out), one argument, and one command of ``others``.

Source: ``replicationFeedReplicas`` (RESP arrays of bulk strings, bare newlines between them as keep-alives).
"""

from __future__ import annotations

from typing import Final

from valkeep.errors import RemoteProtocolError

__all__ = ["FIRST_ARGUMENT", "NO_KEY", "Command", "WriteReader"]

FIRST_ARGUMENT: Final = frozenset(
    b"APPEND BITFIELD DECR DECRBY EXPIRE EXPIREAT GEOADD GETDEL GETEX GETSET HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HINCRBY HINCRBYFLOAT "
    b"HMSET HPERSIST HPEXPIRE HPEXPIREAT HSET HSETEX HSETNX INCR INCRBY INCRBYFLOAT LINSERT LPOP LPUSH LPUSHX LREM LSET LTRIM PERSIST "
    b"PEXPIRE PEXPIREAT PFADD PSETEX RESTORE RPOP RPUSH RPUSHX SADD SET SETBIT SETEX SETNX SETRANGE SPOP SREM XACK XACKDEL XADD "
    b"XAUTOCLAIM XCLAIM XDEL XDELEX XSETID XTRIM ZADD ZINCRBY ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE".split()
)
"""Commands that write the key named by their first argument, and no other key."""

NO_KEY: Final = frozenset(b"PING REPLCONF MULTI EXEC DISCARD PUBLISH SPUBLISH".split())
"""What a stream carries besides writes."""

MAX_KEPT: Final = 64 << 10  # bytes of an argument that is kept
_MAX_KEPT = MAX_KEPT

_SKIP = 1
_FIRST = 2
_SELECT = 3
_COLLECT = 4

_KINDS: Final = dict.fromkeys(NO_KEY, _SKIP) | dict.fromkeys(FIRST_ARGUMENT, _FIRST) | {b"SELECT": _SELECT}


class Command:
    """A command that the caller has to take apart. ``args[0]`` in upper case; an argument above 64 KiB is None."""

    __slots__ = ("args", "database", "offset")

    def __init__(self, database: int, offset: int, args: list[bytes | None]) -> None:
        self.database = database
        self.offset = offset
        self.args = args


class WriteReader:
    """``databases``: database → {key: offset}, the caller may replace or clear the dicts through ``take``. ``others``: see the essay.

    ``position``: the offset that all whole commands so far end at. ``commands``: how many there were.
    """

    def __init__(self, offset: int, database: int) -> None:
        self.databases: dict[int, dict[bytes, int]] = {}
        self.others: list[Command] = []
        self.position = offset
        self.commands = 0
        self.database = database
        self._current: dict[bytes, int] = {}
        self._rest = b""
        self._offset = offset  # of the first byte of _rest
        self._left = 0  # arguments of the command under way that have not begun
        self._skip = 0  # bytes of its argument under way, with the CRLF, that are not kept
        self._kind = 0
        self._key: bytes | None = None
        self._args: list[bytes | None] = []
        self._enter(database)

    def _enter(self, database: int) -> None:
        self.database = database
        self._current = self.databases.setdefault(database, {})

    def take(self) -> dict[int, dict[bytes, int]]:
        """What was noted so far; the reader goes on with empty dicts."""
        taken = self.databases
        self.databases = {}
        self._enter(self.database)
        return {database: keys for database, keys in taken.items() if keys}

    def noted(self) -> int:
        """Keys noted and not taken."""
        return sum([len(keys) for keys in self.databases.values()])

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream, cut anywhere. RemoteProtocolError: they are no such stream."""
        if self._rest:
            data = self._rest + data
        used = self._run(data, data)
        self._rest = data[used:]
        self._offset += used

    def _run(self, data: bytes, view: bytes) -> int:
        # `data` and `view` are the same bytes: one to slice (objects), one to index (C)
        end = len(data)
        pos = 0
        while pos < end:
            if self._skip:
                step = end - pos
                if step > self._skip:
                    step = self._skip
                self._skip -= step
                pos += step
                if self._skip == 0:
                    self._left -= 1
                    if self._left == 0:
                        self._whole(self._offset + pos)
                continue
            first = view[pos]
            if first == 10 and self._left == 0:  # a keep-alive
                pos += 1
                continue
            at = pos + 1
            number = 0
            while at < end and 48 <= view[at] <= 57 and at - pos < 14:
                number = number * 10 + view[at] - 48
                at += 1
            if at - pos >= 14:  # 13 digits: more than any argument has
                _wrong(data, pos)
            if at + 1 >= end:
                return pos
            if view[at] != 13 or view[at + 1] != 10 or at == pos + 1 or first != (36 if self._left else 42):
                _wrong(data, pos)
            at += 2
            if self._left == 0:
                if number == 0 or number > 0x7FFFFFFF:
                    _wrong(data, pos)
                self._left = number
                self._kind = 0
                pos = at
                continue
            if self._kind == _SKIP or (self._kind == _FIRST and self._key is not None):
                self._skip = number + 2
                pos = at
                continue
            if number > _MAX_KEPT:
                if self._kind == 0:
                    _wrong(data, pos)
                self._kind = _COLLECT
                self._args.append(None)
                self._skip = number + 2
                pos = at
                continue
            if at + number + 2 > end:
                return pos
            word = data[at : at + number]
            pos = at + number + 2
            if self._kind == 0:
                self._begin(word.upper())
            elif self._kind == _FIRST:
                self._key = word
            else:
                self._args.append(word)
            self._left -= 1
            if self._left == 0:
                self._whole(self._offset + pos)
        return pos

    def _begin(self, name: bytes) -> None:
        kind = _KINDS.get(name, _COLLECT)
        if self._left == 2 and (name == b"DEL" or name == b"UNLINK"):
            kind = _FIRST
        self._kind = kind
        self._key = None
        self._args = [name]

    def _whole(self, offset: int) -> None:
        self.position = offset
        self.commands += 1
        if self._kind == _FIRST and self._key is not None:
            self._current[self._key] = offset
        elif self._kind == _SELECT:
            if len(self._args) != 2 or self._args[1] is None or not self._args[1].isdigit() or len(self._args[1]) > 9:
                _wrong(b"SELECT " + b" ".join([word or b"" for word in self._args[1:]]), 0)
            else:
                self._enter(int(self._args[1]))
        elif self._kind != _SKIP:
            self.others.append(Command(self.database, offset, self._args))
        self._args = []


def _wrong(data: bytes, pos: int) -> None:
    raise RemoteProtocolError(
        f"the source's stream is not made of commands here: {data[pos : pos + 40]!r}",
        remedy="no proxy may change the stream in between; start the verification again",
    )
