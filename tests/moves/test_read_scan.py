"""``--read scan``: a source that denies PSYNC moves by SCAN and DUMP, and no write that it acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.conftest import Server
from tests.support.managed import MANAGED, managed
from tests.support.pair import Pair
from tests.support.proxy import Proxy
from tests.support.verifying import FAR, bounded, endpoint, fill, follow
from tests.support.verifying import Writers as EverythingWriters
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.cli import run
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import ServerInfo, server_info
from valkeep.errors import ExitCode, Refused, ValkeepError
from valkeep.migrate.feed.scan import ScanFeed, _Names
from valkeep.migrate.gateway.gateway import Gateway, GatewayOptions
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.journal import Journal
from valkeep.migrate.keyread import KeyRead
from valkeep.migrate.run.scanned import Scanned
from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.runtime.node import Process

Client = Callable[..., Any]

FENCEABLE = tuple(rule for rule in MANAGED if rule != "-config")


@dataclass
class ManagedPair(Pair):
    """Valkeep is a user of the source who may not replicate."""

    deny: tuple[str, ...] = MANAGED
    target_url: str = ""

    def where(self) -> tuple[str, ...]:
        managed(lambda _node: self.here, self.source, *self.deny)
        source = f"redis://managed:pw@127.0.0.1:{self.source.port}"
        return ("--source", source, "--target", self.target_url or self.target.endpoint, "--state", str(self.folder / "state"))


def migrating(server: Server, client: Client, folder: Path, source: str, target: str, deny: tuple[str, ...]) -> ManagedPair:
    a, b = server(source), server(target, propagation_error_behavior="panic")
    here = client(a)
    fill(here)
    here.mset({f"k{number}": f"v{number}" for number in range(2000)})
    return ManagedPair(a, b, here, client(b), folder, deny)


@pytest.mark.parametrize(("source", "target"), [("redis-8.0", "valkey-9.1")])
def test_a_cut_over_of_a_scanned_source_under_writers_loses_nothing(
    server: Server, client: Client, tmp_path: Path, source: str, target: str
) -> None:
    pair = migrating(server, client, tmp_path, source, target, FENCEABLE)
    with Writers(pair.source.port, prefix="mine") as writers, pair.run("--read", "scan", "--lease", "30000") as run:
        assert run.wait() == 0, run.stderr
        assert pair.fence == "255"
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        assert writers.acked > 100
        assert writers.refused > 0
        run.assert_nothing_left()
    assert pair.here.info("stats")["sync_full"] == 0
    result = json.loads((run.report / "run.json").read_text())
    assert (result["verdict"], result["mismatches"], result["unexpected_error_replies"], result["read"]) == ("valid", 0, 0, "scan")
    assert any("different moments" in limit for limit in result["limits"])
    proof = json.loads((run.report / "verification.json").read_text())
    assert (proof["verdict"], proof["source_read"]) == ("valid", "scan")
    assert 0 < json.loads((run.report / "cutover.json").read_text())["write_pause_ms"] < 30_000
    assert "the writers will be kept out for about" in run.stderr


def test_between_two_managed_servers_the_writers_have_to_be_stopped_and_nothing_is_lost(
    server: Server, client: Client, tmp_path: Path
) -> None:
    """Neither side may be replicated from, replicate or be configured: read by SCAN, written to as by a client, compared by SCAN."""
    pair = migrating(server, client, tmp_path, "redis-7.0", "valkey-8.1", MANAGED)
    managed(client, pair.target)
    pair.target_url = f"valkey://managed:pw@127.0.0.1:{pair.target.port}"
    ways = ("--read", "scan", "--deliver", "push", "--fence", "external")
    with Writers(pair.source.port, prefix="mine") as writers, pair.run(*ways) as run:
        run.wait_for("cutover:call-off")  # nothing follows the source, so its offset stands still: its commands are counted
        writers.wait_for_acks(3)
        writers.stop()
        assert run.wait() == 0, run.stderr
        assert lost(writers.acknowledged(), pair.there) == []
    assert "the source still gets writes" in run.stderr
    proof = json.loads((run.report / "verification.json").read_text())
    assert (proof["verdict"], proof["source_read"], proof["target_read"]) == ("valid", "scan", "scan")
    assert client(pair.source).info("stats")["sync_full"] == client(pair.target).info("stats")["sync_full"] == 0


def test_a_lease_that_is_shorter_than_the_last_round_holds_no_writer(server: Server, client: Client, tmp_path: Path) -> None:
    pair = migrating(server, client, tmp_path, "redis-8.0", "valkey-9.1", FENCEABLE)
    with Writers(pair.source.port, prefix="mine") as writers, pair.run("--read", "scan", "--lease", "200") as run:
        assert run.wait() != 0
        assert writers.refused == 0
    assert "VK-SCAN-LEASE" in run.stderr
    assert "say --lease" in run.stderr
    assert pair.fence == "0"


# -- the feed alone -------------------------------------------------------------------------------------------------------------------------


@dataclass
class Following:
    """A target that gets a source by a scanning feed. ``compare``: everything, once the target has what the source had."""

    feed: ScanFeed
    gateway: Gateway
    source: Endpoint
    target: Process

    async def barrier(self, offset: int) -> None:
        await self.gateway.drained(await self.feed.reach(offset))

    async def compare(self) -> Comparison:
        async with Verifier(self.source, endpoint(self.target), FieldTtl.REFUSE, self.barrier, source_read="scan") as verifier:
            return await verifier.full()


@contextlib.asynccontextmanager
async def following(source: Endpoint, target: Process, client: Client, folder: Path) -> AsyncIterator[Following]:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240

    def nobody(_event: object) -> None: ...

    feed = ScanFeed(source, folder / "scan", nobody, time.monotonic)
    options = GatewayOptions((TargetFormat((9, 1, 0)),), FieldTtl.REFUSE, ("127.0.0.1", 0), frozenset({"127.0.0.1"}), folder)
    async with Gateway(feed, options, Ledger(None), nobody, time.monotonic) as gateway:
        await gateway.snapshot_taken()
        client(target).replicaof("127.0.0.1", gateway.address[1])
        await gateway.online(gateway.channels[0])
        yield Following(feed, gateway, source, target)
        gateway.expect_departure()
        client(target).replicaof("NO", "ONE")


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_written_arrives_in_rounds(server: Server, client: Client, tmp_path: Path, seed: int) -> None:
    a, b = server("redis-8.0"), server("valkey-9.1", propagation_error_behavior="panic")
    fill(client(a))

    async def job() -> Comparison:
        async with following(endpoint(a), b, client, tmp_path) as one:
            with EverythingWriters(a.port, True) as writers:
                while writers.writes < 1000 * seed:
                    await one.feed.reach(0)
            return await one.compare()

    result = bounded(job())
    assert result.verdict == "valid", (result.examples, result.reasons)


def test_deletions_functions_databases_and_large_values_cross(server: Server, client: Client, tmp_path: Path) -> None:
    a, b = server("redis-8.0"), server("valkey-9.1", propagation_error_behavior="panic")
    here, there = client(a), client(b)
    fill(here)

    async def job() -> None:
        async with following(endpoint(a), b, client, tmp_path) as one:
            here.delete("set:3", "stream")
            here.function_load("#!lua name=more\nredis.register_function('g', function() return 2 end)")
            here.function_delete("lib")
            client(a, db=7).set("far", b"x" * (20 << 20), pxat=FAR)
            client(a, db=3).flushdb()
            client(a, db=9).flushdb()
            await one.barrier(0)
            assert there.exists("set:3", "stream") == 0
            assert [library[1] for library in there.execute_command("FUNCTION", "LIST")] == [b"more"]
            assert client(b, db=7).pexpiretime("far") == FAR
            assert client(b, db=7).strlen("far") == 20 << 20
            assert client(b, db=3).dbsize() == 0
            here.function_flush()
            await one.barrier(0)
            assert there.execute_command("FUNCTION", "LIST") == []
            rounds = one.feed.rounds[-1].number
            await one.barrier(0)
            assert one.feed.rounds[-1].number == rounds  # nothing was written: there is nothing to read again
            assert (await one.compare()).verdict == "valid"

    bounded(job())


def test_a_value_that_comes_back_is_not_taken_for_one_that_never_changed(server: Server, client: Client, tmp_path: Path) -> None:
    """Between a round's scan and its second look at the key it changes, and then changes back: the round after has to see that."""
    a, b = server("valkey-9.1"), server("valkey-9.1", propagation_error_behavior="panic")
    here, there = client(a), client(b)
    here.set("k", "old")

    async def job() -> None:
        async with following(endpoint(a), b, client, tmp_path) as one:
            read = one.feed._give_again

            async def later(scan: Any, partition: int, batch: Any) -> int:
                if batch:
                    here.set("k", "between")
                return await read(scan, partition, batch)

            one.feed._give_again = later  # type: ignore[method-assign]
            here.set("k", "new")
            await one.barrier(0)
            assert there.get("k") == b"between"
            one.feed._give_again = read  # type: ignore[method-assign]
            here.set("k", "new")
            await one.barrier(0)
            assert there.get("k") == b"new"

    bounded(job())


def test_a_source_that_is_a_replica_is_read_when_it_has_come_along(server: Server, client: Client, tmp_path: Path) -> None:
    primary, a, b = server("redis-7.0"), server("redis-7.0"), server("valkey-9.1", propagation_error_behavior="panic")
    here, there = client(primary), client(b)
    follow(client(a), primary)

    async def job() -> None:
        async with following(endpoint(a), b, client, tmp_path) as one:
            for number in range(20):
                pipe = here.pipeline(transaction=False)
                for key in range(500):
                    pipe.set(f"k{key}", number)
                pipe.execute()
                await one.barrier(here.info("replication")["master_repl_offset"])
                assert set(there.mget([f"k{key}" for key in range(500)])) == {b"%d" % number}

    bounded(job())


def test_a_source_without_pexpiretime_is_read_to_within_two_milliseconds(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis before 7.0: expiries are TIME + PTTL, and what jitters crosses again, which is no fault."""
    monkeypatch.setattr(KeyRead, "of", classmethod(lambda cls, _version: cls(exact=False)))
    a, b = server("redis-7.0"), server("valkey-9.1", propagation_error_behavior="panic")
    here, there = client(a), client(b)
    fill(here)
    pipe = here.pipeline(transaction=False)
    for i in range(3000):
        pipe.set(f"ttl:{i}", i, pxat=FAR + i)
    pipe.execute()

    async def job() -> None:
        async with following(managed(client, a), b, client, tmp_path) as one:
            here.set("ttl:0", "new", pxat=FAR)
            await one.barrier(0)
            assert there.get("ttl:0") == b"new"
            assert max(abs(there.pexpiretime(f"ttl:{i}") - FAR - i) for i in range(0, 3000, 50)) <= 2
            assert here.dbsize() == there.dbsize()

    bounded(job())


def test_a_run_that_was_killed_leaves_nothing_that_stops_the_next(server: Server, client: Client, tmp_path: Path) -> None:
    pair = migrating(server, client, tmp_path, "redis-8.0", "valkey-9.1", FENCEABLE)
    with pair.run("--read", "scan", "--cutover", "manual", name="first") as run:
        run.wait_for("waiting")
        run.kill()
    with pair.run("--read", "scan", "--wipe-target") as run:
        assert run.wait() == 0, run.stderr
        run.assert_nothing_left()
    assert pair.there.get("k7") == b"v7"


def test_a_link_that_breaks_in_a_round_begins_the_round_again(server: Server, client: Client, tmp_path: Path) -> None:
    a, b = server("redis-7.0"), server("valkey-9.1", propagation_error_behavior="panic")
    here = client(a)
    fill(here)

    async def job() -> Comparison:
        async with following(managed(client, a), b, client, tmp_path) as one:
            with EverythingWriters(a.port, False):
                for _ in range(3):
                    asked = asyncio.create_task(one.feed.reach(0))
                    await asyncio.sleep(0.02)
                    here.execute_command("CLIENT", "KILL", "USER", "managed")
                    await asked
            return await one.compare()

    result = bounded(job())
    assert result.verdict == "valid", (result.examples, result.reasons)


def test_a_source_that_was_restarted_ends_the_feed(server: Server, client: Client, tmp_path: Path) -> None:
    a, b = server("redis-7.0"), server("valkey-9.1")
    client(a).set("k", 1)

    async def job() -> None:
        async with following(endpoint(a), b, client, tmp_path) as one:
            one.feed._run_id = "0" * 40  # as if another process had answered before
            client(a).execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client(a).set("k", 2)
            await one.gateway.beside(one.feed.reach(0))

    with pytest.raises(Refused, match="was restarted, or another server answers there") as caught:
        bounded(job())
    assert caught.value.code == "VK-SOURCE-OTHER"


def test_a_table_that_shrinks_under_the_snapshot_gives_no_key_twice(server: Server, client: Client, tmp_path: Path) -> None:
    """A server that loads a snapshot with one key twice exits."""
    a, b = server("redis-7.0"), server("valkey-9.1", propagation_error_behavior="panic")
    pipe = client(a).pipeline(transaction=False)
    for i in range(30_000):
        pipe.set(f"goes:{i}", i)
    pipe.execute()

    def shrink() -> None:
        with contextlib.closing(valkey.Valkey(port=a.port)) as c:
            for i in range(0, 26_000, 1000):
                c.delete(*[f"goes:{one}" for one in range(i, i + 1000)])
                time.sleep(0.002)

    async def job() -> Comparison:
        thread = threading.Thread(target=shrink)
        thread.start()
        try:
            async with following(endpoint(a), b, client, tmp_path) as one:
                await asyncio.to_thread(thread.join)
                return await one.compare()
        finally:
            thread.join()

    result = bounded(job())
    assert (result.verdict, result.keys_source) == ("valid", 4000), result.examples
    assert client(b).ping()


def test_names_pass_once_and_never_twice() -> None:
    names = _Names(1000)
    passed = [name for name in (b"k%d" % (number % 700) for number in range(2100)) if names.new(0, name)]
    assert len(set(passed)) == len(passed) > 690
    assert not names.new(0, b"k1")
    assert names.new(1, b"k1")
    assert names.count == len(passed) + 1


def test_a_source_that_denies_scan_too_is_refused_before_anything_is_touched(server: Server, client: Client, tmp_path: Path) -> None:
    pair = migrating(server, client, tmp_path, "redis-8.0", "valkey-9.1", (*FENCEABLE, "-scan"))
    with pair.run("--read", "scan") as run:
        assert run.wait() != 0
    assert "VK-SOURCE-COMMANDS" in run.stderr
    assert "+scan" in run.stderr
    until(lambda: not pair.there.dbsize(), "an empty target")


def test_preflight_judges_by_the_way_in_which_the_source_would_be_read(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    source = managed(client, server("redis-8.0"))
    words = ["migrate", "preflight", "--source", f"redis://managed:pw@127.0.0.1:{source.port}", "--verbose"]
    assert run(words) == ExitCode.JUDGED_BAD
    refused = capsys.readouterr().out
    assert "does not let this user replicate" in refused
    assert "--read scan" in refused
    run([*words, "--read", "scan"])
    judged = capsys.readouterr().out
    assert "this user may read the source's keys" in judged
    assert "NO-GO" not in judged
    for code in ("VK-BACKLOG", "VK-OUTPUT-BUFFER", "VK-FORK-MEMORY"):
        assert code not in judged


def test_there_is_no_way_back_to_a_scanned_source(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("preflight", "run"):
        words = ["migrate", command, "--source", "redis://127.0.0.1:1", "--target", "valkey://127.0.0.1:2", "--read", "scan", "--rollback"]
        assert run(words) == ExitCode.USAGE
        assert "has no history to go on with" in capsys.readouterr().err


def test_a_node_of_a_cluster_is_refused(server: Server, tmp_path: Path) -> None:
    node = server("valkey-9.1", cluster_enabled="yes")
    feed = ScanFeed(endpoint(node), tmp_path, lambda _: None, time.monotonic)
    with pytest.raises(ValkeepError, match="cluster"):
        bounded(feed.look())


@pytest.mark.parametrize("kind", ["redis-7.0", "redis-8.0", "valkey-8.1"])
def test_a_source_that_got_other_data_by_a_full_sync_is_read_again(server: Server, client: Client, tmp_path: Path, kind: str) -> None:
    """A replica that loads another snapshot counts no changes."""
    primary, other, a, b = server(kind), server(kind), server(kind), server("valkey-9.1", propagation_error_behavior="panic")
    there = client(b)
    client(primary).set("k", "old")
    client(other).set("k", "new")
    follow(client(a), primary)

    async def job() -> None:
        async with following(endpoint(a), b, client, tmp_path) as one:
            await one.barrier(0)
            assert there.get("k") == b"old"
            follow(client(a), other)
            assert client(a).get("k") == b"new"
            await one.barrier(0)
            assert there.get("k") == b"new"

    bounded(job())


def test_a_source_that_became_a_replica_is_waited_for(server: Server, client: Client, tmp_path: Path) -> None:
    """Sentinels made another server the primary: what that one acknowledged may not have come along."""
    primary, a, b = server("redis-7.0"), server("redis-7.0"), server("valkey-9.1", propagation_error_behavior="panic")
    here, there = client(primary), client(b)
    follow(here, a)

    async def job() -> None:
        async with following(endpoint(a), b, client, tmp_path) as one:
            here.replicaof("NO", "ONE")
            with Proxy(primary.address) as between:
                follow(client(a), between)
                between.delay = 0.5
                here.set("k", "acknowledged")
                await one.barrier(here.info("replication")["master_repl_offset"])
                assert there.get("k") == b"acknowledged"

    bounded(job())


def test_a_server_that_took_the_sources_place_is_not_taken_for_it_before_it_is_what_is_read(
    server: Server, client: Client, tmp_path: Path
) -> None:
    """Sentinels made another server the primary, and the old one does not know yet: nothing may be promoted by what the old one has."""
    new, a, b = server("redis-7.0"), server("redis-7.0"), server("valkey-9.1", propagation_error_behavior="panic")
    here = client(new)
    follow(here, a)

    async def job() -> None:
        async with following(endpoint(a), b, client, tmp_path) as one:
            reading = Scanned(one.feed, Journal(None, lambda _event: None, time.monotonic))
            await one.barrier(0)
            assert reading.is_of(await asked(a), one.gateway.history)
            here.replicaof("NO", "ONE")
            assert not reading.is_of(await asked(new), one.gateway.history)
            follow(client(a), new)
            here.set("k", "v")
            await one.barrier(here.info("replication")["master_repl_offset"])
            assert reading.is_of(await asked(new), one.gateway.history)

    bounded(job())


async def asked(process: Process) -> ServerInfo:
    async with await Connection.open(endpoint(process), client_name="test") as connection:
        return await server_info(connection)
