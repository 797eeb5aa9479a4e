"""One run of every drill as the table of docs/reference/example-results.md.

    python bench/drills.py [results.json]       runs `valkeep drill run --all --json` when no file is named; prints Markdown

The numbers are those of one run on one machine: examples, not promises. What has to hold is in the drills' expectations.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COLUMNS = ("drill", "acked", "lost", "why", "gap", "sdown", "promoted", "first ack", "redundant", "verdict")


def _measured() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drills.json"
        command = Path(sys.executable).with_name("valkeep")
        subprocess.run([str(command), "drill", "run", "--all", "--json", str(path)], check=False, stdout=sys.stderr)
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"


def _row(drill: dict[str, Any]) -> tuple[str, ...]:
    measures = drill["measures"]
    causes = {name.removeprefix("lost_").replace("_", " "): count for name, count in measures.items() if name.startswith("lost_") and count}
    return (
        f"`{drill['name']}`",
        f"{measures.get('acked') or 0:,.0f}",
        f"{measures.get('lost') or 0:,.0f}",
        ", ".join(f"{count:,.0f} {cause}" for cause, count in causes.items()),
        *(_ms(measures.get(name)) for name in ("gap_ms", "sdown_ms", "promoted_ms", "first_ack_ms", "redundant_ms")),
        drill["verdict"],
    )


def main() -> int:
    found = json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else _measured()
    rows = [_row(drill) for drill in found["drills"]]
    operations = sum(drill["measures"].get("operations") or 0 for drill in found["drills"])
    warm = sorted(drill["measures"].get("warm_operations_per_second") or 0 for drill in found["drills"])
    rates = f"before the fault {warm[0]:,.0f} to {warm[-1]:,.0f} operations/s"
    print(f"{len(rows)} drills in {found['total_seconds']:.0f} s; {operations:,.0f} operations recorded; {rates}.\n")
    for row in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print("| " + " | ".join(row) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
