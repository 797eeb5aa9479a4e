"""``valkeep drill`` on the command line: what it refuses before anything starts, what it answers to the shell, and that nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.drilled import unstalled
from valkeep import cli
from valkeep.drill.catalogue import drills, random_drills
from valkeep.errors import ExitCode

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]


def drill(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with a temporary folder of its own, and see that this is as empty afterwards as before."""
    done = subprocess.run(
        [sys.executable, "-c", "from valkeep.cli import main; main()", "drill", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert [path.name for path in folder.iterdir() if not path.name.startswith("valkeep-ports-")] == []
    return done


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no drill": ((), "name drills, or say --all"),
    "a drill and all": (("sentinel-kill-primary", "--all"), "name drills, or say --all"),
    "unknown drill": (("sentinel-kill-primry",), "did you mean sentinel-kill-primary?"),
    "unknown topology": (("sentinel-kill-primary", "--topology", "ring:3"), "'ring:3' is no topology"),
    "wrong topology": (("sentinel-kill-primary", "--topology", "cluster"), "does not fit cluster"),
    "sizes of nothing": (("sentinel-kill-primary", "--topology", "sentinel:1+x"), "'sentinel:1+x' is no topology"),
    "two primaries": (("sentinel-kill-primary", "--topology", "sentinel:2+2+3"), "2 primaries"),
    "uneven shards": (("cluster-kill-primary", "--topology", "cluster:3+4"), "can't be shared evenly"),
    "no sentinel": (("sentinel-kill-primary", "--topology", "sentinel:1+2+0"), "it has no sentinel"),
    "unknown fault": (("sentinel-kill-primary", "--schedule", "meteor:primary@0"), "'meteor' is no fault"),
    "unknown target": (("sentinel-kill-primary", "--schedule", "kill:n9@0"), "'n9' is no target"),
    "fault that does not fit": (("cluster-kill-primary", "--schedule", "sentinel-loss:primary@0"), "does not fit"),
    "option of nobody": (("sentinel-kill-primary", "--schedule", "kill:primary(how=gently)@0"), "no option 'how'"),
    "no schedule": (("sentinel-kill-primary", "--schedule", "kill the primary"), "'kill' is no step of a schedule"),
    "unknown condition": (("sentinel-kill-primary", "--schedule", "kill:primary@0~happy"), "happy"),
    "heal of nothing": (("sentinel-kill-primary", "--schedule", "heal:meteor@0"), "meteor"),
    "server too old": (("sentinel-coordinated-failover", "--server", "valkey-8.1"), "needs Valkey 9.0 or newer"),
    "unknown client": (("sentinel-kill-primary", "--client", "telnet"), "telnet"),
    "unknown network": (("sentinel-kill-primary", "--network", "wormhole"), "'wormhole' is no way to connect nodes"),
    "timeout of nothing": (("sentinel-kill-primary", "--timeout-ms", "10"), "--timeout-ms"),
    "shrinking two": (("sentinel-kill-primary", "cluster-kill-primary", "--shrink", "5"), "--shrink is for one drill"),
    "one page for two": (("sentinel-kill-primary", "cluster-kill-primary", "--html", "x.html"), "--html is for one drill"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_can_not_be_run_is_refused_with_the_reason_and_a_remedy_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    def nothing(*_: object) -> NoReturn:
        raise AssertionError("it began")

    monkeypatch.setattr("valkeep.runtime.network.prepare", nothing)
    monkeypatch.setattr("valkeep.cli.drill._watched", nothing)
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = cli.run(["drill", "run", *BAD[bad][0]])
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr()
    assert code == ExitCode.USAGE, said.err
    assert BAD[bad][1] in said.err
    assert said.out == ""


def test_a_network_that_can_not_cut_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    done = drill(tmp_path, "run", "standalone-machine-crash-always", "--network", "none", "--schedule", "isolate:primary@0")
    assert done.returncode == 2
    assert "can not do: partition" in done.stderr


def test_a_server_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    done = drill(tmp_path, "run", "sentinel-kill-primary", "--server", "/no/such/server")
    assert done.returncode in (2, 4)
    assert "/no/such/server" in done.stderr
    assert "remedy:" in done.stderr


def test_the_list_has_every_drill_with_its_schedule_and_what_it_expects(tmp_path: Path) -> None:
    done = drill(tmp_path, "list", "--json", "-")
    assert done.returncode == 0
    listed = {one["name"]: one for one in json.loads(done.stdout)["drills"]}
    assert listed.keys() == drills().keys() | random_drills().keys()
    for one in listed.values():
        assert one.keys() >= {"name", "teaches", "topology", "schedule", "expects", "random"}
        assert one["expects"]
        assert one["teaches"].endswith(".")
    assert listed["sentinel-kill-primary"]["schedule"] == "kill:primary@0~settled"
    plain = drill(tmp_path, "list").stdout
    assert all(name in plain for name in listed)


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return dict(json.loads(done.stdout))


def test_a_valid_drill_answers_0_and_its_replay_says_everything_that_was_chosen(tmp_path: Path) -> None:
    options = ("--seed", "9", "--topology", "sentinel:1+1+1", "--timeout-ms", "600", "--network", "none")

    def run() -> tuple[int, dict[str, Any]]:
        done = drill(tmp_path, "run", "sentinel-kill-primary", *options, "--json", "-")
        return done.returncode, outcome(done)

    code, found = unstalled(run, lambda ran: [(ran[1]["verdict"], str(ran[1]["reasons"]))])
    assert (code, found["verdict"]) == (0, "valid"), found["reasons"]
    assert found["topology"] == "1 primary + 1 replicas + 1 sentinels, down-after 600 ms"
    assert all(" ".join(pair) in found["replay"] for pair in zip(options[::2], options[1::2], strict=True))


def test_an_invalid_drill_answers_1_and_is_shrunk_to_the_step_that_did_it(tmp_path: Path) -> None:
    schedule = "pause:primary@0+0.1 restart-empty:primary@0"
    done = drill(tmp_path, "run", "standalone-machine-crash-always", "--schedule", schedule, "--shrink", "4", "--json", "-")
    found = outcome(done)
    assert (done.returncode, found["verdict"]) == (1, "invalid")
    assert found["schedule"] == "restart-empty:primary@0"
    assert found["replay"].endswith("--schedule restart-empty:primary@0")
    assert {one["measure"] for one in found["expectations"] if one["met"] is False} >= {"lost"}
    assert "shrunk in" in done.stderr


def test_of_several_drills_one_that_can_not_be_run_makes_all_unknown_and_answers_3(tmp_path: Path) -> None:
    done = drill(tmp_path, "run", "standalone-machine-crash-always", "cluster-partition", "--network", "none", "--json", "-")
    found = outcome(done)
    assert (done.returncode, found["verdict"]) == (3, "unknown")
    assert [one["verdict"] for one in found["drills"]] == ["valid", "unknown"]
    assert "could not be run" in found["drills"][1]["reasons"][0]
