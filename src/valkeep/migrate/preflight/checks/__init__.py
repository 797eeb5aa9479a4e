"""All checks, in five areas and in the order in which they are reported. One small pure function each: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from valkeep.migrate.preflight.checks import cluster, connectivity, readiness, resources, source, target, way_back
from valkeep.migrate.preflight.checks.case import Case, Check
from valkeep.migrate.preflight.finding import Finding
from valkeep.topology.slots import SLOTS

__all__ = ["AREAS", "CHECKS", "FILE_CHECKS", "Case", "Check", "judge"]

AREAS: Final = {
    "connectivity": "Connectivity and security",
    "source": "The source",
    "target": "The target",
    "resources": "Resources",
    "readiness": "Readiness for the move",
}

CHECKS: Final[tuple[Check, ...]] = (
    *connectivity.CHECKS,
    *source.CHECKS,
    *target.CHECKS,
    *cluster.CHECKS,
    *resources.CHECKS,
    *readiness.CHECKS,
    *way_back.CHECKS,
)

_OF_FILES: Final = {
    connectivity.peer,
    connectivity.plaintext,
    connectivity.replication_tls,
    connectivity.protected_mode,
    *(check.run for check in target.CHECKS),
    resources.target_memory,
    resources.target_host_memory,
    readiness.databases,
    readiness.census,
    readiness.module_values,
    readiness.field_ttl,
}
FILE_CHECKS: Final[tuple[Check, ...]] = tuple(check for check in CHECKS if check.run in _OF_FILES)
"""Those that make sense where the source is no server but files."""

_NEEDS_A_SERVER: Final = ("VK-INFO-DENIED", "VK-PEER")


def judge(case: Case, checks: tuple[Check, ...] = CHECKS) -> tuple[Finding, ...]:
    """Every check's findings, in their order. When a peer turns out to be no server that can be asked, the rest makes no sense and is left out."""
    found = tuple(connectivity.peer(case))
    if any(finding.severity == "blocker" and finding.code in _NEEDS_A_SERVER for finding in found):
        return found
    return tuple(finding for check in checks if case.target is not None or not check.needs_target for finding in _asked(check, case))


def _asked(check: Check, case: Case) -> Iterable[Finding]:
    """Of a target that is a cluster: of each shard; what is the same of several is said once, and names them."""
    shards = case.target.cluster.shards if case.target is not None and case.target.cluster is not None else ()
    reached = [(shard, shard.facts) for shard in shards if shard.facts is not None]
    if not check.needs_target or check.whole or not reached:
        return check.run(case)
    told: dict[tuple[str, str, str], tuple[Finding, list[str]]] = {}
    for shard, facts in reached:
        for finding in check.run(replace(case, target=facts, share=shard.slots / SLOTS)):
            told.setdefault((finding.code, finding.severity, finding.title), (finding, []))[1].append(shard.address)
    return [replace(finding, evidence={**finding.evidence, "shards": ", ".join(addresses)}) for finding, addresses in told.values()]
