"""The parent's end of the writers' process (see `writers_process`): prepare it, start and pause it, and get back what it recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeep.drill.history import History
from valkeep.drill.rehearsal.writers_process import WriterSettings
from valkeep.drill.workloads.conversation import Child

__all__ = ["Acked", "WriterProcess"]

Acked = Callable[[int, int, str], None]
"""Called every 100 ms with (ns on the monotonic clock, acked so far, the node written to)."""


class WriterProcess:
    """``async with WriterProcess(workdir, acked) as writers``; ended with the block, whatever happens.

    ``workdir``: a folder that does not exist yet; the process makes it, and removes it should this one be killed. Then ``prepare``, ``start``.
    """

    def __init__(self, workdir: Path, acked: Acked | None = None) -> None:
        self.workdir = workdir
        self.acked = 0
        self._watch = acked
        self._child = Child("valkeep.drill.rehearsal.writers_process", "the rehearsal's writers", self._heard)

    async def __aenter__(self) -> Self:
        await self._child.begin(self.workdir)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._child.end()

    def prepare(self, settings: WriterSettings) -> None:
        """Where to write, and how much; once."""
        self._child.tell(settings.to_json())

    def start(self) -> None:
        """Begin, or go on after a pause."""
        self._child.tell({"do": "start"})

    async def pause(self) -> tuple[int, dict[str, list[bytes]]]:
        """Stop sending. Once nothing is in flight: operations recorded so far, and function → keys touched so far."""
        self._child.tell({"do": "pause"})
        said = await self._child.hear("paused", 30)
        keys = {str(function): [key.encode("latin-1") for key in listed] for function, listed in said["keys"].items()}
        return int(said["operations"]), keys

    async def finish(self) -> History:
        """End the writers; what they recorded."""
        self._child.tell({"do": "stop"})
        path = Path((await self._child.hear("history", 60))["path"])
        return History.unpacked(await asyncio.to_thread(path.read_bytes))

    def _heard(self, said: dict[str, Any]) -> bool:
        if said["event"] != "acked":
            return False
        self.acked = said["acked"]
        if self._watch is not None:
            self._watch(said["at"], said["acked"], said["node"])
        return True
