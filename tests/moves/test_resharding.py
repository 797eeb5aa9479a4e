"""The source is a cluster whose slots and primaries move while its data does: every acknowledged write arrives, once, on the shard that shall have it."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster_pair import Clusters, Roamers, clusters, fill, key_in
from tests.support.cluster_target import cluster_of
from tests.support.moving import (
    Churn,
    arrived,
    cut_over,
    drain,
    go_on,
    hand_over,
    move_by_server,
    move_slot,
    name_of,
    nodes_of,
    replicas_of,
    still,
)
from tests.support.waiting import until
from tests.support.writers import lost
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import even_ranges

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.server]


@pytest.mark.parametrize(
    "pair", [("redis-7.0", "valkey-8.1", 3, 5), ("redis-8.0", "valkey-9.1", 3, 3), ("valkey-9.1", "valkey-9.1", 3, 3)], indirect=True
)
def test_slots_that_move_key_by_key_arrive_with_every_acknowledged_write(pair: Clusters) -> None:
    fill(pair.here, 600)
    slots = range(0, 5000, 500)
    for slot in slots:
        for number in range(40):
            pair.here.rpush(key_in(slot, f"still{number}"), *range(number + 1))
    with Roamers(pair.source) as writers, Churn(pair.source, slots) as churn, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        for slot in slots:
            churn.goes_on()
            move_slot(pair.source, slot, 1, between=churn.goes_on)
            churn.goes_on()
        still(run)
        for slot in slots[:4]:
            move_slot(pair.source, slot, 0)  # back again
            churn.goes_on()
        churn.goes_on()
        still(run)
        cut_over(pair, run)
        arrived(pair, writers)


@pytest.mark.parametrize("pair", [("valkey-9.1", "valkey-9.1", 3, 5)], indirect=True)
def test_slots_that_the_servers_move_by_themselves_arrive_with_every_acknowledged_write(pair: Clusters) -> None:
    fill(pair.here, 600)
    slots = range(0, 5000, 200)
    with Roamers(pair.source) as writers, Churn(pair.source, slots, threads=1) as churn, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        churn.goes_on(200)
        move_by_server(pair.source, 0, 1, (0, 999), (2000, 2999))
        churn.goes_on()
        move_by_server(pair.source, 0, 2, (1000, 1999))
        churn.goes_on()
        still(run)
        move_by_server(pair.source, 1, 0, (0, 499))
        move_by_server(pair.source, 1, 2, (500, 600))
        churn.goes_on()
        still(run)
        cut_over(pair, run)
        arrived(pair, writers)


@pytest.mark.parametrize(
    "pair", [("redis-7.0", "valkey-9.1", 3, 3), ("redis-8.0", "valkey-9.1", 3, 3), ("valkey-9.1", "valkey-9.1", 3, 3)], indirect=True
)
def test_a_shard_that_gives_all_its_slots_away_is_over_and_nothing_of_it_is_lost(pair: Clusters) -> None:
    fill(pair.here, 3000)
    first, last = even_ranges(3)[0]
    with Roamers(pair.source) as writers, Churn(pair.source, range(0, 5000, 250)) as churn, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        churn.goes_on()
        drain(pair.source, 0, 1, range(first, last + 1))
        churn.goes_on()
        still(run)
        churn.goes_on()
        cut_over(pair, run)
        assert "is over: it has no slots" in run.stderr
        arrived(pair, writers)


def test_a_run_that_is_killed_while_slots_move_goes_on_without_a_full_sync(pair: Clusters) -> None:
    fill(pair.here, 600)
    slots = range(0, 5000, 250)
    rng = random.Random(7)
    with Roamers(pair.source) as writers, Churn(pair.source, slots) as churn:
        for attempt in range(4):
            with pair.run("--cutover", "manual", name=f"run{attempt}") as run:
                run.wait_for("waiting" if attempt else "online", 60)
                churn.goes_on()
                for slot in slots[attempt * 5 : attempt * 5 + 5]:
                    move_slot(pair.source, slot, 1 + attempt % 2)
                writers.wait_for_acks(rng.randrange(1, 60))
                run.kill()
                assert attempt == 0 or "without a full sync" in run.stderr, run.stderr
        churn.goes_on()
        go_on(pair, writers)


def test_there_is_no_cut_over_while_a_slot_is_on_its_way(pair: Clusters) -> None:
    fill(pair.here, 300)
    pair.here.rpush(key_in(7, "a"), *range(5))
    giver, taker, _ = nodes_of(pair.source)
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        taker.execute_command("CLUSTER SETSLOT", 7, "IMPORTING", name_of(giver))
        giver.execute_command("CLUSTER SETSLOT", 7, "MIGRATING", name_of(taker))
        said = pair.valkeep("cutover")
        assert said.process.returncode == 1
        assert said.code == "VK-CUTOVER-SLOTS"
        assert "slot 7 is on the way" in said.stderr
        assert pair.here.set("writable", 1)
        for node in (giver, taker):
            node.execute_command("CLUSTER SETSLOT", 7, "STABLE")
        cut_over(pair, run)
    pair.assert_same()


def join(new: LocalDeployment, cluster: LocalDeployment) -> Any:
    """The only node of ``new`` becomes one of ``cluster``, without slots."""
    (node,), others = nodes_of(new), nodes_of(cluster)
    node.flushall()
    node.execute_command("CLUSTER RESET", "HARD")
    at = next(iter(new.machines.values())).endpoint
    others[0].execute_command("CLUSTER MEET", at.host, at.port)
    until(lambda: node.execute_command("CLUSTER INFO").get("cluster_known_nodes") == str(len(others) + 1), "they meet")
    until(lambda: all(_knows(one, name_of(node)) for one in others), "they know each other")
    return node


def test_a_node_that_has_no_slots_yet_may_get_some(tmp_path: Path) -> None:
    with clusters("redis-8.0", "valkey-9.1", tmp_path) as pair, cluster_of("redis-8.0", 1) as more:
        new, here = join(more, pair.source), nodes_of(pair.source)
        fill(pair.here, 300)
        with Roamers(pair.source) as writers, pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            writers.wait_for_acks(5)
            for slot in (0, 1, 6000, 16383):
                hand_over(slot, [*here, new], len(here))
            writers.wait_for_acks(5)
            still(run)
            cut_over(pair, run)
            writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        assert pair.markers() == []
        assert new.config_get("min-replicas-to-write") == {"min-replicas-to-write": "255"}
        keys = pair.keys(pair.source) | set(new.keys("*"))
        assert keys == pair.keys(pair.target)


def test_a_node_that_was_not_there_and_gets_slots_ends_the_migration(tmp_path: Path) -> None:
    with clusters("redis-8.0", "valkey-9.1", tmp_path) as pair, cluster_of("redis-8.0", 1) as stranger:
        here = nodes_of(pair.source)
        fill(pair.here, 300)
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            new = join(stranger, pair.source)
            assert run.running

            def ended() -> bool:
                for node in (*here, new):  # again and again: whoever has not heard of it yet claims it back
                    node.execute_command("CLUSTER SETSLOT", 9, "NODE", name_of(new))
                return not run.running

            until(ended, lambda: run.stderr, 40, every=0.5)
            assert run.wait() != 0
            assert run.code == "VK-SOURCE-SHARDS", run.stderr
        assert pair.markers() == []
        assert pair.here.set("writable", 1)


def _knows(node: Any, name: str) -> bool:
    return name in str(node.execute_command("CLUSTER NODES")) and "handshake" not in str(node.execute_command("CLUSTER NODES"))


def fail_over(replica: Any) -> None:
    """Said again where it timed out."""
    asked = 0.0

    def promoted() -> bool:
        nonlocal asked
        if replica.info("replication")["role"] == "master":
            return True
        if time.monotonic() > asked + 5:
            replica.execute_command("CLUSTER FAILOVER")
            asked = time.monotonic()
        return False

    until(promoted, "it is promoted")


@pytest.mark.parametrize("server", ["redis-7.0", "valkey-9.1"])
def test_a_shard_that_fails_over_is_followed_and_its_slots_are_too(server: str, tmp_path: Path) -> None:
    with clusters(server, "valkey-9.1", tmp_path, replicas=1) as pair:
        fill(pair.here, 600)
        with Roamers(pair.source) as writers, pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            writers.wait_for_acks(5)
            for replica in replicas_of(pair.source)[:2]:
                fail_over(replica)
                writers.wait_for_acks(10)
            until(lambda: run.stderr.count(" goes on after ") >= 2, lambda: run.stderr, 90)
            writers.wait_for_acks(10)
            cut_over(pair, run)
            writers.stop()
            told = json.loads((run.report / "cutover.json").read_text())
        assert lost(writers.acknowledged(), pair.there) == []
        pair.assert_same()
        for shard in told["shards"]:
            assert ["the cluster promotes it" in node["why"] for node in shard["source_nodes"] if node["watched"]] == [True], shard


def test_a_shard_whose_primary_crashes_is_followed_to_its_replica(tmp_path: Path) -> None:
    with clusters("redis-8.0", "valkey-9.1", tmp_path, replicas=1) as pair:
        fill(pair.here, 300)
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            first = next(iter(pair.source.machines.values()))
            (here,) = nodes_of(pair.source)[:1]
            replica = next(node for node in replicas_of(pair.source) if node.info("replication")["master_port"] == first.endpoint.port)
            said = here.info("replication")["master_repl_offset"]
            until(lambda: replica.info("replication")["slave_repl_offset"] >= said, "the replica has everything")
            first.process.kill()
            until(lambda: replica.info("replication")["role"] == "master", "it is promoted", 90)
            with Roamers(pair.source) as writers:
                until(lambda: " goes on after " in run.stderr, lambda: run.stderr, 90)
                writers.wait_for_acks(10)
                cut_over(pair, run)
                writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []


def test_a_run_that_is_killed_after_a_shard_was_over_goes_on_without_it(pair: Clusters) -> None:
    fill(pair.here, 600)
    first, last = even_ranges(3)[0]
    with Roamers(pair.source) as writers:
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            drain(pair.source, 0, 1, range(first, last + 1))
            until(lambda: "is over: it has no slots" in run.stderr, lambda: run.stderr, 90)
            run.kill()
        go_on(pair, writers)


def test_slots_are_handed_over_although_their_new_shard_fails_over_meanwhile(tmp_path: Path) -> None:
    with clusters("valkey-9.1", "valkey-9.1", tmp_path, replicas=1) as pair:
        fill(pair.here, 6000)
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting")
            taker = list(pair.source.machines.values())[1].endpoint
            replica = next(node for node in replicas_of(pair.source) if node.info("replication")["master_port"] == taker.port)
            with Roamers(pair.source) as writers, Churn(pair.source, range(0, 5000, 250)) as churn:
                churn.goes_on()
                move_by_server(pair.source, 0, 1, (0, 2999))
                replica.execute_command("CLUSTER FAILOVER")  # the watch looks within 0.3 s, and a handover takes some time
                until(lambda: "were copied again from their new shard" in run.stderr, lambda: run.stderr, 120)
                churn.goes_on()
                cut_over(pair, run)
                writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        pair.assert_same()
