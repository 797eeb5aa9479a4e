"""How a running source is read, and what follows from that for its verification, its cut-over and the report.

followed    we are its replica (`feed.psync`)
scanned     SCAN and DUMP, in rounds (`scanned`)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol

from valkeep.migrate.cutover.cutover import PATIENCE_SECONDS
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.verify import PATIENCE

if TYPE_CHECKING:
    from valkeep.client.server_info import ServerInfo
    from valkeep.migrate.cutover.cutover import Successor
    from valkeep.migrate.feed import Feed
    from valkeep.migrate.gateway.gateway import Gateway

__all__ = ["Drained", "Followed", "Reading"]

Drained = Callable[[int], Awaitable[None]]
"""Returns when the target has everything up to this source offset."""


class Reading(Protocol):
    """``limits``: what it can't promise, for the report. ``verify_by``: how the verification reads the source; ``look_seconds``: for how long it looks again at
    a key that differs."""

    limits: tuple[str, ...]
    verify_by: Literal["auto", "scan"]
    look_seconds: float

    @property
    def feed(self) -> Feed: ...

    def is_of(self, server: ServerInfo, history: str) -> bool:
        """Whether this server has what the gateway follows."""
        ...

    def barrier(self, drained: Drained) -> Drained:
        """``drained``, for offsets of the source."""
        ...

    def successor(self, delivery: Successor) -> Successor:
        """The same for the cut-over."""
        ...

    def held(self, mode: FenceMode) -> bool:
        """Whether the last comparison, behind a fence of this mode, sees a source in which nothing changes."""
        ...

    async def ready(self, gateway: Gateway, mode: FenceMode, lease_ms: int, comparing: float) -> float:
        """Return when a cut-over is worth beginning: the seconds that draining and comparing get where the writers were stopped by their owner.
        ``comparing``: seconds that a comparison of everything took. Raises ``Aborted`` where the lease can't be enough."""
        ...


class Followed:
    """A `Reading`: the feed's offsets are the source's own."""

    limits: tuple[str, ...] = ()
    verify_by: Literal["auto", "scan"] = "auto"
    look_seconds: float = PATIENCE

    def __init__(self, feed: Feed) -> None:
        self.feed: Final = feed

    def is_of(self, server: ServerInfo, history: str) -> bool:
        return history in (server.replid, server.run_id) or server.replid == "?"

    def barrier(self, drained: Drained) -> Drained:
        return drained

    def successor(self, delivery: Successor) -> Successor:
        return delivery

    def held(self, mode: FenceMode) -> bool:
        return mode is FenceMode.PAUSE

    async def ready(self, gateway: Gateway, mode: FenceMode, lease_ms: int, comparing: float) -> float:
        del gateway, mode, lease_ms, comparing
        return PATIENCE_SECONDS
