"""What a checker says: a verdict, how many acked operations are gone, and examples of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["EXAMPLES", "Anomaly", "Findings", "Judgement", "judged", "worst"]

EXAMPLES: Final = 20  # anomalies that a judgement carries; all are counted


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not be. ``kind``: lost, changed, duplicated, reordered, resurrected, partial, phantom, ttl-lost, ttl-changed,
    gap; of a drill also unexplained, hole, beyond, stale (docs/reference/checkers.md says what each means). ``lost``: how many acked
    operations it stands for. ``operation``: the number in the history of the first one, or -1."""

    kind: str
    key: bytes
    detail: str
    lost: int = 0
    operation: int = -1

    def to_json(self) -> dict[str, object]:
        key = self.key.decode("utf-8", "backslashreplace")
        return {"kind": self.kind, "key": key, "detail": self.detail, "lost": self.lost, "operation": self.operation}


@dataclass(frozen=True, slots=True)
class Judgement:
    """``verdict``: valid, invalid, or unknown (the checker could not tell). ``operations``: acked operations judged."""

    checker: str
    verdict: str
    operations: int
    lost: int
    counts: dict[str, int]
    anomalies: tuple[Anomaly, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "checker": self.checker,
            "verdict": self.verdict,
            "operations": self.operations,
            "lost": self.lost,
            "anomalies": dict(self.counts),
            "examples": [anomaly.to_json() for anomaly in self.anomalies],
            "note": self.note,
        }


@dataclass(slots=True)
class Findings:
    """Collects anomalies while a checker works: counts all, keeps the first few."""

    checker: str
    operations: int = 0
    lost: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[Anomaly] = field(default_factory=list)

    def add(self, kind: str, key: bytes, detail: str, *, lost: int = 0, operation: int = -1) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.lost += lost
        if len(self.examples) < EXAMPLES:
            self.examples.append(Anomaly(kind, key, detail, lost, operation))

    def judgement(self, note: str = "") -> Judgement:
        verdict = "invalid" if self.counts else "valid"
        return Judgement(self.checker, verdict, self.operations, self.lost, dict(self.counts), tuple(self.examples), note)


def judged(name: str, check: Callable[[], Judgement]) -> Judgement:
    """Run a checker; one that crashes has not found the history valid: its verdict is unknown."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a checker's bug must not look like a verdict
        return Judgement(name, "unknown", 0, 0, {}, (), f"the checker failed: {type(error).__name__}: {error}")


def worst(judgements: Iterable[Judgement]) -> str:
    """The verdict of all together: one invalid makes it invalid, else one unknown makes it unknown."""
    verdicts = {judgement.verdict for judgement in judgements}
    return "invalid" if "invalid" in verdicts else "unknown" if "unknown" in verdicts or not verdicts else "valid"
