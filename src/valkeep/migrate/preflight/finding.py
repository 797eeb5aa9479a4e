"""One finding of preflight, and how findings become a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Severity", "Verdict", "verdict_of"]


class Severity(StrEnum):
    """``blocker``: it must not start. ``warning``: it may start when somebody has said that this is known. ``unknown``: the same, because nobody could look.
    ``info``: good to know."""

    BLOCKER = "blocker"
    WARNING = "warning"
    UNKNOWN = "unknown"
    INFO = "info"
    OK = "ok"

    @property
    def is_condition(self) -> bool:
        """Somebody has to say that they know."""
        return self in (Severity.WARNING, Severity.UNKNOWN)


class Verdict(StrEnum):
    GO = "GO"
    CONDITIONAL_GO = "CONDITIONAL-GO"  # every warning has to be acknowledged by its code
    NO_GO = "NO-GO"


@dataclass(frozen=True, slots=True)
class Finding:
    """``code``: stable, see docs/reference/preflight-codes.md. ``evidence``: name → value, both sides' values where two are compared.
    ``remedy``: never empty for a blocker or a warning."""

    code: str
    severity: Severity
    title: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": str(self.severity),
            "title": self.title,
            "evidence": dict(self.evidence),
            "remedy": self.remedy,
        }


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    severities = {finding.severity for finding in findings}
    if Severity.BLOCKER in severities:
        return Verdict.NO_GO
    return Verdict.CONDITIONAL_GO if any(severity.is_condition for severity in severities) else Verdict.GO
