"""MULTI: all of a transaction or nothing of it.

The workload's transaction writes one number into two strings and appends it to a list. At every moment – also in a snapshot, also
after a kill – the strings are equal and the list's last element is that number. As the list keeps every transaction, each acked one
must stand in it, once and in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from valkeep.drill.checkers.evidence import Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.linear import check_linear
from valkeep.drill.checkers.registers import by_key
from valkeep.drill.checkers.sequences import check_sequences
from valkeep.drill.history import Datum, Operation

__all__ = ["Group", "check_pairs", "check_transactions"]


@dataclass(frozen=True, slots=True)
class Group:
    """What one transaction writes, as read: two strings and the list."""

    first: Datum
    second: Datum
    written: Sequence[Datum]


def check_transactions(operations: Iterable[Operation], final: Mapping[bytes, Group]) -> Judgement:
    """``final``: the keys of each group, all read at one moment when no writer was at work."""
    listed = list(operations)
    inner = check_sequences(listed, {key: group.written for key, group in final.items()}, checker="multi")
    findings = Findings("multi", inner.operations, inner.lost, dict(inner.counts), list(inner.anomalies))
    for key in by_key(listed):
        group = final.get(key, Group(None, None, ()))
        last = group.written[-1] if group.written else None
        if not group.first == group.second == last:
            findings.add("partial", key, f"the strings are {group.first!r} and {group.second!r}, the list ends with {last!r}")
    return findings.judgement()


def check_pairs(evidence: Evidence, final: Mapping[bytes, tuple[Datum, Datum]]) -> Judgement:
    """``final``: both strings of each pair, as read."""
    inner = check_linear(evidence, {key: first for key, (first, _) in final.items()}, written=("multi", "eval"), checker="pairs")
    findings = Findings("pairs", inner.operations, inner.lost, dict(inner.counts), list(inner.anomalies))
    for key, (first, second) in sorted(final.items()):
        if first != second:
            findings.add("partial", key, f"the strings are {first!r} and {second!r}")
    return findings.judgement() if findings.counts else inner
