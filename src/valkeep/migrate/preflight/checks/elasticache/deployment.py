"""Area 1: is the group there, and large enough?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.elasticache.case import (
    GroupCase,
    NumberedCheck,
    blocker,
    info,
    ok,
    unknown,
    warning,
    worst,
)
from valkeep.migrate.preflight.facts import human
from valkeep.migrate.preflight.finding import Finding

__all__ = ["CHECKS"]

ROOM: Final = 1.25
UNDER_WAY: Final = ("migrating", "modifying", "snapshotting")
"""What a group may say while it is migrated into."""


def available(case: GroupCase) -> Finding:
    status, name = case.group.status, case.group.name
    if status == "available":
        return ok(f"the replication group {name} is available", group=f"{name} in {case.group.region}, {case.group.product}")
    if case.goes_on and status in UNDER_WAY:
        return ok(f"the migration into {name} is a killed run's, which this one goes on with", status=status)
    if status == "migrating":
        return blocker(
            f"the replication group {name} is being migrated already",
            "if a killed run of yours began that, the same `valkeep migrate run` goes on with it; else end it first: "
            f"aws elasticache complete-migration --replication-group-id {name} --force",
            status=status,
        )
    return blocker(f"the replication group {name} is not available", "wait until its status is available, then look again", status=status)


def nodes(case: GroupCase) -> Finding:
    group = case.group
    evidence = ", ".join(f"{node.name} {node.role or '?'} {node.zone} {node.status or 'status not known'}" for node in group.nodes)
    if denied := case.denied("elasticache:DescribeCacheClusters"):
        return unknown("the nodes' status is not known", f"permit {denied}, or acknowledge that they are available", nodes=evidence)
    fine = {"available", group.status} if case.goes_on else {"available"}
    bad = [node.name for node in group.nodes if node.status not in fine]
    if bad:
        return blocker(f"nodes are not available: {', '.join(bad)}", "wait until they are, then look again", nodes=evidence)
    if len(group.nodes) < 2:
        return blocker(
            "there is no replica: Multi-AZ, which AWS demands, needs one", "aws elasticache increase-replica-count", nodes=evidence
        )
    if len({node.zone for node in group.nodes}) < 2:
        return warning(
            "all nodes are in one availability zone", "acknowledge it for a lab; else replace a node in another zone", nodes=evidence
        )
    return ok("a primary and a replica are there, in different zones", nodes=evidence)


def memory(case: GroupCase) -> Finding:
    data, room = case.source.data_bytes, case.group.maxmemory
    if room is None:
        seen = worst(case.taken)
        if seen is not None and case.target is not None and case.target.number("maxmemory"):
            return seen
        denied = case.denied("elasticache:DescribeCacheParameters")
        return unknown(
            "how much memory a node has is not known",
            f"permit {denied or 'elasticache:DescribeCacheParameters'}, or compare the node type with the source's used_memory yourself",
            source=f"data {human(data)}" if data is not None else None,
            node=case.group.node_type,
        )
    evidence = {"source": f"data {human(data)}" if data is not None else None, "target": f"{human(room)} a node ({case.group.node_type})"}
    if data is not None and data * ROOM > room:
        return blocker(
            "the source's data, with a quarter of room, does not fit into a node of the target",
            f"choose a node type with at least {human(data * ROOM)} of maxmemory, less reserved-memory-percent",
            **evidence,
        )
    return ok("the source's data fits into a node of the target", **evidence)


def tiering(case: GroupCase) -> Finding:
    if case.group.data_tiering:
        return blocker(
            "data tiering is on, which AWS does not migrate into",
            "create a group of another node type than r6gd",
            data_tiering="enabled",
        )
    return ok("data tiering is off", node=case.group.node_type)


def global_datastore(case: GroupCase) -> Finding:
    if case.group.global_datastore:
        return blocker(
            "the group belongs to a global datastore, which AWS does not migrate into",
            "take it out (disassociate-global-replication-group), migrate, then make it global",
            global_datastore=case.group.global_datastore,
        )
    return ok("the group is in no global datastore")


def permissions(case: GroupCase) -> Finding:
    if case.group.denied:
        return unknown(
            f"AWS denied {len(case.group.denied)} of the questions of preflight",
            f"permit {', '.join(sorted(case.group.denied))} (docs/how-to/elasticache.md has the policy), or acknowledge that nobody looked",
            **{action.replace(":", " "): why for action, why in sorted(case.group.denied.items())},
        )
    return info(
        "everything that preflight asked was permitted; whether the migration itself is shows when it is asked for",
        "elasticache:TestMigration, StartMigration and CompleteMigration have to be permitted, too",
    )


CHECKS: Final[tuple[NumberedCheck, ...]] = (available, nodes, memory, tiering, global_datastore, permissions)
