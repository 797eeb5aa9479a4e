"""The result of preflight: findings, verdict, facts, and what is still to be acknowledged."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from valkeep.errors import ExitCode, Refused
from valkeep.migrate.elasticache.group import GroupFacts
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.preflight.facts import ServerFacts
from valkeep.migrate.preflight.finding import Finding, Severity, Verdict, verdict_of
from valkeep.migrate.preflight.options import PreflightOptions

__all__ = ["PreflightReport"]


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """``findings``: in the order of the checks. ``source``: of a cluster its first shard, which has the others in ``cluster``. ``cutover``: how the source
    permits to be fenced, of several shards the weakest way, None where nobody writes. ``elapsed_seconds``: of the whole preflight. ``group``: a target of
    ElastiCache as AWS describes it."""

    findings: tuple[Finding, ...]
    source: ServerFacts
    target: ServerFacts | None
    options: PreflightOptions
    cutover: FenceMode | None
    elapsed_seconds: float = 0.0
    group: GroupFacts | None = None

    @property
    def databases(self) -> int | None:
        """Of the target, where it is known."""
        return self.target.databases if self.target is not None else None

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The codes that CONDITIONAL-GO asks to acknowledge."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings if finding.severity.is_condition))

    @property
    def blockers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(finding.code for finding in self.findings if finding.severity is Severity.BLOCKER))

    def open(self, accepted: AbstractSet[str] = frozenset()) -> tuple[str, ...]:
        """Conditions that ``accepted`` does not name."""
        return tuple(code for code in self.conditions if code not in accepted)

    def may_start(self, accepted: AbstractSet[str] = frozenset()) -> bool:
        return self.verdict is not Verdict.NO_GO and not self.open(accepted)

    def expect_start(self, accepted: AbstractSet[str]) -> None:
        """Raises ``Refused`` where it may not start, with the first reason in full."""
        if self.may_start(accepted):
            return
        codes = self.blockers or self.open(accepted)
        finding = next(one for one in self.findings if one.code == codes[0])
        more = f" (and {', '.join(codes[1:])})" if len(codes) > 1 else ""
        evidence = "; ".join(f"{name}: {value}" for name, value in finding.evidence.items())
        detail = f" [{evidence}]" if evidence else ""
        remedy = (
            finding.remedy
            if self.blockers
            else f"{finding.remedy}; or say that this is known: --acknowledge {' --acknowledge '.join(codes)}"
        )
        raise Refused(f"preflight says {self.verdict}: {finding.title}{detail}{more}", remedy=remedy, code=finding.code)

    def exit_code(self, accepted: AbstractSet[str] = frozenset()) -> ExitCode:
        return ExitCode.GOOD if self.may_start(accepted) else ExitCode.JUDGED_BAD

    def to_json(self, accepted: AbstractSet[str] = frozenset()) -> dict[str, Any]:
        """``schema`` 1. Stable: every name below."""
        return {
            "schema": 1,
            "verdict": str(self.verdict),
            "may_start": self.may_start(accepted),
            "blockers": list(self.blockers),
            "conditions": list(self.conditions),
            "acknowledged": sorted(set(self.conditions) & accepted),
            "to_acknowledge": list(self.open(accepted)),
            "cutover": None if self.cutover is None else self.cutover.variant,
            "field_ttl": str(self.options.field_ttl),
            "wipe_target": self.options.wipe_target,
            "elapsed_seconds": round(self.elapsed_seconds, 3),
            "findings": [finding.to_json() for finding in self.findings],
            "source": self.source.to_json(),
            "source_shards": [shard.to_json() for shard in self.source.shards] if self.source.cluster is not None else [],
            "target": None if self.target is None else self.target.to_json(),
            "elasticache": None if self.group is None else self.group.to_json(),
        }
