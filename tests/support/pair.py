"""A source and a target, and the commands of a migration between them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from valkeep.runtime.node import Process

__all__ = ["Pair", "ProxiedPair"]


@dataclass
class Pair:
    """``here``, ``there``: ordinary clients to both. ``lease``: of cut-overs, ms, which a test may change: long, so that the first one succeeds."""

    lease = 30_000
    source: Process
    target: Process
    here: Any
    there: Any
    folder: Path

    def where(self) -> tuple[str, ...]:
        return ("--source", self.source.endpoint, "--target", self.target.endpoint, "--state", str(self.folder / "state"))

    def run(self, *more: str, name: str = "run") -> Valkeep:
        return Valkeep("migrate", "run", *self.where(), "--acknowledge", "all", *self._lease(), *more, folder=self.folder / name)

    def valkeep(self, command: str, *more: str) -> Valkeep:
        """``cutover``, ``abort``, ``rollback`` or ``commit``, ended."""
        lease = self._lease() if command == "rollback" else ()
        with Valkeep("migrate", command, *self.where(), *lease, *more, folder=self.folder / command, report=False) as process:
            process.wait()
        return process

    def preflight(self, *more: str) -> Valkeep:
        """Ended."""
        pair = ("--source", self.source.endpoint, "--target", self.target.endpoint)
        with Valkeep("migrate", "preflight", *pair, *more, folder=self.folder / "preflight", report=False) as process:
            process.wait()
        return process

    def _lease(self) -> tuple[str, ...]:
        return "--lease", str(self.lease)

    def valkeep_status(self) -> dict[str, Any]:
        """What `valkeep migrate status` says of it."""
        where = ("--state", str(self.folder / "state"), "--json", "-")
        with Valkeep("migrate", "status", *where, folder=self.folder / "status", report=False) as process:
            process.wait()
        (found,) = json.loads(process.stdout)["migrations"]
        return dict(found)

    @property
    def fence(self) -> str:
        """The source's ``min-replicas-to-write``: "255" where it is fenced."""
        return str(self.here.config_get("min-replicas-to-write")["min-replicas-to-write"])

    @property
    def promoted(self) -> bool:
        return bool(self.there.execute_command("ROLE")[0] == b"master")


@dataclass
class ProxiedPair(Pair):
    """Valkeep reaches both through proxies, which can cut, delay and watch for a command."""

    lease = 5000  # what they watch for
    to_source: Proxy
    to_target: Proxy

    def where(self) -> tuple[str, ...]:
        return ("--source", self.to_source.url(), "--target", self.to_target.url("valkey"), "--state", str(self.folder / "state"))
