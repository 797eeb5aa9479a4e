"""What it means when a target answers a command of the copy with an error, and what to do: nothing that was sent is dropped in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from valkeep.client.refusals import REMEDIES
from valkeep.errors import ConnectionLost, Refused, ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DOWN_SECONDS", "is_down", "lost", "refused"]

DOWN_SECONDS: Final = 60.0
"""So long a cluster of which another node is away is waited for."""

_AGAIN: Final = "; then start again with --wipe-target"
_SHOWN: Final = 60
_MOVED: Final = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT"})
_NOT_LOCAL: Final = "a non local key in a cluster node"  # what a script is told instead


def is_down(error: ServerError) -> bool:
    """A cluster that is not complete at present: nothing was done, and it may be whole again soon."""
    return error.kind == "CLUSTERDOWN"


def refused(target: str, command: Sequence[bytes], error: ServerError, where: str) -> Refused:
    """``command``: what was answered so, as far as known; ``where``: its place in what is copied."""
    name = command[0].decode("ascii", "backslashreplace").upper() if command else "a command"
    key = f" of key {command[1][:_SHOWN]!r}" if len(command) > 1 else ""
    text = f"the target {target} answered {name}{key} ({where}) with: {error.message}"
    if error.kind in _MOVED or _NOT_LOCAL in error.message:
        remedy = f"the target's slots moved while it was written to (resharding, or a failover): wait until CLUSTER INFO is ok and they stay{_AGAIN}"
        return Refused(text, remedy=remedy, code="VK-PUSH-MOVED")
    match error.kind:
        case "OOM":
            return Refused(text, remedy=f"raise the target's maxmemory (the data and 25%){_AGAIN}", code="VK-PUSH-OOM")
        case "READONLY":
            remedy = f"somebody made the target a replica, see its log: give a target that nobody else manages{_AGAIN}"
            return Refused(text, remedy=remedy, code="VK-PUSH-READONLY")
        case "NOPERM":
            remedy = f"permit this user every command that writes, on all keys (ACL SETUSER … +@all ~*){_AGAIN}"
            return Refused(text, remedy=remedy, code="VK-PUSH-DENIED")
    why = (
        "somebody else may write to the target: find who (CLIENT LIST) and stop them"
        if error.kind == "WRONGTYPE"
        else REMEDIES.get(error.kind)
    )
    return Refused(text, remedy=(why or "see the log of the target") + _AGAIN, code="VK-PUSH-REPLY")


def lost(target: str, why: str) -> ConnectionLost:
    return ConnectionLost(
        f"the target {target} {why}",
        remedy="see whether it runs, and its log; then start again (--wipe-target replaces the part that it has)",
        code="VK-TARGET-LOST",
    )
