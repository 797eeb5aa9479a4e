"""Area 4: was the group created as AWS demands it for a migration?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.elasticache.case import GroupCase, NumberedCheck, blocker, info, ok, warning, worst
from valkeep.migrate.preflight.finding import Finding
from valkeep.migrate.preflight.formats import NEWEST_TESTED_VALKEY

__all__ = ["CHECKS"]

_OLDEST: Final = (7, 2)


def engine(case: GroupCase) -> Finding:
    group = case.group
    if group.engine != "valkey" or (group.version and group.version < _OLDEST):
        return blocker(
            f"the target is {group.product}; Valkeep moves to Valkey 7.2 and later",
            "create the group with --engine valkey, or upgrade it (modify-replication-group --engine valkey), then move",
            target=group.product,
        )
    seen = worst(case.taken, engine=group.product)
    if seen is not None and seen.remedy:
        return seen
    if group.version[:2] > NEWEST_TESTED_VALKEY:
        return warning("the target is newer than what this Valkeep was tested with", "acknowledge it", target=group.product)
    answered = f"; its INFO says {case.target.product}" if case.target is not None else ""
    return ok("the engine is Valkey, of a version that Valkeep writes for", target=group.product + answered)


def one_shard(case: GroupCase) -> Finding:
    group = case.group
    if group.cluster_mode or group.shards != 1:
        return blocker(
            f"the target is in cluster mode ({group.shards} shards), the source is one shard",
            "create a group with cluster mode disabled; moving into shards goes by `--deliver push` and a server's URL",
            target=f"cluster mode {'enabled' if group.cluster_mode else 'disabled'}, {group.shards} shards",
        )
    return worst(case.taken) or ok("cluster mode is off: one shard", target=f"{len(group.nodes)} nodes")


def multi_az(case: GroupCase) -> Finding:
    group = case.group
    evidence = {"target": f"Multi-AZ {group.multi_az}, automatic failover {group.automatic_failover}"}
    if group.multi_az != "enabled" or group.automatic_failover != "enabled":
        return blocker(
            "AWS migrates only into a group with Multi-AZ and automatic failover",
            f"aws elasticache modify-replication-group --replication-group-id {group.name} --multi-az-enabled --automatic-failover-enabled "
            "--apply-immediately",
            **evidence,
        )
    return ok("Multi-AZ and automatic failover are on", **evidence)


def in_transit(case: GroupCase) -> Finding:
    group = case.group
    if group.transit_encryption:
        return blocker(
            "encryption in transit is on: AWS does not migrate into such a group",
            "set it to preferred and then off (modify-replication-group --transit-encryption-mode preferred, then --no-transit-encryption-enabled); "
            "after the move: on (preferred), then required, then AUTH",
            target="TransitEncryptionEnabled true",
        )
    return warning(
        "encryption in transit is off, as AWS demands: what is migrated crosses the network in clear",
        "acknowledge it for a network of your own; after the move turn it on (preferred), then required, then AUTH",
        target="TransitEncryptionEnabled false",
    )


def at_rest(case: GroupCase) -> Finding:
    if case.group.at_rest_encryption:
        return ok("encryption at rest is on", target="AtRestEncryptionEnabled true")
    return info(
        "encryption at rest is off, and can be chosen only when a group is created",
        "create the group anew with it, if you want it: later it takes a copy of all data",
        target="AtRestEncryptionEnabled false",
    )


def access(case: GroupCase) -> Finding:
    group = case.group
    if group.auth or group.user_groups:
        return blocker(
            "the target wants AUTH or has user groups, which need encryption in transit, which AWS does not migrate into",
            "remove them for the migration; set them when encryption in transit is required again",
            target=f"AUTH {'on' if group.auth else 'off'}, user groups {', '.join(group.user_groups) or 'none'}",
        )
    return ok("no AUTH and no user groups during the migration", target="AUTH off, user groups none")


CHECKS: Final[tuple[NumberedCheck, ...]] = (engine, one_shard, multi_az, in_transit, at_rest, access)
