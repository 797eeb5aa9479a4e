"""``valkeep drill matrix`` and ``drill clients``: settings and libraries side by side, on real topologies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.drilled import unstalled

pytestmark = pytest.mark.timeout(400)

COMMAND = [sys.executable, "-c", "from valkeep.cli import main; main()", "drill"]


def compared(path: Path, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, rows, and what was said."""

    def run() -> tuple[int, list[dict[str, Any]], str]:
        done = subprocess.run([*COMMAND, *words, "--json", str(path)], capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, json.loads(path.read_text())["rows"] if path.exists() else [], done.stdout + done.stderr

    return unstalled(run, lambda ran: [(row["verdict"], row["reason"]) for row in ran[1]])


def test_wait_saves_what_the_defaults_lose_in_a_partition(tmp_path: Path) -> None:
    settings = ["--min-replicas", "0", "--fsync", "everysec", "--timeout-ms", "1000", "--wait", "0", "--wait", "1"]
    code, rows, said = compared(tmp_path / "matrix.json", "matrix", *settings)
    assert (code, [row["verdict"] for row in rows]) == (0, ["valid", "valid"]), said
    without, waiting = rows
    assert without["lost"] > 1000
    assert waiting["lost"] == 0
    assert waiting["p50_ms"] > 0
    assert waiting["acked"] > 1000


def test_a_library_that_knows_no_sentinel_is_a_row_that_says_so_and_the_others_are_measured(tmp_path: Path) -> None:
    wanted = ["--client", "glide", "--client", "valkey-py", "--drill", "sentinel-kill-primary"]
    code, rows, said = compared(tmp_path / "clients.json", "clients", *wanted)
    assert code == 3, said  # one that could not be run leaves it open
    glide, valkey_py = rows
    assert (glide["verdict"], glide["gap_ms"]) == ("unknown", None)
    assert "Sentinel" in glide["reason"]
    assert valkey_py["verdict"] == "valid"
    assert valkey_py["gap_ms"] > 500
    assert valkey_py["errors"] > 0
    assert valkey_py["lost"] == 0
