"""Folders of servers: removed at the end, and by the next run should this process be killed together with its janitor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

__all__ = ["temporary_folder"]

_held: dict[Path, IO[str]] = {}
_OWNER = ".owner"


def temporary_folder(tell: Callable[[Path], None] = lambda _: None) -> Path:
    """``valkeep-node-PID-…``, locked while this process lives; first removes those of this user whose process was killed before it could.
    ``tell``: called with every name that it has, before it is made (`Janitor.remove`).

    A lock, because numbers of processes mean nothing to who sees this folder from another container."""
    place = Path(tempfile.gettempdir())
    for left in place.glob("valkeep-node-*-*"):
        with contextlib.suppress(OSError):
            if left.lstat().st_uid == os.getuid() and left not in _held and _abandoned(left):
                shutil.rmtree(left, ignore_errors=True)
    for gone in [folder for folder in _held if not folder.exists()]:
        _held.pop(gone).close()
    token = secrets.token_hex(6)
    fresh, folder = place / f".valkeep-node-{token}", place / f"valkeep-node-{os.getpid()}-{token}"
    tell(fresh)
    tell(folder)
    fresh.mkdir(mode=0o700)
    lock = (fresh / _OWNER).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    fresh.rename(folder)  # now it is locked, it may be seen
    _held[folder] = lock
    return folder


def _abandoned(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), (folder / _OWNER).open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
