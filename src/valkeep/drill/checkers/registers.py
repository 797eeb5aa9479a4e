"""SET: the last acked value of a key is there, or a later (or indefinite) one.

Which acked write was last is known only as far as program order and times say: within one process its own order, across
processes only "returned before the other was invoked". So the candidates are the last acked write of each process that no other
acked write surely followed. Indefinite writes may have happened, also late: each of their values may be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.history import Datum, Operation, Outcome

__all__ = ["by_key", "check_registers", "last_acked"]


def by_key(operations: Iterable[Operation]) -> dict[bytes, list[Operation]]:
    """The operations of each key, in order of invocation."""
    found: dict[bytes, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.key, []).append(operation)
    return found


def last_acked(operations: Iterable[Operation]) -> list[Operation]:
    """The acked operations (of one key) that no other acked one surely followed."""
    last: dict[int, Operation] = {}
    latest = -1
    for operation in operations:
        if operation.outcome is Outcome.OK:
            last[operation.process] = operation
            latest = max(latest, operation.invoked)
    return [operation for operation in last.values() if operation.returned >= latest]


def check_registers(
    operations: Iterable[Operation], final: Mapping[bytes, Datum], *, initial: Mapping[bytes, Datum] | None = None, checker: str = "set"
) -> Judgement:
    """``final``: each key's value as read (None: absent). ``initial``: values before the first operation (default: absent)."""
    findings = Findings(checker)
    for key, listed in by_key(operations).items():
        acked = [operation for operation in listed if operation.outcome is Outcome.OK]
        findings.operations += len(acked)
        last = last_acked(acked)
        allowed: set[Datum] = {operation.value for operation in last}
        if not acked:
            allowed.add(initial.get(key) if initial else None)
        found = final.get(key)
        if found in allowed or any(operation.value == found for operation in listed if operation.outcome is Outcome.INFO):
            continue
        behind = [operation for operation in acked if operation.value == found]
        newest = max(last, key=lambda operation: operation.number) if last else None
        wanted = f"last acked {newest.value!r} (operation {newest.number} at {newest.node})" if newest else "no acked write"
        if behind:
            after = [operation for operation in acked if operation.number > behind[-1].number]
            findings.add("lost", key, f"{wanted}, found the older {found!r}", lost=len(after), operation=after[0].number if after else -1)
        elif found is None or (initial is not None and key in initial and initial[key] == found):
            findings.add("lost", key, f"{wanted}, found {found!r}", lost=len(acked) or 1, operation=acked[0].number if acked else -1)
        elif any(operation.value == found for operation in listed):
            findings.add("phantom", key, f"{wanted}, found {found!r}, a write that was refused")
        else:
            findings.add(
                "changed", key, f"{wanted}, found {found!r}, which nobody wrote", lost=1, operation=newest.number if newest else -1
            )
    return findings.judgement()
