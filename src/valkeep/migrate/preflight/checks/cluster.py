"""Area *target*, where that is a cluster: does it stand, and what will clients lose that one server gave them?

Here are the questions about the whole. All others about a target are asked of each shard (`checks.judge`).
"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning
from valkeep.topology.slots import SLOTS

__all__ = ["CHECKS"]

_NAMES: Final = """
    mset msetnx mget rename renamenx copy move swapdb smove sinter sinterstore sintercard sunion sunionstore sdiff sdiffstore zunion zunionstore zinter
    zinterstore zintercard zdiff zdiffstore zrangestore rpoplpush brpoplpush lmove blmove lmpop blmpop zmpop bzmpop bitop pfmerge georadius geosearchstore
    eval evalsha fcall exec
"""
_CROSSING: Final = frozenset(_NAMES.split())
"""Commands of several keys, or that may be."""

_STANDING: Final = "CLUSTER INFO and CLUSTER NODES on a node; repair it (valkey-cli --cluster fix), bring its nodes back, then look again"


def standing(case: Case) -> Findings:
    _, target = case.pair
    if (cluster := target.cluster) is None:
        return
    lost = [f"{shard.address}: {shard.unreached}" for shard in cluster.shards if shard.facts is None]
    silent = [address for shard in cluster.shards for address, version in shard.replicas.items() if not version]
    versions = {".".join(map(str, shard.facts.version)) for shard in cluster.shards if shard.facts is not None}
    versions |= {version for shard in cluster.shards for version in shard.replicas.values() if version}
    state = f"{cluster.served} of {SLOTS} slots served by {len(cluster.shards)} shards"
    if cluster.served < SLOTS or lost or cluster.moving:
        title = "the target's cluster does not stand: " + (
            "slots are without an owner" if cluster.served < SLOTS else "a primary does not answer" if lost else "slots are on their way"
        )
        yield blocker(
            "VK-TARGET-CLUSTER", title, _STANDING, target=state, primaries="; ".join(lost) or "all answer", moving=cluster.moving or "none"
        )
    elif silent or len(versions) > 1:
        title = "replicas of the target do not answer" if silent else "the target's nodes are of several versions"
        remedy = "bring them back, or upgrade the rest, or acknowledge that a failover there may fail"
        yield warning(
            "VK-TARGET-CLUSTER", title, remedy, target=state, silent=", ".join(silent) or "none", versions=", ".join(sorted(versions))
        )
    else:
        yield ok("VK-TARGET-CLUSTER", "the target's cluster stands", target=state, versions=", ".join(sorted(versions)))


def replicas(case: Case) -> Findings:
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
    if target.mode != "cluster":
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
    if target.mode != "cluster":
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


CHECKS: Final = (
    Check("target's cluster", "target", standing, needs_target=True, whole=True),
    Check("replicas of the target's shards", "target", replicas, needs_target=True, whole=True),
    Check("databases for a cluster", "target", databases, needs_target=True, whole=True),
    Check("commands of several keys", "target", crossing, needs_target=True, whole=True),
)
