"""The ``docker`` command, and what its failures mean.

The command line rather than the daemon's API: it knows contexts, remote hosts, rootless sockets and Docker Desktop, and it is what a
person would type to see what Valkeep sees. Compose is the plugin ``docker compose`` or, where only that is there, ``docker-compose``
(version 2; the first one, in Python, knows neither ``--wait`` nor a one-shot service's success).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from valkeep.errors import ValkeepError

__all__ = ["AddressesTaken", "Docker", "DockerFailed", "DockerMissing"]

_PORT = re.compile(r"(?:Bind for |listen tcp\d? |exposing port TCP )(?P<where>[\w.:\[\]]*:\d+)")


class DockerMissing(ValkeepError):
    """No docker, no Compose, or no daemon that answers. Nothing was changed."""


class DockerFailed(ValkeepError):
    """A docker command failed; the message has what it said."""


class AddressesTaken(DockerFailed):
    """A network was not made, because another one has its addresses. Choosing others helps."""


@dataclass(frozen=True, slots=True)
class Docker:
    """``command``: of docker; ``compose``: of Compose; ``environment``: added to this process' own, for both."""

    command: tuple[str, ...]
    compose: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls) -> Docker:
        """Docker of this machine, with a daemon that answers. Raises ``DockerMissing``."""
        docker = shutil.which("docker")
        if docker is None:
            raise DockerMissing(
                "there is no docker on PATH",
                remedy="install Docker (https://docs.docker.com/engine/install/), or use --runtime local, which needs neither Docker nor root",
            )
        compose = next((words for words in ((docker, "compose"), ("docker-compose",)) if _is_compose_2(words)), None)
        if compose is None:
            raise DockerMissing(
                "docker is there, but Compose 2 is not",
                remedy="install the plugin (docker-compose-plugin; Ubuntu: docker-compose-v2; Debian 13: docker-compose), or use --runtime local",
            )
        found = cls((docker,), compose)
        found.version()
        return found

    def version(self) -> str:
        """The daemon's version; asking shows whether it answers."""
        done = self._run([*self.command, "version", "--format", "{{.Server.Version}}"], timeout=20.0)
        if done.returncode:
            raise DockerMissing(
                f"the docker daemon does not answer: {_last_line(done.stderr)}",
                remedy="start it (systemctl start docker, or Docker Desktop), or see whether you may use it: docker info",
            )
        return done.stdout.decode().strip()

    def reached_directly(self) -> bool:
        """Whether addresses of containers can be reached from here: a daemon of this Linux machine that runs as root, no virtual machine in between."""
        host = self.environment.get("DOCKER_HOST") or os.environ.get("DOCKER_HOST") or self._context()
        said = self.run("info", "--format", "{{json .SecurityOptions}} {{.OperatingSystem}}")
        local = sys.platform == "linux" and host.startswith("unix:")
        return local and "rootless" not in said and "Docker Desktop" not in said

    def _context(self) -> str:
        return self.run("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()

    def run(self, *words: str, data: bytes | None = None, timeout: float = 60.0) -> str:
        """What ``docker WORDS`` prints. Raises ``DockerFailed``."""
        done = self._run([*self.command, *words], data=data, timeout=timeout)
        if done.returncode:
            raise _failed(["docker", *words], done.stderr)
        return done.stdout.decode(errors="replace")

    def try_run(self, *words: str, timeout: float = 60.0) -> bool:
        """Whether ``docker WORDS`` succeeds."""
        return self._run([*self.command, *words], timeout=timeout).returncode == 0

    def compose_run(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
        begun: Callable[[int], None] = lambda _: None,
        timeout: float = 300.0,
    ) -> str:
        """What ``docker compose WORDS`` prints. ``begun`` is told the number of its process. Raises ``DockerFailed``."""
        done = self._run([*self.compose, *words], environment=environment, begun=begun, timeout=timeout)
        if done.returncode:
            raise _failed(["docker", "compose", *words], done.stderr)
        return done.stdout.decode(errors="replace")

    def logs(self, container: str) -> str:
        """All that this container's program has written, over every restart."""
        done = self._run([*self.command, "logs", container], timeout=60.0)
        if done.returncode:
            raise _failed(["docker", "logs", container], done.stderr)
        return (done.stdout + done.stderr).decode(errors="replace")

    def _run(
        self,
        words: Sequence[str],
        *,
        data: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        begun: Callable[[int], None] = lambda _: None,
        timeout: float,
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **self.environment, **(environment or {})},
            )
        except OSError as error:
            raise DockerMissing(f"{words[0]} can not be run: {error}", remedy="install Docker, or use --runtime local") from error
        with child:
            begun(child.pid)
            try:
                out, err = child.communicate(data, timeout)
            except subprocess.TimeoutExpired as error:
                child.kill()
                raise DockerFailed(
                    f"{' '.join(words[:3])} … did not end within {timeout:.0f} s",
                    remedy="is the daemon overloaded? See docker ps and its log",
                    definite=False,
                ) from error
            except BaseException:
                child.kill()
                raise
        return subprocess.CompletedProcess(words, child.returncode, out, err)


def _is_compose_2(words: Sequence[str]) -> bool:
    if shutil.which(words[0]) is None:
        return False
    done = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode == 0 and bool(re.match(r"v?([2-9]|\d\d)\.", done.stdout.strip()))


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _failed(words: Sequence[str], stderr: bytes) -> DockerFailed:
    text = stderr.decode(errors="replace")
    taken = _PORT.search(text)
    if taken and ("already" in text or "in use" in text):
        return DockerFailed(
            f"{taken['where']} is taken, so its container was not started",
            remedy="end what listens there (ss -ltnp), or choose another port: VALKEY_N1_PORT=…",
        )
    if "Pool overlaps" in text:
        return AddressesTaken(
            "the network's addresses are those of another Docker network",
            remedy="remove that one (docker network ls), or choose others: VALKEY_NET=172.30.99",
        )
    return DockerFailed(
        f"{' '.join(words[:4])} … failed: {_last_line(stderr)}", remedy="see docker ps -a and docker logs of the container that it names"
    )
