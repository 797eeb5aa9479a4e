"""``valkeep`` as its users run it: a process of its own, whose events can be waited for, which can be killed, and which must leave nothing behind.

Every process carries a mark in its environment, which its children inherit: so what it left behind can be found, whatever it is called.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support.waiting import until

__all__ = ["Valkeep"]

MARK = "VALKEEP_TEST_MARK"
STARTER = "import sys; from valkeep.cli import main; main(sys.argv[1:])"


class Valkeep:
    """``with Valkeep("migrate", "run", …, report=folder) as valkeep``: the process is gone after the block.

    ``report``: the folder whose ``events.jsonl`` tells the phases; it is given as --report. ``limit_file``: largest file that it may write (bytes).
    """

    def __init__(self, *arguments: str, folder: Path, report: bool = True, env: dict[str, str] | None = None, limit_file: int = 0) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.report = folder / "report"
        self.arguments = [*arguments, *(["--report", str(self.report)] if report else [])]
        self._env = {**os.environ, **(env or {}), MARK: self.mark, "TMPDIR": str(folder)}
        self._limit_file = limit_file
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number = len(list(self.folder.glob("*.err")))
        command = [sys.executable, "-c", STARTER, *self.arguments]
        if self._limit_file:
            limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({self._limit_file}, {self._limit_file})); "
            command[2] = limit + STARTER
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self._env, start_new_session=True, cwd=self.folder
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def out_path(self) -> Path:
        return self.folder / f"{self._number}.out"

    @property
    def err_path(self) -> Path:
        return self.folder / f"{self._number}.err"

    @property
    def stdout(self) -> str:
        return self.out_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.err_path.read_text(errors="replace")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def code(self) -> str:
        """The VK- code of the error it ended with, or ""."""
        found = re.findall(r"^valkeep: .*\[(VK-[A-Z0-9-]+)\]$", self.stderr, re.MULTILINE)
        return found[-1] if found else ""

    def phases(self) -> list[str]:
        """Names of the phases that have begun (``cutover:pause`` and so on)."""
        try:
            lines = (self.report / "events.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        names = []
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event["event"] == "Phase" and not event["done"]:
                    names.append(event["name"])
        return names

    def wait_for(self, phase: str, timeout: float = 90.0) -> None:
        """Return as soon as this phase has begun; fails when the process ends first."""
        needle = f'"event":"Phase","at":[0-9.e-]+,"name":"{re.escape(phase)}","done":false'
        path = self.report / "events.jsonl"

        def begun() -> bool:
            ended = not self.running
            with contextlib.suppress(FileNotFoundError):
                if re.search(needle, path.read_text()):
                    return True
            assert not ended, f"ended with {self.process.returncode} before {phase}: {self.stderr}"
            return False

        until(begun, lambda: f"phase {phase}: {self.stderr}", timeout, every=0.001)

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()

    def wait(self, timeout: float = 120.0) -> int:
        """The exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s; it said: {self.stderr}") from None

    # -- what it left behind --------------------------------------------------------------------------------------------------------

    def descendants(self) -> list[str]:
        """Command lines of processes that carry its mark and still run."""
        return [line for _, line in _marked(self.mark)]

    def assert_nothing_left(self, *folders: Path) -> None:
        """No process of it runs, and no spool or socket lies in the folders (and in its own)."""
        until(lambda: not self.descendants(), lambda: f"processes left: {self.descendants()}", 30.0)
        for folder in (self.folder, *folders):
            left = [
                path for path in folder.rglob("*") if "spool" in path.name or path.is_socket() or (path.is_dir() and "verify" in path.name)
            ]
            assert not left, left


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes():
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if line:
                        yield int(entry.name), line
