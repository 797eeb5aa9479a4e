"""Areas *source* and *target*, where one of them is a cluster: may it be moved so, does it stand, and what will clients lose that one server gave them?

Here are the questions about the whole. All others are asked of each shard (`checks.shards`).
"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning
from valkeep.migrate.preflight.facts import ClusterFacts, ServerFacts
from valkeep.topology.slots import SLOTS

__all__ = ["CHECKS", "SOURCE_CHECKS"]

_NAMES: Final = """
    mset msetnx mget rename renamenx copy move swapdb smove sinter sinterstore sintercard sunion sunionstore sdiff sdiffstore zunion zunionstore zinter
    zinterstore zintercard zdiff zdiffstore zrangestore rpoplpush brpoplpush lmove blmove lmpop blmpop zmpop bzmpop bitop pfmerge georadius geosearchstore
    eval evalsha fcall exec
"""
_CROSSING: Final = frozenset(_NAMES.split())
"""Commands of several keys, or that may be."""

_STANDING: Final = "CLUSTER INFO and CLUSTER NODES on a node; repair it (valkey-cli --cluster fix), bring its nodes back, then look again"
_ONE_SHARD: Final = "give a cluster as the target; a single server is one, too, with cluster-enabled yes and CLUSTER ADDSLOTSRANGE 0 16383"


def source_mode(case: Case) -> Findings:
    """A node of a cluster refuses REPLICAOF, and what it has replicates to no server of another mode: so all of it is written by us."""
    options = case.options
    if case.source.mode != "cluster":
        yield ok("VK-CLUSTER", "the source is not a cluster's node", source="cluster_enabled 0")
        return
    state = f"cluster_enabled 1, {case.source.cluster.size if case.source.cluster is not None else 'shards not known'}"
    if options.attached_by:
        yield blocker(
            "VK-CLUSTER",
            f"the source is a cluster, and {options.attached_by} makes one server a replica of one other",
            "move it to a cluster that may be written to: --target valkey://… --deliver push",
            source=state,
        )
    elif options.read != "psync":
        yield blocker(
            "VK-CLUSTER",
            "the source is a cluster, which is read as a replica of each of its shards",
            "leave --read out, and permit PSYNC and REPLCONF on every node",
            source=state,
        )
    elif options.rollback:
        yield blocker("VK-CLUSTER", "the source is a cluster, to which there is no way back", "leave --rollback out", source=state)
    elif case.target is not None and options.deliver != "push":
        yield blocker(
            "VK-CLUSTER", "the source is a cluster, whose data is written to the target's shards", "say --deliver push", source=state
        )
    elif case.target is not None and case.target.mode != "cluster":
        yield blocker("VK-CLUSTER", "the source is a cluster, and the target is none", _ONE_SHARD, source=state)
    else:
        yield ok("VK-CLUSTER", "the source is a cluster, and each of its shards is read", source=state)


def target_mode(case: Case) -> Findings:
    _, target = case.pair
    if target.mode != "cluster":
        yield ok("VK-CLUSTER", "the target is not a cluster's node", target="cluster_enabled 0")
    elif case.options.attached_by or case.options.deliver != "push":
        yield blocker(
            "VK-CLUSTER",
            "the target is a node of a cluster, which can't be made a replica (REPLICAOF is not allowed in cluster mode)",
            "say --deliver push: then its shards are written to as by a client",
            target="cluster_enabled 1",
        )
    elif case.options.rollback:
        yield blocker(
            "VK-CLUSTER",
            "the target is a cluster, from which there is no way back yet",
            "leave --rollback out, or choose a target with cluster-enabled no",
            target="cluster_enabled 1",
        )
    else:
        yield ok("VK-CLUSTER", "the target is a cluster, and is written to shard by shard", target="cluster_enabled 1")


def source_standing(case: Case) -> Findings:
    """A run that goes on may meet slots on their way: it takes them over as it would have done before."""
    if case.source.cluster is not None:
        yield from _standing("source", "VK-SOURCE-CLUSTER", case.source, case.source.cluster, at_rest=not case.options.goes_on)


def target_standing(case: Case) -> Findings:
    _, target = case.pair
    if target.cluster is not None:
        yield from _standing("target", "VK-TARGET-CLUSTER", target, target.cluster, at_rest=True)


def _standing(side: str, code: str, node: ServerFacts, cluster: ClusterFacts, *, at_rest: bool) -> Findings:
    if not cluster.shards:
        why = node.unasked.get("CLUSTER SLOTS", "it knows of none")
        remedy = f"assign slots (CLUSTER INFO), or permit CLUSTER SLOTS to user {node.user or 'default'} on every node: ACL SETUSER … +cluster|slots"
        yield blocker(code, f"the {side} does not say which shards its cluster has", remedy, **{side: why})
        return
    lost = [f"{shard.address}: {shard.unreached}" for shard in cluster.shards if shard.facts is None]
    silent = [address for shard in cluster.shards for address, version in shard.replicas.items() if not version]
    versions = {".".join(map(str, shard.facts.version)) for shard in cluster.shards if shard.facts is not None}
    versions |= {version for shard in cluster.shards for version in shard.replicas.values() if version}
    told = {side: f"{cluster.served} of {SLOTS} slots served by {cluster.size}"}
    if cluster.served < SLOTS or lost or (cluster.moving and at_rest):
        title = f"the {side}'s cluster does not stand: " + (
            "slots are without an owner" if cluster.served < SLOTS else "a primary does not answer" if lost else "slots are on their way"
        )
        yield blocker(code, title, _STANDING, **told, primaries="; ".join(lost) or "all answer", moving=cluster.moving or "none")
    elif silent or len(versions) > 1:
        title = f"replicas of the {side} do not answer" if silent else f"the {side}'s nodes are of several versions"
        remedy = "bring them back, or upgrade the rest, or acknowledge that a failover there may fail"
        yield warning(code, title, remedy, **told, silent=", ".join(silent) or "none", versions=", ".join(sorted(versions)))
    else:
        yield ok(code, f"the {side}'s cluster stands", **told, versions=", ".join(sorted(versions)), moving=cluster.moving or "none")


def source_replicas(case: Case) -> Findings:
    """The move follows a shard to the replica that takes it over, where there is one."""
    if (cluster := case.source.cluster) is None or not cluster.shards:
        return
    counts = {shard.address: len(shard.replicas) for shard in cluster.serving}
    if not all(counts.values()):
        yield info(
            "VK-CLUSTER-REPLICAS",
            "shards of the source have no replica: one that fails ends the move, and its slots are gone until it is back",
            "add a replica to each shard, or keep every node up until the cut-over",
            source=", ".join(f"{address}: {count}" for address, count in counts.items()),
        )


def target_replicas(case: Case) -> Findings:
    _, target = case.pair
    if (cluster := target.cluster) is None or not cluster.shards:
        return
    counts = {shard.address: len(shard.replicas) for shard in cluster.shards}
    state = ", ".join(f"{address}: {count}" for address, count in counts.items())
    remedy = "add a replica to each shard (valkey-cli --cluster add-node … --cluster-slave)"
    if not any(counts.values()):
        yield info("VK-CLUSTER-REPLICAS", "no shard of the target has a replica: who loses a node loses its slots", remedy, target=state)
    elif not all(counts.values()):
        yield warning("VK-CLUSTER-REPLICAS", "some shards of the target have replicas and others none", remedy, target=state)
    else:
        yield ok("VK-CLUSTER-REPLICAS", "every shard of the target has a replica", target=state)


def databases(case: Case) -> Findings:
    source, target = case.pair
    if target.mode != "cluster" or source.mode == "cluster":
        return
    used = {number: counts["keys"] for number, counts in sorted(source.keyspace.items()) if number and counts.get("keys")}
    if used:
        yield blocker(
            "VK-CLUSTER-DATABASES",
            f"the source has keys in database {', '.join(map(str, used))}; a cluster has database 0 only",
            "move these databases to targets of their own, or into database 0 under other names (by the application), then look again",
            source=", ".join(f"db{number}: {count} keys" for number, count in used.items()),
        )
    else:
        yield ok("VK-CLUSTER-DATABASES", "the source uses database 0 only", source=f"{source.keys} keys")


def crossing(case: Case) -> Findings:
    source, target = case.pair
    if target.mode != "cluster" or source.mode == "cluster":  # which refused them itself
        return
    if source.calls is None:
        yield info(
            "VK-CLUSTER-COMMANDS", "which commands the source was sent is not known: in a cluster the keys of one have to share a slot"
        )
        return
    seen = {name: count for name, count in sorted(source.calls.items()) if name in _CROSSING and count > 0}
    told = ", ".join(f"{name.upper()} {count}" for name, count in seen.items())
    if seen:
        yield warning(
            "VK-CLUSTER-COMMANDS",
            "the source was sent commands of several keys, which a cluster refuses (CROSSSLOT) unless all are in one slot",
            "during the move they are split by slot, or their keys copied again, and a transaction is whole on each shard only; afterwards clients get "
            "errors: give keys that belong together one hash tag ({…}) before, or acknowledge it",
            source=told,
        )
    else:
        yield ok("VK-CLUSTER-COMMANDS", "the source was sent no command of several keys", source="INFO commandstats")


SOURCE_CHECKS: Final = (
    Check("source's mode", "source", source_mode, whole=True),
    Check("source's cluster", "source", source_standing, whole=True),
    Check("replicas of the source's shards", "source", source_replicas, whole=True),
)
CHECKS: Final = (
    Check("target's mode", "source", target_mode, needs_target=True, whole=True),
    Check("target's cluster", "target", target_standing, needs_target=True, whole=True),
    Check("replicas of the target's shards", "target", target_replicas, needs_target=True, whole=True),
    Check("databases for a cluster", "target", databases, needs_target=True, whole=True),
    Check("commands of several keys", "target", crossing, needs_target=True, whole=True),
)
