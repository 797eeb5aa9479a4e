"""Verification where PSYNC is denied: a side that is read by SCAN and DUMP finds what a snapshot would have found, and raises no false alarm."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import valkey

from tests.conftest import Server
from tests.support.managed import managed
from tests.support.verifying import FAR, Writers, bounded, endpoint, fill, follow
from tests.support.waiting import until
from valkeep.cli import run
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ExitCode, Refused
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify import Comparison, Verifier

Client = Callable[..., Any]


def full(source: Endpoint, target: Endpoint, policy: FieldTtl = FieldTtl.REFUSE, **how: Any) -> Comparison:
    async def job() -> Comparison:
        async with Verifier(source, target, policy, **how) as verifier:
            return await verifier.full()

    found: Comparison = bounded(job())
    return found


def plant(c: Any) -> None:
    """One fault of each sort: 1 missing, 1 extra, 7 different; and one that is missing in one database and extra in another."""
    c.setrange("string:700", 699, "y")
    c.pexpireat("ttl", FAR + 1)
    c.persist("hash:ttl")
    c.delete("set:3")
    c.set("one more", 1)
    c.lset("list:700", 350, "other")
    c.zadd("zset:700", {"member 9": 9 / 7 + 1e-12})
    c.execute_command("XCLAIM", "stream", "group", "alice", 0, "3-1", "RETRYCOUNT", 7)
    c.move("int", 5)
    c.function_delete("lib")


WAYS = [("psync", "scan"), ("scan", "psync"), ("scan", "scan")]


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_every_planted_fault_is_found_by_scan(server: Server, client: Client, source: str, target: str) -> None:
    a, b = server("redis-8.0"), server("valkey-9.1")
    for node in (a, b):
        c = client(node)
        fill(c)
        c.hset("hash:ttl", mapping={"a": 1, "b": 2})
        c.pexpireat("hash:ttl", FAR)
        c.hset("hash:fields", mapping={"a": 1, "b": 2})
        c.execute_command("HPEXPIREAT", "hash:fields", FAR, "FIELDS", 1, "a")
    here, there = endpoint(a), endpoint(b)
    if source == "scan":
        here = managed(client, a)
    if target == "scan":
        there = managed(client, b)
    equal = full(here, there)
    assert (equal.verdict, equal.keys_source, equal.keys_target, equal.functions) == ("valid", 53, 53, 1)
    assert (equal.source_read, equal.target_read) == (source, target)
    plant(client(b))
    client(b).execute_command("HPEXPIREAT", "hash:fields", FAR + 1, "FIELDS", 1, "a")
    found = full(here, there)
    assert found.verdict == "invalid"
    assert (found.missing, found.extra, found.different) == (2, 2, 8)
    assert {one.key for one in found.examples} == {
        *(b"string:700", b"ttl", b"hash:ttl", b"hash:fields", b"set:3", b"one more", b"list:700", b"zset:700", b"stream", b"int", b"lib")
    }


def test_a_way_to_read_can_be_asked_for_and_is_told(server: Server, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b):
        fill(client(node), functions=False)
    words = ["migrate", "verify", "--source", a.endpoint, "--target", b.endpoint]
    assert run([*words, "--source-read", "scan", "--target-read", "scan"]) == ExitCode.GOOD
    told = capsys.readouterr().out
    assert "read       source by SCAN, target by SCAN" in told
    assert "what was written after it is not known" in told
    assert client(a).info("stats")["sync_full"] == client(b).info("stats")["sync_full"] == 0
    assert run([*words, "--target-read", "snapshot"]) == ExitCode.USAGE


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_false_alarm_of_a_managed_target_that_follows_under_writes(server: Server, client: Client, seed: int) -> None:
    a, b = server("redis-7.0"), server("valkey-9.1", propagation_error_behavior="panic")
    fill(client(a))
    follow(client(b), a)
    there = managed(client, b)
    with Writers(a.port, False) as writers:
        until(lambda: writers.writes > 200 * seed, "writes")
        found = full(endpoint(a), there)
        assert found.differences == 0, found.examples
        assert (found.source_read, found.target_read) == ("psync", "scan")
        assert found.looked_again > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_scans_under_writes_never_call_equal_data_different(server: Server, client: Client, seed: int) -> None:
    a, b = server("valkey-8.1"), server("valkey-9.1", propagation_error_behavior="panic")
    fill(client(a))
    follow(client(b), a)
    here, there = managed(client, a), managed(client, b)

    async def job() -> tuple[Comparison, Comparison]:
        async with Verifier(here, there, patience=3.0) as verifier:
            with Writers(a.port, False) as writers:
                while writers.writes < 100 * seed:
                    await verifier.round()
                found = await verifier.full()
            return found, await verifier.final(0)

    under_writes, still = bounded(job())
    assert under_writes.differences == 0, under_writes.examples
    assert under_writes.verdict in ("valid", "unknown")
    assert under_writes.source_read == under_writes.target_read == "scan"
    assert still.verdict == "valid", (still.examples, still.reasons)


def test_a_table_that_shrinks_and_grows_under_the_scan_hides_nothing(server: Server, client: Client) -> None:
    a, b = server("redis-7.0"), server("valkey-9.1")
    follow(client(b), a)
    c = client(a)
    pipe = c.pipeline(transaction=False)
    for i in range(10_000):
        pipe.set(f"stays:{i}", i)
    for i in range(40_000):
        pipe.set(f"goes:{i}", i)
    pipe.execute()
    stop = threading.Event()

    def resize() -> None:
        with contextlib.closing(valkey.Valkey(port=a.port)) as mine:
            for i in range(0, 40_000, 500):  # the table shrinks …
                mine.delete(*[f"goes:{one}" for one in range(i, i + 500)])
            for i in range(0, 20_000, 500):  # … and grows
                if stop.wait(0.005):
                    return
                mine.mset({f"comes:{one}": 1 for one in range(i, i + 500)})

    thread = threading.Thread(target=resize)
    thread.start()
    try:
        found = full(endpoint(a), managed(client, b))
    finally:
        stop.set()
        thread.join()
    assert found.differences == 0, found.examples
    follow_ended = client(b)
    written = c.info("replication")["master_repl_offset"]
    until(lambda: follow_ended.info("replication")["slave_repl_offset"] >= written, "it has everything")
    follow_ended.replicaof("NO", "ONE")
    follow_ended.delete("stays:17")
    lost = full(managed(client, a), managed(client, b), patience=5.0)
    assert ("missing", b"stays:17") in {(one.what, one.key) for one in lost.examples}


def test_large_values_are_read_one_by_one(server: Server, client: Client) -> None:
    a, b = server("valkey-8.1"), server("valkey-8.1")
    for node in (a, b):
        c = client(node)
        for i in range(6):
            c.set(f"large:{i}", bytes([i]) * (9 << 20))
        for i in range(2000):
            c.set(f"small:{i}", i)
    client(b).setrange("large:3", 5 << 20, b"!")
    found = full(endpoint(a), endpoint(b), target_read="scan")
    assert (found.verdict, found.different, found.keys_target) == ("invalid", 1, 2006)
    assert found.examples[0].key == b"large:3"
    assert found.memory_bytes < 300 << 20


@pytest.mark.parametrize("deny", ["-scan", "-dump", "-pexpiretime", "-select"])
def test_a_target_that_denies_the_scan_too_is_refused_by_name(server: Server, client: Client, deny: str) -> None:
    a, b = server("redis-7.0"), server("valkey-8.1")
    for node in (a, b):
        client(node).set("k", 1)
    with pytest.raises(Refused) as caught:
        full(endpoint(a), managed(client, b, "-psync", deny))
    assert deny.strip("-") in caught.value.message.lower()
    assert "permit" in caught.value.remedy


def test_a_target_without_memory_usage_is_read_in_small_batches(server: Server, client: Client) -> None:
    a, b = server("redis-7.0"), server("valkey-8.1")
    for node in (a, b):
        fill(client(node))
    found = full(endpoint(a), managed(client, b, "-psync", "-memory"))
    assert (found.verdict, found.keys_target) == ("valid", 51)
