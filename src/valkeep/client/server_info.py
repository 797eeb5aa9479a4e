"""What a server says about itself: INFO, and the number of its databases where CONFIG may be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from valkeep.client.connection import Connection
from valkeep.errors import Refused, RemoteProtocolError, ServerError

__all__ = ["Identity", "ServerInfo", "identify", "parse_info", "server_info", "text_of", "version_of"]

_FOREIGN = {
    "dragonfly_version": "Dragonfly",
    "keydb_version": "KeyDB",
    "garnet_version": "Garnet",
    "kvrocks_version": "Kvrocks",
    "pika_version": "Pika",
    "tendis_version": "Tendis",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server is. ``product``: for people, ``Valkey 8.1.1``; ``version``: the product's own (a Valkey's ``valkey_version``, not the Redis version it
    claims for clients), () where INFO names none."""

    kind: Literal["redis", "valkey", "other"]
    product: str
    version: tuple[int, ...]
    mode: str  # standalone | cluster | sentinel
    role: str  # primary | replica | sentinel


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """``kind``, ``name``, ``version``, ``mode``, ``role``: see `Identity`. ``redis_version``: what it claims for clients.

    ``offset``: bytes since ``replid`` began (a primary's ``master_repl_offset``, a replica's processed offset). ``databases``: None where
    CONFIG is forbidden. ``fields``: everything that INFO said.
    """

    kind: Literal["redis", "valkey", "other"]
    name: str
    version: tuple[int, ...]
    redis_version: tuple[int, ...]
    mode: str
    role: str
    replid: str
    offset: int
    run_id: str
    databases: int | None
    fields: Mapping[str, str]

    def number(self, field: str, default: int = 0) -> int:
        """A field of INFO as an integer; ``default`` where it is absent or no number."""
        try:
            return int(self.fields.get(field, ""))
        except ValueError:
            return default

    @property
    def keys(self) -> dict[int, int]:
        """Keys in each database that has some."""
        found = {}
        for name, value in self.fields.items():
            if re.fullmatch(r"db[0-9]+", name) and (count := re.match(r"keys=([0-9]+)", value)):
                found[int(name[2:])] = int(count.group(1))
        return found


def text_of(value: object) -> str:
    """A reply as text; bytes that are no UTF-8 are escaped."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def parse_info(text: bytes | str) -> dict[str, str]:
    """INFO's ``name:value`` lines; section headers and what is no such line are left out."""
    pairs = (line.partition(":") for line in text_of(text).splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def version_of(text: str) -> tuple[int, ...]:
    """``"8.1.1"`` → ``(8, 1, 1)``; a trailing ``-rc1`` or the like is left out; ``()`` where there is no number."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def identify(fields: Mapping[str, str]) -> Identity:
    """What a server is, by the fields of its INFO; without any it is of kind "other"."""
    mode = "cluster" if fields.get("cluster_enabled") == "1" else fields.get("server_mode") or fields.get("redis_mode") or "standalone"
    role = {"master": "primary", "slave": "replica"}.get(fields.get("role", ""), fields.get("role", "primary"))
    kind, product, version = _product(fields)
    if mode == "sentinel":
        role, product = "sentinel", f"Sentinel of {product}"
    return Identity(kind, product, version, mode, role)


def _product(fields: Mapping[str, str]) -> tuple[Literal["redis", "valkey", "other"], str, tuple[int, ...]]:
    if not fields:
        return "other", "a server that does not permit INFO", ()
    for name, product in _FOREIGN.items():
        if name in fields:
            version = version_of(fields[name].removeprefix("df-").removeprefix("v"))
            return "other", f"{product} {'.'.join(map(str, version))}".strip(), version
    name, version = fields.get("server_name", "redis"), version_of(fields.get("redis_version", ""))
    if name == "valkey" or "valkey_version" in fields:
        version = version_of(fields.get("valkey_version", "")) or version
        return "valkey", f"Valkey {'.'.join(map(str, version))}", version
    if not version or name != "redis":
        return "other", name if name != "redis" else "a server whose INFO has no version", version
    return "redis", f"Redis {'.'.join(map(str, version))}", version


async def server_info(connection: Connection) -> ServerInfo:
    """Ask INFO and ``CONFIG GET databases``. Raises ``Refused`` where INFO is forbidden or renamed."""
    where = connection.endpoint.address
    info, databases = await connection.pipeline([("INFO",), ("CONFIG", "GET", "databases")])
    if isinstance(info, ServerError):
        if info.kind == "LOADING":
            raise Refused(f"{where} is still loading its data", remedy=info.remedy)
        raise Refused(
            f"{where} does not let us read INFO: {info.message}",
            remedy="permit INFO to this user (ACL SETUSER … +info), or undo its renaming",
        )
    if not isinstance(info, bytes):
        raise RemoteProtocolError(f"{where} answered INFO with a {type(info).__name__}", remedy="is it Redis or Valkey?")
    fields = parse_info(info)
    if "redis_version" not in fields and "valkey_version" not in fields:
        raise RemoteProtocolError(f"{where} answered INFO without a version", remedy="is it Redis or Valkey?")
    found = identify(fields)
    offset = fields.get("slave_repl_offset") if found.role == "replica" else fields.get("master_repl_offset")
    count: int | None = None
    if isinstance(databases, list) and len(databases) == 2 and isinstance(databases[1], bytes) and databases[1].isdigit():
        count = int(databases[1])
    return ServerInfo(
        kind=found.kind,
        name=found.product,
        version=found.version,
        redis_version=version_of(fields.get("redis_version", "")),
        mode=found.mode,
        role=found.role,
        replid=fields.get("master_replid", "?"),
        offset=int(offset or fields.get("master_repl_offset") or 0),
        run_id=fields.get("run_id", ""),
        databases=count,
        fields=fields,
    )
