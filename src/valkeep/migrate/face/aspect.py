"""What there is to see of the gateway at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .guest import Guest

__all__ = ["Asked", "Aspect", "Keyspace", "Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica of ours. ``state``: ``wait_bgsave``, ``send_bulk`` or ``online``; ``offset``: what it acknowledged (0: nothing); ``lag``: seconds since it was
    heard."""

    address: str
    port: int
    state: str
    offset: int
    lag: int


@dataclass(frozen=True, slots=True)
class Keyspace:
    """What the source said of a database when the gateway looked at it."""

    database: int
    keys: int
    expires: int = 0
    average_ttl: int = 0


@dataclass(frozen=True, slots=True)
class Aspect:
    """``version``: what it presents itself as. ``run_id``, ``replid``: 40 hex digits. ``now``, ``started``: seconds since 1970. ``databases``: the target's
    number of them. ``offset``: of the last byte of our stream; ``backlog_first``: of the first that is kept, ``backlog``: how many are. ``loading``: the
    snapshot is not whole yet. ``memory``: bytes that the source's data takes there (0: unknown). ``password``: whether one is asked for."""

    version: str
    run_id: str
    address: str
    port: int
    now: float
    started: float
    databases: int
    replid: str
    offset: int
    backlog_first: int
    backlog: int
    loading: bool
    keyspaces: tuple[Keyspace, ...] = ()
    memory: int = 0
    replicas: tuple[Seen, ...] = ()
    guests: Sequence[Guest] = ()
    connections: int = 0
    commands: int = 0
    full_syncs: int = 0
    partial_syncs: int = 0
    refused_connections: int = 0
    password: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: who asks, in what words (the command's name first), and what there is to see."""

    guest: Guest
    args: tuple[bytes, ...]
    aspect: Aspect
