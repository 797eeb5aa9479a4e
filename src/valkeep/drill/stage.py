"""Where a drill plays: the deployment, what is known of it now, and who is meant by ``primary``.

Faults get a stage and the names that their target means at that moment. Targets are resolved from the watcher's newest view, because
after the first failover ``primary`` is another node than at the start.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from valkeep.drill.script import Load
from valkeep.drill.watch import Watch
from valkeep.errors import UsageError
from valkeep.report.events import Emit
from valkeep.runtime.deployment import Deployment, Machine
from valkeep.topology.spec import Kind, TopologySpec

__all__ = ["Stage", "check_targets"]


@dataclass(frozen=True, slots=True)
class Stage:
    """``rng``: chance for faults that choose, from the drill's seed. ``origin_ns``: the zero of emitted events."""

    deployment: Deployment
    watch: Watch
    load: Load
    rng: random.Random
    emit: Emit
    origin_ns: int

    @property
    def spec(self) -> TopologySpec:
        return self.deployment.spec

    def machine(self, name: str) -> Machine:
        return self.deployment.machines[name]

    def shard_of(self, name: str) -> int:
        """0 …, by what the node itself says now: the shard whose first slot it, or the primary that it follows, has."""
        if self.spec.kind is not Kind.CLUSTER:
            return 0
        view = self.watch.view
        seen = view.nodes[name]
        ranges = seen.ranges
        if not ranges and seen.me is not None:
            ranges = next((member.ranges for member in seen.members if member.id == seen.me.primary_id), ())
        for number, spans in enumerate(self.spec.slices):
            if any(first <= spans[0][0] <= last for first, last in ranges):
                return number
        return self.deployment.machines[name].spec.shard

    def primary(self, shard: int = 0) -> str:
        """The reigning primary of this shard: whom the sentinels name, or has the highest epoch of the cluster; else who became one last.
        Raises ``UsageError`` where no node says that it is a primary."""
        candidates = [node for node in self.watch.view.primaries() if node.reached and self.shard_of(node.name) == shard]
        if not candidates:
            raise UsageError(f"shard {shard + 1} has no primary now", remedy="let the step before wait until the topology has recovered")
        if self.spec.kind is Kind.CLUSTER:
            return max(candidates, key=lambda node: node.epoch).name
        named = next((node.name for node in candidates if self.machine(node.name).endpoint.address == self.watch.named), None)
        return named or max(candidates, key=lambda node: self.watch.since[node.name]).name

    def replicas(self, shard: int | None = None) -> list[str]:
        """Nodes that say that they are replicas (of this shard)."""
        nodes = self.watch.view.nodes.values()
        return [node.name for node in nodes if node.role == "replica" and (shard is None or self.shard_of(node.name) == shard)]

    def resolve(self, target: str) -> tuple[str, ...]:
        """The names of nodes and clients that ``target`` means now; see `script` for its forms."""
        return tuple(dict.fromkeys(name for part in target.split(",") for name in self._part(part)))

    def _part(self, part: str) -> Iterator[str]:
        word, _, text = part.partition(":")
        number = int(text) if text.isdecimal() else 1
        clients = {client.name for client in self.load.clients}
        match word:
            case "primary" if text == "*":
                yield from (self.primary(shard) for shard in range(self.spec.shards))
            case "primary":
                yield self.primary(number - 1)
            case "replica":
                replicas = self.replicas()
                yield from replicas if text == "*" else replicas[number - 1 : number]
            case "sentinel":
                sentinels = [node.name for node in self.spec.nodes() if node.role == "sentinel"]
                yield from sentinels if text == "*" else sentinels[number - 1 : number]
            case "shard":
                yield self.primary(number - 1)
                yield from self.replicas(number - 1)
            case _ if part in self.deployment.machines or part in clients:
                yield part
            case _:
                raise UsageError(
                    f"{part!r} is no target here",
                    remedy="primary, replica, sentinel, shard (each with :N or :*), or a name such as n1, s2, c1",
                )


def check_targets(spec: TopologySpec, load: Load, target: str) -> None:
    """Before anything starts: raises ``UsageError`` for a target that this topology can not have."""
    names = {node.name for node in spec.nodes()} | {client.name for client in load.clients}
    for part in target.split(","):
        word, _, text = part.partition(":")
        if part in names:
            continue
        limit = {"primary": spec.shards, "shard": spec.shards, "replica": spec.shards * spec.replicas, "sentinel": spec.sentinels}.get(word)
        if limit is None or not (text in ("", "*") or (text.isdecimal() and 1 <= int(text) <= limit)) or limit == 0:
            raise UsageError(
                f"{part!r} is no target on {spec.described}",
                remedy="primary, replica, sentinel, shard (each with :N or :*), or a name such as n1, s2, c1",
            )
