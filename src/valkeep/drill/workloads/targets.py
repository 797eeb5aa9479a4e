"""What the recorder writes to, as a value that crosses a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.drill.workloads import keys
from valkeep.errors import UsageError
from valkeep.runtime.deployment import Deployment
from valkeep.topology.spec import MONITORED, FoundSpec, Kind

__all__ = ["Place", "Targets"]


class Place(NamedTuple):
    """A data node: its name in histories, and where it is."""

    name: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Targets:
    """``nodes``: the data nodes by name, a standalone's primary first. ``sentinels``: by name. ``monitored``: what sentinels call the primary.
    ``tags``: the hash tags of all keys that are written."""

    kind: Kind
    nodes: Mapping[str, Endpoint]
    sentinels: Mapping[str, Endpoint] = field(default_factory=dict)
    monitored: str = MONITORED
    tags: tuple[bytes, ...] = field(default_factory=keys.tags_for)

    def __post_init__(self) -> None:
        if not self.nodes or (self.kind is Kind.SENTINEL and not self.sentinels) or not self.tags:
            raise UsageError("there is nobody to write to", remedy="name the data nodes, the sentinels of a Sentinel topology, and a tag")

    @classmethod
    def of(cls, deployment: Deployment, tags: int = keys.TAGS) -> Targets:
        """What a deployment offers to clients, at the addresses that it announces."""
        data = {name: machine.endpoint for name, machine in deployment.machines.items() if machine.spec.role != "sentinel"}
        sentinels = {name: machine.endpoint for name, machine in deployment.machines.items() if machine.spec.role == "sentinel"}
        spec = deployment.spec
        chosen = keys.tags_in(spec.slices, tags) if isinstance(spec, FoundSpec) else keys.tags_for(tags)
        return cls(spec.kind, data, sentinels, spec.monitored, chosen)

    def place(self, host: str, port: int) -> Place:
        """The node at this address. One that nobody named is called by its address, and is let in with the login of the first."""
        for name, endpoint in self.nodes.items():
            if (endpoint.host, endpoint.port) == (host, port):
                return Place(name, endpoint)
        return Place(f"{host}:{port}", replace(next(iter(self.nodes.values())), host=host, port=port))

    def to_json(self) -> dict[str, Any]:
        """With passwords: for a pipe, never for a file or an argument."""
        return {
            "kind": self.kind.value,
            "nodes": {name: _endpoint_to_json(endpoint) for name, endpoint in self.nodes.items()},
            "sentinels": {name: _endpoint_to_json(endpoint) for name, endpoint in self.sentinels.items()},
            "monitored": self.monitored,
            "tags": [tag.decode("latin-1") for tag in self.tags],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Targets:
        return cls(
            Kind(data["kind"]),
            {name: _endpoint_from_json(endpoint) for name, endpoint in data["nodes"].items()},
            {name: _endpoint_from_json(endpoint) for name, endpoint in data["sentinels"].items()},
            data["monitored"],
            tuple(tag.encode("latin-1") for tag in data["tags"]),
        )


def _endpoint_to_json(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "username": endpoint.username,
        "password": None if endpoint.password is None else endpoint.password.reveal(),
        "tls": None if endpoint.tls is None else asdict(endpoint.tls),
    }


def _endpoint_from_json(data: dict[str, Any]) -> Endpoint:
    return Endpoint(
        data["host"],
        data["port"],
        username=data["username"],
        password=None if data["password"] is None else Secret(data["password"]),
        tls=None if data["tls"] is None else TLS(**data["tls"]),
    )
