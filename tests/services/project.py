"""Compose projects as a person runs them: `docker compose` on the files of infra/compose, nothing of Valkeep in it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import valkey

__all__ = ["COMPOSE", "Project", "docker", "if_answered"]

COMPOSE = Path(__file__).parents[2] / "infra" / "compose"


def docker(*words: str) -> str:
    """What ``docker WORDS`` prints; fails with what it said."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout


def if_answered(condition: Callable[[], Any]) -> Callable[[], Any]:
    """This condition, which does not hold where somebody does not answer, or not yet."""

    def asked() -> Any:
        try:
            return condition()
        except valkey.ValkeyError:
            return False

    return asked


class Project:
    """``with Project("ha", VALKEY_IMAGE=…) as project``: up and waited for; at the end down, with its volumes."""

    def __init__(self, file: str, **environment: str) -> None:
        self.file = COMPOSE / f"docker-compose.{file}.yml"
        self.name = environment.get("COMPOSE_PROJECT_NAME", f"valkeep-{file}")
        self.environment = environment

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "compose", "--file", str(self.file), *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ, **self.environment}
        )

    def up(self) -> None:
        deadline = time.monotonic() + 120
        while (done := self.compose("up", "--detach", "--wait")).returncode and "unhealthy" in done.stderr and time.monotonic() < deadline:
            time.sleep(1)  # a busy machine was too slow for its health check
        assert done.returncode == 0, done.stderr + self.compose("logs", "--tail", "20").stdout

    def down(self, *words: str) -> None:
        done = self.compose("down", *words)
        assert done.returncode == 0, done.stderr

    def container(self, service: str) -> str:
        return f"{self.name}-{service}-1"

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down("--volumes")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down("--volumes", "--timeout", "0")
