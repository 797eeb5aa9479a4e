"""A history in the form of Jepsen, whose checkers (Knossos, Elle) can then be asked too.

One map to a line, by time, as Jepsen's own ``history.edn``::

    {:index 0, :time 0, :type :invoke, :process 0, :f :append, :value ["j:{a}" 1]}
    {:index 1, :time 81250, :type :ok, :process 0, :f :append, :value ["j:{a}" 1], :result 1, :node "n1", :connection 3}
    {:index 2, :time 90000, :type :info, :process :nemesis, :f :kill, :value ["n1"]}

* ``:time``: ns since the first event. ``:value``: key and value, as Jepsen's independent tests have it; in the completion of a read or a
  delivery the second is what was found. ``:result``: what else was answered (a place, a count).
* In Jepsen a process has one operation at a time, and none after one that ended in ``:info``. Our connections send batches. So each
  operation takes the lowest process that is free, one that ends in info takes its process with it, and ``:connection`` says whose it was.
* An operation that never came back ends in ``:info`` with the last event.

Pure: text is yielded line by line.
"""

from __future__ import annotations

import heapq
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from valkeep.drill.history import Datum, History, Operation, Outcome

__all__ = ["NemesisEvent", "edn"]

_FOUND: Final = frozenset({"read", "deliver", "receive"})
"""Functions whose result is their value."""
_TYPES: Final = {Outcome.OK: "ok", Outcome.FAIL: "fail", Outcome.INFO: "info"}


@dataclass(frozen=True, slots=True)
class NemesisEvent:
    """A fault began or was healed. ``at``: ns on the history's clock; ``function``: kill, heal-partition …; ``nodes``: whom it met."""

    at: int
    function: str
    nodes: Sequence[str] = ()


def edn(history: History, faults: Iterable[NemesisEvent] = ()) -> Iterator[str]:
    """The lines of ``history.edn``, each with its line end."""
    columns = history.columns
    nemesis = sorted(faults, key=lambda event: event.at)
    begin = min([min(columns.invoked, default=0), *(event.at for event in nemesis[:1])]) if len(history) else 0
    end = max([max(columns.invoked, default=0), max(columns.returned, default=0), *(event.at for event in nemesis[-1:])])
    processes = _Processes()
    taken = array("i", bytes(4 * len(history)))
    index = 0
    for at, half, number in heapq.merge(_moments(columns.invoked, 0), _moments(columns.returned, 2), _of_nemesis(nemesis)):
        if number < 0:
            event = nemesis[-number - 1]
            nodes = " ".join(_text(node) for node in event.nodes)
            line = f":type :info, :process :nemesis, :f :{event.function}, :value [{nodes}]"
        else:
            operation = history[number]
            if half == 0:
                taken[number] = processes.take()
                line = _line("invoke", taken[number], operation, operation.value)
            else:
                processes.give_back(taken[number], ended=operation.outcome is not Outcome.INFO)
                line = _completion(taken[number], operation)
        yield f"{{:index {index}, :time {at - begin}, {line}}}\n"
        index += 1
    for number in range(len(history)):
        if columns.returned[number] < 0:
            yield f"{{:index {index}, :time {end - begin}, {_completion(taken[number], history[number])}}}\n"
            index += 1


class _Processes:
    """Numbers that are free, the lowest first."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = 0

    def take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, process: int, *, ended: bool) -> None:
        if ended:
            heapq.heappush(self._free, process)


def _moments(times: Sequence[int], half: int) -> Iterator[tuple[int, int, int]]:
    """(ns, half, number of the operation) by time; those without a time are left out. At one moment all are sent before any returns."""
    order = array("I", sorted(range(len(times)), key=times.__getitem__))
    return ((times[number], half, number) for number in order if times[number] >= 0)


def _of_nemesis(events: Sequence[NemesisEvent]) -> Iterator[tuple[int, int, int]]:
    return ((event.at, 1, -place - 1) for place, event in enumerate(events))


def _completion(process: int, operation: Operation) -> str:
    found = operation.function in _FOUND and operation.outcome is Outcome.OK
    value = operation.result if found and (operation.result is not None or operation.value is None) else operation.value
    line = _line(_TYPES[operation.outcome], process, operation, value)
    if operation.result is not None and not found:
        line += f", :result {_datum(operation.result)}"
    if operation.error:
        line += f", :error {_text(operation.error)}"
    if operation.node:
        line += f", :node {_text(operation.node)}"
    return f"{line}, :connection {operation.process}"


def _line(kind: str, process: int, operation: Operation, value: Datum) -> str:
    key = _text(operation.key.decode("utf-8", "backslashreplace"))
    return f":type :{kind}, :process {process}, :f :{operation.function}, :value [{key} {_datum(value)}]"


def _datum(value: Datum) -> str:
    if value is None:
        return "nil"
    return str(value) if isinstance(value, int) else _text(value.decode("utf-8", "backslashreplace"))


def _text(text: str) -> str:
    """EDN's strings escape as JSON's do."""
    return json.dumps(text)
