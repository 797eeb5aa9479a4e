"""The target before anything is done to it: what it is, and how it and this machine reach each other. Asks only."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valkeep.client.cluster import ClusterDirectory
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Secret
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.topology.slots import SLOTS, ranges_of

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint

__all__ = ["TargetFound", "TargetShard", "addresses", "facing", "look", "setting", "shards_of"]


@dataclass(frozen=True, slots=True)
class TargetShard:
    """A primary of a target that is a cluster. ``ranges``: of the slots that it owns, (first, last), both inclusive; ``run_id``: of its process."""

    endpoint: Endpoint
    ranges: tuple[tuple[int, int], ...]
    run_id: str


@dataclass(frozen=True, slots=True)
class TargetFound:
    """The target before anything was done to it. ``password``: its primaryauth (it will give it to us). ``early``: it may be told before the snapshot is
    whole (see `native`). ``keys``: of all of it. ``shards``: its primaries, where it is a cluster; ``info`` is the first one's then."""

    info: ServerInfo
    format: TargetFormat
    password: Secret | None
    username: str
    early: bool
    tls_replication: bool
    error_replies: int
    keys: int
    shards: tuple[TargetShard, ...] = ()


async def look(target: Connection, policy: FieldTtl, *, wipe: bool, databases: int | None = None, ours: bool = False) -> TargetFound:
    """Ask the target what it is. ``databases``: how many it has, where others know. ``ours``: it follows our gateway already.
    Raises ``Refused`` where it cannot be a target."""
    info = await server_info(target)
    where = target.endpoint.address
    shards: tuple[TargetShard, ...] = ()
    keys = sum(info.keys.values())
    if info.mode == "cluster":
        primaries = await shards_of(target.endpoint)
        shards = tuple(shard for shard, _ in primaries)
        info = primaries[0][1]
        keys = sum(sum(one.keys.values()) for _, one in primaries)
    if info.role != "primary" and not ours:
        raise Refused(
            f"{where} is a replica of {info.fields.get('master_host')}:{info.fields.get('master_port')}",
            remedy="give the primary that it follows, or detach it first: REPLICAOF NO ONE",
            code="VK-TARGET-REPLICA",
        )
    if info.kind != "valkey":
        raise Refused(
            f"{where} is {info.name}, not a Valkey", remedy="give a Valkey server of version 7.2 or later", code="VK-TARGET-VERSION"
        )
    if keys and not wipe and not ours:
        raise Refused(
            f"{where} is not empty: it holds {keys} keys, which the snapshot would replace",
            remedy="give an empty target, or allow its data to be replaced: --wipe-target",
            code="VK-TARGET-NOT-EMPTY",
        )
    settings = {name: await setting(target, name) for name in ("repl-diskless-load", "masterauth", "masteruser", "tls-replication")}
    target_format = TargetFormat(info.version, 1 if shards else info.databases or databases or 16, cluster=bool(shards))
    password = settings["masterauth"]
    cautious = policy is FieldTtl.REFUSE and not target_format.field_ttl
    return TargetFound(
        info,
        target_format,
        Secret(password) if password else None,
        settings["masteruser"] or "default",
        settings["repl-diskless-load"] == "disabled" and not cautious,
        settings["tls-replication"] == "yes",
        info.number("unexpected_error_replies"),
        keys,
        shards,
    )


async def shards_of(seed: Endpoint) -> tuple[tuple[TargetShard, ServerInfo], ...]:
    """The primaries of the cluster that this node belongs to, in the order of their slots, and what each is. Raises ``Refused`` where slots are missing."""
    table = await ClusterDirectory([seed]).table()
    if table.served != SLOTS:
        raise Refused(
            f"the cluster of {seed.address} serves {table.served} of {SLOTS} slots",
            remedy="repair it first: valkey-cli --cluster fix",
            code="VK-TARGET-CLUSTER",
        )
    found = []
    for primary in table.primaries:
        async with await Connection.open(primary, client_name="valkeep-migrate") as connection:
            info = await server_info(connection)
        if info.role != "primary":
            raise Refused(
                f"{primary.address} owns slots in the opinion of {seed.address}, and is a replica",
                remedy="a failover is under way: wait until CLUSTER INFO says cluster_state:ok on every node, then start again",
                code="VK-TARGET-CLUSTER",
            )
        ranges = ranges_of(slot for slot, owner in enumerate(table.owners) if owner == primary)
        found.append((TargetShard(primary, ranges, info.run_id), info))
    return tuple(found)


async def setting(target: Connection, name: str) -> str:
    """One parameter; "" where CONFIG is denied or it is unknown."""
    try:
        reply = await target.call("CONFIG", "GET", name)
    except ServerError:
        return ""
    return reply[1].decode() if reply else ""


async def addresses(host: str) -> frozenset[str]:
    """The IP addresses of a name: who may attach when it was named as a target."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectionLost(f"the name {host} has no address: {error.strerror or error}", remedy="check the target's name") from error
    return frozenset(str(entry[4][0]) for entry in found)


async def facing(endpoint: Endpoint) -> str:
    """The address of this machine that faces a server: where the gateway listens by default. Sends nothing."""
    loop = asyncio.get_running_loop()
    try:
        family, _, _, _, address = (await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM))[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ValkeepError(
            f"no address of this machine faces {endpoint.address}: {error.strerror or error}",
            remedy="say where the gateway shall listen: --listen HOST:PORT",
            code="VK-LISTEN",
        ) from error
