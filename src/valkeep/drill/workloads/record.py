"""What the clients of a drill write down: the history, and what stands beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from valkeep.drill.checkers.redirects import Redirect
from valkeep.drill.history import History

__all__ = ["Process", "Record"]


class Process(NamedTuple):
    """Whose connection it was, and to which node ("" for attempts that had none, and for clients that do not tell)."""

    client: str
    node: str


def _history() -> History:
    return History(time.time_ns() - time.monotonic_ns())


@dataclass(slots=True)
class Record:
    """``acked_at``: node → ns of its last ack. ``troubles``: (client, text) → how often."""

    history: History = field(default_factory=_history)
    acked: int = 0
    refused: int = 0
    acked_at: dict[str, int] = field(default_factory=dict)
    moved: list[Redirect] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    troubles: dict[tuple[str, str], int] = field(default_factory=dict)

    def process(self, client: str, node: str = "") -> int:
        """A number that nobody else had."""
        self.processes.append(Process(client, node))
        return len(self.processes) - 1

    def trouble(self, client: str, text: str) -> None:
        self.troubles[client, text] = self.troubles.get((client, text), 0) + 1
