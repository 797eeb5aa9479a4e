"""What a run leaves behind for people: its timeline and the files of its report folder.

preflight.json, ledger.jsonl, verification.json, cutover.json, run.json: all with ``schema: 1``, times in seconds since the run began.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from valkeep.errors import ValkeepError
from valkeep.report.events import Emit, Note, Phase

__all__ = ["Journal"]


class Journal:
    """``folder``: where the files go (None: nowhere). ``started``: on the job's clock, as is all of ``timeline``: (step, seconds) in order."""

    def __init__(self, folder: Path | None, emit: Emit, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.emit = emit
        self.clock = clock
        self.started = clock()
        self.timeline: list[tuple[str, float]] = []

    def begin(self, step: str, detail: str = "") -> None:
        """A step begins: into the timeline, and told."""
        self.timeline.append((step, self.clock()))
        self.emit(Phase(self.timeline[-1][1], step, detail=detail))

    def say(self, level: str, text: str) -> None:
        self.emit(Note(self.clock(), level, text))

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Raises ``ValkeepError`` where the folder cannot be written."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
        except OSError as error:
            raise ValkeepError(
                f"the report {self.folder / name} cannot be written: {error.strerror}", remedy="choose another --report folder"
            ) from error

    def write_if_possible(self, name: str, content: dict[str, Any]) -> None:
        """From the cut-over on, what became of the servers is more than a file, and must not be hidden behind its error."""
        try:
            self.write(name, content)
        except ValkeepError as error:
            self.say("warning", error.message)
