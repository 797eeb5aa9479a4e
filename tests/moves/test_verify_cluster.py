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
READY = (b"cluster_state:ok", b"cluster_slots_ok:16384")


class Cluster:
    """``c``: a client that follows the slots."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints
        self.ranges = even_ranges(len(endpoints))
        self.c: Any = ValkeyCluster(host="127.0.0.1", port=endpoints[0].port)

    def shard(self, number: int) -> Any:
        return valkey.Valkey(host="127.0.0.1", port=self.endpoints[number].port)

    def owner(self, key: bytes) -> Any:
        slot = key_slot(key)
        return self.shard(next(number for number, (first, last) in enumerate(self.ranges) if first <= slot <= last))

    def functions(self) -> None:
        for number in range(len(self.endpoints)):
            self.shard(number).function_load("#!lua name=lib\nredis.register_function('f', function() return 1 end)")

    def give(self, slot: int, to: int) -> None:
        """Force a slot upon a shard, whatever lies in it. Whoever has it hears of it first: it would claim it back by a higher epoch."""
        node = self.shard(to).execute_command("CLUSTER", "MYID")
        givers = [number for number in range(len(self.endpoints)) if number != to and self._has(number, slot)]
        for number in (*givers, *({*range(len(self.endpoints))} - {*givers, to}), to):
            self.shard(number).execute_command("CLUSTER", "SETSLOT", slot, "NODE", node)

    def _has(self, number: int, slot: int) -> bool:
        """As it says itself."""
        shard = self.shard(number)
        name = shard.execute_command("CLUSTER", "MYID")
        return any(first <= slot <= last and node[2] == name for first, last, node, *_ in shard.execute_command("CLUSTER", "SLOTS"))

    def leaving(self, slot: int, from_: int, to: int) -> None:
        self.shard(from_).execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.shard(to).execute_command("CLUSTER", "MYID"))

    def stays(self, slot: int, at: int) -> None:
        self.shard(at).execute_command("CLUSTER", "SETSLOT", slot, "STABLE")

    def empty(self) -> None:
        for number in range(len(self.endpoints)):
            self.shard(number).flushall()
            self.shard(number).execute_command("FUNCTION", "FLUSH")

    def free_slot(self, shard: int) -> int:
        """One of this shard in which there is no key."""
        first, last = self.ranges[shard]
        return next(slot for slot in range(first, last) if not self.shard(shard).execute_command("CLUSTER", "COUNTKEYSINSLOT", slot))


def ready(c: Any) -> bool:
    said = bytes(c.execute_command("CLUSTER", "INFO"))
    return all(word in said for word in READY)


@contextlib.contextmanager
def started(server: str, shards: int) -> Iterator[Cluster]:
    """Without replicas."""
    with contextlib.ExitStack() as stack:
        processes = [nodes.start(server, {"cluster-enabled": "yes", "cluster-node-timeout": 5000}) for _ in range(shards)]
        ports = [stack.enter_context(one).port for one in processes]
        found = [valkey.Valkey(host="127.0.0.1", port=port) for port in ports]
        for number, (one, (first, last)) in enumerate(zip(found, even_ranges(shards), strict=True)):
            one.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            one.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            found[0].execute_command("CLUSTER", "MEET", "127.0.0.1", ports[number])
        for one in found:
            until(lambda c=one: ready(c), "the cluster")  # type: ignore[misc]
        yield Cluster([Endpoint("127.0.0.1", port) for port in ports])


@pytest.fixture(scope="module")
def standing() -> Iterator[Cluster]:
    with started("newest-valkey", SHARDS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def standing_source() -> Iterator[Cluster]:
    with started("redis-7.0", 2) as cluster:
        yield cluster


@pytest.fixture
def cluster(standing: Cluster) -> Cluster:
    """Empty, of three shards."""
    standing.empty()
    return standing


@pytest.fixture
def source_cluster(standing_source: Cluster) -> Cluster:
    """Empty, of two shards."""
    standing_source.empty()
    return standing_source


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
    for number in (2, 0, 1):  # its owner first, which tells the others what it has
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


class Lane:
    """The first shard of a source of two and its part of a target of three: all of the first shard's slots, half of the second's."""

    def __init__(self, source: Cluster, target: Cluster) -> None:
        self.source, self.target = source, target
        self.ranges = source.ranges[:1]
        for one in (source, target):
            fill(one.c)

    def name(self, *, of_lane: bool, shard: int) -> bytes:
        """A string of that shard of the target, inside or outside of the lane's slots."""
        first, last = self.target.ranges[shard]
        end = self.ranges[0][1]
        names = [f"string:{number}".encode() for number in range(300)]
        return next(name for name in names if first <= key_slot(name) <= last and (key_slot(name) <= end) is of_lane)

    def full(self, **how: Any) -> Comparison:
        return full(self.source.endpoints[0], self.target.endpoints[0], slots=self.ranges, **how)

    def between(self, between: Callable[[], Any]) -> tuple[Comparison, Comparison, bool]:
        """A full comparison, something else, and a round: both comparisons, and whether slots moved."""

        async def job() -> tuple[Comparison, Comparison, bool]:
            async with Verifier(self.source.endpoints[0], self.target.endpoints[0], slots=self.ranges) as verifier:
                found = await verifier.full()
                await asyncio.to_thread(between)
                return found, await verifier.round(), verifier.moved

        both: tuple[Comparison, Comparison, bool] = bounded(job())
        return both


@pytest.fixture
def lane(source_cluster: Cluster, cluster: Cluster) -> Lane:
    return Lane(source_cluster, cluster)


@pytest.mark.parametrize("read", ["auto", "scan"])
def test_of_a_lane_only_the_shards_are_read_that_have_its_slots(lane: Lane, read: str) -> None:
    before = [lane.target.shard(number).info("stats")["sync_full"] for number in range(SHARDS)]
    equal = lane.full(target_read=read)
    assert (equal.verdict, equal.source_shards, equal.target_shards) == ("valid", 1, 2)
    assert equal.source_read == "psync"  # followed, although it is a cluster's node
    assert equal.keys_source == equal.keys_target == lane.source.shard(0).dbsize()  # what other lanes write to these shards does not count
    after = [lane.target.shard(number).info("stats")["sync_full"] for number in range(SHARDS)]
    assert [one - other for one, other in zip(after, before, strict=True)] == ([1, 1, 0] if read == "auto" else [0, 0, 0])

    for shard in (1, 2):
        lane.target.c.set(lane.name(of_lane=False, shard=shard), "not this lane's")
    assert lane.full(target_read=read).verdict == "valid"
    for shard in (0, 1):
        lane.target.c.set(lane.name(of_lane=True, shard=shard), "planted")
    found = lane.full(target_read=read)
    assert (found.verdict, found.missing, found.extra, found.different) == ("invalid", 0, 0, 2)
    assert {one.key for one in found.examples} == {lane.name(of_lane=True, shard=shard) for shard in (0, 1)}


def test_a_key_of_a_lane_that_lies_on_a_shard_which_is_not_read_is_found(lane: Lane) -> None:
    names = {lane.name(of_lane=True, shard=0): 0, lane.name(of_lane=False, shard=1): 1}
    for name, home in names.items():
        payload = lane.target.shard(home).dump(name)
        lane.target.shard(2).execute_command(
            "CLUSTER", "SETSLOT", key_slot(name), "IMPORTING", lane.target.shard(home).execute_command("CLUSTER", "MYID")
        )
        with lane.target.shard(2).pipeline(transaction=False) as stranger:
            stranger.execute_command("ASKING")
            stranger.execute_command("RESTORE", name, 0, payload)
            assert stranger.execute()[1] == b"OK"
        lane.target.stays(key_slot(name), 2)
    found = lane.full()
    assert (found.verdict, found.differences) == ("invalid", 1)  # the other one is another lane's
    (one,) = found.examples
    assert (one.key, one.what) == (lane.name(of_lane=True, shard=0), "misplaced")
    assert lane.target.endpoints[2].address in one.detail


def test_a_slot_that_leaves_the_source_between_two_looks_makes_the_second_unknown(lane: Lane) -> None:
    slot = lane.source.free_slot(0)
    try:
        valid, unknown, moved = lane.between(lambda: lane.source.give(slot, 1))
        assert (valid.verdict, unknown.verdict, moved) == ("valid", "unknown", True)
        assert f"does not own slot {slot}" in unknown.reasons[0]
        again = lane.full()  # asked for slots that the source does not have
        assert again.verdict == "unknown"
        assert f"does not own slot {slot}" in again.reasons[0]
    finally:
        lane.source.give(slot, 0)
    assert lane.full().verdict == "valid"


def test_keys_that_leave_with_their_slot_are_no_differences(lane: Lane) -> None:
    """They are gone from the shard and still in the target: nobody may say that they are too many there."""
    name = lane.name(of_lane=True, shard=0)
    slot = key_slot(name)
    port = lane.source.endpoints[1].port

    def move() -> None:
        lane.source.leaving(slot, 0, 1)
        lane.source.shard(1).execute_command(
            "CLUSTER", "SETSLOT", slot, "IMPORTING", lane.source.shard(0).execute_command("CLUSTER", "MYID")
        )
        keys = lane.source.shard(0).execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        assert name in keys
        lane.source.shard(0).execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)

    def back() -> None:
        lane.source.stays(slot, 0)
        lane.source.stays(slot, 1)
        lane.source.shard(1).flushall()
        lane.source.give(slot, 0)

    def finish() -> None:
        move()
        lane.source.give(slot, 1)

    for moving in (move, finish):
        try:
            valid, unknown, moved = lane.between(moving)
        finally:
            back()
        assert (valid.verdict, unknown.verdict, unknown.differences, moved) == ("valid", "unknown", 0, True)
        lane.source.c.set(name, b"x" * (int(name.partition(b":")[2]) + 1))


def test_slots_of_other_lanes_may_move_on_both_sides(lane: Lane) -> None:
    lane.ranges = ((0, 6000),)
    theirs, there = lane.source.free_slot(1), lane.target.free_slot(2)
    leaving = next(slot for slot in range(6001, 8000) if not lane.source.shard(0).execute_command("CLUSTER", "COUNTKEYSINSLOT", slot))

    def move() -> None:
        lane.source.give(theirs, 0)
        lane.source.leaving(leaving, 0, 1)
        lane.target.leaving(there, 2, 1)

    try:
        valid, still, _ = lane.between(move)
        assert (valid.verdict, still.verdict) == ("valid", "valid"), still.reasons
        assert lane.full().verdict == "valid"
    finally:
        lane.source.stays(leaving, 0)
        lane.target.stays(there, 2)
        lane.source.give(theirs, 1)


def test_a_slot_of_a_lane_that_moves_in_the_target_makes_the_verdict_unknown(lane: Lane) -> None:
    slot = lane.target.free_slot(0)
    try:
        _, unknown, moved = lane.between(lambda: lane.target.give(slot, 2))
        assert (unknown.verdict, moved) == ("unknown", True)
    finally:
        lane.target.give(slot, 0)
