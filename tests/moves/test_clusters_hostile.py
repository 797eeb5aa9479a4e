"""A cluster moves while its slots do, and what it depends on breaks just then."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.cluster_pair import Clusters, Roamers, clusters, fill
from tests.support.moving import cut_over, drain, fences, go_on, name_of, nodes_of, replicas_of
from tests.support.writers import lost
from valkeep.topology.slots import even_ranges

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.server]


def test_a_target_that_is_gone_ends_a_run_that_waits_for_slots_that_are_on_their_way(pair: Clusters) -> None:
    fill(pair.here, 300)
    giver, taker, _ = nodes_of(pair.source)
    with pair.run() as run:
        run.wait_for("snapshot")
        taker.execute_command("CLUSTER SETSLOT", 7, "IMPORTING", name_of(giver))
        giver.execute_command("CLUSTER SETSLOT", 7, "MIGRATING", name_of(taker))
        run.wait_for("online")
        list(pair.target.machines.values())[1].process.kill()
        with Roamers(pair.source):
            assert run.wait() != 0
        assert "VK-TARGET-LOST" in (run.code, *run.stderr.split()), run.stderr
    assert fences(pair.source) == {"0"}


def test_a_run_that_was_killed_goes_on_when_a_shard_gave_all_its_slots_away_meanwhile(pair: Clusters) -> None:
    fill(pair.here, 600)
    first, last = even_ranges(3)[0]
    with Roamers(pair.source) as writers:
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            writers.wait_for_acks(3)
            run.kill()
        drain(pair.source, 0, 1, range(first, last + 1))
        pair.named = 1
        writers.wait_for_acks(3)
        go_on(pair, writers)


@pytest.mark.parametrize("phase", ["snapshot", "online", "waiting", "cutover:pause", "cutover:fence", "cutover:wait-for-shards"])
def test_a_stop_leaves_one_side_that_has_every_write_and_nothing_of_ours(pair: Clusters, phase: str) -> None:
    fill(pair.here, 60)
    with Roamers(pair.source) as writers:
        with pair.run(*(["--cutover", "manual"] if phase == "waiting" else [])) as run:
            run.wait_for(phase, 60)
            run.send(signal.SIGINT)
            assert run.wait() in (0, 130), run.stderr
        assert pair.markers() == []
        if fences(pair.source) == {"0"}:
            writers.wait_for_acks(3)
            assert pair.valkeep("abort").stdout.startswith("nothing is left to undo") or phase == "snapshot"
        else:
            assert fences(pair.source) == {"255"}
            writers.stop()
            assert lost(writers.acknowledged(), pair.there) == []
    assert {node.config_get("import-mode")["import-mode"] for node in nodes_of(pair.target)} == {"no"}


@pytest.mark.parametrize("fence", ["external", "direct"])
def test_a_cluster_that_is_fenced_in_another_way_is_cut_over_as_one(pair: Clusters, fence: str) -> None:
    fill(pair.here, 120)
    with Roamers(pair.source) as writers, pair.run("--cutover", "manual", "--fence", fence) as run:
        run.wait_for("waiting")
        writers.wait_for_acks(5)
        if fence == "external":
            called = pair.valkeep("cutover")
            assert "still gets writes" in called.stderr, called.stderr
            writers.stop()
        cut_over(pair, run)
        writers.stop()
    assert fences(pair.source) == {"0" if fence == "external" else "255"}
    assert lost(writers.acknowledged(), pair.there) == []
    assert pair.markers() == []


def test_a_shard_that_fails_over_while_it_is_cut_over_is_cut_over_at_its_new_primary(tmp_path: Path) -> None:
    with clusters("valkey-9.1", "valkey-9.1", tmp_path, replicas=1) as pair:
        fill(pair.here, 120)
        replicas = replicas_of(pair.source)
        with Roamers(pair.source) as writers, pair.run() as run:
            run.wait_for("cutover:pause")
            replicas[1].execute_command("CLUSTER FAILOVER")
            assert run.wait() == 0, run.stderr
            writers.stop()
        primaries = [node for node in nodes_of(pair.source) if node.info("replication")["role"] == "master"]
        fenced = {node.config_get("min-replicas-to-write")["min-replicas-to-write"] for node in primaries}
        assert fenced == {"255"} or "the cluster promotes it" in str((run.report / "cutover.json").read_text()), run.stderr
        assert fenced != {"255"} or lost(writers.acknowledged(), pair.there) == []
