"""Verification where a side is a cluster: all its shards are one key space, and whatever is planted into one of them is found."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import valkey
from valkey.cluster import ValkeyCluster

from tests.conftest import Server
from tests.support import nodes
from tests.support.verifying import FAR, bounded, endpoint
from tests.support.waiting import until
from valkeep.cli import run
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, ExitCode
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.topology.slots import even_ranges, key_slot

Client = Callable[..., Any]
SHARDS = 3
READY = (b"cluster_state:ok", b"cluster_slots_ok:16384", b"cluster_known_nodes:3")


class Cluster:
    """Three shards; ``c``: a client that follows the slots."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints
        self.c: Any = ValkeyCluster(host="127.0.0.1", port=endpoints[0].port)

    def shard(self, number: int) -> Any:
        return valkey.Valkey(host="127.0.0.1", port=self.endpoints[number].port)

    def owner(self, key: bytes) -> Any:
        slot = key_slot(key)
        return self.shard(next(number for number, (first, last) in enumerate(even_ranges(SHARDS)) if first <= slot <= last))

    def functions(self) -> None:
        for number in range(SHARDS):
            self.shard(number).function_load("#!lua name=lib\nredis.register_function('f', function() return 1 end)")

    def give(self, slot: int, to: int) -> None:
        """Force a slot upon a shard, whatever lies in it."""
        node = self.shard(to).execute_command("CLUSTER", "MYID")
        for number in range(SHARDS):
            self.shard(number).execute_command("CLUSTER", "SETSLOT", slot, "NODE", node)


def ready(c: Any) -> bool:
    said = bytes(c.execute_command("CLUSTER", "INFO"))
    return all(word in said for word in READY)


@pytest.fixture(scope="module")
def standing() -> Iterator[Cluster]:
    """Without replicas."""
    with contextlib.ExitStack() as stack:
        started = [nodes.start("newest-valkey", {"cluster-enabled": "yes", "cluster-node-timeout": 5000}) for _ in range(SHARDS)]
        ports = [stack.enter_context(one).port for one in started]
        found = [valkey.Valkey(host="127.0.0.1", port=port) for port in ports]
        for one, (first, last) in zip(found, even_ranges(SHARDS), strict=True):
            one.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            one.execute_command("CLUSTER", "SET-CONFIG-EPOCH", ports.index(one.connection_pool.connection_kwargs["port"]) + 1)
            found[0].execute_command("CLUSTER", "MEET", "127.0.0.1", one.connection_pool.connection_kwargs["port"])
        for one in found:
            until(lambda c=one: ready(c), "the cluster")  # type: ignore[misc]
        yield Cluster([Endpoint("127.0.0.1", port) for port in ports])


@pytest.fixture
def cluster(standing: Cluster) -> Cluster:
    """Empty."""
    for number in range(SHARDS):
        standing.shard(number).flushall()
        standing.shard(number).execute_command("FUNCTION", "FLUSH")
    return standing


def fill(c: Any) -> None:
    for number in range(300):
        c.set(f"string:{number}", b"x" * (number + 1))
    for size in (3, 700):
        c.rpush(f"list:{size}", *[f"item {i}" for i in range(size)])
        c.sadd(f"set:{size}", *[f"member {i}" for i in range(size)])
        c.zadd(f"zset:{size}", {f"member {i}": i / 7 for i in range(size)})
        c.hset(f"hash:{size}", mapping={f"field {i}": f"value {i}" for i in range(size)})
    c.set("ttl", "soon", pxat=FAR)
    c.xadd("stream", {"n": 1}, id="1-1")


def full(source: Endpoint, target: Endpoint, **how: Any) -> Comparison:
    async def job() -> Comparison:
        async with Verifier(source, target, **how) as verifier:
            return await verifier.full()

    found: Comparison = bounded(job())
    return found


@pytest.mark.parametrize(("here", "there"), [("auto", "auto"), ("auto", "scan"), ("scan", "auto")])
def test_every_planted_fault_of_a_cluster_is_found(server: Server, client: Client, cluster: Cluster, here: str, there: str) -> None:
    source = server("redis-7.0")
    c = client(source)
    fill(c)
    fill(cluster.c)
    c.function_load("#!lua name=lib\nredis.register_function('f', function() return 1 end)")
    cluster.functions()
    equal = full(endpoint(source), cluster.endpoints[1], source_read=here, target_read=there)
    assert (equal.verdict, equal.keys_source, equal.keys_target, equal.functions) == ("valid", 310, 310, 1)
    assert (equal.source_shards, equal.target_shards) == (1, SHARDS)
    assert equal.target_read == ("scan" if there == "scan" else "psync")

    cluster.c.setrange("string:299", 7, "y")
    cluster.c.pexpireat("ttl", FAR + 1)
    cluster.c.delete("set:3")
    cluster.c.set("one more", 1)
    cluster.c.lset("list:700", 350, "other")
    cluster.shard(2).execute_command("FUNCTION", "DELETE", "lib")
    found = full(endpoint(source), cluster.endpoints[0], source_read=here, target_read=there)
    assert found.verdict == "invalid"
    assert (found.missing, found.extra, found.different) == (1, 1, 4)
    assert {one.key: "different" if one.what == "expiry" else one.what for one in found.examples} == {
        b"string:299": "different",
        b"ttl": "different",
        b"set:3": "missing",
        b"one more": "extra",
        b"list:700": "different",
        b"lib": "function",
    }
    assert next(one.detail for one in found.examples if one.what == "function").endswith(f"not on {cluster.endpoints[2].address}")


@pytest.mark.parametrize("read", ["auto", "scan"])
def test_a_key_on_the_wrong_shard_is_named_and_so_is_one_that_is_on_two(
    server: Server, client: Client, cluster: Cluster, read: str
) -> None:
    source = server("newest-valkey")
    for c in (client(source), cluster.c):
        fill(c)
        c.set("alone", "on the wrong shard")
        c.set("twice", "on two shards")
    slots = {name: key_slot(name) for name in (b"alone", b"twice")}
    homes = {name: next(n for n, (first, last) in enumerate(even_ranges(SHARDS)) if first <= slot <= last) for name, slot in slots.items()}
    payloads = {name: cluster.owner(name).dump(name) for name in slots}
    for name, slot in slots.items():
        other = (homes[name] + 1) % SHARDS
        if name == b"alone":
            cluster.owner(name).delete(name)
        cluster.shard(other).execute_command(
            "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.shard(homes[name]).execute_command("CLUSTER", "MYID")
        )
        with cluster.shard(other).pipeline(transaction=False) as stranger:
            stranger.execute_command("ASKING")
            stranger.execute_command("RESTORE", name, 0, payloads[name])
            assert stranger.execute()[1] == b"OK"
        moving = full(endpoint(source), cluster.endpoints[0], target_read=read)
        assert moving.verdict == "unknown"
        assert "on its way" in moving.reasons[0]
        cluster.shard(other).execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
    found = full(endpoint(source), cluster.endpoints[0], target_read=read)
    assert found.verdict == "invalid"
    assert (found.missing, found.extra, found.different) == (1, 0, 2)
    told = {(one.key, one.what): one.detail for one in found.examples}
    assert told.keys() == {(b"alone", "missing"), (b"alone", "misplaced"), (b"twice", "misplaced")}
    for name in slots:
        detail = told[name, "misplaced"]
        assert cluster.endpoints[(homes[name] + 1) % SHARDS].address in detail
        assert cluster.endpoints[homes[name]].address in detail


def test_writers_on_the_source_and_a_copy_by_hand_are_told_apart_from_differences(server: Server, client: Client, cluster: Cluster) -> None:
    source = server("newest-valkey")
    c = client(source)
    fill(c)
    fill(cluster.c)
    wrote = threading.Event()
    stop = threading.Event()
    lock = threading.Lock()

    def write() -> None:
        with contextlib.closing(valkey.Valkey(host="127.0.0.1", port=source.port)) as mine:
            number = 0
            while not stop.is_set():
                number += 1
                name, value = f"string:{number % 200}", f"written {number}"
                with lock:
                    mine.set(name, value)
                    cluster.c.set(name, value)
                wrote.set()
                stop.wait(0.0005)

    async def barrier(_offset: int) -> None:
        """The copy is made while the lock is held: what the source has is there as soon as the lock is free."""
        await asyncio.to_thread(lock.acquire)
        lock.release()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        assert wrote.wait(10)
        found = full(endpoint(source), cluster.endpoints[0], barrier=barrier)
        assert (found.verdict, found.differences) == ("valid", 0), found
        assert found.looked_again > 0
        cluster.c.set("string:250", "planted")
        found = full(endpoint(source), cluster.endpoints[0], barrier=barrier)
        assert (found.verdict, found.different) == ("invalid", 1)
    finally:
        stop.set()
        thread.join(10)


@pytest.mark.parametrize("read", ["auto", "scan"])
def test_a_cluster_is_compared_with_a_server_and_with_itself_in_vain(
    server: Server, client: Client, cluster: Cluster, read: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = server("newest-valkey")
    fill(client(target))
    fill(cluster.c)
    here, there = cluster.endpoints[2].display, target.endpoint
    words = ["migrate", "verify", "--source", here, "--source-read", read, "--target"]
    assert run([*words, there]) == ExitCode.GOOD
    told = capsys.readouterr().out
    assert "shards     3 of the source, 1 of the target" in told
    assert "the source is not followed" in told
    client(target).set("string:7", "planted")
    client(target).delete("string:8")
    assert run([*words, there]) == ExitCode.JUDGED_BAD
    assert "1 missing, 0 extra, 1 different" in capsys.readouterr().out
    assert run([*words, cluster.endpoints[0].display]) == ExitCode.USAGE


def test_differences_are_repaired_on_the_shard_that_owns_them(server: Server, client: Client, cluster: Cluster) -> None:
    source = server("newest-valkey")
    fill(client(source))
    fill(cluster.c)
    for number in range(0, 300, 10):
        cluster.c.delete(f"string:{number}")
        cluster.c.set(f"extra:{number}", 1)
    assert run(["migrate", "verify", "--source", source.endpoint, "--target", cluster.endpoints[0].display, "--repair"]) == ExitCode.GOOD
    assert full(endpoint(source), cluster.endpoints[0]).verdict == "valid"


def test_one_shard_is_compared_with_its_part_of_a_target(server: Server, client: Client, cluster: Cluster) -> None:
    """Only keys of the slots that are asked for count."""
    target = server("newest-valkey")
    fill(client(target))
    fill(cluster.c)
    ranges = even_ranges(SHARDS)[1:2]
    assert full(cluster.endpoints[1], endpoint(target), slots=ranges).verdict == "valid"
    inside = next(f"string:{n}" for n in range(300) if ranges[0][0] <= key_slot(b"string:%d" % n) <= ranges[0][1])
    outside = next(f"string:{n}" for n in range(300) if not ranges[0][0] <= key_slot(b"string:%d" % n) <= ranges[0][1])
    client(target).set(outside, "planted")
    assert full(cluster.endpoints[1], endpoint(target), slots=ranges).verdict == "valid"
    client(target).set(inside, "planted")
    found = full(cluster.endpoints[1], endpoint(target), slots=ranges)
    assert (found.verdict, found.different, found.differences) == ("invalid", 1, 1)


def test_a_slot_without_an_owner_is_refused_before_anything_is_read(server: Server, cluster: Cluster) -> None:
    source = server("newest-valkey")
    _, last = even_ranges(SHARDS)[2]
    for number in range(SHARDS):
        cluster.shard(number).execute_command("CLUSTER", "DELSLOTS", last)
    try:
        with pytest.raises(ConnectionLost, match="1 of the slots"):
            full(endpoint(source), cluster.endpoints[0])
    finally:
        cluster.shard(2).execute_command("CLUSTER", "ADDSLOTS", last)
        until(lambda: all(ready(cluster.shard(number)) for number in range(SHARDS)), "the slot's owner")


def test_a_slot_that_changes_hands_meanwhile_makes_the_verdict_unknown(server: Server, client: Client, cluster: Cluster) -> None:
    """Whatever was found equal; and a slot that came back has another epoch."""
    source = server("newest-valkey")
    fill(client(source))
    fill(cluster.c)
    empty = next(slot for slot in range(100) if not cluster.shard(0).execute_command("CLUSTER", "COUNTKEYSINSLOT", slot))

    async def barrier(_offset: int) -> None:
        cluster.give(empty, 1)

    try:
        found = full(endpoint(source), cluster.endpoints[0], barrier=barrier)
        assert found.verdict == "unknown"
        assert "the slots of the cluster move" in found.reasons[0]
    finally:
        cluster.give(empty, 0)
    assert full(endpoint(source), cluster.endpoints[0]).verdict == "valid"
