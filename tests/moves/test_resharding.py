"""The source is a cluster whose slots and primaries move while its data does: every acknowledged write arrives, once, on the shard that shall have it."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from valkey.cluster import ValkeyCluster
from valkey.exceptions import ValkeyError

from tests.support.cluster_pair import Clusters, Roamers, client_of, clusters, fill, key_in, move_slot
from tests.support.cluster_target import cluster_of
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import lost
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import even_ranges

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.server]


@pytest.fixture(params=[("redis-8.0", "valkey-9.1", 3, 3)])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clusters]:
    source, target, ours, theirs = request.param
    with clusters(source, target, tmp_path, (ours, theirs)) as found:
        yield found


class Churn:
    """Writers that change the same few keys of each of these slots in every way, so that a command that is missing, twice or in another order shows."""

    def __init__(self, cluster: LocalDeployment, slots: Sequence[int], threads: int = 2) -> None:
        self.done = 0
        self._stop = threading.Event()
        at = next(iter(cluster.machines.values())).endpoint
        self._threads = [
            threading.Thread(target=self._work, args=(at.host, at.port, random.Random(number), tuple(slots)), daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _work(self, host: str, port: int, rng: random.Random, slots: tuple[int, ...]) -> None:
        client = ValkeyCluster(host=host, port=port)
        while not self._stop.is_set():
            with contextlib.suppress(ValkeyError, OSError):
                _change(client, rng, rng.choice(slots), str(self.done))
                self.done += 1
            self._stop.wait(0.001)
        client.close()

    def goes_on(self, more: int = 50) -> None:
        goal = self.done + more
        until(lambda: self.done >= goal, lambda: f"{self.done} of {goal}")


def _change(client: Any, rng: random.Random, slot: int, what: str) -> None:
    def key(kind: str) -> str:
        return key_in(slot, f"{kind}{rng.randrange(3)}")

    match rng.randrange(13):
        case 0 | 1 | 2:
            client.rpush(key("list"), what)
        case 3:
            client.lpop(key("list"))
        case 4 | 5:
            client.incr(key("count"))
        case 6:
            client.append(key("text"), what)
        case 7:
            client.hset(key("hash"), what[-2:], what)
        case 8:
            client.sadd(key("set"), what[-2:])
        case 9:
            client.sunionstore(key("set"), key("set"), key("set"))
        case 10:
            client.rename(key("text"), key("text"))
        case 11:
            client.delete(key(rng.choice(["list", "text", "hash", "set"])))
        case _:
            client.execute_command("LMOVE", key("list"), key("list"), "LEFT", "RIGHT")


def still(run: Valkeep) -> None:
    """Return when what moved has been handed over, as far as that was noticed."""
    until(lambda: run.stderr.rfind("stands still again") > run.stderr.rfind("there is no cut-over before"), lambda: run.stderr, 60)


def nodes_of(cluster: LocalDeployment) -> list[Any]:
    return [client_of(machine.endpoint.port, machine.endpoint.host) for machine in cluster.machines.values()]


def name_of(node: Any) -> str:
    return str(node.execute_command("CLUSTER MYID").decode())


def move_by_server(cluster: LocalDeployment, giver: int, taker: int, *ranges: tuple[int, int]) -> None:
    """As Valkey does it by itself, from 9.0 on."""
    nodes = nodes_of(cluster)
    name = name_of(nodes[taker])
    nodes[giver].execute_command("CLUSTER MIGRATESLOTS", *(word for one in ranges for word in ("SLOTSRANGE", *one, "NODE", name)))

    def over() -> bool:
        jobs = [dict(zip(job[::2], job[1::2], strict=True)) for job in nodes[giver].execute_command("CLUSTER GETSLOTMIGRATIONS")]
        return all(job[b"state"] == b"success" for job in jobs)

    until(over, "the servers move the slots")


def drain(cluster: LocalDeployment, giver: int, taker: int, slots: range) -> None:
    """All slots of a shard, many at a time, by hand."""
    nodes = nodes_of(cluster)
    here, there = nodes[giver], nodes[taker]
    place = list(cluster.machines.values())[taker].endpoint

    def each(node: Any, *words: str) -> None:
        pipe = node.pipeline(transaction=False)
        for slot in slots:
            pipe.execute_command("CLUSTER SETSLOT", slot, *words)
        pipe.execute(raise_on_error=False)

    each(there, "IMPORTING", name_of(here))
    each(here, "MIGRATING", name_of(there))
    for slot in slots:
        while keys := here.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            here.execute_command("MIGRATE", place.host, place.port, "", 0, 5000, "KEYS", *keys)
    for node in (there, here, *nodes):
        each(node, "NODE", name_of(there))


def cut_over(pair: Clusters, run: Valkeep) -> None:
    """As soon as it may be."""

    def done() -> bool:
        said = pair.valkeep("cutover")
        assert said.process.returncode == 0 or "does not stand still" in said.stderr, (said.stderr, run.stderr)
        return said.process.returncode == 0

    until(done, lambda: run.stderr, 60)
    assert run.wait() == 0, run.stderr


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
        run.wait_for("waiting", 60)
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
        writers.stop()
    assert lost(writers.acknowledged(), pair.there) == []
    assert pair.markers() == []
    pair.assert_same()


@pytest.mark.parametrize("pair", [("valkey-9.1", "valkey-9.1", 3, 5)], indirect=True)
def test_slots_that_the_servers_move_by_themselves_arrive_with_every_acknowledged_write(pair: Clusters) -> None:
    fill(pair.here, 600)
    slots = range(0, 5000, 100)
    with Roamers(pair.source) as writers, Churn(pair.source, slots) as churn, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting", 60)
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
        writers.stop()
    assert lost(writers.acknowledged(), pair.there) == []
    pair.assert_same()


@pytest.mark.parametrize(
    "pair", [("redis-7.0", "valkey-9.1", 3, 3), ("redis-8.0", "valkey-9.1", 3, 3), ("valkey-9.1", "valkey-9.1", 3, 3)], indirect=True
)
def test_a_shard_that_gives_all_its_slots_away_is_over_and_nothing_of_it_is_lost(pair: Clusters) -> None:
    fill(pair.here, 3000)
    first, last = even_ranges(3)[0]
    with Roamers(pair.source) as writers, Churn(pair.source, range(0, 5000, 250)) as churn, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting", 60)
        churn.goes_on()
        drain(pair.source, 0, 1, range(first, last + 1))
        churn.goes_on()
        still(run)
        churn.goes_on()
        cut_over(pair, run)
        writers.stop()
        assert "is over: it has no slots" in run.stderr
    assert lost(writers.acknowledged(), pair.there) == []
    pair.assert_same()


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
        with pair.run("--cutover", "manual", name="last") as run:
            run.wait_for("waiting", 60)
            cut_over(pair, run)
        writers.stop()
    assert lost(writers.acknowledged(), pair.there) == []
    assert pair.markers() == []
    pair.assert_same()


def test_there_is_no_cut_over_while_a_slot_is_on_its_way(pair: Clusters) -> None:
    fill(pair.here, 300)
    pair.here.rpush(key_in(7, "a"), *range(5))
    giver, taker, _ = nodes_of(pair.source)
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting", 60)
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


def test_a_node_that_was_not_there_and_gets_slots_ends_the_migration(tmp_path: Path) -> None:
    with clusters("redis-8.0", "valkey-9.1", tmp_path) as pair, cluster_of("redis-8.0", 1) as stranger:
        (new,), here = nodes_of(stranger), nodes_of(pair.source)
        new.flushall()
        new.execute_command("CLUSTER RESET", "HARD")
        at = next(iter(stranger.machines.values())).endpoint
        fill(pair.here, 300)
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting", 60)
            here[0].execute_command("CLUSTER MEET", at.host, at.port)
            until(lambda: new.execute_command("CLUSTER INFO").get("cluster_known_nodes") == "4", "they meet")
            until(lambda: all(_knows(node, name_of(new)) for node in here), "they know each other")
            assert run.running
            for node in (new, *here):
                node.execute_command("CLUSTER SETSLOT", 9, "NODE", name_of(new))
            assert run.wait() != 0
            assert run.code == "VK-SOURCE-SHARDS", run.stderr
        assert pair.markers() == []
        assert pair.here.set("writable", 1)


def _knows(node: Any, name: str) -> bool:
    return name in str(node.execute_command("CLUSTER NODES")) and "handshake" not in str(node.execute_command("CLUSTER NODES"))


@pytest.mark.parametrize("server", ["redis-7.0", "valkey-9.1"])
def test_a_shard_that_fails_over_is_followed_and_its_slots_are_too(server: str, tmp_path: Path) -> None:
    with clusters(server, "valkey-9.1", tmp_path, replicas=1) as pair:
        fill(pair.here, 600)
        with Roamers(pair.source) as writers, pair.run("--cutover", "manual") as run:
            run.wait_for("waiting", 60)
            writers.wait_for_acks(5)
            for replica in replicas_of(pair.source)[:2]:
                replica.execute_command("CLUSTER FAILOVER")
                until(lambda replica=replica: replica.info("replication")["role"] == "master", "it is promoted")  # type: ignore[misc]
                writers.wait_for_acks(10)
            until(lambda: run.stderr.count(" goes on after ") >= 2, lambda: run.stderr, 30)
            writers.wait_for_acks(10)
            cut_over(pair, run)
            writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        pair.assert_same()


def test_a_shard_whose_primary_crashes_is_followed_to_its_replica(tmp_path: Path) -> None:
    with clusters("redis-8.0", "valkey-9.1", tmp_path, replicas=1) as pair:
        fill(pair.here, 300)
        with pair.run("--cutover", "manual") as run:
            run.wait_for("waiting", 60)
            first = next(iter(pair.source.machines.values()))
            (here,) = nodes_of(pair.source)[:1]
            replica = next(node for node in replicas_of(pair.source) if node.info("replication")["master_port"] == first.endpoint.port)
            said = here.info("replication")["master_repl_offset"]
            until(lambda: replica.info("replication")["slave_repl_offset"] >= said, "the replica has everything")
            first.process.kill()
            until(lambda: replica.info("replication")["role"] == "master", "it is promoted", 30)
            with Roamers(pair.source) as writers:
                until(lambda: " goes on after " in run.stderr, lambda: run.stderr, 30)
                writers.wait_for_acks(10)
                cut_over(pair, run)
                writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []


def replicas_of(cluster: LocalDeployment) -> list[Any]:
    return [node for node in nodes_of(cluster) if node.info("replication")["role"] == "slave"]
