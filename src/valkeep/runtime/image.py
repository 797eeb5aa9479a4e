"""A container image made of a server program of this machine: no registry, no build, no package manager in it.

    /usr/local/bin/valkey-server     the program, whatever server it is           /bin/sh …   busybox, with the tools that conf/*.sh use
    /lib…                            its loader and the libraries it names        /usr/local/bin/valkey-cli   the real one, or a stand-in

So a topology in containers runs the very binary that one in processes runs, and Compose files that say ``valkey-server`` and
``valkey-cli`` run where nothing can be pulled. The image is named after its contents (``valkeep/valkey:9.1.2-1f0c…``), made once and
left to the daemon, as any image is; it is some 20 MB and for tests: it has no user, no certificates, no time zones.

``python -m valkeep.runtime.image [SERVER [CLI]]`` makes one and prints its name, for ``VALKEY_IMAGE=``.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

from valkeep.errors import ValkeepError
from valkeep.runtime import servers
from valkeep.runtime.docker import Docker
from valkeep.runtime.servers import ServerBinary

__all__ = ["ImageFailed", "build", "busybox"]

_APPLETS: Final = (
    "cat",
    "chmod",
    "chown",
    "cp",
    "date",
    "grep",
    "head",
    "id",
    "ip",
    "ls",
    "mkdir",
    "mv",
    "nc",
    "printf",
    "ps",
    "rm",
    "sed",
    "sh",
    "sleep",
    "tail",
    "test",
    "timeout",
    "true",
    "wc",
)
_STAND_IN: Final = Path(__file__).parent / "compose_files" / "image" / "valkey-cli"
_LIBRARY: Final = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


class ImageFailed(ValkeepError):
    """The image could not be made. Nothing was changed."""


def busybox() -> Path | None:
    """A busybox that needs no libraries, or None."""
    found = shutil.which("busybox")
    if found is None:
        return None
    said = subprocess.run(["ldd", found], capture_output=True, text=True, check=False)
    return Path(found).resolve() if "not a dynamic" in said.stderr + said.stdout or "statically" in said.stdout else None


def build(docker: Docker, binary: ServerBinary, *, cli: Path | None = None) -> str:
    """The name of an image with this server, made when the daemon does not have it. ``cli``: a valkey-cli or redis-cli of this machine to put
    into it; None: a stand-in that knows ``-h`` and ``-p``. Raises ``ImageFailed``."""
    shell = busybox()
    if sys.platform != "linux" or shell is None:
        why = "there is no static busybox" if sys.platform == "linux" else "containers need a program for Linux"
        raise ImageFailed(
            f"no image can be made of {binary}: {why}",
            remedy="install busybox-static (Debian, Ubuntu: apt-get install busybox-static), or name an image: VALKEY_IMAGE=valkey/valkey:8.1",
        )
    files = _files(binary, shell, cli)
    name = f"valkeep/{binary.name}:{'.'.join(map(str, binary.version))}-{_digest(files)}"
    if not docker.try_run("image", "inspect", "--format", "ok", name):
        docker.run("import", "--change", "WORKDIR /data", "-", name, data=_tar(files), timeout=120.0)
    return name


def _files(binary: ServerBinary, shell: Path, cli: Path | None) -> dict[str, Path]:
    """Path in the image → file of this machine."""
    files = {
        "bin/busybox": shell,
        "usr/local/bin/valkey-server": binary.path.resolve(),
        "usr/local/bin/valkey-cli": cli.resolve() if cli else _STAND_IN,
        **_libraries(binary.path, binary.loader),
    }
    return files | (_libraries(cli, ()) if cli else {})


def _libraries(program: Path, loader: tuple[str, ...]) -> dict[str, Path]:
    """The loader at the place that the program names, and its libraries in /lib, where every loader looks without being told."""
    asked = subprocess.run(
        [*loader, "--list", str(program)] if loader else ["ldd", str(program)], capture_output=True, text=True, check=False
    )
    found = {match["name"] or match["path"]: Path(match["path"]) for match in _LIBRARY.finditer(asked.stdout)}
    interpreter = re.search(rb"/lib[\w/.-]*/ld-linux[\w.-]*\.so\.\d+", program.read_bytes()[:4096])
    if asked.returncode or interpreter is None:
        raise ImageFailed(
            f"which libraries {program} needs is not known: {(asked.stderr or asked.stdout).strip()[:200]}",
            remedy="name an image instead: VALKEY_IMAGE=valkey/valkey:8.1",
        )
    files = {f"lib/{Path(name).name}": path for name, path in found.items() if "ld-linux" not in name}
    of_tree = loader[0] if loader else next((str(path) for name, path in found.items() if "ld-linux" in name), interpreter[0].decode())
    return files | {interpreter[0].decode().lstrip("/"): Path(of_tree)}


def _digest(files: dict[str, Path]) -> str:
    seen = hashlib.sha256(" ".join(_APPLETS).encode())
    for name, path in sorted(files.items()):
        with path.resolve().open("rb") as file:
            seen.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return seen.hexdigest()[:12]


def _tar(files: dict[str, Path]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        parents = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        for folder in sorted(parents | {"data", "tmp"}):  # told, or they would be root's alone
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder in ("data", "tmp") else 0o755
            tar.addfile(entry)
        for name, path in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, path.resolve().stat().st_size
            with path.resolve().open("rb") as file:
                tar.addfile(entry, file)
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return packed.getvalue()


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else "newest-valkey"
    try:
        print(build(Docker.find(), servers.find(wanted), cli=Path(sys.argv[2]) if len(sys.argv) > 2 else None))  # noqa: T201
    except ValkeepError as problem:
        sys.exit(f"{problem.message}\nRemedy: {problem.remedy}")
