"""EXPIRE: the key expires when the last acked EXPIRE said, to the millisecond that its server took for now.

``EXPIRE key s`` at a server means "s seconds from now", and that now lies between invocation and reply. So the absolute expiry
(PEXPIRETIME), which is what crosses, lies in [invoked + s, returned + s] – give or take ``slack_ms`` for the server's own rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.registers import by_key, last_acked
from valkeep.drill.history import Operation, Outcome

__all__ = ["ABSENT", "PERSISTENT", "check_expiries", "is_from"]

PERSISTENT, ABSENT = -1, -2  # what PEXPIRETIME answers for a key without a TTL, and for no key
SLACK_MS = 5


def is_from(operation: Operation, found: int, origin_unix_ns: int, slack_ms: int = SLACK_MS) -> bool:
    """Whether this EXPIRE may have left this PEXPIRETIME."""
    low, high = _window(operation, origin_unix_ns, slack_ms)
    return low <= found <= high


def check_expiries(
    operations: Iterable[Operation],
    final: Mapping[bytes, int],
    *,
    origin_unix_ns: int,
    initial: Mapping[bytes, int] | None = None,
    slack_ms: int = SLACK_MS,
) -> Judgement:
    """``value`` of an operation: seconds. ``final``: PEXPIRETIME in ms. ``origin_unix_ns``: wall time at the history's zero."""
    findings = Findings("expire")
    for key, listed in by_key(operations).items():
        acked = [operation for operation in listed if operation.outcome is Outcome.OK]
        findings.operations += len(acked)
        found = final.get(key, ABSENT)
        last = last_acked(acked)
        windows = [_window(operation, origin_unix_ns, slack_ms) for operation in last]
        windows += [_window(operation, origin_unix_ns, slack_ms) for operation in listed if operation.outcome is Outcome.INFO]
        if any(low <= found <= high for low, high in windows):
            continue
        if not acked and found == (initial.get(key, PERSISTENT) if initial else PERSISTENT):
            continue
        newest = max((operation.number for operation in last), default=-1)
        if found == ABSENT:
            findings.add("lost", key, "the key is gone before its time", lost=len(last), operation=newest)
        elif found == PERSISTENT:
            findings.add("ttl-lost", key, f"{len(acked)} acked EXPIREs, and the key has no TTL", lost=len(last), operation=newest)
        else:
            low, high = windows[0] if windows else (0, 0)
            off = found - high if found > high else found - low
            findings.add("ttl-changed", key, f"expires at {found}, {off:+d} ms beside {low} … {high}", lost=len(last), operation=newest)
    return findings.judgement()


def _window(operation: Operation, origin_unix_ns: int, slack_ms: int) -> tuple[int, int]:
    assert isinstance(operation.value, int)
    ahead = operation.value * 1000
    low = (origin_unix_ns + operation.invoked) // 1_000_000 + ahead - slack_ms
    if operation.returned < 0 or operation.outcome is Outcome.INFO:
        return low, 1 << 62  # it may still happen
    return low, (origin_unix_ns + operation.returned) // 1_000_000 + ahead + slack_ms
