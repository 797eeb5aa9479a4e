"""What was observed: each node's own word on its role, its links and its slots, parsed from ordinary replies. Pure.

A view is a moment's gossip, not the truth: a node that was cut off goes on calling itself primary. Whoever reads a view names whose
word it is. ``NodeView.reached`` is False for a node that did not answer; its other fields then say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from valkeep.topology.members import ClusterMember, cluster_members

__all__ = [
    "PROBES",
    "SENTINEL_PROBES",
    "NodeView",
    "SentinelView",
    "View",
    "data_view",
    "sentinel_probes",
    "sentinel_view",
]

PROBES: Final[tuple[tuple[str, ...], ...]] = (("INFO", "replication"), ("CLUSTER", "INFO"), ("CLUSTER", "NODES"), ("CLUSTER", "SLOTS"))
"""What a data node is asked; outside a cluster only the first."""
SENTINEL_PROBES: Final = ("MASTER", "REPLICAS", "SENTINELS")


@dataclass(frozen=True, slots=True)
class NodeView:
    """A data node. ``role``: primary or replica, as it says itself. ``primary``: host:port that a replica follows. ``offset``: bytes of its
    stream. ``online``: address → acknowledged offset of the replicas that a primary calls online. ``state``: of the cluster (ok, fail), or "".
    ``named``: ids of the nodes that it names to a client that asks who serves the slots (it leaves out replicas whose offset it has not heard yet);
    None: not said. ``old``: the id of the stream that it had before its own, ``old_offset``: up to which byte; "" and -1 where it had none."""

    name: str
    reached: bool
    role: str = ""
    replid: str = ""
    offset: int = 0
    primary: str = ""
    link_up: bool = False
    online: Mapping[str, int] = field(default_factory=dict)
    state: str = ""
    epoch: int = 0
    members: tuple[ClusterMember, ...] = ()
    named: frozenset[str] | None = None
    old: str = ""
    old_offset: int = -1

    @property
    def me(self) -> ClusterMember | None:
        return next((member for member in self.members if "myself" in member.flags), None)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return self.me.ranges if self.me else ()

    @property
    def claims(self) -> bool:
        """Whether it says that it is a primary that takes writes: in a cluster one with slots."""
        return self.role == "primary" and (not self.members or bool(self.ranges))

    @property
    def slot_count(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class SentinelView:
    """What one sentinel knows. ``primary``: host:port it watches; ``down``: it calls that primary down; ``replicas``, ``sentinels``: addresses of the
    others that it knows, with True where its link to them is up."""

    name: str
    reached: bool
    primary: str = ""
    down: bool = False
    replicas: Mapping[str, bool] = field(default_factory=dict)
    sentinels: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """All nodes at about one moment: ``at`` in ns on the monotonic clock."""

    at: int
    nodes: Mapping[str, NodeView]
    sentinels: Mapping[str, SentinelView] = field(default_factory=dict)

    def primaries(self) -> tuple[NodeView, ...]:
        """Nodes that call themselves primary; in a cluster only those with slots."""
        return tuple(node for node in self.nodes.values() if node.claims)

    def covered(self, node: NodeView) -> int:
        """How many slots are served as ``node`` sees it: owned by members that it does not call failed."""
        return sum(
            last - first + 1 for member in node.members if "master" in member.flags and not member.failing for first, last in member.ranges
        )


def _fields(text: object) -> dict[str, str]:
    if not isinstance(text, bytes):
        return {}
    return dict(pair for line in text.decode("utf-8", "replace").splitlines() if len(pair := line.split(":", 1)) == 2)


def data_view(name: str, replies: Sequence[Any]) -> NodeView:
    """From the replies to `PROBES` or the first of them; a reply of another form (an error, None) counts as not said."""
    said, cluster, nodes, slots = [*replies, None, None, None, None][:4]
    info, state = _fields(said), _fields(cluster)
    if "role" not in info:
        return NodeView(name, reached=False)
    online: dict[str, int] = {}
    for key, value in info.items():
        if key.startswith("slave") and key[5:].isdecimal():
            one = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
            if one.get("state") == "online":
                online[f"{one.get('ip')}:{one.get('port')}"] = int(one.get("offset", 0))
    primary = info["role"] == "master"
    old = info.get("master_replid2", "")
    old = old if old.strip("0") else ""
    return NodeView(
        name,
        reached=True,
        role="primary" if primary else "replica",
        replid=info.get("master_replid", ""),
        offset=int(info.get("master_repl_offset" if primary else "slave_repl_offset", "0")),
        primary="" if primary else f"{info.get('master_host')}:{info.get('master_port')}",
        link_up=primary or info.get("master_link_status") == "up",
        online=online,
        state=state.get("cluster_state", ""),
        epoch=int(state.get("cluster_my_epoch", "0")),
        members=cluster_members(nodes.decode("utf-8", "replace")) if isinstance(nodes, bytes) else (),
        named=_named(slots) if isinstance(slots, list) else None,
        old=old,
        old_offset=int(info.get("second_repl_offset", "0")) - 1 if old else -1,
    )


def _named(slots: Sequence[Any]) -> frozenset[str]:
    """The ids in a CLUSTER SLOTS reply: ``[first, last, [host, port, id, …] …]`` for each range."""
    return frozenset(name.decode() for entry in slots for node in entry[2:] for name in node[2:3])


def sentinel_probes(monitored: str) -> tuple[tuple[str, ...], ...]:
    """What a sentinel is asked about the primary that it knows by this name."""
    return tuple(("SENTINEL", probe, monitored) for probe in SENTINEL_PROBES)


def _pairs(reply: object) -> dict[str, str]:
    if not isinstance(reply, list):
        return {}
    texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in reply]
    return dict(zip(texts[::2], texts[1::2], strict=False))


def sentinel_view(name: str, replies: Sequence[Any]) -> SentinelView:
    """From the replies to `sentinel_probes` or the first of them."""
    asked, replicas, sentinels = [*replies, None, None, None][:3]
    watched = _pairs(asked)
    if "ip" not in watched:
        return SentinelView(name, reached=isinstance(asked, list))

    def others(reply: object) -> dict[str, bool]:
        listed = map(_pairs, reply) if isinstance(reply, list) else ()
        return {
            f"{one['ip']}:{one['port']}": not {"disconnected", "s_down", "o_down"} & set(one.get("flags", "").split(","))
            for one in listed
            if "ip" in one
        }

    flags = set(watched.get("flags", "").split(","))
    return SentinelView(
        name,
        reached=True,
        primary=f"{watched['ip']}:{watched['port']}",
        down=bool(flags & {"s_down", "o_down", "disconnected"}),
        replicas=others(replicas),
        sentinels=others(sentinels),
    )
