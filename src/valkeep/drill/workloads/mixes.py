"""What the clients of a drill do, as pure generators: the next operations on a tag, and what their replies mean.

A batch is a list of steps on the keys of one tag. The first and the last append to the tag's journal, whose replies are places in one
stream: so the survival of everything in between is bounded by the program order of the connection. A batch of one step (a client that
finds out whether anybody is there) is an append.

Values written are unique 63-bit integers: client number << 40 | count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from valkeep.drill.history import Datum, Outcome
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.mix import refused_transaction
from valkeep.errors import ServerError, UsageError
from valkeep.wire import resp

__all__ = ["MIXES", "Meaning", "Mix", "Step", "mix_of"]


class Step(NamedTuple):
    """One operation: what the history says of it, and its commands' bytes with the number of replies they get."""

    function: str
    key: bytes
    value: int | None
    block: bytes
    replies: int = 1
    writes: bool = True


class Meaning(NamedTuple):
    """How an operation ended. ``error``: the first word of the server's refusal."""

    outcome: Outcome
    result: Datum = None
    error: str = ""


_DONE: Final = Meaning(Outcome.OK)
_WEIGHTS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "append": (("append", 1),),
    "mixed": (("append", 20), ("write", 20), ("read", 14), ("delete", 6), ("incr", 14), ("add", 14), ("multi", 12)),
    "registers": (("append", 4), ("write", 40), ("read", 44), ("delete", 12)),
    "scripts": (("append", 20), ("multi", 40), ("eval", 40)),
}
MIXES: Final = tuple(_WEIGHTS)

_ASKING: Final = resp.encode(b"ASKING")
_MULTI: Final = resp.encode(b"MULTI")
_EXEC: Final = resp.encode(b"EXEC")
_SCRIPT: Final = b"redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1]) return 1"


def mix_of(name: str, client: int, rng: Random) -> Mix:
    """The mix of this name for the ``client``-th client (1 …; below 2^22). Raises ``UsageError`` when there is none."""
    if name not in _WEIGHTS:
        raise UsageError(f"there is no mix of operations called {name!r}", remedy=f"mixes are {', '.join(MIXES)}")
    return Mix(name, client, rng)


class Mix:
    """The operations of one client, without end."""

    def __init__(self, name: str, client: int, rng: Random) -> None:
        self._rng = rng
        self._count = client << 40
        makers: dict[str, Callable[[bytes], Step]] = {
            "append": self._append, "write": self._write, "read": self._read, "delete": self._delete, "incr": self._incr, "add": self._add,
            "multi": self._multi, "eval": self._eval,
        }  # fmt: skip
        self._makers = makers
        self._kinds = [makers[function] for function, weight in _WEIGHTS[name] for _ in range(weight)]

    def batch(self, tag: bytes, size: int) -> list[Step]:
        """The next ``size`` operations on this tag's keys, at least one."""
        if size < 2:
            return [self._append(tag)]
        rng, kinds = self._rng, self._kinds
        count = len(kinds)
        steps = [self._append(tag)]
        if count == 1:
            steps += [self._append(tag) for _ in range(size - 2)]
        else:
            steps += [kinds[int(rng.random() * count)](tag) for _ in range(size - 2)]
        steps.append(self._append(tag))
        return steps

    def again(self, step: Step, tag: bytes) -> Step:
        """A new operation of the same kind (with a value of its own), to be sent to a node that takes the slot over: with ASKING before it."""
        twin = self._makers[step.function](tag)
        return twin._replace(block=_ASKING + twin.block, replies=twin.replies + 1)

    def _value(self) -> int:
        self._count += 1
        return self._count

    def _append(self, tag: bytes) -> Step:
        key, value = keys.journal(tag), self._value()
        return Step("append", key, value, resp.encode(b"RPUSH", key, value))

    def _register(self, tag: bytes) -> bytes:
        return keys.register(tag, int(self._rng.random() * keys.REGISTERS))

    def _write(self, tag: bytes) -> Step:
        key, value = self._register(tag), self._value()
        return Step("write", key, value, resp.encode(b"SET", key, value))

    def _read(self, tag: bytes) -> Step:
        key = self._register(tag)
        return Step("read", key, None, resp.encode(b"GET", key), writes=False)

    def _delete(self, tag: bytes) -> Step:
        key = self._register(tag)
        return Step("delete", key, None, resp.encode(b"DEL", key))

    def _incr(self, tag: bytes) -> Step:
        key = keys.counter(tag)
        return Step("incr", key, None, resp.encode(b"INCR", key))

    def _add(self, tag: bytes) -> Step:
        key, value = keys.uniques(tag), self._value()
        return Step("add", key, value, resp.encode(b"SADD", key, value))

    def _multi(self, tag: bytes) -> Step:
        key, value = keys.pair(tag), self._value()
        return Step(
            "multi", key, value, _MULTI + resp.encode(b"SET", key + b":a", value) + resp.encode(b"SET", key + b":b", value) + _EXEC, 4
        )

    def _eval(self, tag: bytes) -> Step:
        key, value = keys.pair(tag), self._value()
        return Step("eval", key, value, resp.encode(b"EVAL", _SCRIPT, b"2", key + b":a", key + b":b", value))

    def understood(self, step: Step, replies: Sequence[Any]) -> Meaning:
        """What the replies to a step's commands mean. An error reply is definite: the servers refuse before they execute."""
        last = replies[-1]
        if step.function == "multi":
            return _transaction(replies)
        if isinstance(last, ServerError):
            return Meaning(Outcome.FAIL, None, last.kind)
        if type(last) is int:
            return Meaning(Outcome.OK, last)
        if step.function == "read":
            return _DONE if last is None else Meaning(Outcome.OK, int(last))
        return _DONE


def _transaction(replies: Sequence[Any]) -> Meaning:
    last = replies[-1]
    if not isinstance(last, list):
        return Meaning(Outcome.FAIL, None, refused_transaction(replies) or "NULL")
    if any(isinstance(item, ServerError) for item in last):
        return Meaning(Outcome.INFO, None, "PARTIAL")
    return _DONE
