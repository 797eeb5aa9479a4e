"""Whether the machine itself stood still: a thread that wants to wake every 5 ms notes when it was woken late.

It measures what neither the servers nor the clients can tell: a host without a free processor, a suspended virtual machine. A thread of its
own, because an event loop is late whenever it has work to do.
"""

from __future__ import annotations

import threading
import time
from typing import Final

__all__ = ["Heartbeat"]

PERIOD_NS: Final = 5_000_000
LATE_NS: Final = 50_000_000


class Heartbeat:
    """``stalls``: (ns when it should have been woken, ms late), for all that were more than 50 ms late."""

    def __init__(self) -> None:
        self.stalls: list[tuple[int, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="valkeep-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        last = time.monotonic_ns()
        while not self._over.is_set():
            time.sleep(PERIOD_NS / 1e9)
            now = time.monotonic_ns()
            late = now - last - PERIOD_NS  # from beat to beat, so that no moment is outside of what is measured
            if late > LATE_NS:
                self.stalls.append((last + PERIOD_NS, late / 1e6))
            last = now
