"""A cluster becomes another cluster: a lane for each shard, one cut-over for all, while writers write and slots move."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from valkey.cluster import ValkeyCluster

from tests.support.cluster_pair import Clusters, Roamers, fill
from tests.support.cluster_target import cluster_of
from tests.support.moving import cut_over, fences, go_on, nodes_of
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import lost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.server]


@pytest.mark.parametrize("pair", [("redis-8.0", "valkey-9.1", 3, 3), ("redis-7.0", "valkey-8.1", 3, 5)], indirect=True)
def test_a_cluster_moves_to_another_and_no_acknowledged_write_is_lost(pair: Clusters) -> None:
    fill(pair.here, 600)
    with Roamers(pair.source) as writers:
        writers.wait_for_acks(20)
        with pair.run() as run:
            assert run.wait() == 0, run.stderr
        writers.stop()
    assert lost(writers.acknowledged(), pair.there) == []
    assert pair.markers() == []


def test_a_person_says_when_and_all_shards_are_cut_over_together(pair: Clusters) -> None:
    fill(pair.here, 120)
    with Roamers(pair.source) as writers, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")

        def told_of_each_shard() -> bool:
            with Valkeep("migrate", "status", "--state", str(pair.folder / "state"), folder=pair.folder / "status", report=False) as status:
                status.wait()
            return "shard 3: gateway" in status.stdout

        until(told_of_each_shard, lambda: run.stderr)
        cut_over(pair, run)
        writers.stop()
        told = json.loads((run.report / "cutover.json").read_text())
    assert [shard["fence"] for shard in told["shards"]] == ["pause"] * 3
    assert fences(pair.source) == {"255"}
    promoted = min(step["at"] for shard in told["shards"] for step in shard["timeline"] if step["step"] == "promote")
    drained = max(step["at"] for shard in told["shards"] for step in shard["timeline"] if step["step"] == "wait-for-shards")
    assert drained <= promoted  # nobody went ahead
    assert lost(writers.acknowledged(), pair.there) == []


def test_abort_puts_every_shard_and_the_target_in_order(pair: Clusters) -> None:
    fill(pair.here, 60)
    with Roamers(pair.source) as writers, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        assert pair.valkeep("abort").process.returncode == 0, run.stderr
        assert run.wait() != 0
        writers.wait_for_acks(3)
    assert pair.markers() == []
    assert fences(pair.source) == {"0"}
    assert {node.config_get("import-mode")["import-mode"] for node in nodes_of(pair.target)} == {"no"}


@pytest.mark.parametrize("phase", ["cutover:pause", "cutover:fence", "cutover:wait-for-shards", "cutover:promote"])
def test_a_run_killed_in_its_cut_over_leaves_one_side_that_has_every_write(pair: Clusters, phase: str) -> None:
    fill(pair.here, 60)
    with Roamers(pair.source) as writers:
        with pair.run("--lease", "5000") as run:  # which ends a pause, too
            run.wait_for(phase)
            run.kill()
        abort = pair.valkeep("abort")
        if abort.process.returncode == 0:
            writers.wait_for_acks(3)  # every shard accepts writes again
            assert fences(pair.source) == {"0"}
            assert pair.markers() == []
        else:
            assert "VK-ABORT-PROMOTED" in abort.stderr
            writers.stop()
            assert lost(writers.acknowledged(), pair.there) == []


def test_a_killed_run_goes_on_where_it_was_in_every_lane(pair: Clusters) -> None:
    fill(pair.here, 120)
    with Roamers(pair.source) as writers:
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            writers.wait_for_acks(5)
            run.kill()
        writers.wait_for_acks(5)
        go_on(pair, writers)


def test_a_target_shard_that_hangs_in_the_cut_over_keeps_no_writer_out_for_longer_than_the_lease(pair: Clusters) -> None:
    fill(pair.here, 60)
    victim = list(pair.target.machines.values())[1]
    with Roamers(pair.source) as writers, pair.run("--lease", "3000") as run:
        run.wait_for("cutover:pause")
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            until(lambda: {"cutover:call-off", "cutover:promoted"} & {*run.phases()}, lambda: run.stderr, 20)
            if "cutover:promoted" not in run.phases():  # it was quick enough to hang before the promotion
                until(lambda: fences(pair.source) == {"0"}, lambda: run.stderr, 15, every=0.05)
                writers.wait_for_acks(3)  # while it still hangs
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        assert run.wait() == 0, run.stderr
        writers.stop()
    assert lost(writers.acknowledged(), pair.there) == []
    assert fences(pair.source) == {"255"}


def test_the_report_of_a_cluster_is_about_the_whole_and_names_every_shard(pair: Clusters) -> None:
    fill(pair.here, 90)
    with pair.run("--json", str(pair.folder / "run.json")) as run:
        assert run.wait() == 0, run.stderr
    told = json.loads((pair.folder / "run.json").read_text())
    whole = json.loads((run.report / "verification.json").read_text())
    assert told["keys"] == 90 == whole["keys_source"] == whole["keys_target"]  # Valkeep's own offsets do not count
    assert sum(json.loads((run.report / f"verification-{shard}.json").read_text())["keys_source"] for shard in "123") == 90
    cut = json.loads((run.report / "cutover.json").read_text())
    assert [one["shard"] for one in cut["shards"]] == ["1", "2", "3"]
    assert len(cut["source_nodes"]) == 3
    assert cut["write_pause_ms"] == told["write_pause_ms"] == max(one["write_pause_ms"] for one in cut["shards"])
    with Valkeep("report", str(run.report), "--html", str(pair.folder / "run.html"), folder=pair.folder / "report", report=False) as report:
        assert report.wait() == 0, report.stderr
    assert "The source's side after the promotion" in (pair.folder / "run.html").read_text().replace("&#x27;", "'").replace("&#39;", "'")


def test_a_difference_in_one_shard_stops_all_before_anything_is_cut_over(pair: Clusters) -> None:
    fill(pair.here, 90)
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        pair.there.delete("string:6")
        pair.here.append("string:6", "y")  # what was deleted is written again, but not whole
        called = pair.valkeep("cutover")
        assert called.process.returncode != 0, run.stderr
        assert "differ" in called.stderr
        assert run.wait() == 1
    assert fences(pair.source) == {"0"}
    assert pair.here.append("string:6", "z") == len(pair.here.get("string:6"))


def test_clusters_that_want_tls_and_passwords_move_with_one_login_each(tmp_path: Path) -> None:
    with cluster_of("redis-7.0", closed=True) as source, cluster_of("valkey-8.1", closed=True) as target:
        clients, options = [], []
        for side, cluster in (("source", source), ("target", target)):
            seed = next(iter(cluster.machines.values())).endpoint
            assert seed.password is not None
            assert seed.tls is not None
            (tmp_path / side).write_text(seed.password.reveal())
            options += [
                f"--{side}",
                f"rediss://{seed.username}@{seed.address}?ca={seed.tls.ca}",
                f"--{side}-password-file",
                str(tmp_path / side),
            ]
            login: dict[str, Any] = {
                "username": seed.username,
                "password": seed.password.reveal(),
                "ssl": True,
                "ssl_ca_certs": seed.tls.ca,
            }
            clients.append(ValkeyCluster(host=seed.host, port=seed.port, **login))
        here, there = clients
        fill(here, 90)
        arguments = (*options, "--deliver", "push", "--wipe-target", "--acknowledge", "all", "--state", str(tmp_path / "state"))
        with Valkeep("migrate", "run", *arguments, folder=tmp_path / "run") as run:
            assert run.wait() == 0, run.stderr
        for number in range(0, 90, 6):
            assert there.get(f"string:{number}") == here.get(f"string:{number}")
        secrets = {(tmp_path / side).read_text() for side in ("source", "target")}
        said = "".join(path.read_text() for path in (tmp_path / "state").rglob("*") if path.is_file()) + run.stderr + run.stdout
        assert not any(secret in said for secret in secrets)
        for client in clients:
            client.close()
