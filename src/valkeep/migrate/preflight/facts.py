"""What preflight knows about a server: gathered once, frozen, and judged without any further question.

`gather.py` and `census.py` fill these values; `checks/` only reads them. A fact that could not be had is ``None`` (or ``Permission.UNKNOWN``), and
``unasked`` says why: so "denied" never turns into "fine", and a test can plant any violation by writing down a value.

No secret is ever kept: of passwords the facts know only whether they are set and whether two of them are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Census", "Clock", "ClusterFacts", "Permission", "Rate", "ServerFacts", "ShardFacts", "human", "remember"]


class Permission(StrEnum):
    """Whether this user may run a command there."""

    OK = "ok"
    DENIED = "denied"  # the ACL forbids it
    NO_KEYS = "denied for keys"  # the command is permitted, but not on all keys
    MISSING = "missing"  # renamed, disabled, or not known to this version
    UNKNOWN = "unknown"  # could not be found out


@dataclass(frozen=True, slots=True)
class Clock:
    """``offset_ms``: the server's clock minus the one of the machine that Valkeep runs on (cancels out when two are compared);
    ``uncertainty_ms``: half the round trip. ``unix_ms``: the server's TIME itself."""

    offset_ms: float
    uncertainty_ms: float
    unix_ms: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes per second of the replication stream. ``exact``: by ``master_repl_offset``; otherwise estimated from the
    network input and the share of writes (a primary that never had a replica does not count its offset). ``changes_per_second``: keys, fields and elements that
    were changed, as the server counts them; None where a save came in between."""

    bytes_per_second: float
    exact: bool
    seconds: float
    changes_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Census:
    """Which kinds of values there are. ``complete``: every key that was there when it began was looked at; only then a 0 means none.

    ``kinds``: keys by type (string, list, set, zset, hash, stream, module); ``modules``: keys by module type name; ``encodings``: as OBJECT
    ENCODING (or the snapshot) names them; ``field_ttl_hashes``: hashes with TTLs on fields; ``examples``: up to three keys, "db0 'name'".
    """

    mode: str  # "sample" | "full"
    complete: bool
    total: int
    seen: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    modules: Mapping[str, int] = field(default_factory=dict)
    encodings: Mapping[str, int] = field(default_factory=dict)
    field_ttl_hashes: int = 0
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    snapshot_version: int | None = None
    snapshot_bytes: int | None = None
    seconds: float = 0.0


def remember(examples: dict[str, list[str]], what: str, database: int, key: bytes) -> None:
    """One more example for a ``Census``, unless there are three of its kind."""
    names = examples.setdefault(what, [])
    if len(names) < 3:
        names.append(f"db{database} {key.decode('utf-8', 'backslashreplace')[:80]!r}")


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """A shard of a cluster. ``ranges``: the slots that it owns, (first, last), both inclusive; () of a primary without any. ``facts``: of its primary, None
    where that could not be asked: ``unreached`` says why. ``replicas``: address → version, or "" where it does not answer."""

    address: str
    ranges: tuple[tuple[int, int], ...]
    facts: ServerFacts | None
    unreached: str = ""
    replicas: Mapping[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """So many."""
        return sum(last - first + 1 for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """``served``: slots that have an owner. ``shards``: of a source also primaries without slots, at the end. ``moving``: which slots are on their way, in
    words, or ""."""

    served: int
    shards: tuple[ShardFacts, ...]
    moving: str = ""

    @property
    def serving(self) -> tuple[ShardFacts, ...]:
        """Those that own slots."""
        return tuple(shard for shard in self.shards if shard.ranges)

    @property
    def size(self) -> str:
        """For people: "3 shards and 1 primary without slots"."""
        serving = len(self.serving)
        idle = len(self.shards) - serving
        words = f"{serving} shard{'s' if serving != 1 else ''}"
        return f"{words} and {idle} {'primaries' if idle > 1 else 'primary'} without slots" if idle else words

    def to_json(self) -> dict[str, Any]:
        return {
            "slots_served": self.served,
            "shards": [
                {
                    "primary": shard.address,
                    "slots": shard.slots,
                    "version": None if shard.facts is None else ".".join(map(str, shard.facts.version)),
                    "replicas": dict(shard.replicas),
                }
                for shard in self.shards
            ],
        }


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server, as seen by one user at one time.

    ``info``: all fields of INFO, empty where INFO is denied. ``config``: CONFIG GET * without secrets, None where denied. ``run_ids``: of every
    connection that was opened (more than one: a load balancer). ``commands``: permissions by name ("CLIENT PAUSE"). ``sentinels``: names of
    connections that Sentinels hold; ``hello``: subscribers of ``__sentinel__:hello``; None where it could not be asked. ``unasked``: command → the error that
    it was answered with. ``calls``: of each command since the last restart, those that did not fail. ``cluster``: what a node of a cluster
    belongs to.
    """

    address: str
    display: str
    kind: str  # redis | valkey | other
    product: str  # for people: "Redis 8.0.2"
    version: tuple[int, ...]
    mode: str  # standalone | cluster | sentinel
    role: str  # primary | replica | sentinel
    loopback: bool = True
    tls: bool = False
    info: Mapping[str, str] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()
    config: Mapping[str, str] | None = None
    requirepass: bool | None = None
    primaryauth: bool | None = None
    primaryauth_fits: bool | None = None
    user: str | None = None
    acl_users: tuple[str, ...] | None = None
    commands: Mapping[str, Permission] = field(default_factory=dict)
    modules: tuple[str, ...] | None = None
    clock: Clock | None = None
    rate: Rate | None = None
    sentinels: tuple[str, ...] | None = None
    hello: int | None = None
    census: Census | None = None
    unasked: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, int] | None = None
    cluster: ClusterFacts | None = None

    def number(self, name: str) -> int | None:
        """A field of INFO as an integer; None where it is absent or no number."""
        try:
            return int(self.info[name])
        except (KeyError, ValueError):
            return None

    def setting(self, name: str, *older: str) -> str | None:
        """A setting of CONFIG by its names, newest first; None where CONFIG is denied or does not know it."""
        if self.config is None:
            return None
        return next((self.config[one] for one in (name, *older) if one in self.config), None)

    def setting_number(self, name: str, *older: str) -> int | None:
        value = self.setting(name, *older)
        return int(value) if value is not None and value.lstrip("-").isdigit() else None

    def may(self, command: str) -> Permission:
        return self.commands.get(command, Permission.UNKNOWN)

    def allows(self, command: str) -> bool:
        """Surely."""
        return self.may(command) is Permission.OK

    @property
    def shards(self) -> tuple[ServerFacts, ...]:
        """Of a cluster the primaries that answered, else this server."""
        found = tuple(shard.facts for shard in self.cluster.shards if shard.facts is not None) if self.cluster is not None else ()
        return found or (self,)

    @property
    def is_valkey(self) -> bool:
        return self.kind == "valkey"

    @property
    def databases(self) -> int | None:
        return self.setting_number("databases")

    @property
    def keyspace(self) -> dict[int, dict[str, int]]:
        """INFO keyspace: database → {keys, expires, subexpiry, …}."""
        found: dict[int, dict[str, int]] = {}
        for name, value in self.info.items():
            if name.startswith("db") and name[2:].isdigit() and value.startswith("keys="):
                pairs = (pair.partition("=") for pair in value.split(","))
                found[int(name[2:])] = {key: int(number) for key, _, number in pairs if number.isdigit()}
        return found

    @property
    def keys(self) -> int:
        return sum(counts.get("keys", 0) for counts in self.keyspace.values())

    @property
    def field_ttl_hashes(self) -> int | None:
        """Hashes with field TTLs as INFO counts them (Redis ≥ 7.4 `subexpiry`, Valkey ≥ 9 `keys_with_volatile_items`); 0 where the
        version has no such thing; None where it could not be seen."""
        if not self.info:
            return None
        if self.version < ((9, 0) if self.is_valkey else (7, 4)):
            return 0
        names = ("subexpiry", "keys_with_volatile_items")
        counts = [next((db[name] for name in names if name in db), None) for db in self.keyspace.values()]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    @property
    def data_bytes(self) -> int | None:
        """Memory that the data needs on another server too: ``used_memory`` without the buffers of clients and replication."""
        used = self.number("used_memory")
        if used is None:
            return None
        replication = self.number("mem_total_replication_buffers")
        if replication is None:
            replication = (self.number("mem_replication_backlog") or 0) + (self.number("mem_clients_slaves") or 0)
        buffers = replication + (self.number("mem_clients_normal") or 0) + (self.number("mem_aof_buffer") or 0)
        return max(used - buffers, 0)

    def to_json(self) -> dict[str, Any]:
        """For the report: what identifies the server and what was measured, not all of INFO and CONFIG."""
        census = None
        if self.census is not None:
            one = self.census
            census = {
                "mode": one.mode,
                "complete": one.complete,
                "keys": one.total,
                "seen": one.seen,
                "types": dict(one.kinds),
                "module_types": dict(one.modules),
                "encodings": dict(one.encodings),
                "hashes_with_field_ttl": one.field_ttl_hashes,
                "snapshot_rdb_version": one.snapshot_version,
                "snapshot_bytes": one.snapshot_bytes,
                "seconds": round(one.seconds, 3),
            }
        return {
            "endpoint": self.display,
            "kind": self.kind,
            "product": self.product,
            "version": ".".join(map(str, self.version)),
            "mode": self.mode,
            "role": self.role,
            "run_id": self.run_ids[0] if self.run_ids else None,
            "user": self.user,
            "databases": self.databases,
            "keys": {str(database): counts.get("keys", 0) for database, counts in sorted(self.keyspace.items())},
            "hashes_with_field_ttl": self.field_ttl_hashes,
            "used_memory": self.number("used_memory"),
            "data_bytes": self.data_bytes,
            "maxmemory": self.number("maxmemory"),
            "write_bytes_per_second": None if self.rate is None else round(self.rate.bytes_per_second),
            "write_rate_is_exact": None if self.rate is None else self.rate.exact,
            "time_unix_ms": None if self.clock is None else self.clock.unix_ms,
            "modules": None if self.modules is None else list(self.modules),
            "commands": {name: str(value) for name, value in sorted(self.commands.items())},
            "not_asked": dict(self.unasked),
            "census": census,
            "cluster": None if self.cluster is None else self.cluster.to_json(),
        }


def human(count: float) -> str:
    """Bytes for people: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
