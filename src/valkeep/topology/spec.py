"""What should run: a standalone server, a primary watched by sentinels, or a cluster. A description only; `runtime` makes it real.

    standalone   n1                                   (replicas = 0, or more without sentinels)
    sentinel     n1 ← n2, n3     s1 s2 s3             one shard
    cluster      n1 ← n4   n2 ← n5   n3 ← n6          shards primaries first, then replicas round robin

``timeout_ms`` is ``down-after-milliseconds`` for Sentinel and ``cluster-node-timeout`` for a cluster: how long a silent node is
believed to be alive. Whoever changes it changes what every failover costs, so reports print it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from valkeep.errors import UsageError
from valkeep.topology.slots import even_ranges

__all__ = ["MONITORED", "STOCK_TIMEOUT_MS", "FoundSpec", "Kind", "NodeSpec", "Persistence", "Slices", "TopologySpec"]

MONITORED: Final = "valkeep"
"""The name under which sentinels watch the primary."""


Slices = tuple[tuple[tuple[int, int], ...], ...]
"""For each shard the ranges of its slots (first, last)."""


class Kind(StrEnum):
    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Persistence(StrEnum):
    """What survives the end of a process (``none``: nothing, ``rdb``: the last snapshot) and of a machine (``everysec``, ``always``: AOF)."""

    NONE = "none"
    RDB = "rdb"
    EVERYSEC = "everysec"
    ALWAYS = "always"


STOCK_TIMEOUT_MS: Final = {Kind.STANDALONE: 0, Kind.SENTINEL: 30_000, Kind.CLUSTER: 15_000}
"""The servers' own defaults."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One process. ``role``: ``primary``, ``replica`` or ``sentinel`` at the start; ``shard``: 0 …; ``of``: the primary's name for a replica."""

    name: str
    role: str
    shard: int = 0
    of: str = ""


_OURS: Final = frozenset(
    {"port", "tls-port", "bind", "dir", "logfile", "pidfile", "daemonize", "replicaof", "slaveof", "cluster-enabled", "cluster-config-file"}
)
"""Settings by which nodes are found, read and ended."""


@dataclass(frozen=True, slots=True)
class TopologySpec:
    """``replicas``: for each shard. ``settings``: further lines of the data nodes' configuration, which win over Valkeep's own.
    ``server``: a spec of a server program ("newest-valkey", "valkey-8.1", a path). Make one with `sentinel`, `cluster` or `standalone`."""

    kind: Kind
    shards: int = 1
    replicas: int = 0
    sentinels: int = 0
    timeout_ms: int = 1000
    failover_timeout_ms: int = 10_000
    persistence: Persistence = Persistence.NONE
    settings: tuple[tuple[str, str], ...] = ()
    server: str = "newest-valkey"
    tls: bool = False
    acl: bool = False

    def __post_init__(self) -> None:
        wrong = self._wrong()
        if wrong:
            raise UsageError(f"this topology can not be: {wrong[0]}", remedy=wrong[1])

    @classmethod
    def standalone(cls, *, replicas: int = 0) -> TopologySpec:
        return cls(Kind.STANDALONE, replicas=replicas, timeout_ms=0)

    @classmethod
    def sentinel(cls, *, replicas: int = 2, sentinels: int = 3) -> TopologySpec:
        return cls(Kind.SENTINEL, replicas=replicas, sentinels=sentinels)

    @classmethod
    def cluster(cls, *, shards: int = 3, replicas: int = 1) -> TopologySpec:
        return cls(Kind.CLUSTER, shards=shards, replicas=replicas)

    @property
    def quorum(self) -> int:
        """Sentinels that have to agree that the primary is down: more than half."""
        return self.sentinels // 2 + 1

    def nodes(self) -> tuple[NodeSpec, ...]:
        """Primaries, replicas, sentinels, in this order: the order in which they are started."""
        return tuple(self._nodes())

    def _nodes(self) -> Iterator[NodeSpec]:
        for shard in range(self.shards):
            yield NodeSpec(f"n{shard + 1}", "primary", shard)
        for number in range(self.shards * self.replicas):
            shard = number % self.shards
            yield NodeSpec(f"n{self.shards + number + 1}", "replica", shard, f"n{shard + 1}")
        for number in range(self.sentinels):
            yield NodeSpec(f"s{number + 1}", "sentinel")

    def setting(self, name: str, default: str = "") -> str:
        """The last value given for ``name`` in ``settings``."""
        return next((value for key, value in reversed(self.settings) if key == name), default)

    def with_settings(self, **settings: str | int) -> TopologySpec:
        """The same with further settings; ``_`` in a name stands for ``-``."""
        added = tuple((name.replace("_", "-"), str(value)) for name, value in settings.items())
        return replace(self, settings=self.settings + added)

    @property
    def monitored(self) -> str:
        """What sentinels call the primary."""
        return MONITORED

    @property
    def slices(self) -> Slices:
        """Which slots each shard has at the start: even ones."""
        return tuple((span,) for span in even_ranges(self.shards))

    def shard_of_slot(self, slot: int) -> int:
        """The shard that has this slot at the start; 0 outside a cluster."""
        if self.kind is not Kind.CLUSTER:
            return 0
        return next(shard for shard, spans in enumerate(self.slices) if any(first <= slot <= last for first, last in spans))

    @property
    def described(self) -> str:
        """In a few words, with the timer that decides how long a failover takes."""
        replicas = sum(1 for node in self.nodes() if node.role == "replica")
        match self.kind:
            case Kind.SENTINEL:
                return f"1 primary + {replicas} replicas + {self.sentinels} sentinels, down-after {self.timeout_ms} ms"
            case Kind.CLUSTER:
                return f"{self.shards} primaries + {replicas} replicas, node-timeout {self.timeout_ms} ms"
            case _:
                return f"1 server, {replicas} replicas" if replicas else "1 server"

    def _wrong(self) -> tuple[str, str] | None:
        if not 1 <= self.shards <= 100 or not 0 <= self.replicas <= 20 or not 0 <= self.sentinels <= 21:
            return (
                f"{self.shards} shards, {self.replicas} replicas each, {self.sentinels} sentinels",
                "1–100 shards, 0–20 replicas each, 0–21 sentinels",
            )
        if self.kind is not Kind.CLUSTER and self.shards != 1:
            return f"{self.kind.value} has one shard, not {self.shards}", "use a cluster for several shards"
        if self.kind is Kind.SENTINEL and self.sentinels < 1:
            return "it has no sentinel", "three sentinels are the fewest that survive the loss of one"
        if self.kind is not Kind.SENTINEL and self.sentinels:
            return f"{self.kind.value} has no sentinels", "use the kind sentinel"
        ours = next((name for name, _ in self.settings if name.lower() in _OURS), "")
        if ours:
            return f"{ours} is Valkeep's own to decide", "leave it out"
        if self.kind is not Kind.STANDALONE and not 50 <= self.timeout_ms <= 3_600_000:
            return f"a timeout of {self.timeout_ms} ms", "50 ms … 1 hour; stock is 30000 for Sentinel and 15000 for a cluster"
        return None


@dataclass(frozen=True, slots=True)
class FoundSpec(TopologySpec):
    """A topology that somebody else made, as it was found. ``found``: its nodes, primaries first; ``owned``: of a cluster, the slots of each shard, in any
    shape; ``called``: what its sentinels call the primary. ``replicas`` is the most that a shard has."""

    found: tuple[NodeSpec, ...] = ()
    owned: Slices = ()
    called: str = MONITORED

    def nodes(self) -> tuple[NodeSpec, ...]:
        return self.found

    @property
    def monitored(self) -> str:
        return self.called

    @property
    def slices(self) -> Slices:
        return self.owned
