"""A topology in containers: the shipped Compose files, started as anybody would, with the verbs of a deployment.

    async with ComposeDeployment(TopologySpec.sentinel()) as deployment: …

The files are those of infra/compose, unchanged; all that Valkeep decides goes in by their documented variables: a project of its own
(``valkeep-PID-N``), a network that no other one overlaps, free ports, and the lines that the spec asks for. So what holds of a drill here holds
of the files that people run. They describe one primary, two replicas and three sentinels, and a cluster of three and three; another
shape is refused, not made up.

What differs from the files' own defaults, because a drill is about the spec: persistence and timers are the spec's, ``min-replicas-to-write`` is
0 unless the spec sets it, and nothing restarts by itself (a killed node stays dead until it is started).

Where the host does not reach the containers' network (Docker Desktop, rootless, a remote daemon), everything is announced and
published at an address of this computer; nodes then differ by port, and nothing can be cut (`containers`).

Verbs: kill, stop, start, pause, unpause of ``docker``. ``crash`` is refused: the page cache belongs to the host's kernel, not to a container.
Gone at the end: ``docker compose down -v``, by the janitor should this process be killed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import identify, parse_info
from valkeep.errors import Refused, UsageError, ValkeepError
from valkeep.runtime import image, ports, servers
from valkeep.runtime.configuration import Lines, data_config
from valkeep.runtime.containers import ContainerNetwork
from valkeep.runtime.converge import converge, prove, told
from valkeep.runtime.deployment import EndsItself
from valkeep.runtime.docker import AddressesTaken, Docker
from valkeep.runtime.folder import temporary_folder
from valkeep.runtime.janitor import Janitor
from valkeep.runtime.probe import Prober
from valkeep.topology.spec import MONITORED, Kind, NodeSpec, TopologySpec

__all__ = ["FILES", "ComposeDeployment", "ComposeMachine", "check"]

FILES: Final = Path(__file__).parent / "compose_files"
_FILE: Final = {Kind.SENTINEL: "docker-compose.ha.yml", Kind.CLUSTER: "docker-compose.cluster.yml"}
_SHAPE: Final = {Kind.SENTINEL: (1, 2, 3), Kind.CLUSTER: (3, 1, 0)}
_STOCK: Final[Lines] = {"appendonly": "no", "min-replicas-to-write": 0, "min-replicas-max-lag": 10, "repl-backlog-size": "10mb"}
"""The servers' own defaults, in place of what the files set for production."""
_EMPTY: Final = '""'  # an empty value
_numbers = itertools.count(1)


def check(spec: TopologySpec) -> None:
    """Whether the shipped files describe this topology. Raises ``UsageError``."""
    if (spec.shards, spec.replicas, spec.sentinels) != _SHAPE.get(spec.kind):
        raise UsageError(
            f"there is no Compose file for {spec.described}",
            remedy="1 primary + 2 replicas + 3 sentinels, or 3 primaries + 3 replicas; for any other shape use --runtime local",
        )
    if spec.tls or spec.acl:
        raise UsageError(
            "the Compose files are without TLS and users", remedy="use --runtime local, or write the lines into infra/compose/conf"
        )


class ComposeMachine:
    """One node as a container; see `deployment.Machine`."""

    def __init__(self, spec: NodeSpec, container: str, endpoint: Endpoint, deployment: ComposeDeployment) -> None:
        self.spec, self.container, self.endpoint = spec, container, endpoint
        self._deployment = deployment
        self._docker = deployment.docker

    def __repr__(self) -> str:
        return f"<ComposeMachine {self.spec.name} at {self.endpoint.address}>"

    @property
    def alive(self) -> bool:
        return self._docker.run("inspect", "--format", "{{.State.Running}}", self.container).strip() == "true"

    def log(self) -> str:
        return self._docker.logs(self.container)

    async def kill(self) -> None:
        await self._do("kill", self.container)

    async def stop(self, timeout: float = 10.0) -> None:
        await self._do("stop", "--time", str(max(round(timeout), 1)), self.container)

    async def start(self, timeout: float = 20.0) -> None:
        if await asyncio.to_thread(lambda: self.alive):
            raise Refused(f"{self.spec.name} runs already", remedy="stop or kill it first")
        await self._do("start", self.container)
        await self._deployment.network.started(self.spec.name)
        await self._deployment.answering(self.spec.name, timeout)

    async def pause(self) -> None:
        await self._do("pause", self.container)

    async def resume(self) -> None:
        await self._do("unpause", self.container)

    async def empty(self) -> None:
        if await asyncio.to_thread(lambda: self.alive):
            raise Refused(f"{self.spec.name} runs", remedy="stop or kill it before its files are touched")
        words = ("sh", "-c", "rm -rf /data/appendonlydir /data/*.rdb /data/*.aof /data/nodes.conf")
        await self._do(
            "run", "--rm", "--network", "none", "--entrypoint", "", "--volumes-from", self.container, self._deployment.image, *words
        )

    async def crash(self) -> None:
        raise Refused(
            "a container shares the page cache of its host, so what was synced can not be told apart",
            remedy="use --runtime local, whose nodes can be started with a record of what they synced",
        )

    async def _do(self, *words: str) -> None:
        await asyncio.to_thread(self._docker.run, *words)


class ComposeDeployment(EndsItself):
    """``docker``: None finds it. ``image``: "" is $VALKEY_IMAGE, else one made of the server that the spec names where that is possible,
    else the official one of that version. ``host``: the address to announce and publish at; "" is the containers' own where the host reaches
    them. ``timeout``: seconds until it has to be ready. Raises ``DockerMissing`` and ``UsageError`` before anything is started."""

    runtime = "compose"

    def __init__(
        self, spec: TopologySpec, *, docker: Docker | None = None, image: str = "", host: str = "", timeout: float = 120.0
    ) -> None:
        check(spec)
        self.spec = spec
        self.docker = docker or Docker.find()
        self.image = image or os.environ.get("VALKEY_IMAGE", "")
        self.file = FILES / _FILE[spec.kind]
        self.project = f"valkeep-{os.getpid()}-{next(_numbers)}"
        self.direct = not host and self.docker.reached_directly()
        self.host = host or ("" if self.direct else _own_address())
        self.server = ""  # what the containers run, by its own word: "Valkey 9.1.2"; known when ready
        self.machines: dict[str, ComposeMachine] = {}
        self.network: ContainerNetwork
        self.prober: Prober
        self.folder = Path()
        self._timeout = timeout
        self._ports: dict[str, ports.Reservation] = {}
        self._janitor: Janitor | None = None

    @property
    def abilities(self) -> frozenset[str]:
        return self.network.abilities

    @property
    def addresses(self) -> Mapping[str, str]:
        """Node → the host:port that it announces."""
        return {name: machine.endpoint.address for name, machine in self.machines.items()}

    async def up(self) -> None:
        """Start every container; `ready` proves that they are a topology."""
        self._janitor = await asyncio.to_thread(Janitor)
        self.folder = temporary_folder(self._janitor.remove)
        for _ in range(2):  # a `compose up` that was under way may still create something while the first one runs
            self._janitor.run([*self.docker.compose, *self._down])
        if not self.image:
            self.image = await asyncio.to_thread(_image, self.docker, self.spec)
        for node in self.spec.nodes():
            self._ports[node.name] = ports.reserve(host=self.host or "127.0.0.1")
        used = await asyncio.to_thread(_networks, self.docker)
        for prefix in _prefixes(used):
            self._seat(prefix)
            try:
                await asyncio.to_thread(self._up, prefix)
            except AddressesTaken:
                continue
            return
        raise Refused(
            "every network 172.30.x.0 overlaps another one", remedy="docker network ls shows them; docker network prune removes unused ones"
        )

    def _seat(self, prefix: str) -> None:
        """The nodes' addresses in this network, as the Compose files give them."""
        numbers = {node.name: int(node.name[1:]) + (20 if node.role == "sentinel" else 10) for node in self.spec.nodes()}
        hosts = {name: f"{prefix}.{number}" for name, number in numbers.items()}
        containers = {name: f"{self.project}-{name}-1" for name in hosts}
        self.network = ContainerNetwork(self.docker, self.project, prefix, hosts, containers, self.direct)
        self.machines = {
            node.name: ComposeMachine(
                node, containers[node.name], Endpoint(self.host or hosts[node.name], self._ports[node.name].port), self
            )
            for node in self.spec.nodes()
        }

    def _up(self, prefix: str) -> None:
        assert self._janitor is not None
        self.docker.compose_run(*self._compose, "up", "--detach", environment=self._environment(prefix), begun=self._janitor.end)

    def _environment(self, prefix: str) -> dict[str, str]:
        of_nodes: dict[str, str] = {}
        for name, reservation in self._ports.items():
            of_nodes[f"VALKEY_{name.upper()}_PORT"] = str(reservation.port)
            of_nodes[f"VALKEY_{name.upper()}_BUS"] = str(reservation.port + ports.BUS)
        sentinel = {
            "down-after-milliseconds": self.spec.timeout_ms,
            "failover-timeout": self.spec.failover_timeout_ms,
            "parallel-syncs": max(self.spec.replicas, 1),
        }
        return {
            **of_nodes,
            "VALKEY_IMAGE": self.image,
            "VALKEY_NET": prefix,
            "VALKEY_HOST_IP": self.host,
            "VALKEY_PASSWORD": "",
            "VALKEY_RESTART": "no",
            "VALKEY_SETTINGS": "\n".join(_lines({**_STOCK, **data_config(self.spec, {}, None)})),
            "VALKEY_SENTINEL_SETTINGS": "\n".join(f"sentinel {name} {MONITORED} {value}" for name, value in sentinel.items()),
        }

    @property
    def _compose(self) -> tuple[str, ...]:
        return ("--project-name", self.project, "--file", str(self.file))

    @property
    def _down(self) -> tuple[str, ...]:
        return (*self._compose, "down", "--volumes", "--remove-orphans", "--timeout", "0")

    async def ready(self) -> None:
        data = {name: machine.endpoint for name, machine in self.machines.items() if machine.spec.role != "sentinel"}
        self.prober = Prober(
            self.spec.kind, data, {name: one.endpoint for name, one in self.machines.items() if name not in data}, timeout=2.0
        )
        view = await converge(self.spec, self.prober, self.addresses, timeout=self._timeout)
        await prove(self.spec, self.prober, view, timeout=self._timeout)
        await told(self.spec, self.prober, self.addresses, timeout=self._timeout)
        self.server = identify(parse_info(await self.prober.call("n1", "INFO", "server"))).product

    async def answering(self, name: str, timeout: float) -> None:
        """Returns when this node answers PING, and no longer loads."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                await self.prober.call(name, "PING")
                return
            except ValkeepError as error:
                if time.monotonic() > deadline:
                    machine = self.machines[name]
                    words = " | ".join((await asyncio.to_thread(machine.log)).strip().splitlines()[-3:])
                    raise error.saying(f"{name} did not answer within {timeout:.0f} s: {error.message}; its log ends: {words}") from None
            await asyncio.sleep(0.05)

    async def down(self) -> None:
        """Containers, network, volumes and the folder go. May be called twice."""
        try:
            if hasattr(self, "prober"):
                await self.prober.close()
            if self.machines:
                await asyncio.to_thread(self.docker.compose_run, *self._down)
        finally:
            for reservation in self._ports.values():
                reservation.release()
            if self.folder != Path():
                await asyncio.to_thread(shutil.rmtree, self.folder, True)
            if self._janitor is not None:
                await asyncio.to_thread(self._janitor.dismiss)


def _image(docker: Docker, spec: TopologySpec) -> str:
    binary = servers.find(spec.server)
    try:
        return image.build(docker, binary)
    except image.ImageFailed:
        return f"{'valkey/valkey' if binary.name == 'valkey' else 'redis'}:{binary.version[0]}.{binary.version[1]}"


def _lines(settings: Lines) -> Iterator[str]:
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            yield f"{name} {str(one) or _EMPTY}"


def _networks(docker: Docker) -> str:
    """The address ranges of all Docker networks, as text to search in."""
    ids = docker.run("network", "ls", "--quiet").split()
    return docker.run("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", *ids) if ids else ""


def _prefixes(used: str) -> Iterator[str]:
    """Networks to try, each process from a place of its own, so that parallel ones seldom meet; 172.30.77 and 78 are the files' own."""
    start = os.getpid() * 7
    for step in range(140):
        prefix = f"172.30.{100 + (start + step) % 140}"
        if f"{prefix}.0/" not in used:
            yield prefix


def _own_address() -> str:
    """The address that this computer sends from to others: containers reach it, and so does the host. Nothing is sent by asking."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
            return str(probe.getsockname()[0])
        except OSError as error:
            raise Refused(
                f"this computer has no address that its containers could reach ({error})",
                remedy="connect it to a network, or use --runtime local",
            ) from error
