"""XADD, XREADGROUP, XACK: a stream keeps what was added, and its group delivers each entry at least once until it is acked.

*Entries* follow the rules of every list: what survived is there, once, in order; what was lost or refused is not. *Deliveries*: each
entry that is there was delivered, is pending, or is still ahead of the group. An entry whose ack survived is neither pending nor delivered
again. The readers of a drill ask for new entries only, so what is delivered twice was forgotten in between: by a failover, or by a bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from valkeep.drill.checkers.evidence import ELSEWHERE, LOST, SURVIVED, Evidence, FinalStream
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.order import disorder
from valkeep.drill.checkers.reigns import NEVER
from valkeep.drill.history import NOTHING, Outcome

__all__ = ["check_groups"]

_OK: Final = int(Outcome.OK)
_FAIL: Final = int(Outcome.FAIL)


def check_groups(evidence: Evidence, final: Mapping[bytes, FinalStream]) -> Judgement:
    """``deliver``: the element is its result, or its value where it has none. ``ack``: its value."""
    findings = Findings("streams")
    added = evidence.numbers("xadd")
    for key in sorted(added.keys() | final.keys() | evidence.numbers("deliver").keys()):
        stream = final.get(key, FinalStream())
        writes = {evidence.columns.value[number]: number for number in added.get(key, ())}
        _check_entries(evidence, findings, key, stream, writes)
        _check_deliveries(evidence, findings, key, stream, writes)
    return findings.judgement()


def _check_entries(evidence: Evidence, findings: Findings, key: bytes, stream: FinalStream, writes: Mapping[int, int]) -> None:
    outcome, fate = evidence.columns.outcome, evidence.fate
    standing: dict[int, int] = {}  # element → its operation, in order
    for element in stream.entries:
        number = writes.get(element, -1)
        if element in standing:
            findings.add("duplicated", key, f"{element!r} stands there twice", operation=number)
        elif number < 0:
            findings.add("phantom", key, f"{element!r} was added by nobody")
        elif outcome[number] == _FAIL:
            findings.add("resurrected", key, f"{element} is there, and was refused", operation=number)
        elif outcome[number] == _OK and fate[number] == LOST:
            findings.add("resurrected", key, f"{element} is there, and was lost with its primary", operation=number)
        standing[element] = number
    for element, number in writes.items():
        if outcome[number] == _OK:
            findings.operations += 1
            if fate[number] == SURVIVED and element not in standing:
                findings.add("lost", key, f"{element} is missing, and a later write of its stream is there", lost=1, operation=number)
    value = evidence.columns.value
    for number, before, why in disorder(evidence, [number for number in standing.values() if number >= 0]):
        findings.add("reordered", key, f"{value[number]} stands behind {value[before]}, {why}", operation=number)


def _check_deliveries(evidence: Evidence, findings: Findings, key: bytes, stream: FinalStream, writes: Mapping[int, int]) -> None:
    columns, fate = evidence.columns, evidence.fate
    outcome, value, result = columns.outcome, columns.value, columns.result
    acked: dict[int, int] = {}  # element → when its ack, which survived, had returned
    for number in evidence.numbers("ack").get(key, ()):
        if outcome[number] == _OK and fate[number] == SURVIVED and result[number] != 0:
            acked.setdefault(value[number], columns.returned[number])
            if value[number] in stream.pending:
                findings.add("lost", key, f"{value[number]} was acked, and is pending", lost=1, operation=number)
    delivered: dict[int, int] = {}  # element → its last delivery that survived, or -1
    by_reign: dict[tuple[int, int], int] = {}  # element, reign → the delivery: a stream that is doomed knows no less what it has delivered
    deliveries = evidence.numbers("deliver").get(key, ())
    for number in deliveries:
        element = value[number] if result[number] == NOTHING else result[number]
        if outcome[number] != _OK or element == NOTHING:
            continue
        findings.operations += 1
        before = delivered.setdefault(element, -1)
        here = by_reign.setdefault((element, evidence.reign[number]), number)
        source = writes.get(element, -1)
        if source < 0 or outcome[source] == _FAIL or columns.returned[number] < columns.invoked[source]:
            findings.add("phantom", key, f"{element} was delivered, and had not been added", operation=number)
        elif fate[number] != SURVIVED and here != number and evidence.reign[number] != ELSEWHERE:
            findings.add(
                "duplicated", key, f"{element}, delivered by operation {here}, was delivered again on the same primary", operation=number
            )
        elif fate[number] == SURVIVED:
            if outcome[source] == _OK and fate[source] == LOST:
                findings.add("resurrected", key, f"{element} was delivered, and had been lost with its primary", operation=number)
            elif before >= 0:
                after = "after it had been acked" if columns.invoked[number] > acked.get(element, NEVER) else "as if it were new"
                findings.add(
                    "duplicated", key, f"{element}, delivered by operation {before}, was delivered again {after}", operation=number
                )
            delivered[element] = number
    if deliveries:
        for element in stream.entries:
            if element not in delivered and element not in stream.pending and element not in stream.undelivered:
                findings.add("lost", key, f"{element} is there and was never delivered, and the group is past it", lost=1)
