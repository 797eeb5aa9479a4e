"""Other migrations of this user on this machine: two that write to one target spoil each other.

Who names another node of the same cluster (or the same server by another name) gets another state folder, and so another migration; the lock of the first
one's folder says nothing of it. So all folders in the usual place are looked at. Those with a ``--state`` elsewhere, and those of other machines, are not seen:
what they write is found at the cut-over (``VK-PUSH-MARKER``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from valkeep.client.endpoint import Endpoint
from valkeep.errors import Refused, ValkeepError
from valkeep.migrate.control import is_locked
from valkeep.migrate.state import MigrationState, StateFile, default_folder

__all__ = ["expect_none"]


def expect_none(own: Path, target: Iterable[str]) -> None:
    """Raises ``Refused`` where another migration to one of these servers (host:port) is not over. ``own``: the state folder of the one that asks."""
    servers = frozenset(target)
    root = default_folder()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        left = None if folder.absolute() == own.absolute() else _left(folder)
        if left is None or servers.isdisjoint((Endpoint.parse(left.target).address, *left.shards)):
            continue
        pair = f"--source {left.source} --target {left.target}"
        state = "runs" if is_locked(folder) else "was killed, and is not undone"
        raise Refused(
            f"another migration to this target {state}: from {left.source} to {left.target}",
            remedy=f"`valkeep migrate abort {pair}` ends it; to go on with it give the same nodes as it did: {pair}",
            code="VK-STATE-OTHER",
        )


def _left(folder: Path) -> MigrationState | None:
    """What is not over there."""
    try:
        left = StateFile(folder).read()
    except ValkeepError:
        return None  # of another version: `valkeep migrate status` says so
    return left if left is not None and left.step in ("attaching", "attached", "cutting") else None
