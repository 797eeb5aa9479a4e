"""A topology as processes of this machine: started, proven ready, and surely gone at the end.

    async with LocalDeployment(spec) as deployment: …

Folders: one for the deployment, one in it for each node (``node.conf``, ``node.log`` and the server's files). All servers die with this
process (see `node`); the folder is removed by ``async with``, and by the janitor should this process be killed.

Start-up is most of a short drill's time, so what can start together does: the primary first (a replica that finds nobody tries again
only a second later), then all the rest. Sentinels learn of each other through the primary every 2 s and look at it every 10 s; while
they get to know each other both are made short by ``SENTINEL DEBUG``, and put back to the stock values before the deployment is
ready. Left short they would call off promotions (facts of the servers: INFO has to be newer than five pings; an early HELLO undoes).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from valkeep.client.endpoint import TLS, Endpoint
from valkeep.errors import Refused, ValkeepError
from valkeep.runtime import certificate, servers
from valkeep.runtime.access import ADMIN, Access
from valkeep.runtime.configuration import Lines, data_config, sentinel_config, tls_lines
from valkeep.runtime.converge import converge, prove, told
from valkeep.runtime.deployment import EndsItself
from valkeep.runtime.folder import temporary_folder
from valkeep.runtime.janitor import Janitor
from valkeep.runtime.network.addresses import Addresses
from valkeep.runtime.network.loopback import LoopbackNetwork
from valkeep.runtime.node import Process
from valkeep.runtime.probe import Prober
from valkeep.runtime.servers import ServerBinary
from valkeep.runtime.synced import OURS, SyncedFiles
from valkeep.topology.spec import Kind, NodeSpec, TopologySpec

__all__ = ["LocalDeployment", "LocalMachine"]

_QUICK: Final = ("info-period", "100", "publish-period", "100")
_STOCK: Final = ("info-period", "10000", "publish-period", "2000")
_ROOM: Final = 32 << 20, 8 << 20  # bytes of disk that a deployment takes at least, and each of its nodes
_LOG_ROOM: Final = 64 << 10  # bytes that a node may log while its disk is full; a data file that is smaller grows up to there, too


class LocalMachine:
    """One node as a process of this machine; see `deployment.Machine`."""

    def __init__(
        self, spec: NodeSpec, process: Process, endpoint: Endpoint, synced: SyncedFiles | None = None, janitor: Janitor | None = None
    ) -> None:
        self.spec, self.process, self.endpoint = spec, process, endpoint
        self._synced, self._janitor = synced, janitor

    def __repr__(self) -> str:
        return f"<LocalMachine {self.spec.name} at {self.endpoint.address}{'' if self.alive else ' down'}>"

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.process.log()

    async def kill(self) -> None:
        await asyncio.to_thread(self.process.kill)

    async def stop(self, timeout: float = 10.0) -> None:
        await asyncio.to_thread(self.process.stop, timeout)

    async def start(self, timeout: float = 20.0) -> None:
        if self.alive:
            raise Refused(f"{self.spec.name} runs already", remedy="stop or kill it first")
        if self._synced is not None:
            self._synced.prepare()
        await asyncio.to_thread(self.process.launch, timeout)
        if self._janitor is not None:
            await asyncio.to_thread(self._janitor.end, self.pid)

    async def pause(self) -> None:
        self.process.pause()

    async def resume(self) -> None:
        self.process.resume()

    async def empty(self) -> None:
        self._must_be_down()
        for path in self.process.directory.iterdir():
            if path.name not in OURS:
                await asyncio.to_thread(shutil.rmtree if path.is_dir() else os.unlink, path)

    async def crash(self) -> None:
        if self._synced is None or not self._synced.watches(self.pid):
            raise Refused(
                f"what {self.spec.name} synced to disk is not known",
                remedy='the deployment needs "fsync", and a server that is not linked statically',
            )
        await asyncio.to_thread(self.process.kill)
        await asyncio.to_thread(self._synced.lose_unsynced)

    async def fill_disk(self) -> None:
        """By a limit on the size of files (RLIMIT_FSIZE): writes beyond it fail, as on a full disk, with EFBIG in place of ENOSPC."""
        limit = (self.process.directory / "node.log").stat().st_size + _LOG_ROOM
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    async def free_disk(self) -> None:
        if self.alive:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def _must_be_down(self) -> None:
        if self.alive:
            raise Refused(f"{self.spec.name} runs", remedy="stop or kill it before its files are touched")


class LocalDeployment(EndsItself):
    """``network``: from `runtime.network`; None: plain loopback addresses. ``folder``: of the files, made if need be and kept; None: a
    temporary one. ``timeout``: seconds until it has to be ready. ``needs``: abilities that cost something and are only there when asked for:
    fsync (machines can crash). ``access``: its users, None without ACL; ``certificate``: None without TLS. Raises ``Refused`` for what this
    machine can not do."""

    runtime = "local"

    def __init__(
        self,
        spec: TopologySpec,
        *,
        network: LoopbackNetwork | None = None,
        folder: Path | None = None,
        timeout: float = 60.0,
        needs: frozenset[str] = frozenset(),
    ) -> None:
        self.spec = spec
        self.binary: ServerBinary = servers.find(spec.server)
        if spec.tls and not servers.speaks_tls(self.binary):
            raise Refused(
                f"{self.binary} ({self.binary.origin}) was built without TLS",
                remedy="name one that has it: valkeep servers --fetch valkey-8.1, then valkey-8.1 as the server",
            )
        self.access = Access.fresh() if spec.acl else None
        self.certificate: certificate.Certificate | None = None
        self.network = network or LoopbackNetwork(Addresses(spec, "loopback" if os.uname().sysname == "Linux" else "ports"))
        self.machines: dict[str, LocalMachine] = {}
        self.prober: Prober
        self.folder = folder or Path()
        self._owned = folder is None
        self._timeout = timeout
        self._needs = needs & {"fsync"}
        self._janitor: Janitor | None = None

    @property
    def server(self) -> str:
        return str(self.binary)

    @property
    def abilities(self) -> frozenset[str]:
        return self.network.abilities | self._needs | ({"full-disk"} if sys.platform == "linux" else set())

    @property
    def addresses(self) -> Mapping[str, str]:
        """Node → the host:port that it announces."""
        return {name: "{}:{}".format(*self.network.announced(name)) for name in self.machines}

    async def up(self) -> None:
        """Start every node; `ready` proves that they are a topology."""
        self._janitor = await asyncio.to_thread(Janitor)
        self.folder = self._roomy_folder(self._janitor)  # in no thread: a cancelled one would go on, and nobody knew what it made
        if self.spec.tls:
            hosts = {host for node in self.spec.nodes() for host, _ in (self.network.listen(node.name), self.network.announced(node.name))}
            self.certificate = await asyncio.to_thread(certificate.make, self.folder / "tls", [f"IP:{host}" for host in sorted(hosts)])
        await self.network.start()
        for node in self.spec.nodes():
            self.machines[node.name] = self._machine(node)
        data, sentinels = self.of("primary", "replica"), self.of("sentinel")
        self.prober = Prober(
            self.spec.kind, {one.spec.name: one.endpoint for one in data}, {one.spec.name: one.endpoint for one in sentinels}
        )
        if self.spec.kind is Kind.CLUSTER:
            await _start(data)
        else:
            await _start(self.of("primary"))
            await _start([*self.of("replica"), *sentinels])

    def _roomy_folder(self, janitor: Janitor) -> Path:
        """Where the files go, made when need be. Raises ``Refused`` where nothing can be written, or not enough."""
        folder, number = Path(tempfile.gettempdir()) if self._owned else self.folder.absolute(), len(self.spec.nodes())
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if not self._owned and any(folder.iterdir()):
                raise Refused(f"{folder} is not empty", remedy="name a new folder; what a topology left there is of other addresses")
            wanted = _ROOM[0] + _ROOM[1] * number
            if free < wanted:
                raise Refused(
                    f"{folder} has {free >> 20} MB left, and {number} nodes take {wanted >> 20} MB at least",
                    remedy="free some, or name another place: TMPDIR=…, or --folder",
                )
            return temporary_folder(janitor.remove) if self._owned else folder
        except OSError as error:
            raise Refused(
                f"{folder} can not be written: {error.strerror}", remedy="name a folder that can: TMPDIR=…, or --folder"
            ) from error

    def of(self, *roles: str) -> list[LocalMachine]:
        """The machines that have one of these roles in the spec."""
        return [machine for machine in self.machines.values() if machine.spec.role in roles]

    async def ready(self) -> None:
        sentinels = [machine.spec.name for machine in self.of("sentinel")]
        await self._debug(sentinels, _QUICK)
        view = await converge(self.spec, self.prober, self.addresses, timeout=self._timeout)
        await self._debug(sentinels, _STOCK)
        await prove(self.spec, self.prober, view, timeout=self._timeout)
        await told(self.spec, self.prober, self.addresses, timeout=self._timeout)

    async def _debug(self, sentinels: list[str], periods: tuple[str, ...]) -> None:
        for name in sentinels:
            with contextlib.suppress(ValkeepError):  # before Redis 7 there is no SENTINEL DEBUG: it takes ten seconds longer
                await self.prober.call(name, "SENTINEL", "DEBUG", *periods)

    def _machine(self, node: NodeSpec) -> LocalMachine:
        directory = self.folder / node.name
        directory.mkdir(mode=0o700, exist_ok=True)  # servers that rewrite their configuration make it readable for everybody
        address: Lines = {**self.network.settings(node.name)}
        if self.certificate is not None:
            address |= tls_lines(self.spec, self.certificate)
        if node.role == "sentinel":
            primary = self.spec.nodes()[0].name
            config = sentinel_config(self.spec, address, self.network.announced(primary))
            if self.access is not None:
                config |= self.access.sentinel_lines()
        else:
            if self.access is not None:
                address |= self.access.data_lines(self.binary, cluster=self.spec.kind is Kind.CLUSTER)
            primary_at = self.network.announced(node.of) if node.of and self.spec.kind is not Kind.CLUSTER else None
            config = data_config(self.spec, address, primary_at)
        synced = SyncedFiles(directory, self.folder / f"{node.name}.synced") if "fsync" in self._needs else None
        process = Process(
            self.binary,
            config,
            directory,
            self.network.listen(node.name),
            arguments=("--sentinel",) if node.role == "sentinel" else (),
            environment=synced.environment if synced is not None else None,
        )
        return LocalMachine(node, process, self.endpoint(node.name, ADMIN), synced, self._janitor)

    def endpoint(self, name: str, user: str) -> Endpoint:
        """Where the node of this name is, with the login of one of the users of `access` (none without ACL) and its TLS."""
        host, port = self.network.announced(name)
        tls = None if self.certificate is None else TLS(ca=str(self.certificate.authority))
        if self.access is None:
            return Endpoint(host, port, tls=tls)
        return Endpoint(host, port, username=user, password=self.access.passwords[user], tls=tls)

    async def down(self) -> None:
        """End every node, at once; the folder goes when it is ours. May be called twice."""
        try:
            if self.machines:
                await self.prober.close()
            for machine in self.machines.values():
                machine.process.dispose()
        finally:
            await self.network.close()
            if self._owned and self.folder != Path():
                await asyncio.to_thread(shutil.rmtree, self.folder, True)
            if self._janitor is not None:
                await asyncio.to_thread(self._janitor.dismiss)


async def _start(machines: list[LocalMachine]) -> None:
    """All at once; when one fails the others are waited for, so that whoever ends them finds them."""
    results = await asyncio.gather(*[machine.start() for machine in machines], return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
