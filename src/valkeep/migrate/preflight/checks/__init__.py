"""All checks, in five areas and in the order in which they are reported. One small pure function each: facts in, findings out."""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks import cluster, connectivity, readiness, resources, source, target, way_back
from valkeep.migrate.preflight.checks.case import Case, Check
from valkeep.migrate.preflight.checks.shards import ask
from valkeep.migrate.preflight.finding import Finding

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
    *cluster.SOURCE_CHECKS,
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

_PEER: Final = next(check for check in CHECKS if check.run is connectivity.peer)
_NEEDS_A_SERVER: Final = ("VK-INFO-DENIED", "VK-PEER")


def judge(case: Case, checks: tuple[Check, ...] = CHECKS) -> tuple[Finding, ...]:
    """Every check's findings, in their order. When a peer turns out to be no server that can be asked, the rest makes no sense and is left out."""
    found = tuple(ask(_PEER, case))
    if any(finding.severity == "blocker" and finding.code in _NEEDS_A_SERVER for finding in found):
        return found
    return tuple(finding for check in checks if case.target is not None or not check.needs_target for finding in ask(check, case))
