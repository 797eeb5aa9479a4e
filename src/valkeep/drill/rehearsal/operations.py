"""The rehearsal's writers, as pure generators: which command comes next, and what its replies mean.

Each writer has a database and keys of its own (only the counters are shared), and numbers what it writes, so that the end state
tells of each operation whether it happened::

    set     SET     w:3:set:7          the last acked number is there
    incr    INCR    counter:2          shared by all writers of a database; the reply is its new value
    rpush   RPUSH   w:3:list:0         every number once, in order (a new list every 2000 numbers)
    xadd    XADD    w:3:stream *       the same, and the id that was answered
    spop    SPOP    w:3:pool           the member that was answered is gone
    multi   MULTI … EXEC               w:3:tx:a, w:3:tx:b and the end of w:3:tx:l are one number
    expire  EXPIRE  w:3:ttl:5 s        the expiry lies s seconds after the moment of the call

Histories name keys ``database|key``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from valkeep.drill.checkers.sequences import pack_id
from valkeep.drill.workloads.mixes import refused_transaction
from valkeep.errors import ServerError

if TYPE_CHECKING:
    from random import Random

__all__ = ["POOL", "Result", "Step", "Writer", "prepare", "qualified", "split"]

Command = tuple[bytes | int, ...]

POOL: Final = 6000  # members of a writer's pool: more than a rehearsal pops
REGISTERS, COUNTERS, EXPIRING, PER_LIST = 32, 4, 16, 2000
_WEIGHTS: Final = (("set", 22), ("incr", 16), ("rpush", 16), ("xadd", 14), ("spop", 10), ("multi", 12), ("expire", 10))
_FUNCTIONS: Final = tuple(name for name, _ in _WEIGHTS)
_CUMULATIVE: Final = tuple(sum(weight for _, weight in _WEIGHTS[: at + 1]) for at in range(len(_WEIGHTS)))


def qualified(database: int, key: bytes) -> bytes:
    """The key's name in a history."""
    return b"%d|%s" % (database, key)


def split(name: bytes) -> tuple[int, bytes]:
    """The database and key of a history's name."""
    database, _, key = name.partition(b"|")
    return int(database), key


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: what the history says of it, and the commands to send (one reply each)."""

    function: str
    key: bytes
    value: int | None
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """``error``: "" when acked, else the first word of the server's refusal (nothing was done)."""

    error: str
    result: int | None = None


class Writer:
    """``number``: unique among the writers, below 2^15; ``database``: where it writes."""

    def __init__(self, number: int, database: int, rng: Random) -> None:
        self.number, self.database = number, database
        self._rng = rng
        self._count = 0
        self._pushed = 0
        self._prefix = b"w:%d:" % number

    def step(self) -> Step:
        """The next operation."""
        rng = self._rng
        (function,) = rng.choices(_FUNCTIONS, cum_weights=_CUMULATIVE)
        self._count += 1
        value = self.number << 40 | self._count
        prefix = self._prefix
        commands: tuple[Command, ...]
        match function:
            case "set":
                key = b"%sset:%d" % (prefix, rng.randrange(REGISTERS))
                commands = ((b"SET", key, value),)
            case "incr":
                key = b"counter:%d" % rng.randrange(COUNTERS)
                return Step(function, qualified(self.database, key), None, ((b"INCR", key),))
            case "rpush":
                key = b"%slist:%d" % (prefix, self._pushed // PER_LIST)
                self._pushed += 1
                commands = ((b"RPUSH", key, value),)
            case "xadd":
                key = prefix + b"stream"
                commands = ((b"XADD", key, b"*", b"n", value),)
            case "spop":
                key = prefix + b"pool"
                return Step(function, qualified(self.database, key), None, ((b"SPOP", key),))
            case "multi":
                key = prefix + b"tx"
                commands = (
                    (b"MULTI",),
                    (b"SET", key + b":a", value),
                    (b"RPUSH", key + b":l", value),
                    (b"SET", key + b":b", value),
                    (b"EXEC",),
                )
            case _:
                key = b"%sttl:%d" % (prefix, rng.randrange(EXPIRING))
                value = 100_000 + rng.randrange(1_000_000)
                commands = ((b"EXPIRE", key, value),)
        return Step(function, qualified(self.database, key), value, commands)


def understood(step: Step, replies: Sequence[Any]) -> Result:
    """What the replies to a step's commands mean. An error reply is definite: the servers refuse before they execute."""
    last = replies[-1]
    if step.function == "multi":
        if isinstance(last, list) and not any(isinstance(item, ServerError) for item in last):
            return Result("")
        return Result(refused_transaction([*replies, *(last if isinstance(last, list) else ())]) or "NULL")
    if isinstance(last, ServerError):
        return Result(last.kind)
    if step.function == "xadd":
        return Result("", pack_id(last))
    if step.function == "spop":
        return Result("", None if last is None else int(last))
    return Result("", last if isinstance(last, int) else None)


def prepare(writers: Sequence[Writer]) -> Iterator[tuple[int, list[Command]]]:
    """What has to be there before the writers start: pools, and keys to put TTLs on. (database, commands)."""
    for writer in writers:
        prefix = b"w:%d:" % writer.number
        commands: list[Command] = [(b"SADD", prefix + b"pool", *range(at, min(at + 1000, POOL))) for at in range(0, POOL, 1000)]
        commands += [(b"SET", b"%sttl:%d" % (prefix, number), number) for number in range(EXPIRING)]
        yield writer.database, commands
