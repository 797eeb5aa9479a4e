"""Verification between real servers: equal is valid, every planted fault is found, and writers raise no false alarm."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.verifying import FAR, Writers, bounded, compare, endpoint, fill, follow
from tests.support.waiting import until
from valkeep.cli import run
from valkeep.client.endpoint import Endpoint, Secret
from valkeep.errors import ExitCode, Refused, UsageError
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.runtime.node import Process

Client = Callable[..., Any]

PAIRS = [
    ("redis-8.0", "valkey-9.1"),
    ("redis-7.0", "valkey-8.0"),
    ("redis-8.0", "valkey-8.1"),
    ("valkey-8.1", "valkey-9.1"),
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_servers_filled_by_the_same_commands_are_valid(server: Server, client: Client, source: str, target: str) -> None:
    # other limits for packed encodings on the target: equal values in other encodings
    a, b = (
        server(source),
        server(target, hash_max_listpack_entries=0, zset_max_listpack_entries=0, set_max_intset_entries=0, list_max_listpack_size=2),
    )
    for node in (a, b):
        fill(client(node))
    result = compare(a, b)
    assert result.examples == ()
    assert result.verdict == "valid"
    assert result.keys_source == result.keys_target == 3 * 17
    assert result.functions == 1


@pytest.mark.parametrize(("source", "target"), [("valkey-8.0", "valkey-9.1"), ("redis-7.0", "valkey-8.1"), ("valkey-9.1", "valkey-9.1")])
def test_a_native_replica_is_valid(server: Server, client: Client, source: str, target: str) -> None:
    a, b = server(source), server(target)
    fill(client(a))
    follow(client(b), a)
    assert compare(a, b).verdict == "valid"


def _pel_count(c: Any) -> None:
    c.execute_command("XCLAIM", "stream", "group", "alice", 0, "3-1", "RETRYCOUNT", 7)


def _pel_owner(c: Any) -> None:
    c.execute_command("XCLAIM", "stream", "group", "bob", 0, "3-1", "RETRYCOUNT", 1)


def _wrong_database(c: Any) -> None:
    c.move("int", 5)


def _swapped(c: Any) -> None:
    c.lset("list:700", 350, "item 351")
    c.lset("list:700", 351, "item 350")


FAULTS: dict[str, tuple[Callable[[Any], Any], dict[str, int], str]] = {
    "expiry-one-ms-later": (lambda c: c.pexpireat("ttl", FAR + 1), {"different": 1}, "expires at"),
    "expiry-lost": (lambda c: c.persist("ttl"), {"different": 1}, "never"),
    "wrong-database": (_wrong_database, {"missing": 1, "extra": 1}, "only on"),
    "pel-count": (_pel_count, {"different": 1}, "was delivered 1 times on the source, 7"),
    "pel-owner": (_pel_owner, {"different": 1}, "other consumers"),
    "swapped-items": (_swapped, {"different": 1}, "item 350"),
    "extra-key": (lambda c: c.set("one more", 1), {"extra": 1}, "only on the target"),
    "missing-key": (lambda c: c.delete("set:3"), {"missing": 1}, "only on the source"),
    "zset-score": (lambda c: c.zadd("zset:700", {"member 9": 9 / 7 + 1e-12}), {"different": 1}, "the score of"),
    "set-member": (lambda c: c.srem("intset:700", 3), {"different": 1}, "1 members missing"),
    "hash-value": (lambda c: c.hset("hash:3", "field 1", "other"), {"different": 1}, "has another value"),
    "string-byte": (lambda c: c.setrange("string:700", 699, "y"), {"different": 1}, "byte 699"),
    "stream-entry": (lambda c: c.xdel("stream", "149-1"), {"different": 1}, "entries"),
    "stream-group-position": (lambda c: c.xgroup_setid("stream", "group", "3-1"), {"different": 1}, "last id"),
    "function-missing": (lambda c: c.function_delete("lib"), {"different": 1}, "not on the target"),
    "another-kind": (lambda c: (c.delete("int"), c.rpush("int", 12345)), {"different": 1}, "a string on the source"),
}


@pytest.fixture(scope="module")
def pair(binary: Callable[[str], Any]) -> Iterator[tuple[Process, Process]]:
    """Two filled servers for all planted faults: starting them once is enough."""
    from tests.support import nodes

    with nodes.start("redis-8.0") as a, nodes.start("valkey-9.1") as b:
        yield a, b


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_repaired(pair: tuple[Process, Process], client: Client, fault: str) -> None:
    a, b = pair
    for node in pair:
        c = client(node)
        c.flushall()
        c.function_flush()
        fill(c)
    plant, counts, detail = FAULTS[fault]
    plant(client(b))

    async def job() -> tuple[Comparison, Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            return await verifier.full(), await verifier.repair()

    found, repaired = bounded(job())
    assert found.verdict == "invalid"
    expected = {"missing": 0, "extra": 0, "different": 0} | counts
    assert {name: getattr(found, name) for name in expected} == expected
    assert detail in " ".join(example.detail for example in found.examples)
    if fault != "function-missing":
        assert repaired.verdict == "valid"
        assert compare(a, b).verdict == "valid"


@pytest.mark.parametrize("target", ["valkey-9.1"])
def test_field_expiries_are_compared_exactly(server: Server, client: Client, target: str) -> None:
    a, b = server("redis-8.0"), server(target)
    for node in (a, b):
        c = client(node)
        for size in (3, 700):
            c.hset(f"h:{size}", mapping={f"f{i}": i for i in range(size)})
            c.execute_command("HPEXPIREAT", f"h:{size}", FAR, "FIELDS", 2, "f0", "f1")
    assert compare(a, b).verdict == "valid"
    client(b).execute_command("HPERSIST", "h:3", "FIELDS", 1, "f0")
    client(b).execute_command("HPEXPIREAT", "h:700", FAR + 1, "FIELDS", 1, "f1")
    result = compare(a, b)
    assert (result.verdict, result.different) == ("invalid", 2)
    assert "never" in " ".join(example.detail for example in result.examples)


def test_the_policy_is_part_of_what_is_equal(server: Server, client: Client) -> None:
    a, b = server("redis-8.0"), server("valkey-8.1")
    client(a).hset("h", mapping={"a": 1, "b": 2})
    client(a).execute_command("HPEXPIREAT", "h", FAR, "FIELDS", 1, "a")
    client(b).hset("h", mapping={"a": 1, "b": 2})
    assert compare(a, b, FieldTtl.KEEP_FIELD).verdict == "valid"
    assert compare(a, b, FieldTtl.DROP_FIELD).verdict == "invalid"
    assert compare(a, b, FieldTtl.REFUSE).verdict == "invalid"
    client(b).hdel("h", "a")
    assert compare(a, b, FieldTtl.DROP_FIELD).verdict == "valid"
    assert compare(a, b, FieldTtl.KEEP_FIELD).verdict == "invalid"

    async def repair() -> Comparison:
        async with Verifier(endpoint(a), endpoint(b), FieldTtl.KEEP_FIELD) as verifier:
            await verifier.full()
            return await verifier.repair()

    assert bounded(repair()).verdict == "valid"
    assert client(b).hgetall("h") == {b"a": b"1", b"b": b"2"}


def test_keys_that_only_one_server_has_forgotten_are_no_difference(server: Server, client: Client) -> None:
    a, b = server("redis-8.0", enable_debug_command="yes"), server("valkey-9.1")
    client(a).execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    for node in (a, b):
        client(node).set("stays", 1)
    client(a).set("gone", 1, px=1)
    until(lambda: client(a).pttl("stays") == -1 and client(a).dbsize() == 2, "both keys")
    until(lambda: client(a).info("keyspace")["db0"]["expires"] == 1, "one key with an expiry")
    result = compare(a, b)
    assert (result.verdict, result.expired) == ("valid", 1)


# ---------------------------------------------------------------------------------------------------------------- under writes


@pytest.mark.parametrize(("source", "target"), [("valkey-9.1", "valkey-9.1"), ("redis-7.0", "valkey-8.1")])
def test_writers_raise_no_false_alarm_and_a_pause_settles_everything(server: Server, client: Client, source: str, target: str) -> None:
    a, b = server(source), server(target)
    fill(client(a))
    follow(client(b), a)

    async def job() -> list[Comparison]:
        results = []
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            results += [await verifier.full() for _ in range(3)]
            results += [await verifier.round() for _ in range(3)]
            oracle = client(a)
            oracle.execute_command("CLIENT", "PAUSE", 8000, "WRITE")
            results.append(await verifier.final(oracle.info("replication")["master_repl_offset"]))
            oracle.execute_command("CLIENT", "UNPAUSE")
        return results

    with Writers(a.port, source == "valkey-9.1") as writers:
        until(lambda: writers.writes > 2000, "2,000 writes")
        results = bounded(job())
    for result in results:
        assert result.examples == ()
        assert (result.missing, result.extra, result.different) == (0, 0, 0)
        assert result.verdict in ("valid", "unknown")
    assert results[0].looked_again > 0
    assert results[-1].verdict == "valid"


def test_a_fault_in_a_key_that_is_written_meanwhile_is_found_in_the_pause(server: Server, client: Client) -> None:
    a, b = server("valkey-8.1"), server("valkey-9.1")
    fill(client(a))
    follow(client(b), a)
    client(b).config_set("replica-read-only", "no")

    async def job() -> tuple[Comparison, Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            full = await verifier.full()
            client(a).rpush("list:3", "later")
            until(lambda: client(b).llen("list:3") == 4, "the fault to be planted")
            client(b).lset("list:3", 0, "planted")
            client(a).execute_command("CLIENT", "PAUSE", 5000, "WRITE")
            final = await verifier.final(client(a).info("replication")["master_repl_offset"])
            client(a).execute_command("CLIENT", "UNPAUSE")
            return full, final

    full, final = bounded(job())
    assert full.verdict == "valid"
    assert (final.verdict, final.different) == ("invalid", 1)
    assert final.examples[0].key == b"list:3"


def test_a_last_look_at_a_thousand_written_keys_takes_milliseconds(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    follow(client(b), a)

    async def job() -> tuple[list[float], list[float]]:
        writes, looks = [], []
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            assert (await verifier.full()).verdict == "valid"
            for attempt in range(5):
                pipe = client(a).pipeline(transaction=False)
                for i in range(1000):
                    pipe.hset(f"k:{i}", mapping={"a": attempt, "b": "x" * 50})
                begun = time.monotonic()
                pipe.execute()
                written = time.monotonic()
                result = await verifier.final(client(a).info("replication")["master_repl_offset"])
                writes.append(written - begun)
                looks.append(time.monotonic() - written)
                assert result.verdict == "valid"
                assert result.looked_again == 1000 * (attempt + 1)
        return writes, looks

    # 50 ms on an idle machine; tests share two cores with others, which slows the writing of these keys as well
    writes, looks = bounded(job())
    assert min(looks) < max(0.25, 10 * min(writes))


def test_flushall_under_way_starts_over(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    fill(client(a))
    follow(client(b), a)

    async def job() -> tuple[list[Comparison], bool]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            first = await verifier.full()
            client(a).flushall()
            spoiled = await verifier.round()
            return [first, spoiled, await verifier.full()], verifier.broken

    (first, spoiled, again), void = bounded(job())
    assert void  # so that a migration compares everything again
    assert first.verdict == again.verdict == "valid"
    assert spoiled.verdict == "unknown"
    assert "FLUSHALL" in spoiled.reasons[0]
    assert again.keys_source == 0


# -------------------------------------------------------------------------------------------------------------- what goes wrong


def test_a_killed_worker_is_unknown_and_never_valid(server: Server) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")

    async def job() -> Comparison:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            running = asyncio.create_task(verifier.full())
            await asyncio.sleep(0)
            os.kill(verifier.pid, signal.SIGKILL)
            return await running

    result = bounded(job())
    assert result.verdict == "unknown"
    assert result.exit_code is ExitCode.UNKNOWN
    assert "killed by signal 9" in result.reasons[0]


def test_a_source_that_dies_is_unknown(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    fill(client(a))
    follow(client(b), a)

    async def job() -> tuple[Comparison, Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            full = await verifier.full()
            a.kill()
            return full, await verifier.round()

    full, after = bounded(job())
    assert full.verdict == "valid"
    assert after.verdict == "unknown"


def test_a_target_that_dies_in_its_snapshot_is_unknown(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", rdb_key_save_delay=60_000)
    for node in (a, b):
        fill(client(node))

    async def job() -> Comparison:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            running = asyncio.create_task(verifier.full())
            await asyncio.to_thread(until, lambda: client(b).info("replication")["connected_slaves"], "the verification to be a replica")
            b.kill()
            return await running

    assert bounded(job()).verdict == "unknown"


def test_a_wrong_password_is_refused_before_anything(server: Server) -> None:
    a, b = server("valkey-9.1", requirepass="right"), server("valkey-9.1")

    async def job(password: str) -> Comparison:
        async with Verifier(Endpoint("127.0.0.1", a.port, password=Secret(password)), endpoint(b)) as verifier:
            return await verifier.full()

    with pytest.raises(Refused, match="password") as refused:
        bounded(job("wrong secret"))
    assert "wrong secret" not in str(refused.value)
    assert refused.value.exit_code is ExitCode.NOT_RUN
    assert bounded(job("right")).verdict == "valid"


def test_one_server_twice_is_a_usage_error(server: Server) -> None:
    a = server("valkey-9.1")

    async def job() -> None:
        async with Verifier(endpoint(a), Endpoint("localhost", a.port)):
            pass

    with pytest.raises(UsageError, match="same server"):
        bounded(job())


def test_nothing_is_left_behind(server: Server, tmp_path: Path) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")

    async def job() -> int:
        async with Verifier(endpoint(a), endpoint(b), workdir=tmp_path) as verifier:
            await verifier.full()
            assert any(tmp_path.iterdir())  # noqa: ASYNC240
            return verifier.pid

    pid = bounded(job())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# ------------------------------------------------------------------------------------------------------------------ command line


def test_the_command_answers_with_exit_codes_and_json(server: Server, client: Client, tmp_path: Path, capsys: Any) -> None:
    a, b = server("redis-8.0"), server("valkey-9.1")
    for node in (a, b):
        fill(client(node))
    urls = ["migrate", "verify", "--source", a.endpoint, "--target", b.endpoint]
    path = tmp_path / "verify.json"
    assert run([*urls, "--json", str(path)]) is ExitCode.GOOD
    report = json.loads(path.read_text())
    assert (report["schema"], report["verdict"], report["keys_source"]) == (1, "valid", 51)
    client(b).pexpireat("ttl", FAR + 1)
    assert run(urls) is ExitCode.JUDGED_BAD
    assert "ttl" in capsys.readouterr().out
    assert run([*urls, "--repair"]) is ExitCode.GOOD
    assert client(b).pexpiretime("ttl") == FAR
    assert run(["migrate", "verify", "--source", a.endpoint.replace("//", "//:nope@"), "--target", b.endpoint]) is ExitCode.NOT_RUN
    assert run(["migrate", "verify", "--source", a.endpoint, "--target", a.endpoint]) is ExitCode.USAGE
    b.kill()
    assert run(urls) is ExitCode.NOT_RUN


def test_a_killed_worker_leaves_no_process_and_no_files(server: Server, client: Client, tmp_path: Path) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", rdb_key_save_delay=50_000)
    for node in (a, b):
        fill(client(node))

    def children(pid: int) -> list[int]:
        return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]

    async def job() -> list[int]:
        async with Verifier(endpoint(a), endpoint(b), workdir=tmp_path) as verifier:
            running = asyncio.create_task(verifier.full())
            await asyncio.to_thread(until, lambda: client(b).info("replication")["connected_slaves"], "the verification to be a replica")
            processes = [verifier.pid, *children(verifier.pid)]
            os.kill(verifier.pid, signal.SIGKILL)
            assert (await running).verdict == "unknown"
            return processes

    processes = bounded(job())
    assert len(processes) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "its processes to end")
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_psync_and_scan_is_refused_with_a_remedy(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    client(a).set("k", 1)
    client(a).execute_command("ACL", "SETUSER", "eve", "on", ">pw", "+@all", "~*", "-psync", "-sync", "-scan")

    async def job() -> Comparison:
        async with Verifier(Endpoint("127.0.0.1", a.port, username="eve", password=Secret("pw")), endpoint(b)) as verifier:
            return await verifier.full()

    with pytest.raises(Refused, match="scan") as refused:
        bounded(job())
    assert "permit" in refused.value.remedy
    assert refused.value.exit_code is ExitCode.NOT_RUN


def test_the_command_ends_with_3_when_its_worker_is_killed(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", rdb_key_save_delay=60_000)
    for node in (a, b):
        fill(client(node))
    words = [sys.executable, "-m", "valkeep", "migrate", "verify", "--source", a.endpoint, "--target", b.endpoint]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: client(b).info("replication")["connected_slaves"], "the verification to be a replica")
        (worker,) = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert b"main" in Path(f"/proc/{worker}/cmdline").read_bytes()
        os.kill(worker, signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == int(ExitCode.UNKNOWN)
    assert "verdict    unknown" in out
    assert "killed by signal 9" in out


def test_a_target_that_denies_psync_is_read_by_scan(server: Server, client: Client) -> None:
    a, b = server("redis-8.0"), server("valkey-9.1")
    for node in (a, b):
        fill(client(node))
    client(b).execute_command("ACL", "SETUSER", "managed", "on", ">pw", "+@all", "~*", "-psync", "-sync")
    target = Endpoint("127.0.0.1", b.port, username="managed", password=Secret("pw"))

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), target) as verifier:
            results = [await verifier.full()]
            client(b, db=3).pexpireat("ttl", FAR + 1)
            client(b).set("one more", 1)
            client(b).lset("list:3", 0, "other")
            return [*results, await verifier.full()]

    valid, invalid = bounded(job())
    assert (valid.verdict, valid.keys_target) == ("valid", 51)
    assert "SCAN" in " ".join(valid.notes)
    assert (invalid.verdict, invalid.missing, invalid.extra, invalid.different) == ("invalid", 0, 1, 2)
