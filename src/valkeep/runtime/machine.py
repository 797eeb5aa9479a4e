"""What this machine offers to Valkeep, and what each absence disables. Looks, changes nothing, starts nothing that stays."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from valkeep.errors import Refused, ValkeepError
from valkeep.runtime import servers, synced
from valkeep.runtime.network import namespace, nft
from valkeep.wire import build

__all__ = ["Finding", "findings", "in_ci"]

_LIBRARIES: Final = {"valkey-py": "valkey", "redis-py": "redis", "GLIDE": "glide"}
"""Client libraries that drills can drive, and what they are imported as."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``disables``: what does not work, or works worse, without it; empty when found. ``needed``: the main job suffers, not only a drill."""

    name: str
    found: bool
    detail: str
    disables: str = ""
    remedy: str = ""
    needed: bool = False


def in_ci() -> bool:
    """Whether this is continuous integration (``CI=true``), where what is missing is an error."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def findings() -> list[Finding]:
    """Everything that ``valkeep doctor`` prints, in its order."""
    return [
        _wire(),
        _compiler(),
        *(finding for spec in servers.SPECS for finding in _server(spec)),
        _cache(),
        _nft(),
        _namespaces(),
        _synced(),
        _openssl(),
        _libraries(),
        _docker(),
        _compose(),
        _java(),
    ]


def _said(command: list[str], timeout: float = 10.0) -> tuple[bool, str]:
    """Whether ``command`` ended well, and the first line that it printed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return done.returncode == 0, lines[0] if lines else ""


def _wire() -> Finding:
    how = build()
    if how.word == "compiled":
        return Finding("compiled wire", True, f"{len(how.compiled)} modules")
    return Finding(
        "compiled wire",
        False,
        how.word,
        disables="speed: the gateway and verify run some 25 times slower",
        remedy="install a C compiler, then install Valkeep again with VALKEEP_COMPILE=require",
        needed=True,
    )


def _compiler() -> Finding:
    named = os.environ.get("CC", "cc").split()[0]
    found = shutil.which(named) or shutil.which("gcc") or shutil.which("clang")
    return Finding("C compiler", True, found) if found else Finding(
        "C compiler", False, "none", disables="compiling the hot path at install", remedy="install gcc or clang"
    )  # fmt: skip


def _server(spec: str) -> Iterator[Finding]:
    try:
        binary = servers.find(spec)
    except ValkeepError as error:
        tests = "rehearsing with a representative source; its tests" if spec == "redis-8.0" else "its tests"
        yield Finding(f"server {spec}", False, "not found", disables=tests, remedy=error.remedy)
        return
    yield Finding(f"server {spec}", True, f"{binary} from {binary.origin}")
    if not servers.speaks_tls(binary):
        yield Finding(
            f"TLS of {spec}",
            False,
            f"{binary} from {binary.origin} was built without TLS",
            disables="starting this server with TLS in drills and tests; moving your own servers over TLS (rediss://, valkeys://) works",
            remedy=f"put a {binary.name}-server {spec.rpartition('-')[2]} that was built with TLS into VALKEEP_SERVERS",
        )


def _cache() -> Finding:
    folder = servers.cache_folder()
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if os.access(nearest, os.W_OK):
        return Finding("cache folder", True, str(folder))
    return Finding(
        "cache folder", False, f"{folder} can not be written", disables="fetching servers", remedy="set VALKEEP_CACHE to a folder that can"
    )


def _nft() -> Finding:
    try:
        return Finding("nft", True, nft.program())
    except Refused as error:
        return Finding(
            "nft", False, "not found", disables="partitions by the kernel in drills; a proxy takes their place", remedy=error.remedy
        )


def _namespaces() -> Finding:
    why_not = namespace.possible()
    if not why_not:
        return Finding("namespaces", True, "a network of our own, and nft to cut it")
    return Finding(
        "namespaces",
        False,
        why_not,
        disables="partitions by the kernel: on Linux drills use a proxy instead, elsewhere there are none",
        remedy="on Linux: apt-get install nftables, and allow unprivileged user namespaces (a sysctl) or run as root",
    )


def _synced() -> Finding:
    why_not = synced.unavailable()
    if not why_not:
        return Finding("sync watch", True, "what a server syncs to disk can be told")
    return Finding(
        "sync watch",
        False,
        why_not,
        disables="machine crashes in drills, and with them any verdict on appendfsync",
        remedy="on Linux: install a C compiler, then install Valkeep again",
    )


def _openssl() -> Finding:
    found = shutil.which("openssl")
    return Finding("openssl", True, found) if found else Finding(
        "openssl", False, "not found", disables="--tls of valkeep up and drill run: nobody makes their certificate", remedy="apt-get install openssl"
    )  # fmt: skip


def _libraries() -> Finding:
    absent = [name for name, module in _LIBRARIES.items() if find_spec(module) is None]
    if not absent:
        return Finding("client libraries", True, ", ".join(_LIBRARIES))
    return Finding(
        "client libraries",
        False,
        f"without {', '.join(absent)}",
        disables="drills that drive them (--client, 'valkeep drill clients')",
        remedy="pip install 'valkeep[clients]'",
    )


def _compose() -> Finding:
    for command in (["docker", "compose"], ["docker-compose"]):
        good, said = _said([*command, "version", "--short"])
        number = said.removeprefix("v").partition(".")[0]
        if good and number.isdecimal() and int(number) >= 2:
            return Finding("Docker Compose", True, f"{said.removeprefix('v')} ({' '.join(command)})")
    return Finding(
        "Docker Compose",
        False,
        "no Compose 2",
        disables="drills and 'valkeep up' in containers (--runtime compose)",
        remedy="install the plugin (docker-compose-plugin; Ubuntu: docker-compose-v2; Debian 13: docker-compose)",
    )


def _docker() -> Finding:
    disables, remedy = "the Compose environments", "install and start Docker"
    if shutil.which("docker") is None:
        return Finding("Docker", False, "not found", disables=disables, remedy=remedy)
    good, said = _said(["docker", "version", "--format", "{{.Server.Version}}"])
    return Finding("Docker", True, f"server {said}") if good and said else Finding(
        "Docker", False, "client only, no server answers", disables=disables, remedy=remedy
    )  # fmt: skip


def _java() -> Finding:
    java = shutil.which("java")
    home = os.environ.get("JAVA_HOME")
    if java is None and home and (Path(home) / "bin" / "java").exists():
        java = str(Path(home) / "bin" / "java")
    good, said = _said([java, "-version"]) if java else (False, "not found")
    return Finding("Java", True, said) if good else Finding(
        "Java", False, said, disables="local Kafka and DynamoDB", remedy="install a Java runtime, 17 or newer"
    )  # fmt: skip
