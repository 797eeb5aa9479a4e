"""Every migration on this machine: what its state folder says, and, where it runs, what its process says.

The state file says what was changed and what may have to be undone; who holds the folder's lock runs; and who runs is asked through its control socket
(`told`, its answer). One that does not answer, because it is still in its preflight or hangs, is shown by its file alone. Nothing is changed by looking, and
nothing here is secret: state files hold no passwords.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeep.errors import ValkeepError
from valkeep.migrate.control import ask, is_locked
from valkeep.migrate.state import BACK, StateFile, default_directory, default_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from valkeep.migrate.gateway.gateway import Gateway

__all__ = ["MigrationStatus", "statuses", "told"]

ANSWER_SECONDS = 2.0
GATEWAY = "gateway.json"
OVER = frozenset({"aborted", "committed", "rolled-back"})


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One migration, or one gateway. ``step``: of the state file ("preparing" before there is one; "serving" of a gateway). ``running``: somebody works on it,
    process ``pid`` (0: not known). ``live``: what that process says, None where none does. ``todo``: for a person, "" where there is nothing."""

    folder: Path
    step: str
    running: bool
    pid: int = 0
    source: str = ""
    target: str = ""
    gateway: str = ""
    live: dict[str, Any] | None = field(default=None)
    todo: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "state": str(self.folder),
            "step": self.step,
            "running": self.running,
            "pid": self.pid,
            "source": self.source,
            "target": self.target,
            "gateway": self.gateway,
            "live": self.live,
            "todo": self.todo,
        }


def told(gateways: Mapping[str, Gateway], source: str, step: str) -> dict[str, Any]:
    """The answer of a running process. ``gateways``: by the source's shards, "" for a single server; ``source``: its URL without secrets. Offsets:
    ``source_offset`` received, ``translated`` of it; each target's ``lag`` is in bytes of our own stream. Of a cluster ``shards`` says so of each."""
    each = {name: _told(gateway) for name, gateway in gateways.items()}
    head = {"pid": os.getpid(), "doing": step, "source": source}
    if "" in each:
        return head | each[""]
    return head | {
        "held": next((one["held"] for one in each.values() if one["held"]), ""),
        "keys": sum(one["keys"] for one in each.values()),
        "shards": [{"shard": name, **one} for name, one in each.items()],
    }


def _told(gateway: Gateway) -> dict[str, Any]:
    held = gateway.held
    return {
        "gateway": f"{gateway.address[0]}:{gateway.address[1]}",
        "source_replid": gateway.history,
        "source_offset": gateway.source_offset,
        "translated": min((channel.source_offset for channel in gateway.channels), default=0),
        "keys": max((channel.taken.keys for channel in gateway.channels), default=0),
        "held": held[0][1].why if held else "",
        "targets": [
            {"target": link.peer, "online": link.online, "acknowledged": link.acknowledged, "lag": link.lag}
            for link in gateway.links
            if link.channel is not None
        ],
    }


async def statuses(folders: Sequence[Path] = ()) -> list[MigrationStatus]:
    """Of these state folders (none: of all below the default one), those that run first. A folder that is no migration's is left out."""
    named = list(folders)
    if not named:
        root = default_folder()
        named = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    found = await asyncio.gather(*[_status(folder) for folder in named])
    return sorted((one for one in found if one is not None), key=lambda one: not one.running)


async def _status(folder: Path) -> MigrationStatus | None:
    running = is_locked(folder)
    live: dict[str, Any] | None = None
    if running:
        try:
            live = await ask(folder, "status", ANSWER_SECONDS)
        except ValkeepError:
            live = None  # it cannot say: an older one, or it hangs
    try:
        state = StateFile(folder).read()
    except ValkeepError as error:
        return MigrationStatus(folder, "unreadable", running, todo=f"{error.message}; {error.remedy}")
    if state is not None:
        back = (folder / BACK).is_dir()
        step = state.step
        return MigrationStatus(
            folder,
            step,
            running,
            (live or {}).get("pid", 0) or state.pid,
            state.source,
            state.target,
            state.gateway,
            live,
            _todo(step, _pair(folder, state.source, state.group or state.target), state.target, live, running=running, back=back),
        )
    served = _served(folder)
    if served is not None:
        todo = "" if running else "it does not run: start it again with the same --state, and it goes on where it was"
        now = live or {}
        return MigrationStatus(
            folder,
            "serving",
            running,
            now.get("pid", 0),
            now.get("source", served[0]),
            "",
            now.get("gateway", served[1]),
            live,
            todo,
        )
    return MigrationStatus(folder, "preparing", running, live=live) if running else None


def _served(folder: Path) -> tuple[str, str] | None:
    """Source and address of a gateway that keeps its state here."""
    try:
        content = json.loads((folder / GATEWAY).read_text(encoding="utf-8"))
        host, port = content.get("listen") or ("", 0)
        return str(content.get("source", "")), f"{host}:{port}" if host else ""
    except (OSError, ValueError, TypeError):
        return None


def _pair(folder: Path, source: str, target: str) -> str:
    """The options by which other commands find this migration."""
    usual = folder.absolute() == default_directory(source, target).absolute()
    return f"--source {source} --target {target}" + ("" if usual else f" --state {folder}")


def _todo(step: str, pair: str, target: str, live: dict[str, Any] | None, *, running: bool, back: bool) -> str:
    if running:
        if live is not None and live["held"]:
            return f"nothing more is sent: {live['held']}"
        doing = live["doing"] if live is not None else ""
        if doing == "way-back":
            return f"valkeep migrate commit or rollback {pair}"
        return f"valkeep migrate cutover {pair}" if doing == "waiting" else ""
    if step in ("attaching", "attached"):
        return f"it ended before its cut-over, and the source goes on; the same run again goes on with it, valkeep migrate abort {pair} detaches the target"
    if step == "cutting":
        return f"it ended in its cut-over, and the source may refuse writes: valkeep migrate abort {pair}"
    if step == "promoted" and back:
        return f"valkeep migrate commit or rollback {pair}"
    return f"it is cut over: the writers belong to {target}" if step == "promoted" else ""
