"""The drills of another package, as docs/how-to/drills.md shows them: found by their entry points, listed, run and judged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.drilled import unstalled

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "drills.md"


def installed(folder: Path) -> Path:
    """The package of the page, as pip would leave it."""
    text = PAGE.read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (entries,) = re.findall(r'^```toml\n\[project\.entry-points\."(valkeep\.drills)"\]\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
    (folder / "our_drills.py").write_text(code)
    info = folder / "our_drills-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-drills\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{entries[0]}]\n{entries[1].replace(chr(34), '')}")
    return folder


def valkeep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from valkeep.cli import main; main()", "drill", *arguments],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip


def test_the_documented_drills_of_another_package_are_listed_and_run(tmp_path: Path) -> None:
    folder = installed(tmp_path)
    listed = {one["name"]: one for one in json.loads(valkeep(folder, "list", "--json", "-").stdout)["drills"]}
    assert listed["our-guarded-primary"]["schedule"] == "pause:replica@0+5~redundant"
    assert "gap_ms ≤ 3000" in listed["our-impatient"]["expects"]

    def run() -> dict[str, Any]:
        return dict(json.loads(valkeep(folder, "run", "our-guarded-primary", "--json", "-").stdout))

    found = unstalled(run, lambda one: [(one["verdict"], str(one["reasons"]))])
    assert found["verdict"] == "valid", found["reasons"]
    assert found["errors"]["NOREPLICAS"] > 0
