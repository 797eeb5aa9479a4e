"""From what is to what should be: which commands are due now, and what is still missing. Pure; whoever runs it looks, acts and looks again.

    while (plan := plan_for(spec, view, addresses)).missing: send plan.commands; look again

Commands are safe to repeat: they are derived from the view each time, not remembered. A plan without commands that still misses
something means "wait": the servers are at it. ``missing`` is what a person reads when the wait was too long.

The first creation and the repair after a drill are the same thing, except that after a failover it does not matter *which* node is the
primary: roles are only given out where nobody has one yet (``fresh``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from valkeep.topology.slots import SLOTS, even_ranges
from valkeep.topology.spec import Kind, NodeSpec, TopologySpec
from valkeep.topology.view import NodeView, View

__all__ = ["Command", "Plan", "plan_for"]

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """Send ``words`` to the node of this name."""

    node: str
    words: Words


@dataclass(frozen=True, slots=True)
class Plan:
    """``missing``: what keeps the topology from being whole, in words; empty when it is as wanted. ``commands``: what to send now. ``untold``: which nodes
    leave out replicas when clients ask who serves the slots; news that spreads when something is written."""

    missing: tuple[str, ...]
    commands: tuple[Command, ...] = ()
    untold: tuple[str, ...] = ()


def plan_for(spec: TopologySpec, view: View, addresses: Mapping[str, str]) -> Plan:
    """``addresses``: node → the host:port that it announces. Nodes that ``view`` has not reached are missing, whatever else holds."""
    data = [node for node in spec.nodes() if node.role != "sentinel"]
    unreached = [node.name for node in spec.nodes() if not _reached(view, node)]
    if unreached:
        return Plan(tuple(f"{name} does not answer" for name in unreached))
    if spec.kind is Kind.CLUSTER:
        return _cluster(spec, view, data, addresses)
    missing = list(_replication(spec, view, data, addresses))
    if not missing:
        missing += _watching(spec, view, addresses)
    return Plan(tuple(missing))


def _reached(view: View, node: NodeSpec) -> bool:
    seen = view.sentinels.get(node.name) if node.role == "sentinel" else view.nodes.get(node.name)
    return seen is not None and seen.reached


def _replication(spec: TopologySpec, view: View, data: list[NodeSpec], addresses: Mapping[str, str]) -> Iterator[str]:
    """One primary, and every other data node online behind it."""
    primaries = [node for node in data if view.nodes[node.name].role == "primary"]
    if len(primaries) != 1:
        names = ", ".join(node.name for node in primaries) or "none"
        yield f"{len(primaries)} nodes say that they are the primary ({names})"
        return
    primary = view.nodes[primaries[0].name]
    for node in data:
        if node.name != primary.name:
            seen = view.nodes[node.name]
            if not seen.link_up or seen.primary != addresses[primary.name]:
                yield f"{node.name} does not follow {primary.name} (it follows {seen.primary}, link {'up' if seen.link_up else 'down'})"
            elif addresses[node.name] not in primary.online:
                yield f"{primary.name} does not count {node.name} as online"
    del spec


def _watching(spec: TopologySpec, view: View, addresses: Mapping[str, str]) -> Iterator[str]:
    """Every sentinel knows the primary, all replicas and all other sentinels, and has a link to each."""
    for name, seen in view.sentinels.items():
        primary = next(node for node in view.nodes.values() if node.role == "primary")
        if seen.primary != addresses[primary.name] or seen.down:
            yield f"{name} watches {seen.primary}{' and calls it down' if seen.down else ''}; the primary is {primary.name}"
            continue
        wanted = {address for other, address in addresses.items() if other in view.nodes and other != primary.name}
        for what, known, number in (("replicas", seen.replicas, len(wanted)), ("other sentinels", seen.sentinels, spec.sentinels - 1)):
            linked = sum(known.values())
            if linked < number:
                yield f"{name} has links to {linked} of {number} {what}"


def _cluster(spec: TopologySpec, view: View, data: list[NodeSpec], addresses: Mapping[str, str]) -> Plan:
    seen = {node.name: view.nodes[node.name] for node in data}
    unowned = list(_unowned(spec, seen, data))
    if unowned:
        return Plan(("slots are not given out yet",), tuple(unowned))
    missing: list[str] = []
    commands: list[Command] = []
    ids = {node.name: me.id for node in data if (me := seen[node.name].me) is not None}
    first = data[0].name
    known = {member.address for member in seen[first].members if "handshake" not in member.flags}
    strangers = [node.name for node in data if node.name != first and addresses[node.name] not in known]
    for name in strangers:
        missing.append(f"{first} has not met {name}")
        host, _, port = addresses[name].rpartition(":")
        commands.append(Command(first, ("CLUSTER", "MEET", host, port)))
    if strangers:
        return Plan(tuple(missing), tuple(commands))
    for node in data:
        mine = seen[node.name]
        others = {member.id for member in mine.members if not member.failing and member.connected} - {ids[node.name]}
        absent = sorted(name for name, number in ids.items() if name != node.name and number not in others)
        if absent:
            missing.append(f"{node.name} has no good link to {', '.join(absent)}")
        elif mine.role == "primary" and not mine.ranges:
            missing.append(f"{node.name} has no slots and follows nobody")
            heir = _shard_primary(spec, node, seen)
            if heir:
                commands.append(Command(node.name, ("CLUSTER", "REPLICATE", ids[heir])))
        elif mine.role == "replica" and not mine.link_up:
            missing.append(f"{node.name}'s link to its primary is down")
        elif unheard := _unheard(mine, seen):
            missing.append(f"{node.name} does not know yet whose replica is {', '.join(unheard)}")
        if mine.state != "ok":
            missing.append(f"{node.name} says that the cluster's state is {mine.state or 'unknown'}")
        elif view.covered(mine) != SLOTS:
            missing.append(f"{node.name} sees {view.covered(mine)} of {SLOTS} slots served")
    for node in data:
        mine = seen[node.name]
        followers = sum(1 for other in seen.values() if other.role == "replica" and other.primary == addresses[node.name])
        if mine.role == "primary" and len(mine.online) < followers:
            missing.append(f"{node.name} counts {len(mine.online)} of {followers} replicas as online")
    untold = [
        f"{name} does not tell clients of {', '.join(left_out)} yet" for name, mine in seen.items() if (left_out := _left_out(mine, seen))
    ]
    return Plan(tuple(missing), tuple(commands), tuple(untold))


def _unheard(mine: NodeView, seen: Mapping[str, NodeView]) -> list[str]:
    """Replicas that this node takes for somebody else's, or for primaries."""
    follows = {member.id: member.primary_id for member in mine.members}
    return [
        name
        for name, other in seen.items()
        if other.me is not None and other.me.primary_id and follows.get(other.me.id) != other.me.primary_id
    ]


def _left_out(mine: NodeView, seen: Mapping[str, NodeView]) -> list[str]:
    """Replicas that this node does not name to clients: it has heard of no offset of theirs."""
    if mine.named is None:
        return []
    return [name for name, other in seen.items() if other.role == "replica" and other.me is not None and other.me.id not in mine.named]


def _unowned(spec: TopologySpec, seen: Mapping[str, NodeView], data: list[NodeSpec]) -> Iterator[Command]:
    """The first steps: slots that no node has heard of go to the primary of the spec, with an epoch of its own before it has met another."""
    owned = [span for node in seen.values() for member in node.members for span in member.ranges]
    for node, (start, end) in zip(data, even_ranges(spec.shards), strict=False):
        if not any(first <= start <= last for first, last in owned):
            if seen[node.name].epoch == 0:
                yield Command(node.name, ("CLUSTER", "SET-CONFIG-EPOCH", str(node.shard + 1)))
            yield Command(node.name, ("CLUSTER", "ADDSLOTSRANGE", str(start), str(end)))


def _shard_primary(spec: TopologySpec, node: NodeSpec, seen: Mapping[str, NodeView]) -> str:
    """Whom a node without slots should follow: the primary of its shard by the spec; after a failover, who has that primary's slots."""
    start, _ = even_ranges(spec.shards)[node.shard]
    return next((name for name, other in seen.items() if other.role == "primary" and any(a <= start <= b for a, b in other.ranges)), "")
