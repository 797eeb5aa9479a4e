"""The target before anything is done to it: what it is, and how it and this machine reach each other. Asks only."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Secret
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint

__all__ = ["TargetFound", "addresses", "facing", "look", "setting"]


@dataclass(frozen=True, slots=True)
class TargetFound:
    """The target before anything was done to it. ``password``: its primaryauth (it will give it to us). ``early``: it may be told before the snapshot is
    whole (see `native`)."""

    info: ServerInfo
    format: TargetFormat
    password: Secret | None
    username: str
    early: bool
    tls_replication: bool
    error_replies: int


async def look(target: Connection, policy: FieldTtl, *, wipe: bool, databases: int | None = None, ours: bool = False) -> TargetFound:
    """Ask the target what it is. ``databases``: how many it has, where others know. ``ours``: it follows our gateway already.
    Raises ``Refused`` where it cannot be a target."""
    info = await server_info(target)
    where = target.endpoint.address
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
    keys = sum(info.keys.values())
    if keys and not wipe and not ours:
        raise Refused(
            f"{where} is not empty: it holds {keys} keys, which the snapshot would replace",
            remedy="give an empty target, or allow its data to be replaced: --wipe-target",
            code="VK-TARGET-NOT-EMPTY",
        )
    settings = {name: await setting(target, name) for name in ("repl-diskless-load", "masterauth", "masteruser", "tls-replication")}
    target_format = TargetFormat(info.version, info.databases or databases or 16)
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
    )


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
