"""What a drill found, as a value, and its JSON (schema 1; docs/reference/drill-report.md has every member).

Whoever runs the drill decides the verdict; here is nothing but what was found:

    verdict ─ reasons ─ expectations (numbers against bounds) ─ judgements (what the checkers say)
    loss (acked writes that are gone, and why) ─ recovery (the steps after each fault) ─ faults, log lines, phases

All moments are CLOCK_MONOTONIC ns, the clock of the history; the JSON has seconds since ``origin_ns``, the moment when the load began
(what was before it, starting the servers, is negative). The history itself is not in the JSON: it is a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.history import History
from valkeep.drill.script import Expectation

__all__ = ["SCHEMA", "DrillOutcome", "DrillsOutcome", "FaultShown", "LogLine", "Met", "Recovery", "RecoveryStep"]

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Met:
    """An expectation beside what was measured. ``expectation``: as text; ``met``: None where there was nothing to compare."""

    expectation: str
    measure: str
    value: float | None
    least: float | None
    most: float | None
    because: str
    met: bool | None

    @classmethod
    def of(cls, expected: Expectation, measures: Mapping[str, float | None]) -> Met:
        value = measures.get(expected.measure)
        return cls(
            str(expected), expected.measure, value, expected.least, expected.most, expected.because, expected.met(value)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecoveryStep:
    """``name``: sdown, odown, elected, promoted, first-ack, redundant …; ``ms``: since the fault; ``line``: the log line that says so, or ""."""

    name: str
    at_ns: int
    ms: float
    line: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """The steps after one fault, by time. ``fault``: as in `FaultShown`: name and target."""

    fault: str
    steps: tuple[RecoveryStep, ...]


@dataclass(frozen=True, slots=True)
class FaultShown:
    """One step of the schedule as it happened. ``target``: as written (``primary``); ``nodes``: whom it met (``n1``); ``end_ns``: healed, or
    the end of the run; a moment has ``end_ns == start_ns``."""

    name: str
    target: str
    nodes: tuple[str, ...]
    start_ns: int
    end_ns: int
    detail: str = ""

    @property
    def title(self) -> str:
        """``kill primary (n1)``."""
        nodes = ", ".join(self.nodes)
        return f"{self.name} {self.target}" + (f" ({nodes})" if nodes and nodes != self.target else "")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a server's log, or of the run's own (``node`` is then ""). ``level``: info, warning or error."""

    at_ns: int
    node: str
    level: str
    text: str


@dataclass(frozen=True, kw_only=True)
class DrillOutcome:
    """A drill that could not run has a verdict, reasons, and nothing else.

    ``topology``, ``schedule``: as text. ``runtime``: local or compose; ``network_how``: what cut the network (``nft``, ``proxy``, ``none``).
    ``timers``: name → ms. ``measures``: what the expectations are about and what else was measured; None: could not be. ``loss``: a
    `LossReport` as JSON. ``lost_operations``: numbers in the history of the acked writes that
    are gone. ``clients``: the client whose connection a process of the history was, by its number.
    ``phases``: seconds of start, load, faults, settle, check, total. ``started``, ``finished``: Unix seconds. ``replay``: the one
    command line that does it again.
    """

    name: str
    teaches: str
    topology: str
    verdict: str
    reasons: tuple[str, ...] = ()
    server: str = ""
    runtime: str = "local"
    network_how: str = ""
    driver: str = "recorder"
    seed: int = 0
    schedule: str = ""
    timers: Mapping[str, int] = field(default_factory=dict)
    measures: Mapping[str, float | None] = field(default_factory=dict)
    expectations: tuple[Met, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    loss: Mapping[str, Any] = field(default_factory=dict)
    lost_operations: tuple[int, ...] = ()
    recovery: tuple[Recovery, ...] = ()
    faults: tuple[FaultShown, ...] = ()
    log: tuple[LogLine, ...] = ()
    history: History = field(default_factory=History)
    clients: tuple[str, ...] = ()
    origin_ns: int = 0
    started: float = 0.0
    finished: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    replay: str = ""

    def seconds(self, at_ns: int) -> float:
        """A moment on the run's clock."""
        return (at_ns - self.origin_ns) / 1e9

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "teaches": self.teaches,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "topology": self.topology,
            "server": self.server,
            "runtime": self.runtime,
            "network": self.network_how,
            "driver": self.driver,
            "seed": self.seed,
            "schedule": self.schedule,
            "timers": dict(self.timers),
            "measures": {name: _rounded(value) for name, value in self.measures.items()},
            "expectations": [asdict(one) | {"value": _rounded(one.value)} for one in self.expectations],
            "checkers": [judgement.to_json() for judgement in self.judgements],
            "loss": dict(self.loss),
            "recovery": [
                {
                    "fault": recovery.fault,
                    "steps": [
                        {"name": step.name, "at": self._at(step.at_ns), "ms": round(step.ms, 1), "line": step.line}
                        for step in recovery.steps
                    ],
                }
                for recovery in self.recovery
            ],
            "faults": [
                {
                    "name": fault.name,
                    "target": fault.target,
                    "nodes": list(fault.nodes),
                    "start": self._at(fault.start_ns),
                    "end": self._at(fault.end_ns),
                    "detail": fault.detail,
                }
                for fault in self.faults
            ],
            "log": [{"at": self._at(line.at_ns), "node": line.node, "level": line.level, "text": line.text} for line in self.log],
            "operations": self.history.counts(),
            "errors": self.history.error_counts(),
            "origin_ns": self.origin_ns,
            "started": round(self.started, 3),
            "finished": round(self.finished, 3),
            "phases": {name: round(seconds, 3) for name, seconds in self.phases.items()},
            "replay": self.replay,
        }

    def _at(self, at_ns: int) -> float:
        return round(self.seconds(at_ns), 4)


@dataclass(frozen=True, slots=True)
class DrillsOutcome:
    """Several drills, in the order in which they ran. ``verdict``: the worst of theirs; unknown where there is none."""

    drills: tuple[DrillOutcome, ...]
    seconds: float

    @property
    def verdict(self) -> str:
        verdicts = {drill.verdict for drill in self.drills}
        return "invalid" if "invalid" in verdicts else "unknown" if "unknown" in verdicts or not verdicts else "valid"

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "total_seconds": round(self.seconds, 2),
            "drills": [drill.to_json() for drill in self.drills],
        }


def _rounded(value: float | None) -> float | None:
    """Milliseconds and rates need no more than three places; counts stay whole; JSON has no infinity."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else round(value, 3)
