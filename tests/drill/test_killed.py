"""``kill -9`` of a drill at a random moment: two seconds later no process and no folder of it is left, whatever connected its nodes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import until

pytestmark = pytest.mark.server


def belonging(folder: Path) -> list[str]:
    """Processes that work in this folder, or were started with it as their place for temporary files."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            at_home = (process / "cwd").readlink().is_relative_to(folder)
            told = f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
            if (at_home or told) and (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(f"{process.name} {(process / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()[:80]}")
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("drill", "options", "moment"),
    [
        ("sentinel-kill-primary", (), None),
        ("sentinel-partition-primary", (), 1),
        ("cluster-partition", ("--network", "proxy"), 2),
        ("standalone-machine-crash", (), 3),
    ],
)
def test_a_killed_drill_leaves_nothing_behind(
    tmp_path: Path, grace: Callable[[float], float], drill: str, options: tuple[str, ...], moment: int | None
) -> None:
    command = [sys.executable, "-m", "valkeep", "drill", "run", drill, *options]
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True
    )
    try:
        if moment is None:
            until(lambda: len(belonging(tmp_path)) > 4, "servers run")
        else:
            time.sleep(random.Random(moment).random() * 5)  # whatever it is doing then
        within = grace(2)
    finally:
        running.kill()
    running.wait()
    killed = time.monotonic()
    until(lambda: not belonging(tmp_path) and not list(tmp_path.glob("valkeep-node-*")), lambda: str(belonging(tmp_path)), 10)
    assert time.monotonic() - killed < within
