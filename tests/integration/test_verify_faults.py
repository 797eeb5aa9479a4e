"""Verification under fire: servers that change under it, links that crawl, requests that are given up on. Never valid by mistake, and never for ever."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.conftest import Server
from tests.support.proxy import Proxy
from tests.support.verifying import bounded, compare, endpoint, fill, follow
from tests.support.waiting import until
from valkeep.cli import run
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, ExitCode, Refused
from valkeep.migrate.verify import Comparison, Verifier
from valkeep.report.events import Event, Note

Client = Callable[..., Any]
SLOW_SNAPSHOT = 60_000  # µs a key


@contextlib.contextmanager
def writing(c: Any, key: str, pause: float = 0.001) -> Iterator[None]:
    """Somebody who increments one key all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(pause):
            c.incr(key)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def snapshot_begun(node: Any) -> None:
    await asyncio.to_thread(until, lambda: node.info("replication")["connected_slaves"], "the verification to be a replica")


# ------------------------------------------------------------------------------------------------------- requests given up on


def test_a_request_that_was_given_up_on_leaves_nothing_that_is_valid(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", rdb_key_save_delay=SLOW_SNAPSHOT)
    for node in (a, b):
        fill(client(node))

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            given_up = asyncio.create_task(verifier.full())
            await snapshot_begun(client(b))
            given_up.cancel()
            results = [await verifier.round(), await verifier.final(0)]
            client(b).config_set("rdb-key-save-delay", 0)
            return [*results, await verifier.full()]

    early, held, full = bounded(job())
    for result in (early, held):
        assert result.verdict == "unknown"
        assert "not followed" in result.reasons[0]
    assert (full.verdict, full.keys_source) == ("valid", 51)


def test_after_a_full_verification_that_failed_no_round_is_valid(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", rdb_key_save_delay=SLOW_SNAPSHOT)
    for node in (a, b):
        fill(client(node))

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            running = asyncio.create_task(verifier.full())
            await snapshot_begun(client(b))
            (side,) = children(verifier.pid)
            os.kill(side, signal.SIGKILL)
            results = [await running, await verifier.round()]
            client(b).config_set("rdb-key-save-delay", 0)
            return [*results, await verifier.full()]

    failed, after, again = bounded(job())
    assert "killed by signal 9" in failed.reasons[0]
    assert after.verdict == "unknown"
    assert again.verdict == "valid"


def test_a_bug_of_the_verifier_is_told_as_one(server: Server) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    events: list[Event] = []

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b), emit=events.append) as verifier:
            full = await verifier.full()
            return [full, await verifier.final(cast("int", "no offset")), await verifier.round()]

    full, broken, after = bounded(job())
    assert full.verdict == after.verdict == "valid"
    assert broken.verdict == "unknown"
    assert broken.exit_code is ExitCode.UNKNOWN
    assert "bug of Valkeep" in broken.reasons[0]
    (told,) = [event for event in events if isinstance(event, Note) and event.level == "error"]
    assert "TypeError" in told.fields["traceback"]
    assert "session.py" in told.fields["traceback"]


def test_a_barrier_that_raises_what_nobody_expects_ends_as_unknown(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    fill(client(a))

    async def barrier(offset: int) -> None:
        raise LookupError(f"offset {offset} of nothing")

    async def job() -> Comparison:
        async with Verifier(endpoint(a), endpoint(b), barrier=barrier) as verifier:
            return await verifier.full()

    result = bounded(job())
    assert result.verdict == "unknown"
    assert "LookupError" in result.reasons[0]


# ------------------------------------------------------------------------------------------------------------------ slow links


def test_hot_keys_on_a_slow_link_end_in_bounded_time(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    fill(client(a))
    follow(client(b), a)

    async def job(proxy: Proxy) -> list[tuple[float, Comparison]]:
        timed = []
        source = Endpoint.parse(proxy.url())
        async with Verifier(source, endpoint(b), patience=2.0) as verifier:
            for look in (verifier.full, verifier.round):
                begun = time.monotonic()
                result = await look()
                timed.append((time.monotonic() - begun, result))
            client(a).execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            proxy.delay = 0.0
            timed.append((0.0, await verifier.final(client(a).info("replication")["master_repl_offset"])))
            client(a).execute_command("CLIENT", "UNPAUSE")
        return timed

    with Proxy(("127.0.0.1", a.port), delay=0.1) as proxy, writing(client(a), "hot"):
        timed = bounded(job(proxy))
    for seconds, result in timed[:2]:
        assert seconds < 15
        assert (result.verdict, result.differences, result.unsettled) == ("unknown", 0, 1)
        assert result.hot_only
        assert "written faster than they can be compared (time was up after 2 s)" in result.reasons[0]
    assert timed[2][1].verdict == "valid"


def test_a_target_that_does_not_come_along_ends_a_round(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    fill(client(a))
    follow(client(b), a)
    stuck = asyncio.Event()

    async def barrier(offset: int) -> None:
        if stuck.is_set():
            await asyncio.Event().wait()
        await asyncio.to_thread(until, lambda: client(b).info("replication")["slave_repl_offset"] >= offset, "the target to follow")

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b), barrier=barrier, patience=3.0) as verifier:
            results = [await verifier.full()]
            client(a).set("one more", 1)
            stuck.set()
            results.append(await verifier.round())
            stuck.clear()
            return [*results, await verifier.round()]

    full, late, later = bounded(job())
    assert full.verdict == later.verdict == "valid"
    assert (late.verdict, late.unsettled) == ("unknown", 1)
    assert "time was up" in late.reasons[0]


@pytest.mark.slow
@pytest.mark.parametrize("planted", [True, False])
def test_links_that_are_cut_and_looks_that_are_given_up_on_make_nothing_valid_or_different(
    server: Server, client: Client, planted: bool
) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", replica_read_only="no")
    fill(client(a))
    follow(client(b), a)
    if planted:
        client(b, db=3).hset("hash:3", "field 1", "planted")
    rng = random.Random(7 + planted)
    verdicts: Counter[str] = Counter()

    async def looks(source: Proxy, target: Proxy) -> None:
        async with Verifier(Endpoint.parse(source.url()), Endpoint.parse(target.url()), patience=0.3) as verifier:
            for look in (verifier.full, verifier.round, verifier.full):
                asking = asyncio.create_task(look())
                done, _ = await asyncio.wait({asking}, timeout=rng.uniform(0.0, 0.4))
                if not done:
                    events: list[Callable[[], object]] = [source.cut, target.cut, asking.cancel, lambda: None]
                    await asyncio.to_thread(rng.choice(events))
                with contextlib.suppress(asyncio.CancelledError):
                    result = await asking
                    verdicts[result.verdict] += 1
                    assert result.verdict != ("valid" if planted else "invalid"), result
                    assert result.differences <= planted

    with Proxy(("127.0.0.1", a.port)) as source, Proxy(("127.0.0.1", b.port)) as target, writing(client(a), "written"):
        for _ in range(6):
            bounded(looks(source, target))
    assert verdicts["unknown"] > 0

    async def undisturbed() -> Comparison:  # on a slow machine each of the others may have been cut, or had no time
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            return await verifier.full()

    assert bounded(undisturbed()).verdict == ("invalid" if planted else "valid")


# --------------------------------------------------------------------------------------------------- servers that change under it


def test_a_source_that_is_made_a_replica_is_unknown(server: Server, client: Client) -> None:
    a, b, other = server("valkey-9.1"), server("valkey-9.1"), server("valkey-9.1")
    fill(client(a))
    follow(client(b), a)

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            full = await verifier.full()
            await asyncio.to_thread(follow, client(a), other)
            return [full, await verifier.round(), await verifier.final(0)]

    full, after, final = bounded(job())
    assert full.verdict == "valid"
    assert after.verdict == final.verdict == "unknown"


def test_an_address_that_leads_to_two_servers_is_unknown(server: Server, client: Client) -> None:
    a, b, other = server("valkey-9.1"), server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b, other):
        fill(client(node))

    async def job(one: Endpoint, two: Endpoint, proxy: Proxy) -> Comparison:
        async with Verifier(one, two) as verifier:
            proxy.server = ("127.0.0.1", other.port)
            return await verifier.full()

    for place in (0, 1):
        ends = [endpoint(a), endpoint(b)]
        with Proxy(("127.0.0.1", ends[place].port)) as proxy:
            ends[place] = Endpoint.parse(proxy.url())
            result = bounded(job(ends[0], ends[1], proxy))
        assert result.verdict == "unknown"
        assert "one server now and to another" in result.reasons[0]


def test_clocks_that_differ_are_told(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b):
        client(node).set("k", "v")

    def an_hour_ahead(data: bytes) -> bytes:
        return re.sub(rb"\*2\r\n\$10\r\n(\d{10})", lambda found: b"*2\r\n$10\r\n%d" % (int(found[1]) + 3600), data)

    async def job(target: Endpoint) -> Comparison:
        async with Verifier(endpoint(a), target) as verifier:
            return await verifier.full()

    with Proxy(("127.0.0.1", b.port)) as proxy:
        proxy.mangle = an_hour_ahead
        result = bounded(job(Endpoint.parse(proxy.url())))
    assert result.verdict == "valid"
    assert re.search(r"clocks differ by 3(600|599)\.\d s", " ".join(result.notes))


def test_a_server_without_room_for_another_client_is_told_before_anything(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    client(b).config_set("maxclients", 1)
    with pytest.raises(ConnectionLost, match="no room for another client") as lost:
        compare(a, b)
    assert "maxclients" in lost.value.remedy
    assert lost.value.exit_code is ExitCode.NOT_RUN


def test_a_target_that_loads_another_snapshot_meanwhile_is_unknown(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", key_load_delay=50_000, loading_process_events_interval_bytes=1024)
    fill(client(a))

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b), patience=0.5) as verifier:
            results = [await verifier.full()]
            await asyncio.to_thread(client(b).replicaof, "127.0.0.1", a.port)
            await asyncio.to_thread(until, lambda: client(b).info("persistence")["loading"], "the target to load")
            client(a).set("one more", 1)
            return [*results, await verifier.round()]

    apart, loading = bounded(job())
    assert apart.verdict == "invalid"
    assert loading.verdict in ("invalid", "unknown")
    assert "LOADING" in " ".join(loading.reasons)


def test_a_cluster_without_slots_is_compared_with_nothing(server: Server) -> None:
    a, b = server("valkey-9.1", cluster_enabled="yes"), server("valkey-9.1")
    for one, other in ((a, b), (b, a)):
        with pytest.raises(ConnectionLost, match="no slot that is served"):
            compare(one, other)


def test_libraries_of_functions_that_change_later_are_compared_again(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b):
        fill(client(node))
    body = "#!lua name=later\nredis.register_function('g', function() return 1 end)"

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            results = [await verifier.full()]
            client(a).function_load(body)
            results += [await verifier.round(), await verifier.round()]
            client(b).function_load(body)
            return [*results, await verifier.round()]

    full, missing, still, loaded = bounded(job())
    assert [one.verdict for one in (full, missing, still, loaded)] == ["valid", "invalid", "invalid", "valid"]
    assert missing.different == still.different == 1


# ---------------------------------------------------------------------------------------------------------------------- databases


def test_a_repair_reads_and_writes_each_key_in_its_own_database(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b):
        for database in range(10):
            client(node, db=database).set("same name", f"of {database}")
    for database in (9, 0, 4):
        client(b, db=database).set("same name", "planted")

    async def job() -> list[Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            results = [await verifier.full()]
            # the connections are in database 9 now; one key in database 4 alone, then what is left
            (one,) = [example for example in results[0].examples if example.database == 4]
            results.append(await verifier.repair([one]))
            return [*results, await verifier.repair(), await verifier.full()]

    found, in_part, repaired, again = bounded(job())
    assert (found.verdict, found.different) == ("invalid", 3)
    assert (in_part.verdict, in_part.different, in_part.repaired) == ("invalid", 2, 1)
    assert (repaired.verdict, repaired.repaired) == ("valid", 3)
    assert again.verdict == "valid"
    for database in range(10):
        assert client(b, db=database).get("same name") == f"of {database}".encode()


def test_a_repair_into_a_database_that_the_target_has_not_writes_nowhere(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", databases=4)
    for node in (a, b):
        client(node, db=3).set("k", "of 3")
    client(a, db=9).set("k", "of 9")

    async def job() -> Comparison:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            found = await verifier.full()
            assert (found.verdict, found.missing) == ("invalid", 1)
            with pytest.raises(Refused, match="no database 9") as refused:
                await verifier.repair()
            assert refused.value.definite
            return await verifier.round()

    assert bounded(job()).verdict == "unknown"  # it owes a look at that key, and can't
    assert client(b, db=3).get("k") == b"of 3"
    assert client(b).info("keyspace").keys() == {"db3"}


def test_a_difference_in_a_large_value_is_found_and_not_read_again_for_its_detail(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b):
        client(node).set("small", "x")
        client(node).setrange("large", 8 << 20, "x")
    client(b).setrange("large", 4 << 20, "y")
    client(b).append("small", "y")
    result = compare(a, b)
    assert (result.verdict, result.different) == ("invalid", 2)
    assert {one.key: bool(one.detail) for one in result.examples} == {b"small": True, b"large": False}
    assert client(a).info("commandstats")["cmdstat_dump"]["calls"] == 1


# ------------------------------------------------------------------------------------------------------------------------ repair


def test_a_repair_of_an_unlinked_target_under_writers_says_why_it_falls_behind(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b):
        fill(client(node))
    client(b).set("one more", 1)

    async def job() -> tuple[Comparison, Comparison, Comparison]:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            found = await verifier.full()
            for number in range(30):
                client(a).set(f"new {number}", 1)
            return found, await verifier.repair(), await verifier.round()

    found, repaired, behind = bounded(job())
    assert (found.verdict, found.extra, found.reasons) == ("invalid", 1, ())
    assert (repaired.verdict, repaired.repaired) == ("valid", 1)
    assert (behind.verdict, behind.missing) == ("invalid", 30)
    assert "not linked to the source" in behind.reasons[-1]
    assert "link it" in behind.reasons[-1]


def test_a_repair_that_the_target_refuses_half_of_says_that_something_was_changed(server: Server, client: Client) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    for node in (a, b):
        fill(client(node))
    client(b).set("one more", 1)  # to be deleted, which always goes
    client(b).delete("string:700")  # to be restored, which needs memory
    client(b).config_set("maxmemory", 1)

    async def job() -> Comparison:
        async with Verifier(endpoint(a), endpoint(b)) as verifier:
            assert (await verifier.full()).verdict == "invalid"
            with pytest.raises(Refused, match="OOM") as refused:
                await verifier.repair()
            assert not refused.value.definite
            assert refused.value.exit_code is ExitCode.UNCERTAIN
            assert "maxmemory" in refused.value.remedy
            return await verifier.round()

    left = bounded(job())
    assert (left.verdict, left.missing, left.extra) == ("invalid", 1, 0)


def test_the_command_tells_what_it_found_also_when_it_may_not_repair(server: Server, client: Client, capsys: Any) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1", replica_read_only="no")
    fill(client(a))
    follow(client(b), a)
    client(b).set("extra\x1b[2J", 1)
    assert run(["migrate", "verify", "--source", a.endpoint, "--target", b.endpoint, "--repair"]) is ExitCode.JUDGED_BAD
    out = capsys.readouterr().out
    assert "1 extra" in out
    assert "extra\\x1b[2J" in out
    assert "\x1b" not in out
    assert "because    it was not repaired" in out
    assert client(b).dbsize() == client(a).dbsize() + 1


def test_the_command_settles_hot_keys_in_a_pause_or_says_why_it_could_not(server: Server, client: Client, capsys: Any) -> None:
    a, b = server("valkey-9.1"), server("valkey-9.1")
    fill(client(a))
    follow(client(b), a)
    client(a).execute_command("ACL", "SETUSER", "poor", "on", ">pw", "+@all", "~*", "-client|pause")
    with Proxy(("127.0.0.1", a.port), delay=0.05) as slow, writing(client(a), "hot"):
        words = ["--target", b.endpoint, "--pause", "8000"]
        assert run(["migrate", "verify", "--source", f"redis://poor:pw@127.0.0.1:{slow.port}", *words]) is ExitCode.UNKNOWN
        out = capsys.readouterr().out
        assert "written faster than they can be compared" in out
        assert "writers could not be held" in out
        assert run(["migrate", "verify", "--source", slow.url(), *words]) is ExitCode.GOOD
    assert "verdict    valid" in capsys.readouterr().out
