"""What a failover lost, and whether it was allowed to: only the end of the dead primary's stream, and only after the replica's offset.

Replication is asynchronous: what the primary acked and had not yet sent is gone when it is killed. That loss is a *suffix* of its
stream. So for each writer (one connection, so its order is the stream's order) there is a first lost operation; everything the
dead node acked to that writer from there on is lost, and nothing of it may have survived. Across writers, what was acked before a
surviving operation was invoked must have survived too. A hole – a lost write before a surviving one – is a bug under any configuration.

The bound: ``promised_until``, the last moment at which the dead primary's offset was seen to be no further than what its replica
had when it was promoted. Whatever had been acked by then is in the replica.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.history import Operation, Outcome

__all__ = ["Survival", "check_suffix", "lost_suffix"]


@dataclass(frozen=True, slots=True)
class Survival:
    """Numbers of operations that the dead node acked and of which the end state shows that they survived, or that they did not."""

    survived: frozenset[int]
    lost: frozenset[int]


def lost_suffix(operations: Iterable[Operation], node: str, survival: Survival) -> frozenset[int]:
    """Every operation that ``node`` acked to a writer from that writer's first lost one on (a superseded SET leaves no trace of its own)."""
    first: dict[int, int] = {}
    listed = [operation for operation in operations if operation.outcome is Outcome.OK and operation.node == node]
    for operation in listed:
        if operation.number in survival.lost:
            first.setdefault(operation.process, operation.number)
    return frozenset(operation.number for operation in listed if operation.number >= first.get(operation.process, operation.number + 1))


def check_suffix(operations: Iterable[Operation], node: str, survival: Survival, *, promised_until: int | None) -> Judgement:
    """``promised_until``: ns on the history's clock, or None where no offsets were sampled (then only the shape is judged)."""
    listed = [operation for operation in operations if operation.outcome is Outcome.OK and operation.node == node]
    lost = lost_suffix(listed, node, survival)
    findings = Findings("failover", len(listed))
    last_survivor = max((operation for operation in listed if operation.number in survival.survived), key=lambda o: o.invoked, default=None)
    for operation in listed:
        if operation.number in lost and operation.number in survival.survived:
            findings.add(
                "gap",
                operation.key,
                f"operation {operation.number} survived, an earlier one of its writer did not",
                operation=operation.number,
            )
        elif operation.number in lost:
            if last_survivor is not None and operation.returned < last_survivor.invoked:
                detail = f"lost, though acked before operation {last_survivor.number} was invoked, which survived"
                findings.add("gap", operation.key, detail, lost=1, operation=operation.number)
            elif promised_until is not None and operation.returned <= promised_until:
                late = (promised_until - operation.returned) / 1e6
                findings.add(
                    "lost", operation.key, f"lost, though acked {late:.1f} ms before the replica had it", lost=1, operation=operation.number
                )
    return findings.judgement(f"{len(lost)} acked writes lost with the primary; asynchronous replication allows it" if lost else "")
