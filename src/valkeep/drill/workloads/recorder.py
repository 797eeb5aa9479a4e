"""The parent's end of the recorder (see `recorder_process`): start the load, pause it, and get back what was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from valkeep.drill.checkers.redirects import Redirect
from valkeep.drill.history import History
from valkeep.drill.script import Load
from valkeep.drill.workloads.conversation import Child
from valkeep.drill.workloads.record import Process
from valkeep.drill.workloads.targets import Targets

__all__ = ["Recorder", "RecorderResult", "Stall", "Tick", "Trouble"]


@dataclass(frozen=True, slots=True)
class Tick:
    """Where the load stands. ``at``: ns on the monotonic clock; counts since the start; ``nodes``: node → ns of the last ack it gave."""

    at: int
    operations: int
    acked: int
    refused: int
    nodes: Mapping[str, int]


class Stall(NamedTuple):
    """The machine stood still: from ``at`` (ns), for ``ms``; only those above 50 ms are listed."""

    at: int
    ms: float


class Trouble(NamedTuple):
    """What a client met beside its operations: sentinels that did not answer, connections that could not be opened."""

    client: str
    text: str
    times: int


@dataclass(frozen=True, slots=True)
class RecorderResult:
    """``processes``: whose connection each process of the history was. ``moved``: redirects, by time."""

    history: History
    stalls: tuple[Stall, ...]
    moved: tuple[Redirect, ...]
    processes: tuple[Process, ...]
    errors: tuple[Trouble, ...]


class Recorder:
    """``async with Recorder(…) as recorder``: every client has found its nodes; ``start``, ``pause``, ``start`` again, ``finish``.

    ``workdir``: a folder that does not exist yet; the process makes it, and removes it should this one be killed. ``emit_tick``: called
    every 100 ms. Entering raises ``ValkeepError`` when a client
    finds nobody to write to. The block's end ends the process, whatever happens.
    """

    def __init__(
        self,
        load: Load,
        targets: Targets,
        workdir: Path,
        seed: int,
        emit_tick: Callable[[Tick], None] | None = None,
    ) -> None:
        self.workdir = workdir
        self.last = Tick(0, 0, 0, 0, {})
        self._settings = {"load": asdict(load), "targets": targets.to_json(), "seed": seed}
        self._emit = emit_tick
        self._child = Child("valkeep.drill.workloads.recorder_process", "the recorder", self._heard)

    async def __aenter__(self) -> Self:
        await self._child.begin(self.workdir)
        try:
            self._child.tell(self._settings)
            await self._child.hear("found", 30)
        except BaseException:
            await self._child.end()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._child.end()

    @property
    def operations(self) -> int:
        """Recorded so far, as of the last tick."""
        return self.last.operations

    @property
    def acked(self) -> int:
        return self.last.acked

    async def start(self) -> None:
        """Begin, or go on after a pause."""
        self._child.tell({"do": "start"})

    async def pause(self) -> None:
        """Stop sending; returns when nothing is in flight any more. The counts are then exact."""
        self._child.tell({"do": "pause"})
        self._heard(await self._child.hear("paused", 30) | {"event": "tick"})

    async def finish(self) -> RecorderResult:
        """End the load; what was recorded."""
        self._child.tell({"do": "stop"})
        said = await self._child.hear("history", 60)
        data = await asyncio.to_thread(Path(said["path"]).read_bytes)
        return RecorderResult(
            await asyncio.to_thread(History.unpacked, data),
            tuple(Stall(*stall) for stall in said["stalls"]),
            tuple(Redirect(*redirect) for redirect in said["moved"]),
            tuple(Process(*process) for process in said["processes"]),
            tuple(Trouble(*trouble) for trouble in said["troubles"]),
        )

    def _heard(self, said: dict[str, Any]) -> bool:
        if said["event"] != "tick":
            return False
        self.last = Tick(said["at"], said["operations"], said["acked"], said["refused"], said["nodes"])
        if self._emit is not None:
            self._emit(self.last)
        return True
