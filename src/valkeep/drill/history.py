"""What was asked of the servers, when, and what they said: the evidence that every checker judges.

An operation is an *invocation* and at most one *completion*::

    invoke ──────────► ok      the server said it was done
                  └──► fail    it surely was not done (an error reply, a connection that was closed before the request left)
                  └──► info    nobody knows: it may have happened, and it may happen later (the connection broke, no reply in time)

An operation that never completed is ``info`` when it is read. An indefinite result is never a ``fail``: a checker that takes a
maybe for a no finds losses that were none, and misses those that were.

Stored by columns, 46 bytes an operation (one million: 46 MB), times in nanoseconds on one monotonic clock; names (functions, keys,
nodes, errors) are interned. Values and results are 64-bit integers or None; anything else is kept in a side list and costs what it
costs, so workloads number their values. On disk: one JSON header, then the columns, each compressed::

    VKHIST1␊ | u32 header length | header (JSON) | per column: u32 length, zlib bytes | side list (JSON in the header)

The order of invocations of one ``process`` is its program order: a process has one connection at a time, so on one node it is also
the order of execution. Across processes only times say what was before what.

``origin_unix_ns`` ties the monotonic clock to the wall clock (the wall time at monotonic zero), for TTLs.

This module is pure: times are arguments.
"""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from collections.abc import Container, Iterable, Iterator
from enum import IntEnum
from typing import Final, Generic, NamedTuple, TypeVar

from valkeep.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["NOTHING", "Columns", "Event", "History", "Operation", "Outcome", "doubting"]

MAGIC: Final = b"VKHIST1\n"
NOTHING: Final = -(1 << 63)
"""What stands for None in the columns of values and results."""
_VALUE_OBJECT, _RESULT_OBJECT = 1, 2  # bits of the flags column

Datum = int | bytes | None


class Outcome(IntEnum):
    """How an operation ended. ``OPEN`` is stored only; reading gives ``INFO`` for it."""

    OPEN = 0
    OK = 1
    FAIL = 2
    INFO = 3


class Operation(NamedTuple):
    """One operation as the checkers see it. Times in ns on the history's clock; ``returned`` is -1 where nothing came back."""

    number: int
    process: int
    function: str
    key: bytes
    value: Datum
    outcome: Outcome
    invoked: int
    returned: int
    node: str
    result: Datum
    error: str


class Columns(NamedTuple):
    """The history by columns, for who reads a million operations: one array each, indexed by an operation's number. Not to be changed.

    ``function``, ``node``, ``key``: numbers of names in ``History.functions``, ``nodes`` and ``keys``. ``outcome``: an `Outcome`; 0 is open
    and is to be read as info. ``value`` and ``result``: ``NOTHING`` is None, and where ``History.plain`` is False some are not numbers.
    """

    process: array[int]
    function: array[int]
    outcome: array[int]
    node: array[int]
    key: array[int]
    value: array[int]
    result: array[int]
    invoked: array[int]
    returned: array[int]


class Event(NamedTuple):
    """One half of an operation: ``type`` is invoke, ok, fail or info."""

    at: int
    type: str
    operation: Operation


Name = TypeVar("Name", str, bytes)


class _Names(Generic[Name]):
    """Interned names: a number for each, in order of first use."""

    __slots__ = ("names", "numbers")

    def __init__(self, names: Iterable[Name] = ()) -> None:
        self.names: list[Name] = list(names)
        self.numbers: dict[Name, int] = {name: number for number, name in enumerate(self.names)}

    def number(self, name: Name) -> int:
        found = self.numbers.get(name)
        if found is None:
            found = self.numbers[name] = len(self.names)
            self.names.append(name)
        return found


_COLUMNS: Final = (
    "_process", "_function", "_outcome", "_flags", "_node", "_error", "_key", "_value", "_result", "_invoked", "_returned",
)  # fmt: skip
_OUTCOMES: Final = (Outcome.INFO, Outcome.OK, Outcome.FAIL, Outcome.INFO)  # as read: what is still open is a maybe


class History:
    """Operations in order of invocation. Not safe for threads; one writer."""

    def __init__(self, origin_unix_ns: int = 0) -> None:
        self.origin_unix_ns = origin_unix_ns
        self.functions: _Names[str] = _Names()
        self.nodes: _Names[str] = _Names([""])
        self.errors: _Names[str] = _Names([""])
        self.keys: _Names[bytes] = _Names()
        self._objects: list[bytes] = []
        self._process = array("I")
        self._function = array("B")
        self._outcome = array("B")
        self._flags = array("B")
        self._node = array("B")
        self._error = array("H")
        self._key = array("I")
        self._value = array("q")
        self._result = array("q")
        self._invoked = array("q")
        self._returned = array("q")

    def __len__(self) -> int:
        return len(self._outcome)

    # ---------------------------------------------------------------------------------------------------------- recording

    def invoke(self, process: int, function: str, key: bytes, value: Datum, at: int) -> int:
        """The request is about to leave; its number is returned. ``process`` < 2^32; at most 255 functions and nodes."""
        flags = 0
        if value is None:
            value = NOTHING
        elif isinstance(value, bytes):
            self._objects.append(value)
            value, flags = len(self._objects) - 1, _VALUE_OBJECT
        self._process.append(process)
        self._function.append(self.functions.number(function))
        self._outcome.append(0)
        self._flags.append(flags)
        self._node.append(0)
        self._error.append(0)
        self._key.append(self.keys.number(key))
        self._value.append(value)
        self._result.append(NOTHING)
        self._invoked.append(at)
        self._returned.append(-1)
        return len(self._outcome) - 1

    def ok(self, operation: int, at: int, node: str, result: Datum = None) -> None:
        """The server said that it was done."""
        self._complete(operation, Outcome.OK, at, node)
        if isinstance(result, bytes):
            self._objects.append(result)
            self._flags[operation] |= _RESULT_OBJECT
            self._result[operation] = len(self._objects) - 1
        elif result is not None:
            self._result[operation] = result

    def fail(self, operation: int, at: int, node: str, error: str) -> None:
        """It surely was not done."""
        self._complete(operation, Outcome.FAIL, at, node)
        self._error[operation] = self.errors.number(error)

    def info(self, operation: int, at: int, node: str, error: str) -> None:
        """Nobody knows whether it was done."""
        self._complete(operation, Outcome.INFO, at, node)
        self._error[operation] = self.errors.number(error)

    def _complete(self, operation: int, outcome: Outcome, at: int, node: str) -> None:
        if self._outcome[operation]:
            raise LocalProtocolError(f"operation {operation} was completed twice", remedy="a workload records one completion for each")
        if at < self._invoked[operation]:
            raise LocalProtocolError(f"operation {operation} returned before it was invoked", remedy="use one monotonic clock")
        self._outcome[operation] = outcome
        self._returned[operation] = at
        self._node[operation] = self.nodes.number(node)

    # ------------------------------------------------------------------------------------------------------------ reading

    @property
    def columns(self) -> Columns:
        """The arrays themselves, not copies."""
        return Columns(
            self._process,
            self._function,
            self._outcome,
            self._node,
            self._key,
            self._value,
            self._result,
            self._invoked,
            self._returned,
        )

    @property
    def plain(self) -> bool:
        """All values and results are numbers or None: then the columns say all."""
        return not any(self._flags)

    def __getitem__(self, index: int) -> Operation:
        flags = self._flags[index]
        value: Datum = self._value[index]
        result: Datum = self._result[index]
        if flags & _VALUE_OBJECT:
            value = self._objects[self._value[index]]
        elif value == NOTHING:
            value = None
        if flags & _RESULT_OBJECT:
            result = self._objects[self._result[index]]
        elif result == NOTHING:
            result = None
        return Operation(
            index,
            self._process[index],
            self.functions.names[self._function[index]],
            self.keys.names[self._key[index]],
            value,
            _OUTCOMES[self._outcome[index]],
            self._invoked[index],
            self._returned[index],
            self.nodes.names[self._node[index]],
            result,
            self.errors.names[self._error[index]],
        )

    def __iter__(self) -> Iterator[Operation]:
        return map(self.__getitem__, range(len(self)))

    def of(self, *functions: str, start: int = 0, stop: int | None = None) -> Iterator[Operation]:
        """The operations of these functions, in order of invocation, among those numbered ``start`` … ``stop`` - 1."""
        wanted = {self.functions.numbers[name] for name in functions if name in self.functions.numbers}
        column = self._function
        end = len(column) if stop is None else min(stop, len(column))
        return (self[index] for index in range(start, end) if column[index] in wanted)

    def events(self) -> Iterator[Event]:
        """Invocations and completions, by time (what Jepsen calls a history)."""
        moments: list[tuple[int, int, int]] = []
        for index in range(len(self)):
            moments.append((self._invoked[index], 0, index))
            if self._returned[index] >= 0:
                moments.append((self._returned[index], 1, index))
        moments.sort()
        for at, half, index in moments:
            operation = self[index]
            yield Event(at, operation.outcome.name.lower() if half else "invoke", operation)

    def counts(self) -> dict[str, int]:
        """How many operations ended as ok, fail and info."""
        counted = [0, 0, 0, 0]
        for outcome in self._outcome:
            counted[outcome] += 1
        return {"ok": counted[Outcome.OK], "fail": counted[Outcome.FAIL], "info": counted[Outcome.INFO] + counted[Outcome.OPEN]}

    def error_counts(self) -> dict[str, int]:
        """How often each error text was the answer."""
        counted: dict[int, int] = {}
        for number in self._error:
            if number:
                counted[number] = counted.get(number, 0) + 1
        return {self.errors.names[number]: count for number, count in counted.items()}

    def ack_times(self, *, start: int = 0, node: str | None = None) -> list[int]:
        """When each acked operation (of ``node``) returned, ascending: what throughput and gaps are computed from.

        A reply that came in one block with a refusal is left out: the server held that block (a pause, a fence), so the time at
        which the block came back says nothing about when the first half of it was done.
        """
        held = {
            (self._process[index], self._returned[index])
            for index in range(start, len(self))
            if self._outcome[index] in (Outcome.FAIL, Outcome.INFO)
        }
        wanted = None if node is None else self.nodes.number(node)
        return sorted(
            self._returned[index]
            for index in range(start, len(self))
            if self._outcome[index] == Outcome.OK
            and (wanted is None or self._node[index] == wanted)
            and (self._process[index], self._returned[index]) not in held
        )

    # ---------------------------------------------------------------------------------------------------------- on disk

    def packed(self) -> Iterator[bytes]:
        """The file's bytes, piece by piece."""
        header = json.dumps(
            {
                "schema": 1,
                "operations": len(self),
                "origin_unix_ns": self.origin_unix_ns,
                "functions": self.functions.names,
                "nodes": self.nodes.names,
                "errors": self.errors.names,
                "keys": [key.decode("latin-1") for key in self.keys.names],
                "objects": [value.decode("latin-1") for value in self._objects],
            }
        ).encode()
        yield MAGIC + struct.pack("<I", len(header)) + header
        for name in _COLUMNS:
            column: array[int] = getattr(self, name)
            squeezed = zlib.compress(column.tobytes(), 1)
            yield struct.pack("<I", len(squeezed)) + squeezed

    @classmethod
    def unpacked(cls, data: bytes) -> History:
        """Read what ``packed`` wrote. Raises ``RemoteProtocolError`` when it is not a history or is cut short."""
        try:
            if data[: len(MAGIC)] != MAGIC:
                raise ValueError("no history")
            at = len(MAGIC)
            (size,) = struct.unpack_from("<I", data, at)
            header = json.loads(data[at + 4 : at + 4 + size])
            at += 4 + size
            history = cls(int(header["origin_unix_ns"]))
            history.functions = _Names(header["functions"])
            history.nodes = _Names(header["nodes"])
            history.errors = _Names(header["errors"])
            history.keys = _Names([name.encode("latin-1") for name in header["keys"]])
            history._objects = [value.encode("latin-1") for value in header["objects"]]
            for name in _COLUMNS:
                (size,) = struct.unpack_from("<I", data, at)
                column: array[int] = getattr(history, name)
                column.frombytes(zlib.decompress(data[at + 4 : at + 4 + size]))
                at += 4 + size
                if len(column) != header["operations"]:
                    raise ValueError("a column is too short")
        except (ValueError, KeyError, struct.error, zlib.error) as error:
            raise RemoteProtocolError(
                f"this is not a recorded history: {error}", remedy="run again; the file was cut or is another's"
            ) from error
        return history


def doubting(operations: Iterable[Operation], doubtful: Container[int]) -> Iterator[Operation]:
    """The same operations, those numbered in ``doubtful`` as ``info``: a loss that is explained elsewhere is a maybe here."""
    for operation in operations:
        yield operation._replace(outcome=Outcome.INFO) if operation.number in doubtful else operation
