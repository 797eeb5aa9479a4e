"""Where the source's data comes from: one module for each way, all of the same shape.

    psync      we are a replica of the source

A feed gives the gateway (a `client.replication.Receiver`) one snapshot and then the stream of what is written after it, at offsets that only grow;
and it reads single keys again, each at a known offset of that stream, where the stream alone does not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from valkeep.client.replication import Receiver
    from valkeep.migrate.transform.stream import Copy, Place

__all__ = ["Feed", "Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What the source is. ``name``: product and version, for people; ``version``: the product's own; ``speaks``: the release whose commands its stream may
    hold, of Valkey where ``valkey``, else of Redis. ``keys``: about how many it holds (0: unknown)."""

    name: str
    version: tuple[int, ...]
    speaks: tuple[int, ...]
    valkey: bool
    keys: int = 0


class Feed(Protocol):
    """In this order: ``look``, ``start``, then ``run`` beside everything else; ``close`` at the end, and whenever.

    ``received``: the source offset up to which everything was given to the receiver. ``length``: bytes of the snapshot where that is known beforehand, else 0.
    """

    @property
    def received(self) -> int: ...

    @property
    def length(self) -> int: ...

    async def look(self) -> Origin:
        """Ask the source what it is. Raises ``ValkeepError`` where it can not be one."""
        ...

    async def start(self, receiver: Receiver, listening_port: int) -> None:
        """Begin; the receiver is called from now on. ``listening_port``: ours, by which the source's owner knows us."""
        ...

    async def run(self) -> None:
        """Keep it going. Raises what ended it; returns only after ``close``."""
        ...

    def acknowledge(self) -> None:
        """Tell the source, if it wants to know, how far we are."""
        ...

    async def read(self, places: Sequence[Place]) -> list[Copy]:
        """These keys as they are now, each with the offset at which it had that value. Raises ``Refused`` where a person has to do something, and
        ``ConnectionLost`` where trying again may help."""
        ...

    async def close(self) -> None: ...
