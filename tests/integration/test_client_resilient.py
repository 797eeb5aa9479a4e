"""A client that outlives failovers, on real topologies: what it hides, and what it must not hide."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.proxy import TO_CLIENT, Proxy
from tests.support.scripted_primary import until
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.resilient import ResilientClient
from valkeep.client.retry import InDoubt, OutOfTime, Patience
from valkeep.errors import LocalProtocolError, Refused, ServerError, ValkeepError
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import TopologySpec

pytestmark = [pytest.mark.server, pytest.mark.timeout(150)]
PATIENCE = Patience(call=60.0)  # a failover on a busy machine


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await test
        assert asyncio.all_tasks() == {asyncio.current_task()}, "something goes on in the background"

    asyncio.run(bounded())


async def ask(endpoint: Endpoint, *command: str | int | bytes) -> Any:
    async with await Connection.open(endpoint) as connection:
        return await connection.call(*command)


def endpoints(deployment: LocalDeployment, *roles: str) -> list[Endpoint]:
    return [machine.endpoint for machine in deployment.of(*roles)]


@contextlib.asynccontextmanager
async def sentinels(**options: Any) -> Any:
    """A deployment with sentinels and a client of it."""
    async with (
        LocalDeployment(TopologySpec.sentinel()) as deployment,
        ResilientClient.sentinel(endpoints(deployment, "sentinel"), rng=random.Random(1), **{"patience": PATIENCE, **options}) as client,
    ):
        yield deployment, client


@contextlib.asynccontextmanager
async def cluster(**options: Any) -> Any:
    """A cluster and a client of it that knows two of its nodes."""
    async with (
        LocalDeployment(TopologySpec.cluster()) as deployment,
        ResilientClient.cluster(endpoints(deployment, "primary")[:2], rng=random.Random(1), **{"patience": PATIENCE, **options}) as client,
    ):
        yield deployment, client


class Writer:
    """Writes k:0, k:1, … one after the other; remembers which were acknowledged, and every error that reached it."""

    def __init__(self, client: ResilientClient) -> None:
        self.client = client
        self.acked: list[int] = []
        self.errors: list[ValkeepError] = []
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        for number in range(1_000_000):
            try:
                await self.client.call("SET", f"k:{number}", number)
                self.acked.append(number)
            except ValkeepError as error:
                self.errors.append(error)

    async def more(self, count: int = 50) -> None:
        """Until so many more were acknowledged."""
        wanted = len(self.acked) + count
        await until(lambda: len(self.acked) >= wanted)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def test_the_primary_is_killed_under_calls_and_no_error_reaches_the_caller() -> None:
    async def check() -> None:
        async with sentinels() as (deployment, client):
            writer = Writer(client)
            await writer.more()
            await deployment.machines["n1"].kill()
            await writer.more()
            await writer.stop()
            assert writer.errors == []
            assert client.counts.retries > 0
            await until(lambda: client.counts.switches == 1)  # all clients of it are told, some later than they find out
            (primary,) = await client.primaries()
            assert primary in endpoints(deployment, "replica")
            values = await client.pipeline([("GET", f"k:{number}") for number in writer.acked[-50:]])
            assert values == [b"%d" % number for number in writer.acked[-50:]]

    run(check())


def test_with_tls_and_users_a_failover_is_followed_as_without() -> None:
    async def check() -> None:
        spec = replace(TopologySpec.sentinel(), tls=True, acl=True, server="valkey-8.1")
        async with LocalDeployment(spec) as deployment:
            (primary,) = endpoints(deployment, "primary")
            async with ResilientClient.sentinel(endpoints(deployment, "sentinel"), login=primary, patience=PATIENCE) as client:
                await client.call("SET", "k", "v", wait=2, wait_ms=5000)
                await deployment.machines["n1"].kill()
                assert await client.call("SET", "j", "w") == b"OK"
                assert await client.pipeline([("GET", "k"), ("GET", "j")]) == [b"v", b"w"]
                assert await client.primaries() != (primary,)

    run(check())


def test_a_failover_by_hand_is_followed_while_the_old_primary_still_answers() -> None:
    async def check() -> None:
        async with sentinels() as (deployment, client):
            writer = Writer(client)
            await writer.more()
            before = await client.owner("k")
            assert await ask(endpoints(deployment, "sentinel")[0], "SENTINEL", "FAILOVER", "valkeep") == b"OK"
            await until(lambda: client.counts.switches != 0)
            await writer.more()
            await writer.stop()
            assert writer.errors == []
            assert await client.owner("k") != before
            assert (await ask(await client.owner("k"), "ROLE"))[0] == b"master"

    run(check())


def test_a_hanging_primary_is_left_when_its_patience_has_ended() -> None:
    async def check() -> None:
        async with sentinels(patience=Patience(call=60.0, node=0.3)) as (deployment, client):
            await client.call("SET", "k", "1")
            await deployment.machines["n1"].pause()
            assert await client.call("SET", "k", "2") == b"OK"
            assert (await client.primaries())[0] in endpoints(deployment, "replica")
            with pytest.raises(LocalProtocolError, match="not known to only read"):
                await client.call("INCR", "n", replica=True)

    run(check())


def test_reads_go_to_a_replica_on_request_and_to_the_primary_when_there_is_none_left() -> None:
    async def check() -> None:
        async with sentinels() as (deployment, client):
            (primary,) = endpoints(deployment, "primary")
            await client.transaction([("SET", "k", "v"), ("INCR", "n")])
            assert await client.pipeline([("WAIT", 2, 5000)]) == [2]
            await ask(primary, "CONFIG", "RESETSTAT")
            assert await client.pipeline([("GET", "k")] * 20, replica=True) == [b"v"] * 20
            assert b"cmdstat_get" not in await ask(primary, "INFO", "commandstats")
            for name in ("n2", "n3"):
                await deployment.machines[name].kill()
            assert await client.call("GET", "k", replica=True) == b"v"
            assert b"cmdstat_get" in await ask(primary, "INFO", "commandstats")

    run(check())


def test_an_increment_whose_reply_was_lost_is_not_made_again(server: Server) -> None:
    async def check() -> None:
        node = server("newest-valkey")
        with Proxy(("127.0.0.1", node.port)) as proxy:
            async with ResilientClient.primary(Endpoint(proxy.host, proxy.port), patience=Patience(call=20.0, node=1.0)) as client:
                proxy.when(b":1\r\n", direction=TO_CLIENT, drop=True)
                with pytest.raises(InDoubt, match="INCR may have been done") as caught:
                    await client.call("INCR", "n")
                assert not caught.value.definite
                assert "idempotent=True" in caught.value.remedy
                assert (client.counts.in_doubt, client.counts.retries) == (1, 0)
                assert await client.call("GET", "n") == b"1"

                proxy.when(b":1\r\n", direction=TO_CLIENT, drop=True)
                assert await client.call("INCR", "m", idempotent=True) == 2  # it is the caller who said so
                proxy.when(b"+OK\r\n", direction=TO_CLIENT, drop=True)
                assert await client.call("SET", "k", "v") == b"OK"
                assert client.counts.retries == 2

    run(check())


def test_a_write_that_too_few_replicas_confirm_is_in_doubt(server: Server) -> None:
    async def check() -> None:
        node = server("newest-valkey")
        follower = server("newest-valkey", {"replicaof": f"127.0.0.1 {node.port}"})
        async with ResilientClient.primary(Endpoint("127.0.0.1", node.port)) as client:
            assert await client.call("INCR", "n", wait=1, wait_ms=10_000) == 1
            follower.pause()
            with pytest.raises(InDoubt, match="of 1 replicas 0 confirmed it within 20 ms"):
                await client.call("INCR", "n", wait=1, wait_ms=20)
            assert client.counts.retries == 0
            with pytest.raises(OutOfTime, match="SET did not succeed") as caught:
                await client.call("SET", "k", "v", wait=1, wait_ms=20, deadline=2.0)
            assert not caught.value.definite
            assert client.counts.retries > 0
            waiting = asyncio.ensure_future(client.call("SET", "k", "v", wait=1, wait_ms=20))
            follower.resume()
            assert await waiting == b"OK"

    run(check())


def test_calls_in_flight_each_end_in_their_own_way_when_the_server_dies(server: Server) -> None:
    async def check() -> None:
        node = server("newest-valkey", {"appendonly": "yes", "appendfsync": "always"})
        async with ResilientClient.primary(Endpoint("127.0.0.1", node.port)) as client:
            await client.call("SET", "k", "before")
            node.pause()
            calls = asyncio.ensure_future(client.pipeline([("GET", "k"), ("INCR", "n"), ("SET", "j", "v")]))
            await asyncio.sleep(0.1)  # so that they are on the wire
            node.kill()
            await asyncio.to_thread(node.restart)
            got, doubtful, done = await calls
            assert got == b"before"
            assert isinstance(doubtful, InDoubt)
            assert done == b"OK"

    run(check())


def test_refusals_that_pass_are_waited_out_and_others_are_raised_at_once(server: Server) -> None:
    async def check() -> None:
        node = server("newest-valkey", {"min-replicas-to-write": 1})
        async with ResilientClient.primary(Endpoint("127.0.0.1", node.port)) as client:
            waiting = asyncio.ensure_future(client.call("INCR", "n"))
            await until(lambda: client.counts.retries >= 2)
            await ask(Endpoint("127.0.0.1", node.port), "CONFIG", "SET", "min-replicas-to-write", 0)
            assert await waiting == 1
            await client.call("SET", "k", "v")
            before = client.counts.retries
            with pytest.raises(ServerError, match="WRONGTYPE"):
                await client.call("LPUSH", "k", "x")
            assert client.counts.retries == before
        with pytest.raises(Refused, match="has no password"):
            async with ResilientClient.primary(Endpoint.parse(f"redis://:wrong@127.0.0.1:{node.port}")) as client:
                await client.call("GET", "k")

    run(check())


def test_the_deadline_is_kept_and_says_whether_anything_may_have_happened(server: Server) -> None:
    async def check() -> None:
        clock = asyncio.get_running_loop().time
        node = server("newest-valkey")
        async with ResilientClient.primary(Endpoint("127.0.0.1", node.port), patience=Patience(node=0.2)) as client:
            await client.call("SET", "k", "v")
            node.pause()
            for command, definite in ((("SET", "k", "w"), False), (("GET", "k"), True)):
                began = clock()
                with pytest.raises(OutOfTime, match=r"did not succeed within 0\.5 s") as caught:
                    await client.call(*command, deadline=0.5)
                assert 0.4 < clock() - began < 5
                assert caught.value.definite is definite
                assert "stopped" in caught.value.remedy
            node.resume()
            assert await client.call("GET", "k") in {b"v", b"w"}

    run(check())


def test_with_all_sentinels_gone_the_error_names_them_and_a_remedy() -> None:
    async def check() -> None:
        gone = [Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)]
        async with ResilientClient.sentinel(gone, patience=Patience(call=0.3)) as client:
            with pytest.raises(
                OutOfTime, match=r"no sentinel leads to 'valkeep'.*127\.0\.0\.1:1 refused.*127\.0\.0\.1:2 refused"
            ) as caught:
                await client.call("INCR", "n")
            assert caught.value.definite
            assert "check that sentinels run" in caught.value.remedy
        async with ResilientClient.cluster(gone, patience=Patience(call=0.3)) as client:
            with pytest.raises(OutOfTime, match="no node answers with a table of slots") as caught:
                await client.call("INCR", "n")
            assert "cluster-enabled" in caught.value.remedy

    run(check())


def test_a_clusters_primary_is_killed_and_a_failover_made_by_hand() -> None:
    async def check() -> None:
        async with cluster() as (deployment, client):
            writer = Writer(client)
            await writer.more(200)
            sizes = await client.each_primary("DBSIZE")
            assert set(sizes) == set(endpoints(deployment, "primary"))
            assert all(size > 30 for size in sizes.values())
            await deployment.machines["n1"].kill()
            sizes = await client.each_primary("DBSIZE")
            assert set(sizes) == {deployment.machines[name].endpoint for name in ("n2", "n3", "n4")}
            await writer.more(200)
            assert endpoints(deployment, "primary")[0] not in await client.primaries()
            assert await ask(deployment.machines["n5"].endpoint, "CLUSTER", "FAILOVER") == b"OK"
            while deployment.machines["n5"].endpoint not in await client.primaries():
                await writer.more(10)
            await writer.stop()
            assert writer.errors == []
            assert client.counts.redirects > 0
            recent = writer.acked[-100:]
            assert await client.pipeline([("GET", f"k:{number}") for number in recent], replica=True) == [
                b"%d" % number for number in recent
            ]

    run(check())


def test_a_slot_on_its_way_is_followed_by_ask_and_moved_when_it_has_arrived() -> None:
    async def check() -> None:
        async with cluster() as (deployment, client):
            slot = key_slot(b"{tag}")
            source = await client.owner("{tag}")
            target = next(node for node in endpoints(deployment, "primary") if node != source)
            ids = {node: await ask(node, "CLUSTER", "MYID") for node in (source, target)}
            await client.call("SET", "{tag}:old", "1")
            await ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            await ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])

            assert await client.call("GET", "{tag}:old") == b"1"  # still at the source
            assert client.counts.redirects == 0
            assert await client.call("SET", "{tag}:new", "2") == b"OK"
            assert await client.transaction([("INCR", "{tag}:n"), ("INCR", "{tag}:n")]) == [1, 2]
            assert client.counts.redirects == 2
            assert await client.owner("{tag}") == source  # ASK changes no table
            both = asyncio.ensure_future(client.call("MGET", "{tag}:old", "{tag}:new"))  # TRYAGAIN: one key here, one there
            await until(lambda: client.counts.retries >= 1)
            await ask(source, "MIGRATE", target.host, target.port, "{tag}:old", 0, 5000)
            assert await both == [b"1", b"2"]

            for node in (target, source):
                await ask(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
            before = client.counts.redirects
            assert await client.call("GET", "{tag}:old") == b"1"
            assert client.counts.redirects == before + 1
            assert await client.owner("{tag}") == target
            assert await client.call("GET", "{tag}:old") == b"1"
            assert client.counts.redirects == before + 1
            with pytest.raises(ServerError, match="CROSSSLOT"):
                await client.call("MSET", "a", "1", "b", "2")

    run(check())


def test_closing_twice_is_fine_and_ends_what_waits() -> None:
    async def check() -> None:
        client = ResilientClient.sentinel([Endpoint("127.0.0.1", 1)])
        waiting = asyncio.ensure_future(client.call("GET", "k"))
        await until(lambda: client.counts.retries >= 1)
        await client.close()
        await client.close()
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            await waiting
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            await client.call("GET", "k")
        await ResilientClient.cluster([Endpoint("127.0.0.1", 1)]).close()

    run(check())
