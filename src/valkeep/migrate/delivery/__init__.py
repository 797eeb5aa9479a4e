"""How a target gets the data: one module for each way, all of the same shape.

    native     the target replicates from the gateway, told so by REPLICAOF
    push       we write to the target as an ordinary client
    external   the target attaches to the gateway by itself, told so by somebody else (`promoter`)

A delivery is made for one run, after the target was looked at (`target.look`). It brings what a gateway's channel holds to the target, knows when
something has arrived there, and makes the target the primary (`cutover.Successor`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from valkeep.migrate.cutover.cutover import Successor

if TYPE_CHECKING:
    from valkeep.client.connection import Connection
    from valkeep.client.endpoint import Endpoint
    from valkeep.migrate.delivery.target import TargetFound
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.journal import Journal
    from valkeep.migrate.state import StateFile

__all__ = ["Delivery", "Errand", "Named", "Parts"]


class Named(Protocol):
    """Something with a name for messages and the state file, without secrets."""

    @property
    def display(self) -> str: ...


class Errand(Protocol):
    """What a delivery has to know of what was asked for: the part of `outcome.RunOptions` that also holds where the source is no server."""

    @property
    def source(self) -> Named: ...

    @property
    def target(self) -> Endpoint: ...

    @property
    def wipe_target(self) -> bool: ...

    @property
    def announce(self) -> tuple[str, int] | None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What every delivery of a run works with. ``gateways``: by the names of the source's shards; of a single server the name is "". ``undone``: gets what
    was put back, or is left to be, when it ended badly, in sentences. ``source_shards``: for the state file. ``told``: a killed run let the target know
    where the gateway is, or was about to; it follows, or will. ``group``: of a target that is a replication group, its name."""

    errand: Errand
    gateways: Mapping[str, Gateway]
    target: Connection
    found: TargetFound
    state: StateFile
    journal: Journal
    undone: list[str]
    source_shards: dict[str, dict[str, str]] = field(default_factory=dict)
    told: bool = False
    group: str = ""

    @property
    def gateway(self) -> Gateway:
        """The only one."""
        (gateway,) = self.gateways.values()
        return gateway


class Delivery(Successor, Protocol):
    """``full_sync_seconds``: from the gateway's start until the target had the snapshot, once it has."""

    full_sync_seconds: float

    def held(self) -> AbstractAsyncContextManager[None]:
        """The target has the snapshot and takes the stream inside. What it changes is in the state file before it is changed; whatever goes wrong before the
        cut-over has begun puts it back."""
        ...

    async def errors(self) -> int:
        """Commands that the target answered with an error since it was looked at; must be 0."""
        ...

    def of(self, lane: str) -> Successor:
        """Who takes over from this shard of the source ("": from a single server)."""
        ...

    def hurry(self) -> None:
        """Somebody wants to stop while it is promoted: nothing is waited for any more that only others can do."""
        ...

    def summary(self) -> dict[str, object]:
        """How it was delivered, for the report: ``how``, and what else there is to say."""
        ...
