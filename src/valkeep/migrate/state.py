"""What has to survive a kill -9: one small file that says what was changed outside of Valkeep, so that ``abort`` can undo it.

The rule is *intent first*: before anything is changed on the source or the target, the file says what will be changed and what it was
before, and is on the disk (fsync of the file and its folder). What really happened is then asked from the servers themselves: a source
whose ``min-replicas-to-write`` is ours is fenced, a target that is no replica any more is promoted. So the file and reality can't disagree
in a way that loses writes; at worst ``abort`` restores a value that was never changed.

No secrets: endpoints are stored without passwords, which ``abort`` takes again from the command line.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from valkeep.errors import Refused, UsageError, ValkeepError

__all__ = ["BACK", "SHARDS", "MigrationState", "StateFile", "default_directory", "default_folder", "expect_target", "write_durably"]

SCHEMA = 1
FILE = "migration.json"
BACK = "back"
"""The folder of a way back's own state, in that of the migration."""
SHARDS = "shards"
"""The folder of the states of a source's shards, in that of the migration."""


@dataclass(frozen=True, slots=True)
class MigrationState:
    """``step``: attaching → attached → cutting → promoted → committed | rolled-back, or aborted. ``source``, ``target``: URLs without secrets.
    ``fence_before``: the values of the two parameters that the fence sets; ``fence_at``: where (the source, or its
    primary); ``target_run``: the run_id of the target that is promoted, since "cutting"; ``pid``: of the Valkeep that wrote it;
    ``fence_token``: what says that a fence there is this migration's;
    ``source_replid``, ``source_offset``: up to where the target surely has the source's history, since "cutting" (what the way back begins from);
    ``channel``: our replication id, under which the target has the data (of a way back: the token of the cut-over that it belongs to);
    ``gap_end``: of a way back: what the old server wrote by itself up to this offset of its history is not copied again yet (0: it is);
    ``fence_kept``: the fence was written into the source's configuration file, or was going to be.
    ``delivery``: how the target gets the data; ``target_before``: values of its settings that were going to be changed;
    ``shards``: of a target that is a cluster and is pushed to: address → ``marker`` (its key; several, with spaces between, where the source is a
    cluster), ``run_id`` and such settings;
    ``source_shards``: of a source that is a cluster: lane → ``nodes`` (ids, its primary's first) and ``slots`` that it has brought to the target; what is
    done to a shard's server stands in a state of its own, in the folder ``shards/<lane>``;
    ``gateway``: where the target was going to be told to find us ("": it was not, yet);
    ``group``: of a target that is a replication group, as it was named;
    ``detach_by``: how a person detaches a target that attached by itself; ``promotion``: who was asked to promote it, where that cannot be taken back."""

    step: str
    source: str
    target: str
    pid: int
    gateway: str = ""
    fence_before: dict[str, str] = field(default_factory=dict)
    fence_at: str = ""
    target_run: str = ""
    fence_token: str = ""
    fence_kept: bool = False
    delivery: str = "native"
    target_before: dict[str, str] = field(default_factory=dict)
    shards: dict[str, dict[str, str]] = field(default_factory=dict)
    source_shards: dict[str, dict[str, str]] = field(default_factory=dict)
    source_replid: str = ""
    source_offset: int = 0
    gap_end: int = 0
    channel: str = ""
    group: str = ""
    detach_by: str = ""
    promotion: str = ""
    schema: int = SCHEMA


class StateFile:
    """The file in ``directory``; ``write`` returns when it is on the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / FILE
        self.current: MigrationState | None = None

    def write(self, state: MigrationState) -> None:
        write_durably(self.path, asdict(state))
        self.current = state

    def forget(self) -> None:
        """What is there is of an earlier migration; the file is left until something of this one is written."""
        self.current = None

    def step(self, step: str, **changes: Any) -> None:
        """Write the current state with another step."""
        if self.current is None:
            raise UsageError("there is no migration to continue here", remedy="start one with `valkeep migrate run`")
        self.write(replace(self.current, step=step, **changes))

    def read(self) -> MigrationState | None:
        """What the file says; None when there is none. Raises ``ValkeepError`` when it was written by a Valkeep that this one doesn't understand."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content.get("schema") != SCHEMA:
                raise ValueError(f"schema {content.get('schema')}")
            self.current = MigrationState(**content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, OSError) as error:
            raise ValkeepError(
                f"{self.path} is not a migration state that this Valkeep understands: {error}",
                remedy="use the Valkeep that wrote it; if the migration is over, remove the folder",
                code="VK-STATE-READ",
            ) from error
        return self.current


def write_durably(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as JSON, for this user alone; returns when it is on the disk, whole. Raises ``ValkeepError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)  # a kill left it
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ValkeepError(
            f"the migration's state cannot be written to {path}: {error.strerror}",
            remedy="free space there or choose another folder with --state DIR",
            code="VK-STATE-WRITE",
        ) from error


def expect_target(found: MigrationState, target: str, group: str | None = None) -> None:
    """Raises ``Refused`` where ``found`` is of a migration to another target than ``target`` (a URL without secrets), and is not over: what was done to that
    one has to be undone there. ``group``: the replication group that it was named by ("": none), None where nobody said."""
    if found.step in ("attaching", "attached", "cutting") and (
        _server(found.target) != _server(target) or (group is not None and group != found.group)
    ):
        was, now = found.group or found.target, group or target
        raise Refused(
            f"the state folder is of a migration from {found.source} to {was}, which is not over, and {now} is another target",
            remedy=f"`valkeep migrate abort` with --target {was} first; or give another --state DIR",
            code="VK-STATE-OTHER",
        )


def default_folder() -> Path:
    """Where state folders are, unless somebody said ``--state``: below XDG_STATE_HOME."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")  # noqa: PTH118, PTH111
    return Path(home) / "valkeep"


def default_directory(source: str, target: str) -> Path:
    """Where a migration between these two (URLs without secrets) keeps its state: one folder a pair of host:port.

    Scheme, user and database do not count: `cutover` and `abort` find the folder whether or not they were given a password.
    """
    return default_folder() / hashlib.sha256(f"{_server(source)}\n{_server(target)}".encode()).hexdigest()[:12]


def _server(url: str) -> str:
    """The host:port of a URL; of a primary that sentinels know, theirs and its name."""
    place = url.rpartition("//")[2].rpartition("@")[2]
    return place if "+sentinel://" in url else place.partition("/")[0]
