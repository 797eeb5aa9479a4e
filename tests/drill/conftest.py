"""What tests of drills share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest


@pytest.fixture
def grace() -> Callable[[float], float]:
    """So many seconds, and more where a Python process takes long to start: who cleans up may be one that was just started."""

    def within(seconds: float) -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        return seconds + 10 * (time.monotonic() - began)

    return within
