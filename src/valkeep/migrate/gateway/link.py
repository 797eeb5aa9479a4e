"""A target as the gateway sees it, whoever carries a channel's bytes there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from valkeep.migrate.gateway.channel import Channel

__all__ = ["Link"]


class Link(Protocol):
    """A target as the gateway sees it, whoever carries a channel's bytes there: one that replicates from us (`sink.TargetLink`), or one that is written to
    (`delivery.push`).

    ``channel``: None before it has one; ``refused``: why it gets none. ``online``: it has the snapshot and takes the stream. ``acknowledged``: it has our
    stream up to this offset (-1: nothing yet); ``sent``: given to it; ``lag``: bytes of the source's that it has not. ``peer``: its address, for people.
    """

    channel: Channel | None
    peer: str
    refused: str
    acknowledged: int
    sent: int
    snapshot_sent: int

    @property
    def online(self) -> bool: ...

    @property
    def lag(self) -> int: ...

    async def acknowledged_up_to(self, offset: int) -> None:
        """Return when it has our stream up to ``offset``. Raises ``ConnectionLost`` when it is gone first."""
        ...

    def close(self, reason: str = "") -> None: ...
