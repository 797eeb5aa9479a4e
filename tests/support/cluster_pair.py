"""A real cluster as the source and another as the target: slots that move, writers that follow them, and the judge of both sides."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import valkey
from valkey.backoff import NoBackoff
from valkey.cluster import ValkeyCluster
from valkey.exceptions import ConnectionError as Broken
from valkey.exceptions import ResponseError
from valkey.exceptions import TimeoutError as Late
from valkey.retry import Retry

from tests.support.cluster_target import cluster_of
from tests.support.rdb_oracle import said
from tests.support.valkeep_process import Valkeep
from tests.support.writers import Writer, Writers
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import key_slot, tag_for

__all__ = ["Clusters", "Roamers", "client_of", "clusters", "fill", "key_in"]


def client_of(port: int, host: str = "127.0.0.1") -> Any:
    return valkey.Valkey(host=host, port=port, retry=Retry(NoBackoff(), 0), socket_timeout=20)


class _Roamer(Writer):
    """Goes where servers send it."""

    def __init__(self, seeds: list[tuple[str, int]], name: str, stop: threading.Event, pace: float) -> None:
        super().__init__(0, name, stop, pace)
        self._seeds = seeds
        self._clients: dict[tuple[str, int], Any] = {}
        self._owners: dict[int, tuple[str, int]] = {}

    def _work(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            listed = self._send(f"list:{self.name}", "RPUSH", number)
            if listed and self._send(f"key:{self.name}:{number}", "SET", number):
                self.acked.append(number)
            self._stop.wait(self.pace)
        for client in self._clients.values():
            client.close()

    def _send(self, key: str, command: str, number: int) -> bool:
        """Whether it was acknowledged. A command whose reply is lost may have been executed, and is not sent again."""
        slot = key_slot(key.encode())
        asking = False
        at = self._owners.get(slot, self._seeds[slot % len(self._seeds)])
        for _ in range(400):
            if at not in self._clients:
                self._clients[at] = client_of(at[1], at[0])
            client = self._clients[at]
            try:
                if asking:
                    client.execute_command("ASKING")
                client.execute_command(command, key, number)
            except (Broken, Late):
                self._clients.pop(at).close()
                self._owners.pop(slot, None)
                time.sleep(0.02)
                return False
            except ResponseError as error:
                kind, _, rest = str(error).partition(" ")
                asking = kind == "ASK"
                if kind in ("MOVED", "ASK"):
                    host, _, port = rest.split()[1].rpartition(":")
                    at = host, int(port)
                    if kind == "MOVED":
                        self._owners[slot] = at
                elif kind in ("TRYAGAIN", "CLUSTERDOWN"):
                    time.sleep(0.005)
                else:
                    self.refused += 1
                    time.sleep(0.02)
                    return False
            else:
                return True
        return False


class Roamers(Writers):
    """``with Roamers(cluster) as writers``: for a cluster whose slots move. What is acknowledged is one write after the other, not both or none."""

    def __init__(self, cluster: LocalDeployment, count: int = 4, pace: float = 0.02, prefix: str = "") -> None:
        self._stop = threading.Event()
        seeds = [(machine.endpoint.host, machine.endpoint.port) for machine in cluster.machines.values()]
        self.writers = [_Roamer(seeds, f"{prefix}{number}", self._stop, pace) for number in range(count)]


def key_in(slot: int, name: str = "") -> str:
    return f"{name}{{{tag_for(slot).decode()}}}"


def fill(client: Any, keys: int) -> None:
    """Some of each type, over all slots."""
    for number in range(keys):
        match number % 6:
            case 0:
                client.set(f"string:{number}", "x" * (number % 200))
            case 1:
                client.hset(f"hash:{number}", mapping={f"field{one}": number for one in range(number % 7 + 1)})
            case 2:
                client.rpush(f"numbers:{number}", *range(number % 9 + 1))
            case 3:
                client.zadd(f"scores:{number}", {f"member{one}": one / 3 for one in range(number % 5 + 1)})
            case 4:
                client.sadd(f"set:{number}", *range(number % 8 + 1))
            case _:
                client.set(f"later:{number}", number, px=3_600_000)


@dataclass
class Clusters:
    """``here`` and ``there`` follow the slots of the source and of the target. ``named``: number of the source's node that commands are given."""

    source: LocalDeployment
    target: LocalDeployment
    folder: Path
    named: int = 0
    here: Any = field(init=False)
    there: Any = field(init=False)

    def __post_init__(self) -> None:
        self.here = _following(self.source)
        self.there = _following(self.target)

    def close(self) -> None:
        self.here.close()
        self.there.close()

    def where(self) -> tuple[str, ...]:
        source, target = list(self.source.machines.values())[self.named].endpoint, next(iter(self.target.machines.values())).endpoint
        return ("--source", f"valkey://{source.address}", "--target", f"valkey://{target.address}", "--state", str(self.folder / "state"))

    def run(self, *more: str, name: str = "run") -> Valkeep:
        options = ("--deliver", "push", "--acknowledge", "all", "--lease", "30000")
        return Valkeep("migrate", "run", *self.where(), *options, *more, folder=self.folder / name)

    def valkeep(self, command: str, *more: str) -> Valkeep:
        with Valkeep("migrate", command, *self.where(), *more, folder=self.folder / command, report=False) as process:
            process.wait()
        return process

    @staticmethod
    def keys(cluster: LocalDeployment) -> set[bytes]:
        found: set[bytes] = set()
        for machine in cluster.machines.values():
            node = client_of(machine.endpoint.port, machine.endpoint.host)
            if node.info("replication")["role"] == "master":
                found |= set(node.keys("*"))
            node.close()
        return found

    def markers(self) -> list[bytes]:
        return [key for key in self.keys(self.target) if key.startswith(b"valkeep:push:offset")]

    def assert_same(self) -> None:
        keys = self.keys(self.source)
        assert keys == self.keys(self.target)
        for key in sorted(keys):
            assert said(self.here, key) == said(self.there, key)


def _following(cluster: LocalDeployment) -> Any:
    endpoint = next(iter(cluster.machines.values())).endpoint
    return ValkeyCluster(host=endpoint.host, port=endpoint.port)


@contextlib.contextmanager
def clusters(source: str, target: str, folder: Path, shards: Iterable[int] = (3, 3), replicas: int = 0) -> Iterator[Clusters]:
    """``replicas``: of each shard of the source."""
    ours, theirs = shards
    with cluster_of(source, ours, replicas) as here, cluster_of(target, theirs) as there:
        found = Clusters(here, there, folder)
        for one in (found.here, found.there):
            one.flushall(target_nodes=ValkeyCluster.PRIMARIES)
            if not replicas:  # where nobody takes over, a node that is slow for a second need not be taken for dead
                one.config_set("cluster-node-timeout", 5000, target_nodes=ValkeyCluster.PRIMARIES)
        yield found
        found.close()
