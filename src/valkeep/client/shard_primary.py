"""The primary of one shard of a cluster, whoever that is now: what a lane of a migration has for its source.

A shard is known by its members: the node that was its primary when it was first seen, and those that followed it. After a failover another of them is the
primary; a node that comes back late says that it still is one, with the configuration's older epoch. So of the members that anybody calls a primary, the one of
the newest epoch is it, if it says so itself.

A member may leave: a primary that has lost its last slot becomes a replica of the shard that has them now. That one is no member of ours, and
its stream is another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from valkeep.client.cluster_nodes import ClusterNodes, NodeWord, given_up
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost

__all__ = ["NoShardPrimary", "ShardPrimary"]


class NoShardPrimary(ConnectionLost):
    """No node that answers is the primary of this shard at present. ``strayed``, ``over``: see `ShardPrimary`."""

    strayed = ""
    over = False


class ShardPrimary:
    """``seeds``: some nodes of the cluster, with the login that all have. ``node_id``: of the shard's primary; ``others``: ids of its other members, as far as
    they are known (a run that goes on knows them from the one before). ``endpoint``: where the primary was when somebody looked last; None: nobody has."""

    def __init__(self, seeds: Sequence[Endpoint], node_id: str, others: Iterable[str] = ()) -> None:
        self.seeds = tuple(seed.without_database() for seed in seeds)
        self.node_id = node_id
        self.endpoint: Endpoint | None = None
        self._others = frozenset(others)
        self._neighbours: tuple[Endpoint, ...] = ()  # nodes of the cluster that answered the last time

    @property
    def members(self) -> tuple[str, ...]:
        """Ids of the nodes of this shard, the primary first: what a run that goes on has to know."""
        return (self.node_id, *sorted(self._others - {self.node_id}))

    @property
    def login(self) -> Endpoint:
        return self.seeds[0]

    @property
    def db(self) -> int:
        return 0

    @property
    def address(self) -> str:
        """For messages."""
        return (self.endpoint or self.login).address

    @property
    def display(self) -> str:
        """A URL without its secrets, and which shard of that cluster it is."""
        return f"{self.login.display}#{self.node_id[:8]}"

    def __str__(self) -> str:
        return self.display

    def at(self, host: str, port: int) -> Endpoint:
        """Another node."""
        return self.login.at(host, port)

    async def resolve(self) -> Endpoint:
        """Who it is now. Raises ``NoShardPrimary``, definite: later there may be one."""
        async with ClusterNodes(tuple(dict.fromkeys((*self._neighbours, *self.seeds)))) as nodes:
            words = await nodes.look(everybody=True)
        found = self.among(words)
        if found is None:
            error = NoShardPrimary(
                f"of the shard of {self.address} ({self.node_id[:8]}), {self._why_nobody(words)}",
                remedy="a failover may be under way: ask again. CLUSTER NODES says who is there",
            )
            error.strayed, error.over = self.strayed(words), self.over(words)
            raise error
        return found.endpoint

    def among(self, words: Mapping[str, NodeWord]) -> NodeWord | None:
        """The primary's own word, among what nodes say (`ClusterNodes.look`); None where it is not among them. Learns who follows it now."""
        if words:
            self._neighbours = tuple(word.endpoint for word in words.values())
        shard = {self.node_id, *self._others}
        claims = [
            (one.epoch, one.id)
            for word in words.values()
            for one in word.members
            if one.id in shard and one.primary and ("myself" in one.flags or not one.failing)
        ]
        if not claims:
            return None
        word = words.get(max(claims)[1])
        if word is None or not word.me.primary:
            return None
        self.node_id, self.endpoint = word.me.id, word.endpoint
        left = {one.id for one in word.members if one.primary_id not in ("", *shard)}
        self._others = frozenset((shard - left) | {one.id for one in word.members if one.primary_id == self.node_id})
        return word

    def strayed(self, words: Mapping[str, NodeWord]) -> str:
        """The id of the node, no member of this shard, which the last primary says that it follows now; "" where it does not."""
        own = words.get(self.node_id)
        followed = own.me.primary_id if own is not None and not own.me.primary else ""
        return "" if followed in {self.node_id, *self._others} else followed

    def over(self, words: Mapping[str, NodeWord]) -> bool:
        """Whether there is no such shard any more, if it has no slots: its last primary is another's replica, or the cluster has given it up. It has not while
        anybody lists slots of it: they came lately, and a replica will take them over."""
        listed = [member for word in words.values() if (member := word.member(self.node_id)) is not None]
        return bool(self.strayed(words)) or (given_up(words, self.node_id) and not any(member.ranges for member in listed))

    def _why_nobody(self, words: Mapping[str, NodeWord]) -> str:
        if not words:
            return "no node of the cluster answers"
        if followed := self.strayed(words):
            return f"the primary follows {followed[:8]} now, which belongs to another shard"
        return f"nobody is the primary now, of {len(self.members)} nodes known; {len(words)} nodes of the cluster answer"
