"""Area 3: the source. What AWS demands of it, it demands of the gateway; what the gateway demands is asked here."""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.elasticache.case import GroupCase, NumberedCheck, blocker, ok, unknown, worst
from valkeep.migrate.preflight.finding import Finding

__all__ = ["CHECKS"]


def version(case: GroupCase) -> Finding:
    return worst(case.taken, presented_to_ElastiCache="Redis 7.2.4, whatever the source is") or ok(
        "the source's version", source=case.source.product
    )


def one_shard(case: GroupCase) -> Finding:
    return worst(case.taken) or ok("the source is no cluster's node", source=case.source.mode)


def auth(case: GroupCase) -> Finding:
    answers = case.gateway.answers
    asked = {True: "set", False: "not set", None: "not known"}[case.source.requirepass]
    if answers is not None and answers.password:
        return blocker(
            "the gateway asks for a password, which AWS cannot give",
            "run the gateway without one for this target (no --password-file)",
            gateway=case.gateway.display,
        )
    return ok(
        "the gateway has no AUTH towards ElastiCache, and hides the source's",
        source=f"password {asked}; it stays between Valkeep and the source",
        gateway="answers the target's addresses only, without a password",
    )


def protected_mode(case: GroupCase) -> Finding:
    seen = worst(case.taken, towards_ElastiCache="the gateway says protected-mode no; the source may keep its own")
    return seen or unknown(
        "bind and protected-mode of the source are not known",
        "permit CONFIG GET to this user, or acknowledge it",
        source="CONFIG GET denied",
    )


def commands(case: GroupCase) -> Finding:
    return worst(case.taken, towards_ElastiCache="the gateway answers info, config, command, cluster, sync and psync") or ok(
        "this user may replicate from the source"
    )


def databases(case: GroupCase) -> Finding:
    there = (case.group.parameters or {}).get("databases")
    here = case.source.databases
    seen = worst(case.taken, towards_ElastiCache=f"the gateway says {there or 'what the target has'}")
    if seen is None or there is None:
        denied = case.denied("elasticache:DescribeCacheParameters") or "elasticache:DescribeCacheParameters"
        return unknown(
            "the target's number of databases is not known", f"permit {denied}, or acknowledge that both have equally many", source=here
        )
    return seen


CHECKS: Final[tuple[NumberedCheck, ...]] = (version, one_shard, auth, protected_mode, commands, databases)
