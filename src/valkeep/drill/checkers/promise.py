"""What a configuration promises: the window in which acked writes may be lost when a primary is deposed, from its settings alone.

Under the defaults most windows are open on one side; min-replicas-to-write closes them. WAIT promises nothing (its own manual says so):
it lets one *expect* that nothing is lost, and a drill says that as an expectation, not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from valkeep.drill.checkers.reigns import ALWAYS, NEVER, Bound, Cause
from valkeep.topology.spec import Kind, Persistence

__all__ = ["Settings", "promise"]

SECOND: Final = 1_000_000_000
PUBLISH_PERIOD: Final = 2.0
"""s; a sentinel demotes a stale primary that was well for four of these (sentinel.c, SENTINEL_PUBLISH_PERIOD)."""
INFO_PERIOD: Final = 10.0
"""s; and looks at it that often (sentinel.c, SENTINEL_INFO_PERIOD)."""
COUNTED: Final = 2.0
"""s on top of max-lag: ages of acks are whole seconds, and good replicas are counted once a second (replication.c, replicationCron)."""
SYNC_DELAYED: Final = 2.0
"""s: everysec syncs each second, and lets a write pass that waited for a slow sync for less than two (aof.c, flushAppendOnlyFile)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """As the live servers say them. ``timeout_ms``: cluster-node-timeout. ``slack``: seconds that a busy machine may add to any of this."""

    kind: Kind
    persistence: Persistence = Persistence.NONE
    min_replicas: int = 0
    max_lag: int = 10
    timeout_ms: int = 1000
    slack: float = 1.0


def promise(
    settings: Settings,
    cause: Cause,
    *,
    at: int,
    healed: int | None = None,
    promoted: int | None = None,
    promised_until: int | None = None,
    saved_at: int | None = None,
) -> Bound:
    """The window for one deposition; all times in ns.

    ``promised_until``: everything acked by then is known to be in the successor (from samples of offsets). ``saved_at``: when the last
    snapshot on disk was begun. ``promoted``: for a failover when the last replica had left the old primary, if known, else its promotion.

    What was acked may be lost …

    ============  ====================================================  =========================================================
    cause         … when acked after                                    … when sent before
    ============  ====================================================  =========================================================
    kill          promised_until                                        at + slack
    term          promised_until                                        at + 10 s (shutdown-timeout) + slack
    pause         promised_until                                        Sentinel: healed + 18 s; cluster: healed + 1.5 timeout
    partition     promised_until                                        Sentinel: healed + 18 s; cluster: at + 1.5 timeout
    failover      promised_until                                        Sentinel: promoted + 18 s; cluster: promoted + 1.5 timeout
    coordinated   nothing may be lost
    crash         always: nothing may be lost; everysec: at - 2 s;      at + slack
                  rdb: the last snapshot; none: everything
    restart       AOF of any kind: nothing may be lost (the kernel      at + slack
                  has it); rdb: the last snapshot; none: everything
    ============  ====================================================  =========================================================

    18 s: a sentinel demotes a primary that came back after 4 × 2 s, when it next looks, every 10 s (measured: about 9 s). 1.5 timeout:
    node-timeout, and half of it until the next ping. Both + slack. With min-replicas-to-write ≥ 1 every window but those of crash and
    restart also lies within max-lag + 2 s of ``at`` (before it), and of ``at``, ``promoted`` or ``healed`` (after it; partition, failover
    and pause): acks' ages are whole seconds, and are looked at once a second (measured: max-lag + 0.8 s).
    """
    slack = round(settings.slack * SECOND)
    if cause is Cause.COORDINATED:
        return Bound(NEVER, at, "it waits for replication: nothing may be lost")
    if cause in (Cause.CRASH, Cause.RESTART):
        since, why = _on_disk(settings.persistence, cause, at, saved_at)
        return Bound(since, at + slack, why)

    since, reasons = ALWAYS, []
    if promised_until is not None:
        since = promised_until
        side = "before" if promised_until <= at else "after"
        reasons.append(f"the successor had all that was acked by {abs(at - promised_until) / 1e6:.0f} ms {side} it")
    until, why = _demoted(settings, cause, at, healed, promoted)
    reasons.append(why)
    if until != NEVER:
        until += slack
    if settings.min_replicas > 0:
        lag = round((settings.max_lag + COUNTED) * SECOND)
        since = max(since, at - lag)
        anchor = {Cause.PARTITION: at, Cause.FAILOVER: promoted or at, Cause.PAUSE: healed}.get(cause)
        if anchor is not None:
            until = min(until, anchor + lag + slack)
        reasons.append(f"min-replicas-to-write {settings.min_replicas}: max-lag {settings.max_lag} s + {COUNTED:g} s")
    return Bound(since, until, "; ".join(reasons))


def _demoted(settings: Settings, cause: Cause, at: int, healed: int | None, promoted: int | None) -> tuple[int, str]:
    """Until when the node may ack, and why; without slack."""
    cluster = settings.kind is Kind.CLUSTER
    late = 1.5 * settings.timeout_ms / 1e3 if cluster else 4 * PUBLISH_PERIOD + INFO_PERIOD
    how = f"node-timeout × 1.5 = {late:g} s" if cluster else f"4 × {PUBLISH_PERIOD:g} s + {INFO_PERIOD:g} s until it is demoted"
    match cause:
        case Cause.KILL:
            return at, "it was dead"
        case Cause.TERM:
            return at + 10 * SECOND, "shutdown-timeout 10 s"
        case Cause.PARTITION if cluster:
            return at + round(late * SECOND), f"a minority stops after {how}"
        case Cause.PARTITION | Cause.PAUSE:
            return (NEVER, "it never came back") if healed is None else (healed + round(late * SECOND), f"after it came back {how}")
        case _:
            return (promoted or at) + round(late * SECOND), f"after the promotion {how}"


def _on_disk(persistence: Persistence, cause: Cause, at: int, saved_at: int | None) -> tuple[int, str]:
    """Since when acks may be missing on disk, and why."""
    match persistence:
        case Persistence.NONE:
            return ALWAYS, "no persistence: everything goes"
        case Persistence.RDB:
            return (ALWAYS if saved_at is None else saved_at), "what was written since the last snapshot goes"
        case Persistence.EVERYSEC if cause is Cause.CRASH:
            return at - round(SYNC_DELAYED * SECOND), f"appendfsync everysec: 1 s, {SYNC_DELAYED:g} s when the disk is slow"
        case Persistence.ALWAYS if cause is Cause.CRASH:
            return NEVER, "appendfsync always: nothing may be lost"
        case _:
            return NEVER, "the kernel had the file: nothing may be lost"
