"""The typed events that long jobs emit, and to which every view subscribes.

A job takes one ``emit: Emit`` argument and calls it with frozen values; the terminal view, the JSON log, Prometheus and the HTML
timeline are subscribers and know nothing of each other. Events carry the time that the job's clock showed (seconds, monotonic,
the job's own origin), so that a recorded run can be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Emit",
    "Event",
    "Fault",
    "Held",
    "Lag",
    "LedgerEntry",
    "Note",
    "Phase",
    "Progress",
    "Pulse",
    "VerdictEvent",
    "fan_out",
]


@dataclass(frozen=True, slots=True)
class Event:
    """``at``: seconds on the job's monotonic clock."""

    at: float


@dataclass(frozen=True, slots=True)
class Phase(Event):
    """A named phase begins (``done = False``) or ends (``done = True``). ``name`` is stable: it is written into reports."""

    name: str
    done: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Work done in a phase so far. ``total_*`` are 0 where unknown."""

    phase: str
    keys: int = 0
    bytes: int = 0
    total_keys: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lag(Event):
    """How far the target is behind. ``bytes``: of the target's own stream not yet acknowledged; ``milliseconds``: of the last marker, or None."""

    target: str
    bytes: int
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Held(Event):
    """Something in the source's stream cannot be sent, and what follows waits on disk; said again every half second while it lasts. ``offset``: of the source,
    where it stopped; ``bytes``: how much waits. An empty ``why`` says that the stream goes on."""

    offset: int
    bytes: int
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LedgerEntry(Event):
    """One thing that was changed, degraded or refused on the way. The JSON lines of the ledger have the same fields."""

    action: str  # "converted" | "degraded" | "stripped" | "refused" | "recopied" | "held"
    what: str  # for example "field-ttl", "module-aux", "command HPEXPIREAT"
    why: str
    policy: str
    key: bytes | None
    database: int
    source_offset: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Note(Event):
    """A line for the person who watches: ``level`` is "info", "warning" or "error"; secrets never stand in ``text``."""

    level: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VerdictEvent(Event):
    """The outcome of a job, or of that part of it which ``detail["of"]`` names: ``verdict`` is "valid", "invalid", "unknown", "GO", "CONDITIONAL-GO" or
    "NO-GO"."""

    verdict: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pulse(Event):
    """How the load of a drill does, a few times in a second. ``acked``, ``failed``, ``open``: operations so far, the last without an answer (yet);
    ``per_second``: acked, since the last pulse; ``silent_ms``: since the last ack; ``primaries``: who takes writes now, as far as is known (one for each
    shard)."""

    acked: int
    failed: int
    open: int
    per_second: float
    silent_ms: float
    primaries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault(Event):
    """A fault begins, or ends (``healed``). ``name`` and ``target`` as in the schedule, ``nodes``: whom it meets; ``lasting``: until it is healed, or only a
    moment (a restart, a promotion)."""

    name: str
    target: str
    nodes: tuple[str, ...] = ()
    healed: bool = False
    lasting: bool = True


Emit = Callable[[Event], None]


def fan_out(*subscribers: Emit) -> Emit:
    """One ``emit`` that hands each event to every subscriber, in order."""

    def emit(event: Event) -> None:
        for subscriber in subscribers:
            subscriber(event)

    return emit
