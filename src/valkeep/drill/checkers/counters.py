"""INCR: the counter is at least the acked increments, at most those and the indefinite ones; no value was answered twice.

Each reply is the counter's value right after the increment, so the replies of one process rise, and two acked increments with one
reply mean that the server forgot the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from valkeep.drill.checkers.evidence import MAYBE, SURVIVED, Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.order import disorder
from valkeep.drill.checkers.registers import by_key
from valkeep.drill.history import NOTHING, Datum, Operation, Outcome

__all__ = ["check_counters", "check_increments"]


def check_counters(
    operations: Iterable[Operation], final: Mapping[bytes, Datum], *, initial: Mapping[bytes, int] | None = None
) -> Judgement:
    """Every operation adds 1. ``final``: each counter as read (None: absent, which is 0; bytes: not a number)."""
    findings = Findings("incr")
    for key, listed in by_key(operations).items():
        acked = [operation for operation in listed if operation.outcome is Outcome.OK]
        maybe = sum(operation.outcome is Outcome.INFO for operation in listed)
        findings.operations += len(acked)
        start = initial.get(key, 0) if initial else 0
        found = final.get(key)
        value = 0 if found is None else found
        if not isinstance(value, int):
            findings.add("changed", key, f"found {value!r}, which is no number", lost=len(acked))
            continue
        low, high = start + len(acked), start + len(acked) + maybe
        if value < low:
            findings.add("lost", key, f"{len(acked)} acked increments on {start}, found {value}", lost=low - value)
        elif value > high:
            findings.add("duplicated", key, f"{len(acked)} acked and {maybe} indefinite increments on {start}, found {value}")
        answered: dict[Datum, Operation] = {}
        previous: dict[int, int] = {}
        for operation in acked:
            result = operation.result
            if not isinstance(result, int):
                findings.add("changed", key, f"operation {operation.number} was answered {result!r}", operation=operation.number)
                continue
            if result in answered:
                first = answered[result]
                detail = f"{result} was answered twice: operation {first.number} at {first.node} and {operation.number} at {operation.node}"
                # a loss that the final value shows already is not counted again
                findings.add("duplicated", key, detail, lost=1 if value >= low else 0, operation=first.number)
            elif result <= previous.get(operation.process, start):
                findings.add("reordered", key, f"operation {operation.number} was answered {result} after {previous[operation.process]}")
            answered.setdefault(result, operation)
            previous[operation.process] = max(result, previous.get(operation.process, start))
    return findings.judgement()


def check_increments(evidence: Evidence, final: Mapping[bytes, Datum]) -> Judgement:
    """The same for a drill: what was lost with its primary is not expected, and each reign's answers are judged by themselves."""
    findings = Findings("counters")
    outcome, result, fate, reigns = evidence.columns.outcome, evidence.columns.result, evidence.fate, evidence.reign
    for key, numbers in evidence.numbers("incr").items():
        acked = [number for number in numbers if outcome[number] == Outcome.OK]
        survivors = [number for number in acked if fate[number] == SURVIVED]
        maybe = sum(outcome[number] not in (Outcome.OK, Outcome.FAIL) for number in numbers)
        maybe += sum(fate[number] == MAYBE for number in acked)
        findings.operations += len(acked)
        value = final.get(key) or 0
        if not isinstance(value, int):
            findings.add("changed", key, f"found {value!r}, which is no number", lost=len(survivors))
            continue
        low, high = len(survivors), len(survivors) + maybe
        if value < low:
            findings.add("lost", key, f"{low} acked increments that survived, found {value}", lost=low - value)
        elif value > high:
            findings.add("duplicated", key, f"{low} acked increments that survived and {maybe} that may have, found {value}")
        streams = [survivors]
        if len(survivors) < len(acked):
            streams += [[number for number in acked if reigns[number] == reign] for reign in {reigns[number] for number in acked}]
        for stream in streams:
            answered = sorted((result[number], number) for number in stream if result[number] != NOTHING)
            for (one, first), (other, second) in pairwise(answered):
                if one == other:
                    findings.add("duplicated", key, f"{one} was answered twice: operations {first} and {second}", operation=second)
            for number, before, why in disorder(evidence, [number for _, number in answered]):
                detail = f"operation {number} was answered {result[number]}, more than operation {before}, {why}"
                findings.add("reordered", key, detail, operation=number)
    return findings.judgement()
