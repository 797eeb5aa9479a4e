"""A drill that really ran: its page, JSON, JUnit, events and history tell the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from valkeep.drill.history import History

VERDICTS = {0: "valid", 1: "invalid", 3: "unknown"}


@pytest.mark.server
def test_the_page_the_json_the_junit_and_the_history_of_a_drill_tell_the_same(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            sys.executable, "-c", "from valkeep.cli import main; main()", "drill", "run", "cluster-kill-primary", "--seed", "5", "--report", "report",
            "--json", "drill.json", "--junit", "drill.xml", "--html", "drill.html",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode in VERDICTS, run.stderr
    found = json.loads((tmp_path / "drill.json").read_text())
    folder = tmp_path / "report" / "cluster-kill-primary"
    assert json.loads((folder / "drill.json").read_text()) == found
    assert found["verdict"] == VERDICTS[run.returncode], found["reasons"]

    history = History.unpacked((folder / "history.vkh").read_bytes())
    assert history.counts() == found["operations"]
    text = (tmp_path / "drill.html").read_text()
    assert re.search(rf'data-total="{len(history)}" data-shown="{min(len(history), 100_000)}"', text)
    assert len(text) < 3_000_000
    assert 'data-node="n2"' in text  # the servers' log lines

    case = ET.fromstring((tmp_path / "drill.xml").read_bytes())[0][0]
    properties = {one.get("name"): one.get("value") for one in case.iter("property")}
    assert float(properties["operations"] or 0) == len(history)
    assert properties["seed"] == "5"

    assert found["faults"][0]["name"] == "kill"
    steps = found["recovery"][0]["steps"]
    assert {"odown", "promoted", "first-ack"} <= {step["name"] for step in steps}  # who hears of it from others logs no sdown of its own
    assert [step["ms"] for step in steps] == sorted(step["ms"] for step in steps)
    assert "--seed 5" in found["replay"]
    assert found["replay"] in run.stdout
    assert "fault: kill primary" in run.stderr
    events = [json.loads(line)["event"] for line in (tmp_path / "report" / "events.jsonl").read_text().splitlines()]
    assert {"Phase", "Pulse", "Fault", "VerdictEvent"} <= set(events)
