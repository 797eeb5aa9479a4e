"""Peak memory of processes, as the kernel counted it (``VmHWM``), summed over a process and all that it started."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["PeakMemory", "peak_of"]

_EVERY: Final = 0.02  # seconds


def peak_of(pid: int) -> int:
    """Bytes; 0 when there is no such process any more."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _tree(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


class PeakMemory:
    """``with PeakMemory(pid) as peak: …``; ``peak.bytes``: the peaks of all its processes, also of those that ended meanwhile."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._look()
        self._ended.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return sum(self._peaks.values())

    @property
    def processes(self) -> int:
        return len(self._peaks)

    def _look(self) -> None:
        for pid in _tree(self._pid):
            self._peaks[pid] = max(self._peaks.get(pid, 0), peak_of(pid))

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()
