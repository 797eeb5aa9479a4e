"""``valkeep`` killed (SIGKILL) at a random moment, and what it leaves: processes that carry its mark, locks on ports, files in its temporary folder."""

from __future__ import annotations

import fcntl
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.valkeep_process import Valkeep

__all__ = ["Left", "kill_at_random", "left_by"]

GRACE = 2.0  # seconds within which everything is gone


@dataclass(frozen=True, slots=True)
class Left:
    """``after``: seconds of life; ``things``: what was left ``GRACE`` seconds later, in words."""

    after: float
    things: tuple[str, ...]


def kill_at_random(rng: random.Random, command: tuple[str, ...], most: float = 20.0, least: float = 0.2) -> Left:
    """Run it, kill it after ``least`` … ``most`` s (early moments, where things are made, come more often), and look."""
    moment = least + (most - least) * rng.random() ** 2
    with tempfile.TemporaryDirectory(prefix="valkeep-abandoned-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Valkeep(*command, folder=folder, report=False, env={"XDG_RUNTIME_DIR": ""}) as process:
            began = time.monotonic()
            while process.running and time.monotonic() < began + moment:
                time.sleep(0.005)
            ended = None if process.running else process.process.returncode
            process.kill()
            after, deadline = time.monotonic() - began, time.monotonic() + GRACE
            things = list(left_by(process))
            while things and time.monotonic() < deadline:
                time.sleep(0.02)
                things = list(left_by(process))
        if ended is not None:
            things.append(f"it had ended by itself with {ended}: {process.stderr[-300:]}")
        return Left(after, tuple(things))


def left_by(process: Valkeep) -> Iterator[str]:
    """Everything of it that still is there; its own output, (unlocked) files of port locks and empty folders that are the user's do not count."""
    yield from (f"process: {line}" for line in process.descendants())
    for path in process.folder.iterdir():
        if path.name.startswith("valkeep-ports-"):
            yield from (f"port lock: {lock.name}" for lock in path.iterdir() if _locked(lock))
        elif path.name.startswith("valkeep-up-"):  # of this user, not of a topology
            yield from (f"topology: {file.name}" for file in path.iterdir())
        elif path.suffix not in (".out", ".err"):
            yield f"folder: {path.name}"


def _locked(path: Path) -> bool:
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
