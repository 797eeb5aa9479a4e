"""Slots and primaries of a real cluster that move, writers to whom that may not matter, and what a run says of it."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Sequence
from typing import Any, Self

from valkey.cluster import ValkeyCluster
from valkey.exceptions import ResponseError, ValkeyError

from tests.support.cluster_pair import Clusters, Roamers, client_of, key_in
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import lost
from valkeep.runtime.local import LocalDeployment

__all__ = [
    "Churn",
    "arrived",
    "cut_over",
    "drain",
    "fences",
    "go_on",
    "hand_over",
    "move_by_server",
    "move_slot",
    "name_of",
    "nodes_of",
    "replicas_of",
    "still",
]


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
            self._stop.wait(0.004)  # a key that is written all the time is compared in the pause only
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


def nodes_of(cluster: LocalDeployment) -> list[Any]:
    return [client_of(machine.endpoint.port, machine.endpoint.host) for machine in cluster.machines.values()]


def fences(cluster: LocalDeployment) -> set[str]:
    """Of its nodes; "255": such a one is fenced."""
    return {node.config_get("min-replicas-to-write")["min-replicas-to-write"] for node in nodes_of(cluster)}


def name_of(node: Any) -> str:
    return str(node.execute_command("CLUSTER MYID").decode())


def move_by_server(cluster: LocalDeployment, giver: int, taker: int, *ranges: tuple[int, int]) -> None:
    """As Valkey does it by itself, from 9.0 on."""
    nodes = nodes_of(cluster)
    name = name_of(nodes[taker])

    def begin(*those: tuple[int, int]) -> None:
        nodes[giver].execute_command("CLUSTER MIGRATESLOTS", *(word for one in those for word in ("SLOTSRANGE", *one, "NODE", name)))

    def over() -> bool:
        jobs = [dict(zip(job[::2], job[1::2], strict=True)) for job in nodes[giver].execute_command("CLUSTER GETSLOTMIGRATIONS")]
        if any(job[b"state"] not in (b"success", b"failed") for job in jobs):
            return False
        left = [one for one in ranges if _owns(nodes[giver], one[0])]
        if left:  # a server that is slow for a moment gives a job up
            with contextlib.suppress(ResponseError):
                begin(*left)
        return not left

    begin(*ranges)
    until(over, "the servers move the slots", every=0.05)


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


def replicas_of(cluster: LocalDeployment) -> list[Any]:
    return [node for node in nodes_of(cluster) if node.info("replication")["role"] == "slave"]


def move_slot(cluster: LocalDeployment, slot: int, to: int, *, between: Any = None, batch: int = 10) -> None:
    """``to``: number of the node; see `hand_over`."""
    nodes = nodes_of(cluster)
    hand_over(slot, nodes, to, between=between, batch=batch)
    for node in nodes:
        node.close()


def hand_over(slot: int, nodes: Sequence[Any], to: int, *, between: Any = None, batch: int = 10) -> None:
    """As `valkey-cli --cluster reshard` does it: key by key, with clients on both sides. ``nodes``: clients to all of them; ``between``: called when half is
    moved."""
    ids = [name_of(node) for node in nodes]
    owner = next(number for number, node in enumerate(nodes) if number != to and _owns(node, slot))
    giving, taking = nodes[owner], nodes[to]
    place = taking.connection_pool.connection_kwargs
    taking.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[owner])
    giving.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[to])
    first = True
    while keys := giving.execute_command("CLUSTER GETKEYSINSLOT", slot, batch):
        giving.execute_command("MIGRATE", place["host"], place["port"], "", 0, 5000, "KEYS", *keys)
        if first and between is not None:
            between()
        first = False
    for node in (taking, giving, *(one for number, one in enumerate(nodes) if number not in (owner, to))):
        with contextlib.suppress(ResponseError):  # replicas
            node.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[to])


def _owns(node: Any, slot: int) -> bool:
    me = node.execute_command("CLUSTER MYID").decode()
    for first, last, primary, *_ in node.execute_command("CLUSTER SLOTS"):
        if first <= slot <= last:
            return bool(primary[2].decode() == me)
    return False


def still(run: Valkeep) -> None:
    """Return when what moved has been handed over, as far as that was noticed."""
    until(lambda: run.stderr.rfind("stands still again") > run.stderr.rfind("there is no cut-over before"), lambda: run.stderr, 120)


def cut_over(pair: Clusters, run: Valkeep) -> None:
    """As soon as it may be."""

    def done() -> bool:
        said = pair.valkeep("cutover")
        assert said.process.returncode == 0 or "does not stand still" in said.stderr, (said.stderr, run.stderr)
        return said.process.returncode == 0

    until(done, lambda: run.stderr, 120)
    assert run.wait() == 0, run.stderr


def arrived(pair: Clusters, writers: Roamers) -> None:
    """Everything of a move that is over is in the target: each acknowledged write, every key as it is in the source, and nothing of ours."""
    writers.stop()
    assert lost(writers.acknowledged(), pair.there) == []
    assert pair.markers() == []
    pair.assert_same()


def go_on(pair: Clusters, writers: Roamers) -> None:
    """After a run that was killed: the next one goes on with what it has in every lane, is valid and cut over, and everything has arrived."""
    with pair.run("--cutover", "manual", name="again") as again:
        again.wait_for("waiting")
        assert "this one goes on" in again.stderr
        assert "without a full sync" in again.stderr
        assert "starts a full sync" not in again.stderr
        cut_over(pair, again)
    assert json.loads((again.report / "run.json").read_text())["verdict"] == "valid"
    arrived(pair, writers)
