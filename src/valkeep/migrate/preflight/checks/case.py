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
    """Both sides' facts and what is wanted. Checks of pairs run only where there is a target. ``only``: the side ("source", "target") that a check of each
    side is about now, "": of both. ``parts``: where a side has several shards, who has data for this target, and which part of it; (): the source, all."""

    source: ServerFacts
    target: ServerFacts | None
    options: PreflightOptions
    only: str = ""
    parts: tuple[tuple[ServerFacts, float], ...] = ()

    @property
    def pair(self) -> tuple[ServerFacts, ServerFacts]:
        assert self.target is not None, "a check that needs a target was run without one"
        return self.source, self.target

    @property
    def sides(self) -> list[tuple[str, ServerFacts]]:
        """For the checks that ask the same of each side."""
        named = (("source", self.source), ("target", self.target))
        return [(side, facts) for side, facts in named if facts is not None and self.only in ("", side)]

    @property
    def arriving_bytes(self) -> int | None:
        """Of data, in the target; None where that is not known."""
        sizes = [(facts.data_bytes, part) for facts, part in self.parts or ((self.source, 1.0),)]
        known = [size * part for size, part in sizes if size is not None]
        return int(sum(known)) if len(known) == len(sizes) else None


@dataclass(frozen=True, slots=True)
class Check:
    """One question. ``name``: stable, written into reports. ``needs_target``: asked only when a target is given. ``each``: the same of each side
    (`Case.sides`). ``whole``: of clusters once, and not of each of their shards."""

    name: str
    area: str
    run: Callable[[Case], Findings]
    needs_target: bool = False
    each: bool = False
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
