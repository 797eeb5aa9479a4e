"""The numbered checks of a move to ElastiCache, A-01 to A-31, in five areas. Each yields exactly one finding, also where nobody could look (`unknown`).

Where a general check asks the same, its finding is *taken*: it is told under the number, and not a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from valkeep.migrate.preflight.checks.elasticache import creation, deployment, migration, redis, security
from valkeep.migrate.preflight.checks.elasticache.case import GroupCase, NumberedCheck
from valkeep.migrate.preflight.finding import Finding
from valkeep.migrate.preflight.numbered import NUMBERED

__all__ = ["CHECKS", "GroupCase", "judge_group"]

CHECKS: Final[tuple[NumberedCheck, ...]] = (*deployment.CHECKS, *security.CHECKS, *redis.CHECKS, *creation.CHECKS, *migration.CHECKS)


def judge_group(case: GroupCase, general: Sequence[Finding]) -> tuple[Finding, ...]:
    """The 31, in order, and then the general findings that none of them took."""
    found = []
    rest = list(general)
    for row, check in zip(NUMBERED, CHECKS, strict=True):
        taken = tuple(one for one in rest if any(one.code == code and (not side or side in one.evidence) for code, side in row.takes))
        rest = [one for one in rest if one not in taken]
        found.append(replace(check(replace(case, taken=taken)), code=row.code))
    return (*found, *rest)
