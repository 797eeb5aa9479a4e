"""Folders of servers: removed at the end, and by the next run should this process be killed together with its janitor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

__all__ = ["temporary_folder"]

_held: dict[Path, IO[str]] = {}
_OWNER = ".owner"


def temporary_folder() -> Path:
    """``valkeep-node-PID-…``, locked while this process lives; first removes those of this user whose process was killed before it could.

    A lock, because numbers of processes mean nothing to who sees this folder from another container."""
    place = Path(tempfile.gettempdir())
    for left in place.glob("valkeep-node-*-*"):
        with contextlib.suppress(OSError):
            if left.lstat().st_uid == os.getuid() and left not in _held and _abandoned(left):
                shutil.rmtree(left, ignore_errors=True)
    for gone in [folder for folder in _held if not folder.exists()]:
        _held.pop(gone).close()
    fresh = Path(tempfile.mkdtemp(prefix=".valkeep-node-"))
    lock = (fresh / _OWNER).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = place / f"valkeep-node-{os.getpid()}-{fresh.name.rpartition('-')[2]}"  # now it is locked, it may be seen
    fresh.rename(folder)
    _held[folder] = lock
    return folder


def _abandoned(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), (folder / _OWNER).open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
