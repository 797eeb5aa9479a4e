"""What may be skipped where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest

def test_that_asks(): pytest.skip("no openssl here")

@pytest.mark.skipif(True, reason="no compiler here")
def test_that_is_marked(): pass

@pytest.fixture
def thing(): pytest.skip("no server here")

def test_whose_fixture_asks(thing): pass

@pytest.mark.xfail(reason="known")
def test_that_is_known_to_fail(): assert False

def test_that_passes(): pass
"""


@pytest.mark.parametrize(
    ("ci", "code", "counts"), [("true", 1, "1 failed, 1 passed, 1 xfailed, 2 errors"), ("", 0, "1 passed, 3 skipped, 1 xfailed")]
)
def test_a_skip_is_a_failure_in_ci_and_said_elsewhere(tmp_path: Path, ci: str, code: int, counts: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_planted.py").write_text(SUITE)
    options = ("-p", "no:randomly", "-p", "tests.support.skips", "-ra", "-c", str(tmp_path / "pytest.ini"), str(tmp_path))
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert counts in done.stdout
    for why in ("no openssl here", "no compiler here", "no server here"):
        assert why in done.stdout
