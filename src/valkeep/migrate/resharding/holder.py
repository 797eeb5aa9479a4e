"""A lane as one that holds slots: what of it matters when they move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.shard_primary import ShardPrimary
    from valkeep.migrate.gateway.channel import Channel
    from valkeep.migrate.gateway.gateway import Gateway
    from valkeep.migrate.transform.territory import Territory

__all__ = ["Follower", "Holder"]


class Follower(Protocol):
    """The lane's feed (`feed.psync.PsyncFeed`)."""

    def follow(self, primary: Endpoint) -> None:
        """This is the shard's primary now; nothing changes where it is the one that is followed."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Holder:
    """``name``: of the lane, for people and for what is recorded. ``territory``: the one by which its channel judges."""

    name: str
    gateway: Gateway
    territory: Territory
    shard: ShardPrimary
    feed: Follower

    @property
    def channel(self) -> Channel:
        (channel,) = self.gateway.channels
        return channel
