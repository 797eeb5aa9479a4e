"""A cluster's cut-over that was killed behind all fences: what `abort` does where not everybody can be asked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.cluster_pair import Clusters, Roamers, fill
from tests.support.moving import fences, nodes_of
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.server]


TOKEN = "1234567"


@pytest.fixture
def killed(pair: Clusters) -> None:
    """As a kill -9 leaves it behind all fences, and before anything was promoted."""
    fill(pair.here, 60)
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        run.kill()
    folder = pair.folder / "state"
    whole = json.loads((folder / "migration.json").read_text())
    write(folder, whole | {"step": "cutting", "target_run": "+".join(shard["run_id"] for shard in whole["shards"].values())})
    before = {"min-replicas-to-write": "0", "min-replicas-max-lag": "10"}
    for name, (host, port) in zip("123", ((one.endpoint.host, one.endpoint.port) for one in pair.source.machines.values()), strict=True):
        shard = json.loads((folder / "shards" / name / "migration.json").read_text())
        fence = {"fence_before": before, "fence_token": TOKEN, "fence_at": f"redis://{host}:{port}"}
        write(folder / "shards" / name, shard | fence | {"step": "cutting"})
    for node in nodes_of(pair.source):
        node.config_set("min-replicas-to-write", 255)
        node.config_set("min-replicas-max-lag", TOKEN)


def write(folder: Path, state: dict[str, object]) -> None:
    (folder / "migration.json").write_text(json.dumps(state))


def step(pair: Clusters) -> str:
    return str(json.loads((pair.folder / "state" / "migration.json").read_text())["step"])


def test_without_the_source_nobody_says_that_it_was_never_fenced(pair: Clusters, killed: None) -> None:
    target = pair.where()[2:]
    with Valkeep("migrate", "abort", *target, folder=pair.folder / "abort", report=False) as abort:
        abort.wait()
    assert abort.process.returncode == 5, abort.stdout
    assert abort.code == "VK-CUTOVER-UNFENCE"
    assert fences(pair.source) == {"255"}
    assert step(pair) == "cutting"
    assert pair.valkeep("abort").process.returncode == 0
    assert fences(pair.source) == {"0"}
    assert pair.markers() == []


def test_a_shard_of_the_target_that_hangs_keeps_no_writer_out(pair: Clusters, killed: None) -> None:
    hangs = list(pair.target.machines.values())[1].pid
    os.kill(hangs, signal.SIGSTOP)
    try:
        with Roamers(pair.source) as writers:
            said = pair.valkeep("abort")
            assert fences(pair.source) == {"0"}, said.stderr
            assert "when it answers, abort again" in said.stdout, (said.stdout, said.stderr)
            writers.wait_for_acks(3)
    finally:
        os.kill(hangs, signal.SIGCONT)
    until(lambda: all("ok" in node.cluster("info")["cluster_state"] for node in nodes_of(pair.target)), "they take it for alive again", 60)
    again = pair.valkeep("abort")
    assert again.process.returncode == 0, again.stderr
    assert pair.markers() == []
    assert {node.config_get("import-mode")["import-mode"] for node in nodes_of(pair.target)} == {"no"}
    assert step(pair) == "aborted"


def test_a_shard_of_the_source_that_is_gone_for_good_is_given_up_by_force(pair: Clusters, killed: None) -> None:
    first, *others = nodes_of(pair.source)
    next(iter(pair.source.machines.values())).process.kill()
    said = pair.valkeep("abort")
    assert said.process.returncode == 5
    assert said.code == "VK-CUTOVER-UNFENCE"
    assert {node.config_get("min-replicas-to-write")["min-replicas-to-write"] for node in others} == {"0"}
    assert step(pair) == "cutting"
    forced = pair.valkeep("abort", "--force")
    assert forced.process.returncode == 0, forced.stderr
    assert "does not answer, and was left as it is; should it come back" in forced.stdout
    assert pair.markers() == []
    assert step(pair) == "aborted"
    first.close()
