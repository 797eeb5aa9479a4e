"""What a check gets, and the short words that it builds findings with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from valkeep.migrate.preflight.facts import ServerFacts
from valkeep.migrate.preflight.finding import Finding, Severity
from valkeep.migrate.preflight.options import PreflightOptions

__all__ = ["Case", "Check", "Findings", "blocker", "info", "ok", "warning"]

Findings = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class Case:
    """Both sides' facts and what is wanted. Checks of pairs run only where there is a target. ``share``: the part of the data that this target gets:
    of the slots, where it is a shard."""

    source: ServerFacts
    target: ServerFacts | None
    options: PreflightOptions
    share: float = 1.0

    @property
    def pair(self) -> tuple[ServerFacts, ServerFacts]:
        assert self.target is not None, "a check that needs a target was run without one"
        return self.source, self.target


@dataclass(frozen=True, slots=True)
class Check:
    """One question. ``name``: stable, written into reports. ``needs_target``: asked only when a target is given. ``whole``: of a cluster once, and not
    of each of its shards."""

    name: str
    area: str
    run: Callable[[Case], Findings]
    needs_target: bool = False
    whole: bool = False


def blocker(code: str, title: str, remedy: str, **evidence: object) -> Finding:
    return Finding(code, Severity.BLOCKER, title, _evidence(evidence), remedy)


def warning(code: str, title: str, remedy: str, **evidence: object) -> Finding:
    return Finding(code, Severity.WARNING, title, _evidence(evidence), remedy)


def info(code: str, title: str, remedy: str = "", **evidence: object) -> Finding:
    return Finding(code, Severity.INFO, title, _evidence(evidence), remedy)


def ok(code: str, title: str, **evidence: object) -> Finding:
    return Finding(code, Severity.OK, title, _evidence(evidence))


def _evidence(values: dict[str, object]) -> dict[str, str]:
    return {name.replace("_", " "): "not known" if value is None else str(value) for name, value in values.items()}
