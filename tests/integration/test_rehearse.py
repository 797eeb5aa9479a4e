"""``valkeep rehearse`` end to end on real servers, small: through the gateway, its JSON and its page; refusals; and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import nodes
from valkeep.drill.rehearsal.rehearse import RehearsalOptions, rehearse

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rehearsal"), pytest.mark.timeout(300)]

SMALL = ("--keys", "20000", "--rate", "3000")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder for everything the rehearsal makes; at the end only the port locks may be in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    yield folder
    assert left_in(folder) == []


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith("valkeep-ports-")]


def command(place: Path, *args: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "valkeep", "rehearse", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place), **environment},
    )


def run(place: Path, *args: str, **environment: str) -> tuple[int, str, str]:
    process = command(place, *args, **environment)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def test_a_small_rehearsal_through_the_gateway_is_valid(place: Path, tmp_path: Path) -> None:
    nodes.binary("redis-8.0")
    report = tmp_path / "report"
    status, out, err = run(
        place, *SMALL, "--source-server", "redis-8.0", "--target-server", "valkey-9.1",
        "--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html"), "--report", str(report),
    )  # fmt: skip
    assert status == 0, err
    found: dict[str, Any] = json.loads((tmp_path / "r.json").read_text())
    assert (found["schema"], found["verdict"], found["representative"]) == (1, "valid", True)
    assert found["lost_acked_writes"] == found["mismatches"] == found["unexpected_error_replies"] == 0
    assert found["source"]["version"].startswith("8.0.")
    assert found["source"]["rdb_version"] == 12
    assert found["target"]["version"].startswith("9.1.")
    assert found["keys"] >= 20_000
    assert found["write_pause_ms"] > 0
    assert found["full_sync_seconds"] > 0
    assert found["failover"]["gap_ms"] > 0
    assert found["elapsed_seconds"] < 120
    assert found["failure_shown"]["line"].startswith("Can't handle RDB format version 12")
    assert {judgement["checker"] for judgement in found["checkers"]} == {"set", "incr", "rpush", "xadd", "spop", "multi", "expire"}
    assert all(judgement["operations"] > 50 for judgement in found["checkers"])
    tutorial = (Path(__file__).parents[2] / "docs" / "tutorial" / "rehearse.md").read_text().partition("## The answer\n")[2]
    given = {*found, *found["failover"], *found["failure_shown"], *found["source"]}
    assert {name for name in given if f"`{name}`" not in tutorial} == {"schema"}
    assert "valkeep migrate preflight" in out
    page = (tmp_path / "r.html").read_text()
    assert "The cut-over, magnified" in page
    assert "http://" not in page
    assert {path.name for path in report.iterdir()} >= {
        "rehearsal.json",
        "story.json",
        "history.vkh",
        "events.jsonl",
        "run.json",
        "preflight.json",
    }
    again = subprocess.run([sys.executable, "-m", "valkeep", "report", str(report)], capture_output=True, text=True, check=True)
    assert "valid" in again.stdout


@pytest.mark.parametrize("policy", ["keep-field", "drop-field"])
def test_a_valkey_8_target_takes_the_policy_and_the_ledger_counts_it(place: Path, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in ("redis-8.0", "valkey-8.1"):
        nodes.binary(spec)
    monkeypatch.setattr("tempfile.tempdir", str(place))
    options = RehearsalOptions("redis-8.0", "valkey-8.1", policy, keys=20_000, rate=3000, warm_up=0.5, settle=0.7)
    found = asyncio.run(rehearse(options, lambda _: None)).to_json()
    assert (found["verdict"], found["field_ttl"]) == ("valid", policy), found["reasons"]
    assert sum(row["count"] for row in found["ledger"] if row["what"] == "field-ttl" and row["policy"] == policy) > 600


def test_refusing_field_ttls_stops_before_the_target_is_touched(place: Path) -> None:
    for spec in ("redis-8.0", "valkey-8.1"):
        nodes.binary(spec)
    status, out, err = run(place, *SMALL, "--source-server", "redis-8.0", "--target-server", "valkey-8.1", "--field-ttl", "refuse")
    assert status == 4
    assert out == ""
    assert "remedy:" in err
    assert "keep-field" in err
    assert "changed:  nothing" in err


def test_in_ci_a_source_that_proves_little_is_an_error(place: Path) -> None:
    nodes.binary("valkey-9.1")
    status, _, err = run(place, "--source-server", "valkey-9.1", CI="true")
    assert status == 4
    assert "natively" in err
    assert "redis-8.0" in err


@pytest.mark.parametrize(
    ("option", "value"), [("--source-server", "/no/such/server"), ("--target-server", "redis-9000"), ("--source-server", "oracle")]
)
def test_servers_that_can_not_be_found_are_clear_errors(place: Path, option: str, value: str) -> None:
    status, _, err = run(place, option, value)
    assert status in (2, 4)
    assert "remedy:" in err


@pytest.mark.parametrize(
    ("number", "until", "status"),
    [
        (signal.SIGINT, "warm-up", 130), (signal.SIGTERM, "verify", 143), (signal.SIGKILL, "load", -9), (signal.SIGKILL, "settle", -9),
    ],
)  # fmt: skip
def test_a_stopped_rehearsal_leaves_nothing_behind(place: Path, number: signal.Signals, until: str, status: int) -> None:
    nodes.binary("redis-8.0")
    process = command(place, *SMALL, "--source-server", "redis-8.0")
    assert process.stderr is not None
    for line in process.stderr:
        if f" s  {until}" in line:
            break
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    deadline = time.monotonic() + 30
    while (left_in(place) or processes_of(place)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of(place) == []


def processes_of(place: Path) -> list[str]:
    """Command lines of processes that were started below this folder (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(place) in line:
            found.append(line)
    return found
