"""Servers of Debian's other suites, unpacked into a folder with the libraries they were linked to.

A Debian machine can fetch the server of another release without installing it: ``apt-get`` runs with a state, cache and source list
of its own (the system's are only read, for the mirror's address, its key and the proxy), downloads the package with all that it
depends on down to libc, and ``dpkg-deb -x`` unpacks that. The result runs through the unpacked ``ld-linux`` with
``--library-path``, so neither the version of the system's libc nor its libraries matter. Works as root or not; the system is never
changed; no host name stands in this file.

    TREE/usr/bin/redis-server -> redis-check-rdb          # redis-tools (valkey-tools) holds the one binary; its name decides what it does
    TREE/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path TREE/lib/…:TREE/usr/lib/… TREE/usr/bin/redis-server

What it does not do: resolve versions (a suite has one), or clean up another run's download, which ``apt-get`` resumes instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from valkeep.errors import ValkeepError

__all__ = ["SOURCES", "Mirror", "Package", "ProvisioningFailed", "download", "library_path", "loader_of", "mirror", "unpack"]

APT = Path("/etc/apt")
CODENAMES = frozenset(["bullseye", "bookworm", "trixie", "forky", "sid", "oldoldstable", "oldstable", "stable", "testing", "unstable"])


@dataclass(frozen=True, slots=True)
class Package:
    """Where Debian has a server. ``suites``: all that apt has to see; the last one is asked for ``package``."""

    suites: tuple[str, ...]
    package: str
    server: str

    @property
    def origin(self) -> str:
        return f"Debian {self.suites[-1]}"


SOURCES: dict[str, Package] = {
    "redis-7.0": Package(("bookworm",), "redis-tools", "redis-server"),
    "redis-8.0": Package(("trixie",), "redis-tools", "redis-server"),
    "valkey-8.0": Package(("bookworm", "bookworm-backports"), "valkey-tools", "valkey-server"),
    "valkey-8.1": Package(("trixie",), "valkey-tools", "valkey-server"),
}


class ProvisioningFailed(ValkeepError):
    """A server could not be fetched. Nothing outside Valkeep's cache was touched."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A Debian archive that this machine's own apt uses. ``signed_by``: the key ring named there, or "" for apt's trusted ones."""

    uri: str
    signed_by: str

    def line(self, suite: str) -> str:
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {options}{self.uri} {suite} main\n"


def mirror(etc: Path = APT) -> Mirror | None:
    """The first source of the machine that serves a whole Debian suite from ``main``, in either of apt's two formats."""
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        found = _deb822(text) if path.suffix == ".sources" else _one_line(text) if path.suffix == ".list" else None
        if found is not None:
            return found
    return None


def _serves_debian(suites: list[str], components: list[str]) -> bool:
    return "main" in components and any(suite in CODENAMES for suite in suites)


def _deb822(text: str) -> Mirror | None:
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() == "no" or "deb" not in fields.get("types", "").split():
            continue
        uris = fields.get("uris", "").split()
        if uris and _serves_debian(fields.get("suites", "").split(), fields.get("components", "").split()):
            signed = fields.get("signed-by", "")
            return Mirror(uris[0], signed if signed.startswith("/") else "")
    return None


def _one_line(text: str) -> Mirror | None:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words or words[0] != "deb":
            continue
        words = words[1:]
        signed = ""
        if words and words[0].startswith("["):
            while words:
                option = words.pop(0)
                for part in option.strip("[]").split():
                    if part.lower().startswith("signed-by="):
                        signed = part.partition("=")[2]
                if option.endswith("]"):
                    break
        if len(words) >= 3 and _serves_debian([words[1]], words[2:]):
            return Mirror(words[0], signed)
    return None


def unpack(package: Package, workshop: Path, tree: Path, *, etc: Path = APT, timeout: float = 600.0) -> None:
    """Download ``package`` with its closure into ``workshop`` and unpack server and libraries into ``tree``."""
    archives = download(package, workshop, etc=etc, timeout=timeout)
    tree.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        _run(["dpkg-deb", "-x", str(archive), str(tree)], package, timeout)
    _prune(tree, package.server)


def download(package: Package, workshop: Path, *, etc: Path = APT, timeout: float = 600.0) -> list[Path]:
    """The archives of ``package`` and its closure, downloaded into ``workshop``.

    ``workshop`` holds apt's private state; left in place after a failure, the next call resumes from it.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    source = mirror(etc)
    if missing or source is None:
        why = f"{' and '.join(missing)} not found" if missing else "no apt source of this machine serves a Debian suite"
        raise ProvisioningFailed(
            f"{package.package} of {package.origin} can not be fetched: {why}",
            remedy="install the server yourself and put it on PATH, or name its binary in VALKEEP_SERVERS",
        )
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (workshop / folder).mkdir(parents=True, exist_ok=True)
    (workshop / "status").touch()
    (workshop / "sources.list").write_text("".join(source.line(suite) for suite in package.suites))
    options = {
        "Dir::State": workshop / "state",
        "Dir::State::status": workshop / "status",
        "Dir::Cache": workshop / "cache",
        "Dir::Etc::sourcelist": workshop / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",  # the folder is ours; apt's own user could not read it
        "APT::Get::List-Cleanup": "false",
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    # An expired or half-fetched index is only a warning to apt, unless it is told otherwise.
    _run([*apt, "update", "--error-on=any"], package, timeout)
    _run(
        [*apt, "install", "--yes", "--no-install-recommends", "--download-only", f"--target-release={package.suites[-1]}", package.package],
        package,
        timeout,
    )
    return sorted((workshop / "cache" / "archives").glob("*.deb"))


def _run(command: list[str], package: Package, timeout: float) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ProvisioningFailed(
            f"fetching {package.package} of {package.origin}: {command[0]} took longer than {timeout:.0f} s",
            remedy="run it again where the mirror is reachable; what is already downloaded is kept",
        ) from error
    if done.returncode:
        # Only apt's errors: its other lines are progress. Addresses in them are the machine's own.
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith(("E:", "Err:", "dpkg-deb: error"))]
        said = " | ".join(lines[:3]) or f"exit status {done.returncode}"
        raise ProvisioningFailed(
            f"fetching {package.package} of {package.origin}: {command[0]} failed: {said}",
            remedy="check that this machine reaches the mirror in its apt sources, then run it again (it resumes)",
        )


def _prune(tree: Path, server: str) -> None:
    """Keep shared libraries and the server; documentation, manuals and scripts of the closure go."""
    binaries = tree / "usr" / "bin"
    program = binaries / server.replace("-server", "-check-rdb")
    if not (binaries / server).exists() and program.exists():
        (binaries / server).symlink_to(program.name)
    keep = {binaries / server, program}
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_symlink() or not path.is_dir():
            if path not in keep and ".so" not in path.name and not (path.is_symlink() and path.is_dir()):
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def library_path(tree: Path) -> str:
    """Every folder of the tree that holds shared libraries, for ``--library-path``."""
    folders = {path.parent for path in tree.rglob("*.so*") if "gconv" not in path.parts and not path.is_dir()}
    return ":".join(str(folder) for folder in sorted(folders, key=lambda folder: (len(folder.parts), str(folder))))


def loader_of(tree: Path) -> tuple[str, ...]:
    """The argv prefix that starts a binary of the tree with the tree's own loader and libraries."""
    loaders = [path for pattern in ("ld-linux*.so.*", "ld-2*.so") for path in sorted(tree.rglob(pattern)) if path.exists()]
    if not loaders:
        raise ProvisioningFailed(f"no dynamic loader in {tree}", remedy="delete that folder and fetch the server again")
    return (str(loaders[0]), "--library-path", library_path(tree))
