"""Facts of a replication group and of the network between it and the gateway: gathered once (`survey`), frozen, judged elsewhere.

What could not be asked is None, and ``denied`` says which permission it takes: so "not permitted to look" never turns into "fine".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["GroupFacts", "NetworkFacts", "Node", "Route", "Rule", "SecurityGroup", "Subnet", "permits"]


@dataclass(frozen=True, slots=True)
class Node:
    """``role``: primary | replica, "" where AWS does not say (cluster mode). ``host``: its own name, by which it may come to the gateway."""

    name: str
    role: str
    zone: str
    status: str = ""
    version: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a security group. ``protocol``: tcp, udp, -1 (all) …; ``peers``: CIDR blocks and ids of security groups."""

    protocol: str
    first: int
    last: int
    peers: frozenset[str]

    def covers(self, port: int) -> bool:
        return self.protocol == "-1" or (self.protocol in ("tcp", "6") and self.first <= port <= self.last)

    @property
    def display(self) -> str:
        ports = "all" if self.protocol == "-1" else f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{ports} ↔ {', '.join(sorted(self.peers))}"


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    name: str
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Subnet:
    name: str
    block: str
    vpc: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """``via``: local, an id of a gateway or of a peering connection."""

    block: str
    via: str
    active: bool = True

    def leads_to(self, address: str) -> bool:
        """The way to the internet (a default route) leads to no private address."""
        try:
            where = ipaddress.ip_address(address)
        except ValueError:
            return False
        away = self.block in ("0.0.0.0/0", "::/0") and where.is_private
        return self.active and not away and _holds(self.block, address)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """``vpc``: of the group's nodes; ``groups``: their security groups; ``subnets``: those that they may be in. ``gateway_…``: of the network interface
    that has the gateway's address (None: there is none in this account, or nobody may look). ``routes``: by subnet."""

    vpc: str | None = None
    subnets: tuple[Subnet, ...] | None = None
    groups: tuple[SecurityGroup, ...] | None = None
    gateway_vpc: str | None = None
    gateway_subnet: Subnet | None = None
    gateway_groups: tuple[SecurityGroup, ...] | None = None
    routes: Mapping[str, tuple[Route, ...]] | None = None


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """One replication group. ``endpoint``: where clients write to (None in cluster mode). ``parameters``: those of its parameter group;
    ``maxmemory``: of one node by its type and parameters, bytes. ``denied``: IAM action → what AWS said."""

    name: str
    region: str
    status: str
    engine: str
    version: tuple[int, ...]
    cluster_mode: bool
    shards: int
    nodes: tuple[Node, ...]
    node_type: str
    multi_az: str
    automatic_failover: str
    transit_encryption: bool
    at_rest_encryption: bool
    auth: bool
    user_groups: tuple[str, ...]
    data_tiering: bool
    global_datastore: str
    pending: tuple[str, ...]
    endpoint: tuple[str, int] | None
    parameter_group: str = ""
    parameters: Mapping[str, str] | None = None
    maxmemory: int | None = None
    network: NetworkFacts = field(default_factory=NetworkFacts)
    denied: Mapping[str, str] = field(default_factory=dict)

    @property
    def product(self) -> str:
        return f"ElastiCache for {self.engine.capitalize()} {'.'.join(map(str, self.version))}"

    def to_json(self) -> dict[str, Any]:
        """For the report: what identifies the group, without its network."""
        return {
            "group": self.name,
            "region": self.region,
            "status": self.status,
            "product": self.product,
            "node_type": self.node_type,
            "nodes": [node.name for node in self.nodes],
            "shards": self.shards,
            "vpc": self.network.vpc,
            "denied": sorted(self.denied),
        }


def permits(rules: Iterable[Rule], port: int, address: str, groups: Iterable[str] = ()) -> bool | None:
    """Whether one of these rules lets this peer through; None where a prefix list might, which is not looked into."""
    known: bool | None = False
    member = set(groups)
    for rule in rules:
        if not rule.covers(port):
            continue
        for peer in rule.peers:
            if peer.startswith("pl-"):
                known = None
            elif peer in member or _holds(peer, address):
                return True
    return known


def _holds(block: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)
    except ValueError:  # an id of a security group, or a name instead of an address
        return False
