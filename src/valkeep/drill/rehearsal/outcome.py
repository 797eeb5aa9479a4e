"""What a rehearsal found: the result value, its JSON (schema 1) and its verdict.

The verdict is *valid* when every acked write survived the move unchanged, both verifications found no difference, the failover lost
nothing but what asynchronous replication explains, no writer met an error other than "not here", and no server exited or counted a
dropped command.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from valkeep.drill.history import History, Outcome
from valkeep.drill.measures import Gap, longest_gap, rate
from valkeep.drill.rehearsal.failover import Failover
from valkeep.drill.rehearsal.judge import FailoverJudgement, MoveJudgement
from valkeep.drill.rehearsal.move import Moved
from valkeep.drill.rehearsal.spotcheck import SpotCheck
from valkeep.drill.rehearsal.writers_process import ELSEWHERE

__all__ = ["FailureShown", "Rehearsal", "Role"]


@dataclass(frozen=True, slots=True)
class FailureShown:
    """What a Valkey said when it was told to replicate from the source natively."""

    shown: bool
    server: str
    line: str


@dataclass(frozen=True, slots=True)
class Role:
    """``server``: "redis 8.0.2"."""

    server: str
    rdb_version: int

    @property
    def version(self) -> str:
        return self.server.partition(" ")[2]


@dataclass(frozen=True)
class Rehearsal:
    """``phases``: (name, start, end) in seconds since ``origin_ns``; ``keys``: at the source when the move began."""

    field_ttl: str
    seed: int
    representative: bool
    source: Role
    target: Role
    failure: FailureShown
    keys: int
    moved: Moved
    move: MoveJudgement
    failover: FailoverJudgement
    events: Failover
    spot: SpotCheck
    unexpected_error_replies: int
    exited: tuple[str, ...]
    history: History
    phases: tuple[tuple[str, float, float], ...]
    origin_ns: int
    elapsed: float

    # ------------------------------------------------------------------------------------------------------- what was measured

    @cached_property
    def acks(self) -> list[int]:
        return self.history.ack_times()

    @cached_property
    def turns(self) -> tuple[int, int, int]:
        """In ns: the last ack of the source, the first of the target, the first of the replica (0 where there was none)."""
        last_source = first_target = first_replica = 0
        for operation in self.history:
            if operation.outcome is Outcome.OK:
                if operation.node == "source":
                    last_source = max(last_source, operation.returned)
                elif operation.node == "target" and not first_target:
                    first_target = operation.returned
                elif operation.node == "replica" and not first_replica:
                    first_replica = operation.returned
        return last_source, first_target, first_replica

    @cached_property
    def write_pause(self) -> Gap:
        """The longest time without an acked write between the source's last ack and the target's first ones."""
        last_source, first_target, _ = self.turns
        return longest_gap(self.acks, last_source, max(first_target, last_source) + 50_000_000)

    @cached_property
    def failover_gap(self) -> Gap:
        """The longest time without an acked write after the kill."""
        first = self.turns[2] or self.events.promoted + 1_000_000_000
        return longest_gap(self.acks, self.events.killed, first + 50_000_000)

    @cached_property
    def writes_per_second(self) -> float:
        """Sustained from the first acked write to the checkpoint, the cut included."""
        end = next((end for name, _, end in self.phases if name == "settle"), self.elapsed)
        return rate(self.acks, self.acks[0], self.origin_ns + int(end * 1e9)) if self.acks else 0.0

    @cached_property
    def surprises(self) -> dict[str, int]:
        """Errors that writers met and that do not mean "another node is the primary"."""
        return {kind: count for kind, count in self.history.error_counts().items() if kind not in ELSEWHERE}

    @property
    def mismatches(self) -> int:
        return self.moved.mismatches + len(self.spot.differences)

    @cached_property
    def verdict(self) -> str:
        bad = (
            self.mismatches or self.move.lost or self.move.wrong or self.unexpected_error_replies or self.surprises or self.exited
            or not self.turns[1] or not self.turns[2] or self.failover.lost > self.failover.allowed
        )  # fmt: skip
        verdicts = {self.moved.verdict, self.move.verdict, self.failover.verdict}
        if bad or "invalid" in verdicts:
            return "invalid"
        return "valid" if verdicts == {"valid"} else "unknown"

    @cached_property
    def reasons(self) -> list[str]:
        """Why the verdict is not valid, one line each."""
        reasons = [
            f"{judgement.checker}: {anomaly.kind}: {anomaly.key.decode('utf-8', 'backslashreplace')}: {anomaly.detail}"
            for judgement in (*self.move.judgements, *self.failover.judgements)
            for anomaly in judgement.anomalies[:3]
        ]
        reasons += [
            f"{judgement.checker}: {judgement.note}"
            for judgement in (*self.move.judgements, *self.failover.judgements)
            if judgement.verdict == "unknown"
        ]
        if self.moved.verdict != "valid" or self.moved.mismatches:
            reasons.append(f"the verification says {self.moved.verdict}, {self.moved.mismatches} keys differ")
        reasons += [f"sample: {difference}" for difference in self.spot.differences[:5]]
        if self.unexpected_error_replies:
            reasons.append(f"targets counted {self.unexpected_error_replies} unexpected error replies")
        reasons += [f"writers met {count} × {kind}" for kind, count in self.surprises.items()]
        reasons += [f"the {name} exited" for name in self.exited]
        if not self.turns[1]:
            reasons.append("no write was ever acked by the target")
        if not self.turns[2]:
            reasons.append("no write was ever acked by the promoted replica")
        return reasons

    # ----------------------------------------------------------------------------------------------------------------- as JSON

    def to_json(self) -> dict[str, Any]:
        events, first_replica = self.events, self.turns[2]
        counts = self.history.counts()
        return {
            "schema": 1,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "representative": self.representative,
            "lost_acked_writes": self.move.lost,
            "wrong_acked_writes": self.move.wrong,
            "mismatches": self.mismatches,
            "write_pause_ms": round(self.write_pause.ms, 1),
            "write_pause_of_pipeline_ms": self.moved.write_pause_ms,
            "keys": self.keys,
            "full_sync_seconds": round(self.moved.full_sync_seconds, 3),
            "source": {
                "server": self.source.server,
                "version": self.source.version,
                "rdb_version": self.moved.source_rdb_version or self.source.rdb_version,
            },
            "target": {"server": self.target.server, "version": self.target.version, "rdb_version": self.target.rdb_version},
            "failure_shown": {"shown": self.failure.shown, "server": self.failure.server, "line": self.failure.line},
            "failover": {
                "gap_ms": round(self.failover_gap.ms, 1),
                "detected_ms": round((events.detected - events.killed) / 1e6, 1),
                "promoted_ms": round((events.promoted - events.killed) / 1e6, 1),
                "first_ack_ms": round((first_replica - events.killed) / 1e6, 1) if first_replica else None,
                "lost_acked_writes": self.failover.lost,
                "allowed": self.failover.allowed,
                "why": "asynchronous replication: only what was acked after the replica's last offset, a suffix of each writer's stream",
                "checkers": [judgement.to_json() for judgement in self.failover.judgements],
            },
            "elapsed_seconds": round(self.elapsed, 2),
            "unexpected_error_replies": self.unexpected_error_replies,
            "field_ttl": self.field_ttl,
            "ledger": self.moved.ledger,
            "acked_writes": counts["ok"],
            "refused_writes": counts["fail"],
            "indefinite_writes": counts["info"],
            "writer_errors": self.history.error_counts(),
            "writes_per_second": round(self.writes_per_second),
            "checkers": [judgement.to_json() for judgement in self.move.judgements],
            "verification": self.moved.verification,
            "sample": {"keys": self.spot.keys, "kinds": self.spot.kinds, "differences": list(self.spot.differences)},
            "seed": self.seed,
            "phases": [{"name": name, "start": round(start, 3), "end": round(end, 3)} for name, start, end in self.phases],
            "cutover": [{"step": step, "at": round(at, 4)} for step, at in self.moved.timeline],
        }
