"""A short, always equal run of the mutator over everything that reads bytes of others; and the mutator finds what is planted.

The long run is ``make fuzz``. It loads the interpreted twins itself, so that one run serves both builds.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTATE = ROOT / "tests" / "fuzz" / "mutate.py"


def mutate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MUTATE), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_a_short_run_over_every_reader_finds_nothing(tmp_path: Path) -> None:
    done = mutate("--seed", 7, "--cases", 100, "--save", tmp_path / "found")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout
    assert not (tmp_path / "found").exists()


PLANTED = {
    "crash": "crash: SIGSEGV",
    "hang": "crash: hang",
    "memory": "MemoryError",
    "hoard": "bytes were allocated for a case of 40 bytes",
    "error": "KeyError",
    "blame": "LocalProtocolError for bytes of others",
    "speechless": "without a message or remedy",
    "difference": "the two differ",
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_mutator_finds_what_is_planted_goes_on_behind_it_and_its_replay_finds_it_again(name: str, tmp_path: Path) -> None:
    done = mutate("--seed", 1, "--cases", 60, "--only", f"planted-{name}", "--save", tmp_path, "--cpu-seconds", 0.3)
    assert done.returncode == 1, done.stdout + done.stderr
    assert PLANTED[name] in done.stdout
    assert re.search(r"FOUND in planted-\w+, seed 1, case \d+, 40 bytes", done.stdout)
    assert "60 cases" in done.stdout  # and did not stop there
    (saved,) = tmp_path.iterdir()
    assert f"--replay {saved}" in done.stdout
    assert saved.read_text().strip() in done.stdout
    if name not in ("hang", "memory"):  # without the limits of a child
        assert mutate("--replay", saved).returncode != 0
