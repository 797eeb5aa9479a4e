"""Registers behave as one copy would: linearizability, per key and per reign.

*Views.* A failover cuts a primary's stream off, so its history and that of its successor are two stories that share a beginning. Each is
judged for itself::

    chain     what survived, of all reigns in turn, and the value read at the end
    branch    everything that one deposed reign acked, its doomed end too, behind what had survived until then

In the chain a lost operation has never been, and one of unknown fate may have been, as an info may. Reads that no primary answered for
sure are left to `monotonic`.

*Zones* (Gibbons and Korach, "Testing shared memories", 1997). Values are unique, so a write and the reads of its value stand together in
any order. With f the first return among them and s the last invocation, X stands before Y when f(X) < s(Y). The register is linearizable
exactly when for no pair both stand before each other; sorting finds such pairs in O(n log n).

*Deletes* make "nothing" the one value that is written again and again. Each read of nothing is given to the delete that fits best, and
what then has no conflict is an order that proves the case. Otherwise the guess may be at fault: then `search` decides, within a budget,
else the verdict is unknown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, compress
from typing import Final

from valkeep.drill.checkers.evidence import ELSEWHERE, LOST, MAYBE, SURVIVED, Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.reigns import NEVER
from valkeep.drill.checkers.search import DELETE, READ, WRITE, Budget, Call, find_order
from valkeep.drill.history import NOTHING, Datum, Outcome

__all__ = ["STEPS", "check_linear"]

STEPS: Final = 500_000
"""Of all searches together, some 2 µs each."""
_OK: Final = int(Outcome.OK)
_FAIL: Final = int(Outcome.FAIL)
CHAIN: Final = -1


def check_linear(
    evidence: Evidence,
    final: Mapping[bytes, Datum],
    *,
    written: Sequence[str] = ("write",),
    checker: str = "registers",
    steps: int = STEPS,
) -> Judgement:
    """``final``: each register as read at the end; a key that is left out was missing. ``written``: the functions that write."""
    columns = evidence.columns
    end = 1 + max((max(column, default=0) for column in (columns.invoked, columns.returned)), default=0)
    findings, budget = Findings(checker), Budget(steps)
    uncertain = set(compress(columns.key, evidence.fate))
    undecided = 0
    groups = [evidence.numbers(function) for function in written]
    reads, deletes = (evidence.numbers("read"), evidence.numbers("delete")) if checker == "registers" else ({}, {})
    for key in sorted(set().union(*groups, reads, deletes)):
        writes = [number for group in groups for number in group.get(key, ())]
        register = _Register(evidence, key, writes, reads.get(key, ()), deletes.get(key, ()), end)
        views = [CHAIN]
        if evidence.history.keys.numbers[key] in uncertain:
            views += register.branches()
        for view in views:
            undecided += register.judge(view, final.get(key), findings, budget)
        findings.operations += register.acked()
    judgement = findings.judgement()
    if undecided and judgement.verdict == "valid":
        note = f"{undecided} registers could not be decided within {steps} steps of search"
        return Judgement(checker, "unknown", judgement.operations, 0, {}, (), note)
    return judgement


@dataclass(slots=True)
class _Zone:
    """``first``: first return of its operations, ``last``: last invocation. ``begun``: when its write was invoked. ``value``: None for nothing."""

    first: int
    last: int
    begun: int
    value: int | None
    write: int = -1

    def read(self, invoked: int, returned: int) -> None:
        if returned < self.first:
            self.first = returned
        if invoked > self.last:
            self.last = invoked


@dataclass(slots=True)
class _View:
    """Numbers of operations: those that were, and those that may have been."""

    writes: list[int] = field(default_factory=list)
    perhaps: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    deletes: list[int] = field(default_factory=list)
    deletes_perhaps: list[int] = field(default_factory=list)


class _Register:
    """One key, and its views."""

    def __init__(
        self, evidence: Evidence, key: bytes, writes: Sequence[int], reads: Sequence[int], deletes: Sequence[int], end: int
    ) -> None:
        self._evidence, self._key, self._end = evidence, key, end
        self._writes, self._reads, self._deletes = writes, reads, deletes

    def acked(self) -> int:
        outcome = self._evidence.columns.outcome
        return sum(outcome[number] == _OK for numbers in (self._writes, self._reads, self._deletes) for number in numbers)

    def branches(self) -> list[int]:
        """Deposed reigns that acked something here that did not surely survive; not those apart, which begin with nobody knows what."""
        fate, reign = self._evidence.fate, self._evidence.reign
        found = {reign[number] for numbers in (self._writes, self._reads, self._deletes) for number in numbers if fate[number]}
        return sorted(one for one in found - {ELSEWHERE} if not self._evidence.reigns[one].apart)

    # --- views

    def _split(self, numbers: Sequence[int], view: int) -> tuple[list[int], list[int]]:
        """Those that were, and those that may have been."""
        outcome, fate, reigns = self._evidence.columns.outcome, self._evidence.fate, self._evidence.reign
        surely: list[int] = []
        perhaps: list[int] = []
        shard = self._evidence.reigns[view].shard if view != CHAIN else 0
        for number in numbers:
            ended = outcome[number]
            if ended != _OK:
                if ended != _FAIL:
                    perhaps.append(number)
                continue
            if view == CHAIN:
                if fate[number] == SURVIVED:
                    surely.append(number)
                elif fate[number] == MAYBE:
                    perhaps.append(number)
                continue
            reign = reigns[number]
            if reign == view or (reign < view and fate[number] == SURVIVED and self._evidence.reigns[reign].shard == shard):
                surely.append(number)
            elif reign < view or reign == ELSEWHERE or self._evidence.reigns[reign].shard != shard:
                perhaps.append(number)
        return surely, perhaps

    def _view(self, view: int) -> _View:
        reign, outcome = self._evidence.reign, self._evidence.columns.outcome
        writes, perhaps = self._split(self._writes, view)
        reads, _ = self._split([number for number in self._reads if reign[number] != ELSEWHERE and outcome[number] == _OK], view)
        return _View(writes, perhaps, reads, *self._split(self._deletes, view))

    # --- judging

    def judge(self, number: int, final: Datum, findings: Findings, budget: Budget) -> bool:
        """Adds what is wrong; True when it could not be decided."""
        view = self._view(number)
        with_final = number == CHAIN
        zones, unique = self._zones(view, final if with_final else None, findings, with_final=with_final)
        found = conflicts(zones)
        twice = _deleted_twice(self._evidence, view)
        if not found and unique and twice < 0:
            return False
        if view.deletes or view.deletes_perhaps or not unique:
            answer = find_order(self._calls(view, final, with_final=with_final), budget)
            if answer is not False:
                return answer is None
        if not found:
            detail = "no order of its operations agrees with all answers"
            if twice >= 0:
                detail = f"operation {twice} deleted it, though it was deleted and nothing had been written since"
            findings.add("stale", self._key, detail, operation=twice)
        for older, newer in found:
            self._report(findings, older, newer)
        return False

    def _zones(self, view: _View, final: Datum, findings: Findings, *, with_final: bool) -> tuple[list[_Zone], bool]:
        """Also whether all values are unique. Reads that nothing can have been the source of are reported and left out."""
        columns = self._evidence.columns
        value, result, invoked, returned = columns.value, columns.result, columns.invoked, columns.returned
        zones: dict[int, _Zone] = {}
        for number in view.writes:
            zones[value[number]] = _Zone(returned[number], invoked[number], invoked[number], value[number], number)
        unique = len(zones) == len(view.writes)
        perhaps = {value[number]: number for number in view.perhaps}
        absent: list[tuple[int, int]] = [(invoked[number], returned[number]) for number in view.deletes if result[number] == 0]
        reads = [(result[number], invoked[number], returned[number], number) for number in view.reads]
        if with_final:
            if final is None or isinstance(final, int):
                reads.append((NOTHING if final is None else final, self._end, self._end, -1))
            else:
                findings.add("phantom", self._key, f"at the end it holds {final!r}, which nobody wrote", lost=1)
        for seen, sent, answered, number in reads:
            if seen == NOTHING:
                absent.append((sent, answered))
                continue
            zone = zones.get(seen)
            if zone is None:
                write = perhaps.get(seen, -1)
                if write < 0:
                    self._stranger(findings, seen, number)
                    continue
                zone = zones[seen] = _Zone(NEVER, invoked[write], invoked[write], seen, write)
            if answered < zone.begun:
                findings.add("phantom", self._key, f"operation {number} read {seen} before anybody had sent it", operation=number)
            else:
                zone.read(sent, answered)
        return [*zones.values(), *self._nothing(view, zones.values(), sorted(absent))], unique

    def _nothing(self, view: _View, values: Iterable[_Zone], reads: Sequence[tuple[int, int]]) -> list[_Zone]:
        """A zone for each time that there was nothing: at first, and after each delete that answered 1.

        A read of nothing is given to the last delete before it; where a value's zone lies between, to a delete that is in flight with it.
        """
        columns = self._evidence.columns
        invoked, returned, result = columns.invoked, columns.returned, columns.result
        first = _Zone(-1, -1, -1, None)
        surely = sorted(
            (_Zone(returned[number], invoked[number], invoked[number], None, number) for number in view.deletes if result[number] != 0),
            key=lambda zone: zone.first,
        )
        perhaps = [_Zone(NEVER, invoked[number], invoked[number], None, number) for number in view.deletes_perhaps]
        if reads:
            between = sorted((zone.first, zone.last) for zone in values)
            ends = [end for end, _ in between]
            latest = list(accumulate((last for _, last in between), max))
            begins = [zone.first for zone in surely]  # before reads move them
            for sent, answered in reads:
                place = bisect_left(begins, sent)
                chosen, since = (surely[place - 1], begins[place - 1]) if place else (first, -1)
                behind = bisect_left(ends, sent)
                if behind and latest[behind - 1] > since:
                    flying = [zone for zone in surely[place : place + 16] if zone.begun <= answered]
                    flying += [zone for zone in perhaps if zone.begun <= answered]
                    chosen = max(flying, key=lambda zone: zone.begun, default=chosen)
                chosen.read(sent, answered)
        return [first, *surely, *(zone for zone in perhaps if zone.first != NEVER)]

    def _calls(self, view: _View, final: Datum, *, with_final: bool) -> Iterable[Call]:
        columns = self._evidence.columns
        value, result, invoked, returned = columns.value, columns.result, columns.invoked, columns.returned

        def datum(stored: int) -> int | None:
            return None if stored == NOTHING else stored

        seen = {result[number] for number in view.reads} | {final}
        needed = any(result[number] == 1 for number in view.deletes)  # by a delete that found something
        for number in view.writes:
            yield Call(WRITE, value[number], invoked[number], returned[number])
        for number in view.perhaps:
            if needed or value[number] in seen:  # else it may as well not have been
                yield Call(WRITE, value[number], invoked[number], NEVER)
        for number in view.reads:
            yield Call(READ, datum(result[number]), invoked[number], returned[number])
        for number in view.deletes:
            yield Call(DELETE, datum(result[number]), invoked[number], returned[number])
        for number in view.deletes_perhaps:
            yield Call(DELETE, None, invoked[number], NEVER)
        if with_final and (final is None or isinstance(final, int)):
            yield Call(READ, final, self._end, self._end)

    # --- saying what is wrong

    def _stranger(self, findings: Findings, seen: int, reader: int) -> None:
        columns = self._evidence.columns
        where = f"operation {reader} read" if reader >= 0 else "at the end it holds"
        write = next((number for number in self._writes if columns.value[number] == seen), -1)
        if write < 0:
            findings.add("phantom", self._key, f"{where} {seen}, which nobody wrote", operation=reader)
        elif columns.outcome[write] == _FAIL:
            findings.add("resurrected", self._key, f"{where} {seen}, whose write was refused", operation=write)
        elif self._evidence.fate[write] == LOST:
            findings.add("resurrected", self._key, f"{where} {seen}, whose write was lost with its primary", operation=write)
        else:
            findings.add("phantom", self._key, f"{where} {seen}, which was written on another node only", operation=write)

    def _report(self, findings: Findings, one: _Zone, other: _Zone) -> None:
        older, newer = (one, other) if one.begun <= other.begun else (other, one)
        if newer.value is None:
            kind = "resurrected"
        elif older.last == self._end:
            kind = "lost"
        else:
            kind = "stale"
        was = "was deleted" if newer.value is None else f"got {newer.value}"
        shows = "nothing was" if older.value is None else f"{older.value} was"
        when = "at the end" if older.last == self._end else "later"
        detail = f"it {was} (operation {newer.write}), and {when} {shows} read"
        findings.add(kind, self._key, detail, lost=int(kind == "lost"), operation=newer.write)


def conflicts(zones: Iterable[_Zone]) -> list[tuple[_Zone, _Zone]]:
    """Pairs that each stand before the other: f(X) < s(Y) and f(Y) < s(X). Not all of them, and at least one when there is any."""
    forward: list[_Zone] = []
    backward: list[_Zone] = []
    for zone in zones:
        (forward if zone.first < zone.last else backward).append(zone)
    forward.sort(key=lambda zone: zone.first)
    found: list[tuple[_Zone, _Zone]] = []
    reach: list[_Zone] = []  # for each forward zone the one that reaches furthest, of those that begin no later
    for zone in forward:
        furthest = reach[-1] if reach else None
        if furthest is not None and zone.first < furthest.last:
            found.append((furthest, zone))
        reach.append(zone if furthest is None or zone.last > furthest.last else furthest)
    begins = [zone.first for zone in forward]
    for zone in backward:
        place = bisect_left(begins, zone.last)
        if place and zone.first < reach[place - 1].last:
            found.append((reach[place - 1], zone))
    return found


def _deleted_twice(evidence: Evidence, view: _View) -> int:
    """The number of a delete that answered 1 although a surely earlier one had, and no write can have come between; -1 without one."""
    columns = evidence.columns
    invoked, returned, result = columns.invoked, columns.returned, columns.result
    deletes = sorted((returned[number], number) for number in view.deletes if result[number] == 1)
    if len(deletes) < 2:
        return -1
    writes = sorted([(invoked[number], returned[number]) for number in view.writes] + [(invoked[number], NEVER) for number in view.perhaps])
    begins = [begin for begin, _ in writes]
    latest: list[int] = []
    for _, end in writes:
        latest.append(max(end, latest[-1]) if latest else end)
    for place in range(1, len(deletes)):
        before, number = deletes[place - 1][0], deletes[place][1]
        if before < invoked[number]:
            behind = bisect_left(begins, returned[number] + 1)
            if not behind or latest[behind - 1] < invoked[deletes[place - 1][1]]:
                return number
    return -1
