"""A history prepared for the checkers of drills: by columns, by function and key, and each operation given to a reign and a fate.

*Reign*: which primary's stream an operation belongs to, from the node that acked it and the time of the ack. *Fate*: what became of it
when that primary was deposed. Journals show it for their own appends; and as every connection is one sequence in its node's stream,
appends bound the fate of what lies between them:

    append  write  incr  append   write  add   append   write  append
    there   ←── survived ──→ there   ← maybe →   lost     ←── lost ──→

A ``maybe`` is judged like an info. What is lost exists in the doomed branch of its reign, and there only.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from valkeep.drill.checkers.reigns import Cause, Reign
from valkeep.drill.history import Columns, Datum, History, Outcome
from valkeep.topology.slots import even_ranges, key_slot

__all__ = ["ELSEWHERE", "LOST", "MAYBE", "SURVIVED", "WRITES", "Evidence", "FinalState", "FinalStream"]

SURVIVED, MAYBE, LOST = 0, 1, 2  # fates of acked operations
ELSEWHERE: Final = 255
"""In place of a reign: acked by a node that was no primary then (a read of a replica), or not acked."""
WRITES: Final = ("append", "write", "delete", "incr", "add", "multi", "eval", "xadd", "ack")
"""Functions of drills that change what a server keeps."""
_OK: Final = int(Outcome.OK)
_DEADLY: Final = frozenset({Cause.KILL, Cause.TERM, Cause.CRASH, Cause.RESTART})
"""Causes that end the process."""


@dataclass(frozen=True, slots=True)
class FinalStream:
    """``entries``: elements in the stream, in order. ``pending``: delivered and not acked (XPENDING). ``undelivered``: behind the group's
    last-delivered id."""

    entries: Sequence[int] = ()
    pending: AbstractSet[int] = frozenset()
    undelivered: AbstractSet[int] = frozenset()


@dataclass(frozen=True, slots=True)
class FinalState:
    """What ordinary commands read from the primaries after the load has ended and all is well again. By the keys of the history; a key that
    is left out was not there. ``registers``: None = missing. ``pairs``: x:{tag} → the values of x:{tag}:a and x:{tag}:b."""

    journals: Mapping[bytes, Sequence[int]] = field(default_factory=dict)
    registers: Mapping[bytes, Datum] = field(default_factory=dict)
    counters: Mapping[bytes, Datum] = field(default_factory=dict)
    sets: Mapping[bytes, AbstractSet[int]] = field(default_factory=dict)
    pairs: Mapping[bytes, tuple[Datum, Datum]] = field(default_factory=dict)
    streams: Mapping[bytes, FinalStream] = field(default_factory=dict)


class Evidence:
    """``reign``: for each operation the number of its reign in ``reigns``, or ``ELSEWHERE``. ``fate``: for each acked one; filled in by
    `loss`, until then all have survived. ``groups``: function → key → numbers of operations, ascending."""

    def __init__(self, history: History, reigns: Sequence[Reign]) -> None:
        if not history.plain:
            raise ValueError("drills record numbers only, this history holds other values")
        self.history = history
        self.reigns = tuple(reigns)
        self.columns: Columns = history.columns
        self.groups = _grouped(history)
        self.reign = _reigns_of(history, self.reigns)
        self.fate = bytearray(len(history))

    def numbers(self, function: str) -> Mapping[bytes, array[int]]:
        """For each key the numbers of the operations of this function, ascending."""
        return self.groups.get(function, {})

    def nodes(self) -> list[str]:
        """Names of nodes by the number in ``columns.node``."""
        return self.history.nodes.names

    def lost_writes(self) -> tuple[int, ...]:
        """Numbers of the acked writes that are surely gone."""
        writes = bytearray(name in WRITES for name in self.history.functions.names)
        function = self.columns.function
        return tuple(number for number, fate in enumerate(self.fate) if fate == LOST and writes[function[number]])

    def moved_slots(self) -> frozenset[int]:
        """Slots whose keys were written through nodes of more than one shard."""
        shards: dict[int, set[int]] = {}
        for key, reign in set(zip(self.columns.key, self.reign, strict=True)):
            if reign != ELSEWHERE:
                shards.setdefault(key_slot(self.history.keys.names[key]), set()).add(self.reigns[reign].shard)
        return frozenset(slot for slot, found in shards.items() if len(found) > 1)


def _grouped(history: History) -> dict[str, dict[bytes, array[int]]]:
    keys, functions = history.keys.names, history.functions.names
    found: dict[int, array[int]] = {}
    count = len(keys)
    columns = history.columns
    for number, (function, key) in enumerate(zip(columns.function, columns.key, strict=True)):
        name = function * count + key
        try:
            found[name].append(number)
        except KeyError:
            found[name] = array("I", (number,))
    groups: dict[str, dict[bytes, array[int]]] = {}
    for name, numbers in found.items():
        function, key = divmod(name, count)
        groups.setdefault(functions[function], {})[keys[key]] = numbers
    return groups


def _reigns_of(history: History, reigns: Sequence[Reign]) -> bytearray:
    """By node; where a node reigned more than once, see `_turn_by_turn`."""
    if len(reigns) >= ELSEWHERE:
        raise ValueError(f"{len(reigns)} reigns: more than {ELSEWHERE - 1} can not be told apart")
    by_node: dict[str, list[int]] = {}
    for number, reign in enumerate(reigns):
        by_node.setdefault(reign.node, []).append(number)
    only = bytearray(by_node[node][0] if node in by_node else ELSEWHERE for node in history.nodes.names)
    found = bytearray(map(only.__getitem__, history.columns.node))
    for node, numbers in by_node.items():
        if len(numbers) > 1 and node in history.nodes.numbers:
            numbers.sort(key=lambda number: reigns[number].begins)
            _turn_by_turn(history, history.nodes.numbers[node], numbers, reigns, found)
    if reigns:
        _by_time(history, reigns, found)
    return found


def _by_time(history: History, reigns: Sequence[Reign], found: bytearray) -> None:
    """Where the client could not tell who acked (some libraries don't): the last reign of the key's shard that had begun when the ack came.
    The shards are taken for even slices of the slots, as they are made."""
    columns = history.columns
    unnamed = history.nodes.numbers[""]
    if not any(node == unnamed and outcome == _OK for node, outcome in zip(columns.node, columns.outcome, strict=True)):
        return
    shards = max(reign.shard for reign in reigns) + 1
    firsts = [first for first, _ in even_ranges(shards)]
    shard_of = [bisect_right(firsts, key_slot(key)) - 1 for key in history.keys.names]
    listed: list[list[int]] = [
        [number for number, reign in enumerate(reigns) if reign.shard == shard and not reign.apart] for shard in range(shards)
    ]
    begins = [[reigns[number].begins for number in numbers] for numbers in listed]
    for operation, (node, key, returned) in enumerate(zip(columns.node, columns.key, columns.returned, strict=True)):
        shard = shard_of[key]
        if node == unnamed and listed[shard]:
            found[operation] = listed[shard][max(bisect_right(begins[shard], returned) - 1, 0)]


def _turn_by_turn(history: History, node: int, numbers: Sequence[int], reigns: Sequence[Reign], found: bytearray) -> None:
    """Which of a node's reigns acked each of its operations: the last that had begun when the ack came.

    Two exceptions. What was sent before a reign was over is that reign's, however late its ack was read: connections die with their process,
    and a deposed primary refuses writes. And when a process comes back is known less exactly than when it died (somebody had to look), and
    clients are quicker; so in between, a connection that the old process had answered and that has not broken since still talks to it, and
    any other to the new one.
    """
    columns = history.columns
    begins = [reigns[number].begins for number in numbers]
    ends = [reigns[number].deposed for number in numbers]
    died = [deposed.at if deposed is not None and deposed.cause in _DEADLY else None for deposed in ends]
    over = [deposed.until if death is None and deposed is not None else death for deposed, death in zip(ends, died, strict=True)]
    talking: dict[int, int] = {}  # process → the place of the reign that answered it last
    everything = zip(columns.node, columns.process, columns.outcome, columns.invoked, columns.returned, strict=True)
    for operation, (asked, process, outcome, invoked, returned) in enumerate(everything):
        if outcome != _OK:
            talking.pop(process, None)
        if asked != node:
            continue
        place = max(bisect_right(begins, max(returned, invoked)) - 1, 0)
        while place and (end := over[place - 1]) is not None and invoked <= end:
            place -= 1
        if place + 1 < len(begins) and (death := died[place]) is not None and invoked > death and talking.get(process) != place:
            place += 1
        if outcome == _OK:
            talking[process] = place
        found[operation] = numbers[place]
