"""A real cluster as the target of a push: its shards, and ordinary clients to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import valkey
from valkey.cluster import ValkeyCluster

from tests.support.rdb_oracle import said
from tests.support.valkeep_process import Valkeep
from valkeep.runtime.local import LocalDeployment
from valkeep.runtime.node import Process
from valkeep.topology.slots import even_ranges
from valkeep.topology.spec import TopologySpec

__all__ = ["ClusterPair", "cluster_of"]


@contextlib.contextmanager
def cluster_of(server: str, shards: int = 3, replicas: int = 0, *, closed: bool = False) -> Iterator[LocalDeployment]:
    """``closed``: to everybody without TLS and a password."""
    spec = replace(TopologySpec.cluster(shards=shards, replicas=replicas), server=server, tls=closed, acl=closed)
    deployment = LocalDeployment(spec)
    with asyncio.Runner() as runner:
        runner.run(deployment.__aenter__())
        try:
            yield deployment
        finally:
            runner.run(deployment.__aexit__(None, None, None))


@dataclass
class ClusterPair:
    """``here``: a client to the source; ``there``: one that follows the cluster's slots; ``shards``: one for each primary."""

    source: Process
    target: LocalDeployment
    here: Any
    folder: Path

    def __post_init__(self) -> None:
        endpoints = [machine.endpoint for machine in self.target.machines.values()]
        self.seed = f"valkey://{endpoints[-1].address}"
        self.shards: list[Any] = [valkey.Valkey(host=one.host, port=one.port) for one in endpoints]
        for shard in self.shards:  # what the deployment left when it looked whether they answer
            shard.flushall()
        self.there: Any = ValkeyCluster(host=endpoints[0].host, port=endpoints[0].port)

    def close(self) -> None:
        for one in (*self.shards, self.there):
            one.close()

    def where(self) -> tuple[str, ...]:
        return ("--source", self.source.endpoint, "--target", self.seed, "--state", str(self.folder / "state"))

    def run(self, *more: str, name: str = "run") -> Valkeep:
        return Valkeep("migrate", "run", *self.where(), "--deliver", "push", "--acknowledge", "all", *more, folder=self.folder / name)

    def valkeep(self, command: str, *more: str) -> Valkeep:
        with Valkeep("migrate", command, *self.where(), *more, folder=self.folder / command, report=False) as process:
            process.wait()
        return process

    def keys(self) -> set[bytes]:
        """Of all shards."""
        return {key for shard in self.shards for key in shard.keys("*")}

    def markers(self) -> list[bytes]:
        return [key for key in self.keys() if key.startswith(b"valkeep:push:offset")]

    def ranges(self) -> list[tuple[int, int]]:
        """Of the shards' slots, in their order."""
        return list(even_ranges(len(self.shards)))

    def import_modes(self) -> set[str]:
        """Where servers have that setting."""
        return {mode for shard in self.shards if (mode := shard.config_get("import-mode").get("import-mode"))}

    def assert_same(self) -> None:
        """Every key is in the shard that owns its slot, with what the source has; keys whose time runs out meanwhile are left out."""
        keys = {key for key in self.here.keys("*") if not key.startswith(b"timed:")}
        assert keys == {key for key in self.keys() if not key.startswith(b"timed:")}
        for key in sorted(keys):
            assert said(self.here, key) == said(self.there, key)
