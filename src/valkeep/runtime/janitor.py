"""Who cleans up when Valkeep can't: also after ``kill -9``, which no ``finally`` survives.

The janitor is a small process with a session of its own (Ctrl-C and the signals of a process group do not reach it) that reads a pipe.
Valkeep tells it, *before* it makes a thing, what would have to go: folders, processes, a command. It does nothing until the pipe
ends. Then Valkeep is dead, and the janitor ends those processes, runs the commands, and removes the folders, trying again for as long
as dying servers still write. An orderly end says ``dismiss`` first, and the janitor leaves without touching anything.

A process is known by its number and by when it started: numbers are used again, and nobody else's process may ever be hit. On
Linux the servers die with Valkeep by themselves (``PR_SET_PDEATHSIG``, see `node`); elsewhere the janitor is what ends them.

Not covered: a machine that loses power, and somebody who kills the janitor too. What is left then is a folder in the temporary
directory, whose name tells its owner's process; the next run removes it (`folder.temporary_folder`).

This file is also the janitor's program, run without site-packages: it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

__all__ = ["Janitor", "started"]

_PATIENCE: Final = 10.0  # seconds for folders whose servers are slow to die
_COMMAND_PATIENCE: Final = 120.0


def started(pid: int) -> str:
    """When this process started, in whatever form the system tells it; "" when there is none (a zombie counts as none)."""
    if sys.platform != "linux":
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return done.stdout.strip()
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # proc(5): the 22nd field; the 2nd may hold spaces


class Janitor:
    """``with Janitor() as janitor: …``; leaving the block in any way but by an exception from outside of Python dismisses it."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self._guard = threading.Lock()

    @property
    def pid(self) -> int:
        return self._child.pid

    def remove(self, folder: Path) -> None:
        """This folder goes, with all that is in it. Tell before it is made."""
        self._tell("folder", str(folder.absolute()))

    def end(self, pid: int) -> None:
        """This process is killed, if it still is the one that it is now."""
        self._tell("process", [pid, started(pid)])

    def run(self, command: Sequence[str]) -> None:
        """This command runs, for at most two minutes, after processes have ended and before folders go."""
        self._tell("command", list(command))

    def dismiss(self) -> None:
        """Everything was put away: nothing is left to do. May be called twice; returns when the janitor has gone."""
        self._tell("dismiss", None)
        with self._guard, contextlib.suppress(OSError):
            self._pipe.close()
        self._child.wait()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._child.stdin is not None
        return self._child.stdin

    def _tell(self, what: str, detail: Any) -> None:
        with self._guard, contextlib.suppress(OSError, ValueError):  # a janitor that was killed is no reason to fail
            self._pipe.write(json.dumps([what, detail]).encode() + b"\n")
            self._pipe.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()


# ------------------------------------------------------------------------------------------------------------- the process


def _end(processes: list[list[Any]]) -> None:
    """Kill those that are still the same, and wait until they are gone."""
    waiting = [(pid, since) for pid, since in processes if since and started(pid) == since]
    for pid, _ in waiting:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while waiting and time.monotonic() < deadline:
        waiting = [(pid, since) for pid, since in waiting if started(pid) == since]
        time.sleep(0.01 if waiting else 0)


def _remove(folders: list[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while folders and time.monotonic() < deadline:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        folders = [folder for folder in folders if os.path.lexists(folder)]
        time.sleep(0.05 if folders else 0)


def main() -> None:
    """The entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    duties: dict[str, list[Any]] = {"folder": [], "process": [], "command": []}
    for line in sys.stdin.buffer:
        what, detail = json.loads(line)
        if what == "dismiss":
            return
        duties[what].append(detail)
    _end(duties["process"])
    for command in duties["command"]:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=_COMMAND_PATIENCE, capture_output=True)
    _remove(duties["folder"])


if __name__ == "__main__":
    main()
