"""Topologies that stand until somebody ends them: held by one process each, known to others by a file of this user.

    up      claims a name, starts the topology, writes what it is, and holds it        NAME.json, locked while its holder lives
    status  reads the file and asks the nodes
    down    asks the holder to end, and waits until nothing is left

The lock is the truth: the kernel drops it with the process, whatever ends it, so a file without a lock is left over from a holder that was
killed. It says nothing and is removed, by the holder's janitor or by who comes next. Before the holder is sent a signal, its number *and* its start have
to be those of the file: numbers of processes are used again.

Files are in ``$XDG_RUNTIME_DIR/valkeep``, else in ``valkeep-up-UID`` of the temporary folder: for this user alone (0700). There are no passwords in
them; those are in the deployment's own folder (`access`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TextIO

from valkeep.client.endpoint import TLS, Endpoint
from valkeep.errors import Refused, UsageError
from valkeep.runtime.access import ADMIN, password_file
from valkeep.runtime.compose import ComposeDeployment
from valkeep.runtime.janitor import Janitor, started
from valkeep.runtime.local import LocalDeployment, LocalMachine
from valkeep.runtime.probe import Prober
from valkeep.topology.spec import Kind, Persistence, TopologySpec

__all__ = ["RUNTIMES", "Standing", "StandingNode", "all_standing", "end", "find", "hold", "state_folder"]

RUNTIMES: Final = ("local", "compose")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_PATIENCE: Final = {"local": 30.0, "compose": 150.0}  # seconds for a holder to end in order
# argv: a state file. Removed, unless a new holder has it already.
_FORGET: Final = "import fcntl, os, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); os.unlink(sys.argv[1])"


@dataclass(frozen=True, slots=True)
class StandingNode:
    """``role``: at the start. ``pid``, ``started``: of the server; 0 in a container."""

    name: str
    role: str
    host: str
    port: int
    pid: int = 0
    started: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is held. ``state``: starting or ready. ``pid``, ``started``: of the holder. ``authority``: who signed the nodes' certificate, "" without TLS.
    ``kept``: whether ``folder`` stays at the end."""

    name: str
    pid: int
    started: str
    spec: TopologySpec
    runtime: str
    state: str = "starting"
    server: str = ""
    folder: str = ""
    kept: bool = False
    authority: str = ""
    nodes: tuple[StandingNode, ...] = field(default=())

    def endpoints(self, user: str = ADMIN) -> dict[str, Endpoint]:
        """Node → where it is, with this user's login, read from its file."""
        tls = TLS(ca=self.authority) if self.authority else None
        found = {node.name: Endpoint(node.host, node.port, tls=tls) for node in self.nodes}
        if not self.spec.acl:
            return found
        login = Endpoint("", 1, username=user).with_password_from(file=password_file(Path(self.folder), user))
        return {name: Endpoint(one.host, one.port, username=user, password=login.password, tls=tls) for name, one in found.items()}

    def prober(self) -> Prober:
        endpoints = self.endpoints()
        data = {node.name: endpoints[node.name] for node in self.nodes if node.role != "sentinel"}
        sentinels = {node.name: endpoints[node.name] for node in self.nodes if node.role == "sentinel"}
        return Prober(self.spec.kind, data, sentinels, timeout=1.0)

    @property
    def addresses(self) -> dict[str, str]:
        return {node.name: f"{node.host}:{node.port}" for node in self.nodes}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Standing:
        spec = dict(data["spec"])
        spec |= {
            "kind": Kind(spec["kind"]),
            "persistence": Persistence(spec["persistence"]),
            "settings": tuple(map(tuple, spec["settings"])),
        }
        return cls(**{**data, "spec": TopologySpec(**spec), "nodes": tuple(StandingNode(**node) for node in data["nodes"])})


def state_folder() -> Path:
    """Made when need be. Raises ``Refused`` where it is not this user's alone."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(named) / "valkeep" if named else Path(tempfile.gettempdir()) / f"valkeep-up-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise Refused(f"{folder} can not be made: {error.strerror}", remedy="set XDG_RUNTIME_DIR to a folder of your own") from error
    if folder.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise Refused(
            f"{folder} is open to others", remedy="remove it (it is not Valkeep's), or set XDG_RUNTIME_DIR to a folder of your own"
        )
    return folder


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a topology", remedy="small letters, digits, '-', '_' and '.', for example: mine")
    return state_folder() / f"{name}.json"


# ------------------------------------------------------------------------------------------------------------------ holding


async def hold(spec: TopologySpec, name: str, runtime: str, ready: Callable[[Standing], None], folder: Path | None = None) -> None:
    """Start it, prove it, call ``ready``, and keep it until this task is cancelled; then end it. Raises ``UsageError`` for a name that is held already, and
    what the deployment raises."""
    with Janitor() as janitor, _claimed(name, janitor) as claim:
        standing = Standing(name, os.getpid(), started(os.getpid()), spec, runtime)
        _tell(claim, standing)
        async with _deployment(spec, runtime, folder) as deployment:
            standing = _described(standing, deployment, kept=folder is not None)
            try:
                if isinstance(deployment, LocalDeployment) and deployment.access is not None:
                    deployment.access.keep(deployment.folder)
                _tell(claim, standing)
                ready(standing)
                await asyncio.Event().wait()
            finally:
                for left in deployment.folder.glob("*.password"):
                    left.unlink(missing_ok=True)


def _deployment(spec: TopologySpec, runtime: str, folder: Path | None) -> LocalDeployment | ComposeDeployment:
    if runtime == "local":
        return LocalDeployment(spec, folder=folder)
    if folder is not None:
        raise UsageError("containers keep their files in volumes of their own", remedy="leave --folder out, or use --runtime local")
    return ComposeDeployment(spec)


def _described(standing: Standing, deployment: LocalDeployment | ComposeDeployment, *, kept: bool) -> Standing:
    nodes = []
    for name, one in deployment.machines.items():
        pid = one.pid if isinstance(one, LocalMachine) else 0
        nodes.append(StandingNode(name, one.spec.role, one.endpoint.host, one.endpoint.port, pid, started(pid) if pid else ""))
    certificate = deployment.certificate if isinstance(deployment, LocalDeployment) else None
    authority = "" if certificate is None else str(certificate.authority)
    return replace(
        standing, state="ready", server=deployment.server, folder=str(deployment.folder), kept=kept, authority=authority, nodes=tuple(nodes)
    )


@contextlib.contextmanager
def _claimed(name: str, janitor: Janitor) -> Iterator[TextIO]:
    path, deadline = _path(name), time.monotonic() + 0.5  # who only looks locks it for a moment
    janitor.run([sys.executable, "-I", "-S", "-c", _FORGET, str(path)])  # not where another one holds it
    while True:
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:  # noqa: PTH123 - with a mode
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise UsageError(f"{name} is up already", remedy=f"valkeep down {name}, or give the new one another --name") from None
            if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                continue  # who cleaned up was faster
            try:
                yield file
            finally:
                path.unlink(missing_ok=True)  # before the lock goes
            return


def _tell(claim: TextIO, standing: Standing) -> None:
    text = json.dumps(standing.to_json())
    claim.seek(0)
    claim.truncate()
    claim.write(text)
    claim.flush()


# ------------------------------------------------------------------------------------------------------------------ looking


def _read(path: Path) -> Standing | None:
    """None when nobody holds it; what was left over is removed."""
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                pass
            else:
                path.unlink(missing_ok=True)
                return None
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline:  # it may be being written
                file.seek(0)
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    standing = Standing.from_json(json.loads(file.read()))
                    return standing if started(standing.pid) == standing.started else None
                time.sleep(0.01)
    except FileNotFoundError:
        return None
    raise Refused(
        f"{path} tells nothing", remedy="was it written by another version of Valkeep? End its holder (fuser shows it), and remove it"
    )


def all_standing() -> list[Standing]:
    """Everything that is up, by name."""
    found = [_read(path) for path in sorted(state_folder().glob("*.json"))]
    return [one for one in found if one is not None]


def find(name: str) -> Standing:
    """Raises ``UsageError`` when nothing of this name is up."""
    standing = _read(_path(name))
    if standing is None:
        up = ", ".join(one.name for one in all_standing())
        raise UsageError(f"nothing named {name} is up", remedy=f"these are: {up}" if up else "valkeep up sentinel starts one")
    return standing


# ------------------------------------------------------------------------------------------------------------------- ending


def end(standing: Standing) -> None:
    """End it and wait until nothing is left: holder, servers, folder. Raises ``Refused`` (not definite) when something stays."""
    patience = _PATIENCE[standing.runtime]
    for number in (signal.SIGTERM, signal.SIGKILL):  # after the second the janitor cleans up
        if started(standing.pid) == standing.started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(standing.pid, number)
        if _until(lambda: not left_of(standing), patience):
            return
    raise Refused(
        f"of {standing.name} is left: {', '.join(left_of(standing))}", remedy="look at what holds it, and end that", definite=False
    )


def left_of(standing: Standing) -> list[str]:
    """What is still there of it, in words."""
    left = [f"the holder (process {standing.pid})"] if started(standing.pid) == standing.started else []
    left += [f"{node.name} (process {node.pid})" for node in standing.nodes if node.pid and started(node.pid) == node.started]
    if not standing.kept and standing.folder and Path(standing.folder).exists():
        left.append(standing.folder)
    return left


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
