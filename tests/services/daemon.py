"""A Docker daemon in a folder: its own socket, data and networks; everything of it ends with the test run, which has namespaces of its own.

``python -m tests.services.daemon COMMAND…`` runs a command that finds this daemon, and Compose 2, as any daemon is found. Without a command
it only fetches what is missing.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from valkeep.runtime import debian, servers

__all__ = ["Daemon", "compose_plugin"]


class Daemon:
    """``with Daemon(folder) as daemon``: a running dockerd. ``address``: for DOCKER_HOST."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self.cgroup = f"valkeep-services-{secrets.token_hex(4)}"  # not shared with a run beside this one

    def __enter__(self) -> Self:
        program = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/sbin")
        assert program, "apt-get install docker.io"
        words = [
            f"--host={self.address}",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
            "--storage-driver=vfs",  # the one that works on any file system, also on the overlay of a container
            f"--cgroup-parent=/{self.cgroup}",
        ]
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        with (self.folder / "log").open("wb") as log:
            self._child = subprocess.Popen(
                [program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PATH": path}
            )
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "--host", self.address, "version"], capture_output=True, check=False).returncode:
            assert self._child.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        return self

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def __exit__(self, *_: object) -> None:
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        deadline = time.monotonic() + 10
        for group in Path("/sys/fs/cgroup").glob(f"**/{self.cgroup}"):
            inner = sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
            for left in (*inner, group):
                while not _removed(left):  # busy until the kernel has buried its last process
                    assert time.monotonic() < deadline, left
                    time.sleep(0.05)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def compose_plugin() -> Path:
    """Compose 2: this machine's, else that of a later Debian, in Valkeep's cache (Debian 12 has only version 1). It is one static program."""
    for folder in ("/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/local/lib/docker/cli-plugins"):
        if (Path(folder) / "docker-compose").exists():
            return Path(folder) / "docker-compose"
    kept = servers.cache_folder() / "tools" / "docker-compose-trixie"
    if not kept.exists():
        workshop = kept.parent / f".{kept.name}-{os.getpid()}"
        try:
            archives = debian.download(debian.Package(("bookworm", "trixie"), "docker-compose", ""), workshop)
            (archive,) = (path for path in archives if path.name.startswith("docker-compose_"))
            subprocess.run(["dpkg-deb", "-x", archive, workshop / "tree"], check=True)
            (workshop / "tree/usr/libexec/docker/cli-plugins/docker-compose").rename(kept)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    return kept


def main(command: list[str]) -> int:
    plugin = compose_plugin()
    if not command:
        return 0
    with tempfile.TemporaryDirectory(prefix="valkeep-docker-") as folder, Daemon(Path(folder)) as daemon:
        plugins = Path(folder) / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(plugin)
        found = {"DOCKER_HOST": daemon.address, "DOCKER_CONFIG": str(plugins.parent)}
        return subprocess.run(command, env={**os.environ, **found}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
