"""One failover taken apart, on one clock: what of the outage was detection, agreement, election, promotion, and the clients' own finding out.

    fault ─► sdown ─► odown ─► elected ─► promoted ─► first-ack ─► redundant
             one       quorum             REPLICAOF    a client's    the new primary counts
             node                         NO ONE       write         a replica again

The first four come from the servers' logs (milliseconds), the first ack from the history, redundancy from the watcher. A step that did
not happen (a planned failover has no sdown) is left out; one that lies before its fault belongs to an earlier fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from valkeep.drill.outcome import Recovery, RecoveryStep
from valkeep.drill.serverlog import Moment

__all__ = ["recovery"]

_SHOWN = ("sdown", "odown", "elected", "promoted", "switched")


def recovery(
    fault: str, at: int, until: int, told: Iterable[Moment], acks: Sequence[int], redundant: int | None, *, heirs: frozenset[str]
) -> Recovery:
    """The steps between the fault at ``at`` and ``until`` (ns; the next fault, or the end).

    ``acks``: times at which writes returned from a node of ``heirs`` (those that were promoted after the fault), ascending. ``redundant``: when the
    watcher first saw a replica online behind the new primary, or None.
    """
    steps: list[RecoveryStep] = []
    found: set[str] = set()
    for moment in told:
        # the log's times are cut to milliseconds, so a step may seem to be up to one before its cause
        if moment.step in _SHOWN and moment.step not in found and at - 1_000_000 <= moment.at < until:
            found.add(moment.step)
            steps.append(RecoveryStep(moment.step, max(moment.at, at), max(moment.at - at, 0) / 1e6, f"{moment.node}: {moment.text}"))
    promoted = next((step.at_ns for step in steps if step.name == "promoted"), None)
    if promoted is not None and heirs:
        first = next((ack for ack in acks if ack >= promoted), None)
        if first is not None and first < until:
            steps.append(RecoveryStep("first-ack", first, (first - at) / 1e6))
    if redundant is not None and at <= redundant < until:
        steps.append(RecoveryStep("redundant", redundant, (redundant - at) / 1e6))
    return Recovery(fault, tuple(sorted(steps, key=lambda step: step.at_ns)))
