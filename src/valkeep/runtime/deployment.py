"""A topology that runs, whoever made it run: what drills, faults and fixtures may ask of it.

`local` makes it of processes on this machine, `compose` of containers. Both give the same verbs, so that a fault is written once.
Names of nodes are those of the spec (n1, n2, s1, …); clients that the network has to tell apart are named too (c1, …).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from valkeep.client.endpoint import Endpoint
from valkeep.topology.spec import NodeSpec, TopologySpec

__all__ = ["Deployment", "EndsItself", "HasDisk", "Machine", "Network"]


class Machine(Protocol):
    """One node that runs, or did. The verbs return when they are done; a killed node may be started again."""

    @property
    def spec(self) -> NodeSpec: ...

    @property
    def endpoint(self) -> Endpoint:
        """Where clients and other nodes reach it (the announced address), with the login of an administrator."""

    @property
    def alive(self) -> bool: ...

    def log(self) -> str:
        """All that the server has written, over every restart. Times in it are UTC."""

    async def kill(self) -> None:
        """SIGKILL: nothing saved, no goodbye."""

    async def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after ``timeout`` s."""

    async def start(self, timeout: float = 20.0) -> None:
        """Start again with the same address, folder and files; returns when it answers. ``Refused`` when it runs."""

    async def pause(self) -> None:
        """SIGSTOP: it hangs, its sockets stay open."""

    async def resume(self) -> None:
        """SIGCONT."""

    async def empty(self) -> None:
        """Remove its data files (not its configuration). The node must not run."""

    async def crash(self) -> None:
        """As if its machine lost power: killed, and what was not synced to disk is gone. Raises ``Refused`` where that can not be told apart."""


@runtime_checkable
class HasDisk(Protocol):
    """A machine whose disk can be made full: what deployments with the ability ``full-disk`` are made of."""

    async def fill_disk(self) -> None:
        """From now on the server's files can not grow; its log still can. The node must run."""

    async def free_disk(self) -> None:
        """They can again."""


class Network(Protocol):
    """What stands between nodes. ``how``: ``namespace`` (packets dropped by the kernel), ``proxy``, ``docker`` or ``none``."""

    @property
    def how(self) -> str: ...

    def source(self, client: str) -> str:
        """The address that the client of this name connects from; "" where it can not be told apart."""

    async def cut(self, senders: frozenset[str], receivers: frozenset[str]) -> None:
        """Drop what ``senders`` send to ``receivers`` (names of nodes and clients); one direction only. Raises ``Refused`` where it can't."""

    async def delay(self, names: frozenset[str], milliseconds: float) -> None:
        """Everything to and from these takes longer, each way. Raises ``Refused`` where it can't."""

    async def heal(self) -> None:
        """All packets pass again, at once."""


class Deployment(Protocol):
    """``folder``: files of the nodes, gone at the end. ``machines``: by name, in the order of the spec."""

    spec: TopologySpec
    folder: Path

    @property
    def runtime(self) -> str:
        """``local``, ``compose`` or ``remote``."""

    @property
    def server(self) -> str:
        """What runs: "valkey 9.1.2"; known when it is ready."""

    @property
    def machines(self) -> Mapping[str, Machine]: ...

    @property
    def network(self) -> Network: ...

    @property
    def abilities(self) -> frozenset[str]:
        """What it can do beyond ending processes: partition, delay, fsync, full-disk."""

    async def ready(self) -> None:
        """Returns when proven: a canary was written and WAIT counted every replica, sentinels see each other, all slots are served."""

    async def __aenter__(self) -> Self:
        """Up and ready."""

    async def __aexit__(self, *_: object) -> None:
        """Nothing of it is left."""


class EndsItself(ABC):
    """``async with``: up and ready. What was started is gone at the end, also when it never got ready, or whoever waits is cancelled."""

    @abstractmethod
    async def up(self) -> None: ...

    @abstractmethod
    async def ready(self) -> None: ...

    @abstractmethod
    async def down(self) -> None: ...

    async def __aenter__(self) -> Self:
        try:
            await self.up()
            await self.ready()
        except BaseException:
            await asyncio.shield(self.down())
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.down())
