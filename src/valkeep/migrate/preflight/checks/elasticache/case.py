"""What a numbered check gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from valkeep.migrate.elasticache.group import GroupFacts, NetworkFacts
from valkeep.migrate.elasticache.probe import GatewayFacts
from valkeep.migrate.preflight.facts import ServerFacts
from valkeep.migrate.preflight.finding import Finding, Severity

__all__ = ["GroupCase", "NumberedCheck", "blocker", "info", "ok", "unknown", "warning", "worst"]


@dataclass(frozen=True, slots=True)
class GroupCase:
    """``target``: what answered at the group's endpoint, None where nothing did (``silent``: why). ``taken``: the general findings that this check answers.
    ``goes_on``: a killed run's migration, if one is under way, is gone on with: whose it is was judged before (`unfinished`)."""

    group: GroupFacts
    source: ServerFacts
    target: ServerFacts | None
    gateway: GatewayFacts
    silent: str = ""
    taken: tuple[Finding, ...] = ()
    goes_on: bool = False

    @property
    def network(self) -> NetworkFacts:
        return self.group.network

    def denied(self, *actions: str) -> str:
        """Which of these IAM actions were denied, for an `unknown`."""
        return ", ".join(action for action in actions if action in self.group.denied)


NumberedCheck = Callable[[GroupCase], Finding]

_ORDER = {Severity.BLOCKER: 0, Severity.WARNING: 1, Severity.UNKNOWN: 2, Severity.INFO: 3, Severity.OK: 4}


def worst(findings: Sequence[Finding], **more: object) -> Finding | None:
    """The gravest of them, with more evidence; None where there is none."""
    found = min(findings, key=lambda one: _ORDER[one.severity], default=None)
    return replace(found, evidence={**found.evidence, **_evidence(more)}) if found is not None else None


def blocker(title: str, remedy: str, **evidence: object) -> Finding:
    return Finding("", Severity.BLOCKER, title, _evidence(evidence), remedy)


def warning(title: str, remedy: str, **evidence: object) -> Finding:
    return Finding("", Severity.WARNING, title, _evidence(evidence), remedy)


def unknown(title: str, remedy: str, **evidence: object) -> Finding:
    return Finding("", Severity.UNKNOWN, title, _evidence(evidence), remedy)


def info(title: str, remedy: str = "", **evidence: object) -> Finding:
    return Finding("", Severity.INFO, title, _evidence(evidence), remedy)


def ok(title: str, **evidence: object) -> Finding:
    return Finding("", Severity.OK, title, _evidence(evidence))


def _evidence(values: dict[str, object]) -> dict[str, str]:
    return {name.replace("_", " "): "not known" if value is None else str(value) for name, value in values.items()}
