"""The tests beside this file test the programs beside it, on topologies of Valkeep's pytest plugin (docs/how-to/pytest.md)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = ["pytest-project"]  # a project of its own
