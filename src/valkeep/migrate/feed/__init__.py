"""Where the source's data comes from: one module for each way, all of the same shape.

    psync      we are a replica of the source
    scan       SCAN and DUMP, again and again, where PSYNC is denied

A feed gives the gateway (a `client.replication.Receiver`) one snapshot and then the stream of what is written after it, at offsets that only grow;
and it reads single keys again, each at a known offset of that stream, where the stream alone does not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from valkeep.errors import ConnectionLost

if TYPE_CHECKING:
    from valkeep.client.replication import Receiver
    from valkeep.migrate.transform.copies import Copy
    from valkeep.wire.commands import Place

__all__ = ["Feed", "Origin", "Position", "ReplicationGap"]


@dataclass(frozen=True, slots=True)
class Position:
    """How far we are in a source's stream: ``offset`` is the last byte that we have, of the history that ``replid`` names. ``reached``: some of us have more,
    up to there; the source is asked for less, and has to have it all (0: nobody has)."""

    replid: str
    offset: int
    reached: int = 0


class ReplicationGap(ConnectionLost):
    """The source cannot go on where we are: its backlog does not reach that far back, or its history is another one. Nothing of what it would have sent
    instead was given to the receiver; only a full sync helps."""

    code = "VK-SOURCE-GAP"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the source is. ``name``: product and version, for people; ``version``: the product's own; ``speaks``: the release whose commands its stream may
    hold, of Valkey where ``valkey``, else of Redis. ``keys``: about how many it holds (0: unknown). ``info``: what its INFO said, where it has one."""

    name: str
    version: tuple[int, ...]
    speaks: tuple[int, ...]
    valkey: bool
    keys: int = 0
    info: Mapping[str, str] = field(default_factory=dict)


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

    async def start(self, receiver: Receiver, listening_port: int, since: Position | None = None) -> None:
        """Begin; the receiver is called from now on. ``listening_port``: ours, by which the source's owner knows us.

        ``since``: go on behind the last byte that we have, without a snapshot (``Receiver.continued`` instead of ``full_resync``); where that cannot be, this
        or ``run`` raises `ReplicationGap`.
        """
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
