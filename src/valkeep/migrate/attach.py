"""The target's side of a migration: what it is, how it is attached to the gateway, and how it is put back as it was found.

A target is touched in one way only: REPLICAOF. No setting of it is changed. When it may be told depends on what it does with a snapshot that
is still arriving: with ``repl-diskless-load disabled`` (the default) it writes it to a file, and its data stays as it is until the last byte is
there; so it can be attached *early*, and the copy runs while the source still sends. With any other setting it would load, and drop, as bytes
come: it is attached *late*, when the whole snapshot has been read, checked and translated.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Secret
from valkeep.client.server_info import ServerInfo, parse_info, server_info
from valkeep.errors import ConnectionLost, Refused, ServerError, ValkeepError
from valkeep.migrate.transform.target import FieldTtl, TargetFormat

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint

__all__ = ["TargetFound", "addresses", "attach", "confirm", "facing", "guard", "look"]

GUARD_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
FULL_SYNCS = 5


@dataclass(frozen=True, slots=True)
class TargetFound:
    """The target before anything was done to it. ``password``: its primaryauth (it will give it to us); ``early``: see the module's head."""

    info: ServerInfo
    format: TargetFormat
    password: Secret | None
    username: str
    early: bool
    tls_replication: bool
    error_replies: int


async def look(target: Connection, policy: FieldTtl, *, wipe: bool) -> TargetFound:
    """Ask the target what it is. Raises ``Refused`` where it cannot be a target."""
    info = await server_info(target)
    where = target.endpoint.address
    if info.role != "primary":
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
    if keys and not wipe:
        raise Refused(
            f"{where} is not empty: it holds {keys} keys, which the snapshot would replace",
            remedy="give an empty target, or allow its data to be replaced: --wipe-target",
            code="VK-TARGET-NOT-EMPTY",
        )
    settings = {name: await _setting(target, name) for name in ("repl-diskless-load", "masterauth", "masteruser", "tls-replication")}
    target_format = TargetFormat(info.version, info.databases or 16)
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


async def _setting(target: Connection, name: str) -> str:
    """One parameter; "" where CONFIG is denied or it is unknown."""
    try:
        reply = await target.call("CONFIG", "GET", name)
    except ServerError:
        return ""
    return reply[1].decode() if reply else ""


async def attach(target: Connection, gateway: tuple[str, int]) -> None:
    """Tell the target to replicate from the gateway. Raises ``Refused`` where it may not be told."""
    host, port = gateway
    try:
        await target.call("REPLICAOF", host, port)
    except ServerError as error:
        raise Refused(
            f"the target does not take REPLICAOF: {error.message}",
            remedy="permit REPLICAOF to this user; managed services that deny it are not supported yet",
            code="VK-TARGET-REPLICAOF",
        ) from error


async def confirm(target: Connection, replid: str, offset: int) -> None:
    """Make sure that this very server follows the gateway's stream ``replid`` and has applied it up to ``offset``. Raises ``ConnectionLost``.

    An ACK says that a replica at the gateway's port has; it need not be the one that is going to be promoted.
    """
    info = parse_info(await target.call("INFO", "replication"))
    applied = int(info.get("slave_repl_offset", "-1"))
    if info.get("role") == "slave" and info.get("master_replid") == replid and applied >= offset:
        return
    raise ConnectionLost(
        f"the target {target.endpoint.address} does not have what the gateway's replica acknowledged: it is a {info.get('role', '?')} of "
        f"{info.get('master_replid', '?')} at offset {applied}, and {replid} at {offset} was acknowledged",
        remedy="does another server replicate from the gateway (see --allow)? Or was the target told to leave? See its log, then start again",
        code="VK-TARGET-LOST",
    )


async def guard(target: Endpoint, gateway: tuple[str, int], state: Callable[[], tuple[bool, int, str]]) -> None:
    """Raise ``ConnectionLost`` when the target has left the gateway for good; else never return.

    ``state``: whether it is attached now, how many full syncs in a row it did not finish, and why its last link ended. A target that is gone is asked for
    its role over a new connection: one that was restarted, or follows somebody else, does not come back.
    """
    loop = asyncio.get_running_loop()
    missing = 0.0
    while True:
        await asyncio.sleep(GUARD_SECONDS)
        attached, failures, why = state()
        why = f" (its last link: {why})" if why else ""
        if failures >= FULL_SYNCS:
            raise ConnectionLost(
                f"the target {target.address} began {failures} full syncs and finished none{why}",
                remedy="see the target's log: disk space, memory or an error while loading; then start again",
                code="VK-TARGET-SYNC",
            )
        if attached:
            missing = 0.0
            continue
        missing = missing or loop.time()
        role = await _role(target)
        if role is not None and role[1:3] != [gateway[0].encode(), gateway[1]]:
            what = "is a primary" if role[0] == b"master" else f"follows {role[1].decode()}:{role[2]}"
            raise ConnectionLost(
                f"the target {target.address} left the migration: it {what}",
                remedy="it was restarted, or told so: see its log, then start again (--wipe-target replaces the part that it has)",
                code="VK-TARGET-LOST",
            )
        if loop.time() - missing > PATIENCE_SECONDS:
            if role is None:
                raise ConnectionLost(
                    f"the target {target.address} has not answered for {PATIENCE_SECONDS:.0f} s",
                    remedy="see whether it runs, and its log; then start again",
                    code="VK-TARGET-LOST",
                )
            raise ConnectionLost(
                f"the target {target.address} does not get through to the gateway at {gateway[0]}:{gateway[1]}; its link is {role[3].decode()}{why}",
                remedy="check the network between them; --listen and --announce say where the gateway is, --allow who may attach",
                code="VK-TARGET-UNREACHED",
            )


async def _role(target: Endpoint) -> list[Any] | None:
    """What the target answers to ROLE; None when it does not."""
    try:
        async with await Connection.open(target, client_name="valkeep-guard") as connection:
            answer = await connection.call("ROLE")
    except ValkeepError:
        return None
    return answer if isinstance(answer, list) else None


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
