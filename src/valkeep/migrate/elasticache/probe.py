"""Asks the gateway what ElastiCache will ask it, at the address that ElastiCache will be told, before ElastiCache does.

AWS does not publish its probes. These are what its documents demand of a source: reachable, no AUTH, ``protected-mode no``, the target's number of databases,
and ``info config command cluster sync psync`` under their own names. What fails here would fail there, minutes later and with less of a reason.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import parse_info, text_of, version_of
from valkeep.errors import Refused, ServerError, ValkeepError
from valkeep.migrate.spool import room

__all__ = ["NEEDED", "NEWEST", "Answers", "GatewayFacts", "ask", "facing", "is_at", "is_here", "look_at_gateway", "resolve"]

NEEDED: Final = ("info", "config", "command", "cluster", "sync", "psync")
NEWEST: Final = (7, 2)  # of a Redis that AWS takes as a source; what the gateway presents
TIMEOUT: Final = 3.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a gateway answered. ``reached``: "" or why it could not be; ``unanswered``: probe → what it said instead. ``missing``: of the commands `NEEDED`."""

    reached: str = ""
    password: bool = False
    version: tuple[int, ...] = ()
    role: str = ""
    cluster: bool = False
    offset: int | None = None
    protected: str = ""
    databases: int | None = None
    missing: tuple[str, ...] = ()
    unanswered: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """``host``, ``port``: what ElastiCache is told (port 0: not decided). ``address``: of that host ("": its name leads nowhere). ``here``: whether it is one
    of this machine. ``runs``: something listens there. ``free``: bytes below the spool's folder. ``ready``: "" when the snapshot is spooled, else why not;
    None: nobody asked."""

    host: str
    port: int
    here: bool
    runs: bool = False
    answers: Answers | None = None
    free: int | None = None
    spool: str = ""
    ready: str | None = None
    address: str = ""

    @property
    def display(self) -> str:
        return f"{self.host}:{self.port or 'any port'}"


async def look_at_gateway(address: tuple[str, int], spool: Path, *, ready: str | None = None) -> GatewayFacts:
    """Raises nothing: what cannot be found out is a fact."""
    host, port = address
    resolved = await resolve(host)
    answers = await ask(address) if port else None
    runs = answers is not None and not answers.reached
    return GatewayFacts(host, port, is_here(resolved), runs, answers, room(spool), str(spool), ready, resolved)


async def ask(address: tuple[str, int]) -> Answers:
    """Each question over one connection, without a password, as the control plane of a service would."""
    try:
        connection = await Connection.open(Endpoint(*address), timeout=TIMEOUT)
    except Refused:  # a login is wanted
        return Answers(password=True)
    except ValkeepError as error:
        return Answers(reached=error.message)
    async with connection:
        return await _questions(connection)


async def _questions(connection: Connection) -> Answers:
    refused: list[tuple[str, str]] = []

    async def asked(*words: str) -> Any:
        name = " ".join(words[:3]).upper()
        try:
            async with asyncio.timeout(TIMEOUT):
                return await connection.call(*words)
        except ServerError as error:
            refused.append((name, error.message.splitlines()[0][:120]))
        except TimeoutError:
            refused.append((name, f"no answer within {TIMEOUT:.0f} s"))
        except ValkeepError as error:
            refused.append((name, error.message))
        return None

    info = await asked("INFO")
    fields = parse_info(info) if isinstance(info, bytes) else {}
    protected = _setting(await asked("CONFIG", "GET", "protected-mode"))
    databases = _setting(await asked("CONFIG", "GET", "databases"))
    known = await asked("COMMAND", "INFO", *NEEDED)
    cluster = await asked("CLUSTER", "INFO")
    if refused and refused[-1][0] == "CLUSTER INFO" and "cluster support disabled" in refused[-1][1].lower():
        refused.pop()  # what a server answers that is no cluster's
    in_cluster = isinstance(cluster, bytes) and parse_info(cluster).get("cluster_enabled", "0") == "1"
    offset = fields.get("master_repl_offset", "")
    return Answers(
        version=version_of(fields.get("redis_version", "")),
        role=fields.get("role", ""),
        cluster=fields.get("cluster_enabled") == "1" or in_cluster,
        offset=int(offset) if offset.lstrip("-").isdigit() else None,
        protected=protected,
        databases=int(databases) if databases.isdigit() else None,
        missing=_missing(known),
        unanswered=tuple(refused),
    )


def _setting(reply: Any) -> str:
    return text_of(reply[1]) if isinstance(reply, list) and len(reply) == 2 else ""


def _missing(known: Any) -> tuple[str, ...]:
    if not isinstance(known, Sequence) or len(known) != len(NEEDED):
        return ()  # that COMMAND was not answered is told elsewhere
    return tuple(name for name, row in zip(NEEDED, known, strict=True) if not row)


async def resolve(host: str) -> str:
    """An address of this name, "" where it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ""
    return str(found[0][4][0]) if host else ""


async def is_at(host: str, port: str | int, place: tuple[str, int]) -> bool:
    """Whether these are the same place, perhaps by another name."""
    if str(port) != str(place[1]):
        return False
    return host == place[0] or (await resolve(host) or host) == (await resolve(place[0]) or place[0])


def is_here(address: str) -> bool:
    """Whether a socket can be bound to it: an address of this machine."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
            tried.bind((address, 0))
    except OSError:
        return False
    return address != ""


def facing(host: str, port: int) -> str:
    """The address of this machine that faces a server, "" where none does. Sends nothing."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as tried:
            tried.connect(place)
            return str(tried.getsockname()[0])
    except OSError:
        return ""
