"""Area *resources*: is there room for the data, on the target and for the source's fork, and would the target keep it?"""

from __future__ import annotations

from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check, Findings, blocker, info, ok, warning
from valkeep.migrate.preflight.facts import human

__all__ = ["CHECKS"]

HEADROOM: Final = 1.25  # of the data: what a target needs for it, its own buffers and fragmentation


def target_memory(case: Case) -> Findings:
    """maxmemory bites after promotion: replicas ignore it, and the first write of a new primary begins to evict (or to refuse)."""
    _, target = case.pair
    data, limit = case.arriving_bytes, target.number("maxmemory")
    if data is None or limit is None:
        return
    need = int(data * HEADROOM)
    if limit == 0:
        yield ok("VK-TARGET-MEMORY", "the target has no maxmemory", source=f"data {human(data)}", target="maxmemory 0 (no limit)")
    elif limit < need:
        yield blocker(
            "VK-TARGET-MEMORY",
            "the target's maxmemory is below the data + 25%: it would evict keys, or refuse writes, as soon as it is promoted",
            f"CONFIG SET maxmemory {need} or more on the target (its replicas too), or choose a larger target",
            source=f"data {human(data)} (needs {human(need)})",
            target=f"maxmemory {human(limit)}",
        )
    else:
        yield ok("VK-TARGET-MEMORY", "the data fits into the target", source=f"data {human(data)}", target=f"maxmemory {human(limit)}")


def target_host_memory(case: Case) -> Findings:
    """A server can't see a container's limit, so that this warns and never blocks."""
    _, target = case.pair
    data, system = case.arriving_bytes, target.number("total_system_memory")
    if data is None or not system:
        return
    need = int(data * HEADROOM)
    if system < need:
        yield warning(
            "VK-TARGET-HOST-MEMORY",
            "the target's machine has less memory than the data + 25%",
            "choose a larger machine for the target",
            source=f"data {human(data)} (needs {human(need)})",
            target=f"total_system_memory {human(system)}",
        )
    else:
        yield ok("VK-TARGET-HOST-MEMORY", "the target's machine has the memory", target=f"total_system_memory {human(system)}")


def eviction(case: Case) -> Findings:
    source, target = case.pair
    here, there = source.info.get("maxmemory_policy"), target.info.get("maxmemory_policy")
    limit = target.number("maxmemory")
    if here is None or there is None:
        return
    both = {"source": f"{here}, maxmemory {source.info.get('maxmemory', '?')}", "target": f"{there}, maxmemory {limit}"}
    bounded = bool(source.number("maxmemory"))
    if there != "noeviction" and limit and case.options.deliver == "push":
        yield warning(
            "VK-EVICTION",
            "the target evicts when it is full, also during the copy: it is a primary all the time",
            "CONFIG SET maxmemory-policy noeviction on the target for the move, or acknowledge that it is a cache",
            **both,
        )
    elif there != "noeviction" and limit and (here == "noeviction" or not bounded):
        yield warning(
            "VK-EVICTION",
            "the target may evict keys that the source would never have evicted",
            "CONFIG SET maxmemory-policy noeviction on the target, or acknowledge that it is a cache",
            **both,
        )
    elif there == "noeviction" and limit and here != "noeviction" and bounded:
        yield warning(
            "VK-EVICTION",
            "the source evicts when it is full; the target would refuse writes instead",
            f"CONFIG SET maxmemory-policy {here} on the target",
            **both,
        )
    elif here != there:
        yield info("VK-EVICTION", "the eviction policies differ", "set the target's maxmemory-policy as the source's", **both)
    else:
        yield ok("VK-EVICTION", "the eviction policies agree", **both)


def clients(case: Case) -> Findings:
    """At the cut-over all clients of the source come over, within a moment."""
    source, target = case.pair
    now, room = source.number("connected_clients"), target.number("maxclients") or target.setting_number("maxclients")
    if now is None or room is None:
        return
    both = {"source": f"{now} clients connected", "target": f"maxclients {room}"}
    if room < now * 1.1:
        yield warning(
            "VK-TARGET-CLIENTS",
            "the target has no room for all clients that the source has now",
            f"CONFIG SET maxclients {now * 2} on the target (and its limit of open files)",
            **both,
        )
    else:
        yield ok("VK-TARGET-CLIENTS", "the target has room for the source's clients", **both)


def fork_memory(case: Case) -> Findings:
    """A full sync forks the source; pages written meanwhile are copied."""
    if case.options.read == "scan":
        return
    source = case.source
    used, system, resident = source.number("used_memory"), source.number("total_system_memory"), source.number("used_memory_rss")
    if used is None:
        return
    cow = source.number("rdb_last_cow_size") or 0
    cost = {
        "used memory": human(used),
        "latest fork": f"{(source.number('latest_fork_usec') or 0) / 1000:.1f} ms",
        "last copy on write": human(cow),
    }
    if system and resident is not None and system - resident < max(cow, used // 10):
        yield warning(
            "VK-FORK-MEMORY",
            "the source's machine has little memory left for the fork of a full sync",
            "free memory on the source's machine, or read from a replica of it: give the replica's address as --source",
            free=human(max(system - resident, 0)),
            **cost,
        )
    else:
        yield ok("VK-FORK-MEMORY", "the full sync forks the source once; there is memory for it", **cost)


def spool_room(case: Case) -> Findings:
    """In memory data is larger than in a snapshot: what fits by this count surely does."""
    free, sizes = case.options.spool_free, [facts.data_bytes for facts in case.source.shards]
    known = [size for size in sizes if size is not None]
    if free is None or len(known) < len(sizes) or case.options.goes_on:
        return
    shards = f", {len(known)} shards together" if len(known) > 1 else ""
    evidence = {"source": f"data {human(sum(known))}{shards}", "free": human(free)}
    if free < sum(known):
        yield warning(
            "VK-SPOOL-ROOM",
            "the disk has less room than the source has data: the spool holds the snapshot, and what is written until the target has it",
            "--spool DIR on a larger disk; or acknowledge it: a snapshot is mostly smaller, and a full disk ends the move with nothing changed on the source",
            **evidence,
        )
    else:
        yield ok("VK-SPOOL-ROOM", "the disk has room for the spool", **evidence)


CHECKS: Final = (
    Check("target memory", "resources", target_memory, needs_target=True),
    Check("target machine's memory", "resources", target_host_memory, needs_target=True),
    Check("eviction policy", "resources", eviction, needs_target=True),
    Check("room for clients", "resources", clients, needs_target=True),
    Check("memory for the fork", "resources", fork_memory),
    Check("room for the spool", "resources", spool_room, whole=True),
)
