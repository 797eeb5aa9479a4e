"""A single server into a cluster, by push: each shard gets what lies in its slots, once, whatever breaks; what a cluster refuses crosses, too."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.cluster_target import ClusterPair, cluster_of
from tests.support.counting import Counting, kill_pushing
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.runtime.node import Process
from valkeep.topology.slots import key_slot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
Client = Callable[..., Any]
LEASE = ("--lease", "30000")  # the first cut-over shall succeed
MANUAL = ("--cutover", "manual", *LEASE)
LIBRARY = "#!lua name=push\nredis.register_function('answer', function() return 42 end)"


@pytest.fixture(params=["valkey-9.1"])
def pair(request: pytest.FixtureRequest, server: Server, client: Client, tmp_path: Path) -> Iterator[ClusterPair]:
    with cluster_of(request.param) as cluster:
        source = server("redis-8.0", repl_backlog_size="64mb")
        here = client(source)
        here.mset({f"k{number}": f"v{number}" for number in range(200)})
        here.set("{k}" + "\r\n" * 9, "x" * 100_000, px=3_600_000)
        found = ClusterPair(source, cluster, here, tmp_path)
        for shard in found.shards:
            shard.config_set("cluster-node-timeout", 5000)  # one that is slow for a second need not be taken for dead
        yield found
        found.close()


def crossing(here: Any, number: int) -> None:
    """Commands of several slots, and some that a script cannot hand on."""
    here.mset({f"a{number}": 1, f"b{number}": 2, f"c{number}": 3})
    here.delete(f"a{number}", f"k{number}", "no such key")
    here.rename(f"b{number}", f"renamed{number}")
    here.copy(f"c{number}", f"copied{number}")
    here.rpush("queue", *range(number, number + 3))
    here.lmove("queue", "taken", "LEFT", "RIGHT")
    here.sadd("from", number, number + 1)
    here.smove("from", "to", str(number))
    here.sunionstore("union", "from", "to")
    here.rpush(f"many{number % 2}", *range(6000))
    pipe = here.pipeline()
    pipe.incr(f"both{number % 3}").rename(f"c{number}", f"d{number}").append(f"letters{number % 3}", "x").execute()
    if number % 7 == 0:
        here.function_load(LIBRARY, replace=True)
    here.publish("channel", number)


@pytest.mark.parametrize("pair", ["valkey-8.0", "valkey-8.1", "valkey-9.1"], indirect=True)
def test_each_shard_gets_its_slots_and_no_acknowledged_write_is_lost(pair: ClusterPair) -> None:
    with Writers(pair.source.port) as writers, pair.run(*LEASE) as run:
        assert run.wait() == 0, run.stderr
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        assert writers.refused > 0
        run.assert_nothing_left()
    assert pair.keys() == set(pair.here.keys("*"))
    assert pair.markers() == []
    assert all(shard.dbsize() > 0 for shard in pair.shards)
    assert pair.import_modes() <= {"no"}


def test_every_write_is_there_once_although_connections_break_and_commands_cross_slots(pair: ClusterPair) -> None:
    rng = random.Random(5)
    with Counting(pair.here, 5) as load, pair.run(*MANUAL) as run:
        run.wait_for("online")
        for number in range(25):
            before = load.done
            crossing(pair.here, number)
            kill_pushing(rng.choice(pair.shards))
            until(lambda before=before: load.done > before + 3, lambda: "the writers stand still")  # type: ignore[misc]
        run.wait_for("waiting")
        load.stop()
        assert pair.valkeep("cutover").process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
    pair.assert_same()
    assert [shard.function_list() != [] for shard in pair.shards] == [True] * 3
    assert pair.markers() == []


def test_a_killed_run_is_gone_on_with_from_the_marker_of_each_shard(pair: ClusterPair) -> None:
    with Counting(pair.here, 6) as load:
        for attempt in range(3):
            with pair.run(*MANUAL) as run:
                run.wait_for("online" if attempt else "follow")
                before = load.done
                until(lambda before=before: load.done > before + 30, lambda: "the writers stand still")  # type: ignore[misc]
                crossing(pair.here, attempt)
                run.kill()
                assert len(pair.markers()) == 3
        with pair.run(*LEASE) as run:
            assert run.wait() == 0, run.stderr
            assert "this one goes on" in run.stderr
        load.stop()
    pair.assert_same()


def test_an_abort_after_a_kill_puts_every_shard_in_order(pair: ClusterPair) -> None:
    with pair.run(*MANUAL) as run:
        run.wait_for("online")
        assert pair.import_modes() == {"yes"}
        run.kill()
    assert pair.valkeep("abort").process.returncode == 0
    assert pair.markers() == []
    assert pair.import_modes() == {"no"}
    assert pair.here.set("writable", 1)


def test_a_slot_that_goes_elsewhere_meanwhile_ends_the_push_and_nothing_is_skipped(pair: ClusterPair) -> None:
    with pair.run(*MANUAL) as run:
        run.wait_for("online")
        slot = key_slot(b"moving")
        losing = next(shard for shard, (first, last) in zip(pair.shards, pair.ranges(), strict=True) if first <= slot <= last)
        gaining = next(shard for shard in pair.shards if shard is not losing)
        name = gaining.execute_command("CLUSTER MYID").decode()
        others = [shard for shard in pair.shards if shard not in (losing, gaining)]
        for shard in (losing, *others, gaining):  # who has it first, else it claims it back
            shard.execute_command("CLUSTER SETSLOT", slot, "NODE", name)
        pair.here.set("moving", 1)
        assert run.wait() != 0
        assert run.code == "VK-PUSH-MOVED", run.stderr
    assert pair.markers() == []
    assert pair.here.set("writable", 1)


def test_a_second_migration_into_the_same_cluster_is_refused_whichever_of_its_nodes_is_named(
    pair: ClusterPair, server: Server, tmp_path: Path
) -> None:
    first, second, _ = (machine.endpoint for machine in pair.target.machines.values())
    places = [second.address, f"{_by_another_name(first.host)}:{first.port}"]
    other = server("redis-8.0")

    def begun(source: Process, target: str, name: str) -> Valkeep:
        where = (
            "--source",
            source.endpoint,
            "--target",
            f"valkey://{target}",
            "--deliver",
            "push",
            "--wipe-target",
            "--acknowledge",
            "all",
        )
        env = {"XDG_STATE_HOME": str(tmp_path / "states")}  # each has a folder of its own there
        return Valkeep("migrate", "run", *where, *MANUAL, folder=tmp_path / name, env=env)

    with begun(pair.source, first.address, "first") as run:
        run.wait_for("waiting")
        markers = sorted(pair.markers())
        for number, place in enumerate(places):
            with begun(other, place, f"second{number}") as again:
                assert (again.wait(), again.code) == (4, "VK-STATE-OTHER"), again.stderr
            assert "another migration to this target runs" in again.stderr
        assert run.running
        run.kill()
    with begun(other, places[0], "third") as again:
        assert (again.wait(), again.code) == (4, "VK-STATE-OTHER"), again.stderr
    assert "was killed, and is not undone" in again.stderr
    assert pair.there.get("k7") == b"v7"
    assert sorted(pair.markers()) == markers != []


def _by_another_name(host: str) -> str:
    """127.0.1.2 as 127.0.258, which leads to the same place."""
    *front, third, fourth = host.split(".")
    return ".".join([*front, str(int(third) * 256 + int(fourth))])


def refused_as_down(shard: Any) -> int:
    """How often it answered CLUSTERDOWN so far."""
    return int(shard.info("errorstats").get("errorstat_CLUSTERDOWN", {}).get("count", 0))


def written(here: Any, way: str, number: int) -> None:
    """On every shard of the target: by a script, by a transaction, or by a script that is not one with its marker."""
    match way:
        case "commands":
            for name in "abcdefgh":
                here.incr(f"counter:{name}")
        case "functions":
            here.function_load(LIBRARY.replace("42", str(number)), replace=True)
        case _:
            here.flushall()
            here.set("after", number)


@pytest.mark.parametrize("way", ["commands", "functions", "flushall"])
def test_a_target_that_is_not_complete_for_a_while_is_waited_for_and_nothing_is_done_twice(pair: ClusterPair, way: str) -> None:
    """As while one of its nodes is away: the others answer CLUSTERDOWN to whole batches."""
    _, last = pair.ranges()[0]  # no key of ours lies there, nor a marker
    owner = pair.shards[0]
    with pair.run(*MANUAL) as run:
        run.wait_for("waiting")
        written(pair.here, way, 1)
        before = {shard: refused_as_down(shard) for shard in pair.shards}
        owner.execute_command("CLUSTER DELSLOTS", last)
        until(lambda: owner.execute_command("CLUSTER INFO")["cluster_state"] == "fail", "the cluster is not complete")
        written(pair.here, way, 2)
        until(lambda: refused_as_down(owner) >= before[owner] + 5 or not run.running, lambda: run.stderr)  # again and again
        assert run.running, run.stderr
        owner.execute_command("CLUSTER ADDSLOTS", last)
        written(pair.here, way, 3)
        assert pair.valkeep("cutover").process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
    pair.assert_same()
    assert {shard.fcall("answer", 0) if way == "functions" else 3 for shard in pair.shards} == {3}
    assert pair.markers() == []


def test_a_write_to_another_database_holds_the_stream_and_says_so(pair: ClusterPair, client: Client) -> None:
    with pair.run(*MANUAL, "--hold", "0.5") as run:
        run.wait_for("online")
        client(pair.source, db=3).set("elsewhere", 1)
        assert run.wait() != 0
    assert "the target is a cluster, which has database 0 only" in run.stderr
    assert pair.here.set("writable", 1)
