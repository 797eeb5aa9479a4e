"""The network between the containers of a Compose project, and how parts of it are cut.

Every container has an address and a network stack of its own, so the kernel's packet filter *inside the receiver's stack* can drop what
comes from one sender: a true one-way partition, unseen by the server, and nothing on the host is changed. The filter is iptables, which
the Docker daemon needs anyway; it is entered with nsenter, so this takes root on the machine of the daemon. Clients are told apart by
addresses of their own as well, which the project's bridge gets (and takes with it when the project goes).

Without root, with a remote daemon, or where the host reaches containers by published ports only, nothing can be cut: the published way
shows every sender under one address. `docker network disconnect` would do there, but it is no partition: both directions, towards
everybody, and the container loses its ports. Use ``--runtime local``, which cuts without root.

Delay needs the kernel module sch_netem, which many kernels of virtual machines lack; the local runtime's proxy delays instead.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from valkeep.errors import Refused, UsageError
from valkeep.runtime.docker import Docker

__all__ = ["ContainerNetwork"]

_TOOLS: Final = ("nsenter", "iptables", "ip")
_CLIENTS: Final = 100  # the last number of an address of a client, less the client's own: c1 = x.x.x.101
_REMEDY: Final = "--runtime local partitions without root (network namespace or proxy) and delays (proxy)"

Rule = tuple[str, ...]


@dataclass(slots=True)
class ContainerNetwork:
    """A `deployment.Network`. ``prefix``: first three numbers of its addresses; ``hosts``: node → address; ``containers``: node → container.
    ``direct``: whether the host reaches those addresses."""

    docker: Docker
    project: str
    prefix: str
    hosts: Mapping[str, str]
    containers: Mapping[str, str]
    direct: bool
    how: str = "docker"
    _rules: dict[str, list[Rule]] = field(default_factory=dict)
    _sources: dict[str, str] = field(default_factory=dict)

    @property
    def why_not(self) -> str:
        """Why nothing can be cut here; "" when it can."""
        if not self.direct:
            return "containers are reached by published ports only"
        if os.geteuid() != 0:
            return "it takes root to enter the containers' network"
        missing = [tool for tool in _TOOLS if _program(tool) is None]
        return f"{', '.join(missing)} not found" if missing else ""

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset() if self.why_not else frozenset({"partition"})

    def source(self, client: str) -> str:
        if self.why_not:
            return ""
        if client not in self._sources:
            address = self._client_address(client)
            _run(["ip", "address", "replace", f"{address}/32", "dev", self._bridge()])
            self._sources[client] = address
        return self._sources[client]

    async def cut(self, senders: frozenset[str], receivers: frozenset[str]) -> None:
        if self.why_not:
            raise Refused(f"what {', '.join(sorted(senders))} send can not be dropped here: {self.why_not}", remedy=_REMEDY)
        from_all = ",".join(sorted(map(self._address, senders)))
        to_clients = ",".join(sorted(self._address(name) for name in receivers if name not in self.hosts))
        for name in sorted(receivers & self.hosts.keys()):
            await self._add(name, ("INPUT", "-s", from_all))
        for name in sorted(senders & self.hosts.keys()) if to_clients else ():
            await self._add(name, ("OUTPUT", "-d", to_clients))

    async def delay(self, names: frozenset[str], milliseconds: float) -> None:
        raise Refused(f"packets of {', '.join(sorted(names))} can not be made {milliseconds:g} ms late between containers", remedy=_REMEDY)

    async def heal(self) -> None:
        cut, self._rules = self._rules, {}
        for name in cut:
            for chain in ("INPUT", "OUTPUT"):
                await self._filter(name, "-F", chain)

    async def started(self, name: str) -> None:
        """This node's container runs again, with a new network stack: what was cut is cut again."""
        for rule in self._rules.get(name, ()):
            await self._filter(name, "-A", *rule, "-j", "DROP")

    async def _add(self, name: str, rule: Rule) -> None:
        self._rules.setdefault(name, []).append(rule)
        await self._filter(name, "-A", *rule, "-j", "DROP")

    async def _filter(self, name: str, *words: str) -> None:
        pid = (await asyncio.to_thread(self.docker.run, "inspect", "--format", "{{.State.Pid}}", self.containers[name])).strip()
        if pid != "0":  # a container that does not run has no network stack
            await asyncio.to_thread(_run, ["nsenter", f"--net=/proc/{pid}/ns/net", _program("iptables") or "iptables", "--wait", *words])

    def _address(self, name: str) -> str:
        return self.hosts.get(name) or self._client_address(name)

    def _client_address(self, client: str) -> str:
        match = re.fullmatch(r"[a-z]+([1-9]\d{0,2})", client)
        if match is None or int(match[1]) > 254 - _CLIENTS:
            raise UsageError(f"{client!r} is no name of a client here", remedy=f"clients are c1 … c{254 - _CLIENTS}")
        return f"{self.prefix}.{_CLIENTS + int(match[1])}"

    def _bridge(self) -> str:
        return "br-" + self.docker.run("network", "inspect", "--format", "{{.Id}}", f"{self.project}_valkey").strip()[:12]


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def _run(words: Iterable[str]) -> None:
    first, *rest = words
    done = subprocess.run(
        [_program(first) or first, *rest], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=20
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Refused(f"{first} {' '.join(rest)}: {said[-1] if said else f'exit status {done.returncode}'}", remedy=_REMEDY)
