"""SPOP: who was answered as popped is gone and was popped once; who was never popped is still there. SADD: who was added is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from valkeep.drill.checkers.evidence import LOST, SURVIVED, Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.registers import by_key
from valkeep.drill.history import Datum, Operation, Outcome

__all__ = ["check_additions", "check_pools"]


def check_pools(
    operations: Iterable[Operation], final: Mapping[bytes, AbstractSet[Datum]], *, initial: Mapping[bytes, AbstractSet[Datum]]
) -> Judgement:
    """``initial`` and ``final``: members before the first operation and as read at the end. An empty pool answers None.

    An indefinite pop may have taken any one member; one whose answer is known (a loss explained elsewhere) that very member.
    """
    findings = Findings("spop")
    for key, listed in by_key(operations).items():
        began, left = initial.get(key, frozenset()), final.get(key, frozenset())
        popped: dict[Datum, Operation] = {}
        perhaps: set[Datum] = set()
        blind = 0
        for operation in listed:
            member = operation.result
            if operation.outcome is Outcome.OK:
                findings.operations += 1
                if member is None:
                    continue
                if member not in began:
                    findings.add("phantom", key, f"{member!r} was popped and had never been there", operation=operation.number)
                elif member in popped:
                    first = popped[member]
                    detail = (
                        f"{member!r} was popped twice: operation {first.number} at {first.node} and {operation.number} at {operation.node}"
                    )
                    findings.add("duplicated", key, detail, lost=1, operation=first.number)
                elif member in left:
                    findings.add(
                        "resurrected", key, f"{member!r} was popped at {operation.node} and is there", lost=1, operation=operation.number
                    )
                popped.setdefault(member, operation)
            elif operation.outcome is Outcome.INFO:
                if member is None:
                    blind += 1
                else:
                    perhaps.add(member)
        for member in left - began:
            findings.add("phantom", key, f"{member!r} is there and never was")
        missing = began - left - popped.keys() - perhaps
        if len(missing) > blind:
            some = ", ".join(repr(member) for member in sorted(missing, key=repr)[:3])
            findings.add(
                "lost",
                key,
                f"{len(missing)} members are gone that nobody popped ({blind} indefinite pops): {some}",
                lost=len(missing) - blind,
            )
    return findings.judgement()


def check_additions(evidence: Evidence, final: Mapping[bytes, AbstractSet[int]]) -> Judgement:
    """Sets that only grow, of unique members: what survived is there, what was lost or refused is not, and nothing else is."""
    findings = Findings("sets")
    outcome, value, result, fate = evidence.columns.outcome, evidence.columns.value, evidence.columns.result, evidence.fate
    listed = evidence.numbers("add")
    for key in sorted(listed.keys() | final.keys()):
        members, numbers = final.get(key, frozenset()), listed.get(key, ())
        strangers = set(members)
        for number in numbers:
            member, there = value[number], value[number] in members
            if there:
                strangers.discard(member)
            if outcome[number] == Outcome.FAIL:
                if there:
                    findings.add("resurrected", key, f"{member} is there, and was refused", operation=number)
            elif outcome[number] == Outcome.OK:
                findings.operations += 1
                if result[number] == 0:
                    findings.add("duplicated", key, f"{member} was added once, and the answer was that it is there", operation=number)
                if there and fate[number] == LOST:
                    findings.add("resurrected", key, f"{member} is there, and was lost with its primary", operation=number)
                elif not there and fate[number] == SURVIVED:
                    findings.add("lost", key, f"{member} is missing, and a later write of its stream is there", lost=1, operation=number)
        for member in sorted(strangers):
            findings.add("phantom", key, f"{member!r} is there, and nobody added it")
    return findings.judgement()
