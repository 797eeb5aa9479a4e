"""What the clients of a drill do, as pure generators: the next operations on a tag, and what their replies mean.

A batch is a list of steps on the keys of one tag. The first and the last append to the tag's journal, whose replies are places in one
stream: so the survival of everything in between is bounded by the program order of the connection. A batch of one step (a client that
finds out whether anybody is there) is an append.

Values written are unique 63-bit integers: client number << 40 | count.

The readers of ``streams`` deliver one entry at a time (the result is its element; None where nothing was new) and acknowledge what was
delivered to them once; what was delivered in an answer that never came stays pending. The group is made when a node says that it has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from valkeep.drill.checkers.sequences import pack_id
from valkeep.drill.history import Datum, Outcome
from valkeep.drill.workloads import keys
from valkeep.errors import ServerError, UsageError

__all__ = ["MIXES", "WEIGHTS", "Command", "Meaning", "Mix", "Step", "mix_of", "refused_transaction"]


Command = tuple[bytes | int, ...]


class Step(NamedTuple):
    """One operation: what the history says of it, and its commands, each of which gets one reply. ``writes``: it changes what is kept."""

    function: str
    key: bytes
    value: int | None
    commands: tuple[Command, ...]
    writes: bool = True


class Meaning(NamedTuple):
    """How an operation ended. ``error``: the first word of the server's refusal."""

    outcome: Outcome
    result: Datum = None
    error: str = ""


_DONE: Final = Meaning(Outcome.OK)
WEIGHTS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "append": (("append", 1),),
    "mixed": (("append", 20), ("write", 20), ("read", 14), ("delete", 6), ("incr", 14), ("add", 14), ("multi", 12)),
    "registers": (("append", 4), ("write", 40), ("read", 44), ("delete", 12)),
    "scripts": (("append", 20), ("multi", 40), ("eval", 40)),
    "streams": (("xadd", 34), ("deliver", 36), ("ack", 30)),
    "pubsub": (("append", 1), ("publish", 2)),
}
"""Mix → how often each operation comes."""
MIXES: Final = tuple(WEIGHTS)

_REGISTER: Final = frozenset({"write", "read", "delete"})
_KEY_OF: Final[dict[str, Callable[[bytes], bytes]]] = {
    "append": keys.journal,
    "incr": keys.counter,
    "add": keys.uniques,
    "multi": keys.pair,
    "eval": keys.pair,
    "xadd": keys.stream,
    "deliver": keys.stream,
    "ack": keys.stream,
    "group": keys.stream,
    "publish": keys.channel,
}
_SCRIPT: Final = b"redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1]) return 1"


def mix_of(name: str, client: int, rng: Random) -> Mix:
    """The mix of this name for the ``client``-th client (1 …; below 2^22). Raises ``UsageError`` when there is none."""
    if name not in WEIGHTS:
        raise UsageError(f"there is no mix of operations called {name!r}", remedy=f"mixes are {', '.join(MIXES)}")
    return Mix(name, client, rng)


class Mix:
    """The operations of one client, without end."""

    def __init__(self, name: str, client: int, rng: Random) -> None:
        self._rng = rng
        self._count = client << 40
        self._functions = [function for function, weight in WEIGHTS[name] for _ in range(weight)]
        self._consumer = b"c%d" % client
        self._delivered: dict[bytes, deque[tuple[bytes, int]]] = {}  # stream → (id, element) that wait for their XACK
        self._grouped: set[bytes] | None = set() if name == "streams" else None  # streams whose group is there, as far as is known

    def batch(self, tag: bytes, size: int) -> list[Step]:
        """The next ``size`` operations on this tag's keys, at least one."""
        step, functions, chance = self.step, self._functions, self._rng.random
        between = max(size - 2, 0)
        chosen = ["append"] * between if len(functions) == 1 else [functions[int(chance() * len(functions))] for _ in range(between)]
        if self._grouped is not None and keys.stream(tag) not in self._grouped and chosen:
            chosen[0] = "group"
        return [step(function, self._key(function, tag)) for function in ("append", *chosen, *(["append"] if size > 1 else []))]

    def step(self, function: str, key: bytes) -> Step:
        """The next operation of this kind on this key."""
        match function:
            case "append":
                value = self._value()
                return Step(function, key, value, ((b"RPUSH", key, value),))
            case "write":
                value = self._value()
                return Step(function, key, value, ((b"SET", key, value),))
            case "read":
                return Step(function, key, None, ((b"GET", key),), writes=False)
            case "delete":
                return Step(function, key, None, ((b"DEL", key),))
            case "incr":
                return Step(function, key, None, ((b"INCR", key),))
            case "add":
                value = self._value()
                return Step(function, key, value, ((b"SADD", key, value),))
            case "multi":
                value = self._value()
                return Step(function, key, value, ((b"MULTI",), (b"SET", key + b":a", value), (b"SET", key + b":b", value), (b"EXEC",)))
            case "eval":
                value = self._value()
                return Step(function, key, value, ((b"EVAL", _SCRIPT, 2, key + b":a", key + b":b", value),))
            case "xadd":
                value = self._value()
                return Step(function, key, value, ((b"XADD", key, b"*", b"n", value),))
            case "group":
                return Step(function, key, None, ((b"XGROUP", b"CREATE", key, keys.GROUP, b"0", b"MKSTREAM"),))
            case "publish":
                value = self._value()
                return Step(function, key, value, ((b"PUBLISH", key, value),), writes=False)
            case "ack" if self._delivered.get(key):
                identifier, value = self._delivered[key].popleft()
                return Step(function, key, value, ((b"XACK", key, keys.GROUP, identifier),))
            case _:  # deliver, and an ack where nothing waits for one
                return Step(
                    "deliver", key, None, ((b"XREADGROUP", b"GROUP", keys.GROUP, self._consumer, b"COUNT", 1, b"STREAMS", key, b">"),)
                )

    def again(self, step: Step) -> Step:
        """A new operation of the same kind on the same key, with a value of its own."""
        return self.step(step.function, step.key)

    def _value(self) -> int:
        self._count += 1
        return self._count

    def _key(self, function: str, tag: bytes) -> bytes:
        if function in _REGISTER:
            return keys.register(tag, int(self._rng.random() * keys.REGISTERS))
        return _KEY_OF[function](tag)

    def understood(self, step: Step, replies: Sequence[Any]) -> Meaning:
        """What the replies to a step's commands mean. An error reply is definite: the servers refuse before they execute. A reply that no server
        would give leaves it in doubt (GARBLED)."""
        last = replies[-1]
        if step.function == "multi":
            return _transaction(replies)
        if isinstance(last, ServerError):
            return self._refused(step, last)
        if type(last) is int:
            return Meaning(Outcome.OK, last)
        try:
            return Meaning(Outcome.OK, self._result(step, last))
        except (TypeError, ValueError):
            return Meaning(Outcome.INFO, None, "GARBLED")

    def _result(self, step: Step, reply: Any) -> int | None:
        match step.function:
            case "read":
                return None if reply is None else int(reply)
            case "xadd":
                return pack_id(reply)
            case "deliver" if reply is not None:
                ((_, ((identifier, (_, element)),)),) = reply
                self._delivered.setdefault(step.key, deque()).append((identifier, int(element)))
                return int(element)
            case "group" if self._grouped is not None:
                self._grouped.add(step.key)
        return None

    def _refused(self, step: Step, error: ServerError) -> Meaning:
        if self._grouped is not None:
            if step.function == "group" and error.kind == "BUSYGROUP":
                self._grouped.add(step.key)
                return _DONE
            if error.kind == "NOGROUP":  # the node lost it
                self._grouped.discard(step.key)
        return Meaning(Outcome.FAIL, None, error.kind)


def _transaction(replies: Sequence[Any]) -> Meaning:
    last = replies[-1]
    if not isinstance(last, list):
        return Meaning(Outcome.FAIL, None, refused_transaction(replies) or "NULL")
    if any(isinstance(item, ServerError) for item in last):
        return Meaning(Outcome.INFO, None, "PARTIAL")
    return _DONE


def refused_transaction(replies: Sequence[Any]) -> str:
    """The reason that the first error of these replies gives: EXECABORT quotes it where no queued command got it. "" without an error."""
    first = next((reply for reply in replies if isinstance(reply, ServerError)), None)
    if first is None:
        return ""
    if first.kind == "EXECABORT":
        for kind in ("NOREPLICAS", "READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN"):
            if kind in first.text:
                return kind
    return first.kind
