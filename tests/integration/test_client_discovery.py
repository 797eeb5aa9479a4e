"""Primaries found through sentinels, slots found through a cluster's nodes, messages of channels; with real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from tests.conftest import Server
from valkeep.client.cluster import ClusterDirectory, NoCluster, parse_redirect, parse_slots
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.sentinel import NoPrimary, SentinelDirectory, Switch
from valkeep.client.subscription import Message, Subscription
from valkeep.errors import ConnectionLost, ServerError
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import SLOTS, key_slot
from valkeep.topology.spec import TopologySpec

pytestmark = pytest.mark.server


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


def endpoints(deployment: LocalDeployment, *roles: str) -> list[Endpoint]:
    return [machine.endpoint for machine in deployment.of(*roles)]


async def ask(endpoint: Endpoint, *command: str | int) -> object:
    async with await Connection.open(endpoint) as connection:
        return await connection.call(*command)


def test_sentinels_lead_to_the_primary_and_its_replicas_and_tell_of_a_failover() -> None:
    async def check() -> None:
        async with LocalDeployment(TopologySpec.sentinel()) as deployment:
            sentinels = endpoints(deployment, "sentinel")
            directory = SentinelDirectory(sentinels, source="127.0.0.1")
            (first,) = endpoints(deployment, "primary")
            others = endpoints(deployment, "replica")
            assert await directory.primary() == first
            assert set(await directory.replicas()) == set(others)
            async with contextlib.aclosing(directory.watch()) as switches:
                assert (await anext(switches)).new == first
                assert await ask(sentinels[0], "SENTINEL", "FAILOVER", "valkeep") == b"OK"
                switch = await anext(switches)
            assert switch.new in others
            assert switch == Switch(switch.sentinel, switch.new, first)
            assert await directory.primary() == switch.new

            await deployment.machines["s1"].pause()  # takes connections, answers nothing
            assert await directory.primary(3.0) == switch.new
            with pytest.raises(NoPrimary, match="does not know the name 'elsewhere'"):
                await SentinelDirectory(sentinels[1:], "elsewhere").primary()

    run(check())


def test_without_any_sentinel_it_is_said_which_were_asked_and_what_to_do() -> None:
    async def check() -> None:
        gone = [Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)]
        with pytest.raises(NoPrimary, match=r"127\.0\.0\.1:1 refused.*127\.0\.0\.1:2 refused") as caught:
            await SentinelDirectory(gone).primary(1.0)
        assert caught.value.definite
        assert "SENTINEL MASTERS" in caught.value.remedy

    run(check())


def test_a_primary_that_a_sentinel_names_and_that_is_none_is_not_believed(server: Server) -> None:
    async def check() -> None:
        first = server("newest-valkey")
        second = server("newest-valkey", {"replicaof": f"127.0.0.1 {first.port}"})
        directory = SentinelDirectory([Endpoint("127.0.0.1", first.port)])
        with pytest.raises(NoPrimary, match="says that it is a slave"):
            await directory._confirmed([b"127.0.0.1", b"%d" % second.port], 5.0)

    run(check())


def test_every_node_of_a_started_cluster_names_every_other_one_however_slowly_news_spread() -> None:
    async def check() -> None:
        async with LocalDeployment(replace(TopologySpec.cluster(), timeout_ms=8000)) as deployment:
            nodes = endpoints(deployment, "primary", "replica")
            for node in nodes:
                assert set((await ClusterDirectory([node], source="127.0.0.1").table()).nodes) == set(nodes)

    run(check())


def test_a_cluster_tells_its_slots_in_both_forms_and_redirects_to_their_owner() -> None:
    async def check() -> None:
        async with LocalDeployment(TopologySpec.cluster()) as deployment:
            nodes = endpoints(deployment, "primary", "replica")
            directory = ClusterDirectory(nodes[-1:], source="127.0.0.1")
            table = await directory.table()
            assert table.served == SLOTS
            assert set(table.primaries) == set(endpoints(deployment, "primary"))
            assert set(table.nodes) == set(nodes)
            assert all(len(table.replicas[primary]) == 1 for primary in table.primaries)
            assert table == await directory.table()

            slot = key_slot(b"wanderer")
            stranger = next(node for node in table.primaries if node != table.owner(slot))
            with pytest.raises(ServerError) as caught:
                await ask(stranger, "GET", "wanderer")
            redirect = parse_redirect(caught.value, stranger)
            assert redirect is not None
            assert (redirect.kind, redirect.slot, redirect.owner) == ("moved", slot, table.owner(slot))

            await deployment.machines["n1"].kill()  # the next one answers
            assert (await directory.table()).served == SLOTS

    run(check())


def test_a_server_that_is_no_cluster_is_told_apart(server: Server) -> None:
    async def check() -> None:
        node = Endpoint("127.0.0.1", server("newest-valkey").port)
        with pytest.raises(NoCluster, match="cluster support disabled") as caught:
            await ClusterDirectory([node]).table(2.0)
        assert "cluster-enabled" in caught.value.remedy

    run(check())


@pytest.mark.parametrize("spec", ["redis-7.0", "redis-8.0", "valkey-8.0", "newest-valkey"])
def test_every_version_answers_cluster_slots_in_a_form_that_is_read(server: Server, spec: str) -> None:
    async def check() -> None:
        node = server(spec, {"cluster-enabled": "yes"})
        endpoint = Endpoint("127.0.0.1", node.port)
        async with await Connection.open(endpoint) as connection:
            assert await connection.call("CLUSTER", "ADDSLOTSRANGE", 5, 9) == b"OK"
            table = parse_slots(await connection.call("CLUSTER", "SLOTS"), endpoint)
            assert (table.served, table.owner(5), table.owner(4)) == (5, endpoint, None)

    run(check())


def test_messages_of_channels_and_patterns_come_in_order(server: Server) -> None:
    async def check() -> None:
        endpoint = Endpoint("127.0.0.1", server("newest-valkey").port)
        async with (
            await Connection.open(endpoint) as publisher,
            await Subscription.open(endpoint, ["news", "sport"], ["loc*"], ping_every=0.02) as messages,
        ):
            await asyncio.sleep(0.05)  # long enough for a PING, whose answer is no message
            for number in range(100):
                await publisher.call("PUBLISH", "news", number)
            await publisher.call("PUBLISH", "local", "x")
            assert [await messages.next() for _ in range(100)] == [Message(b"news", b"%d" % number) for number in range(100)]
            assert await messages.next() == Message(b"local", b"x", b"loc*")

    run(check())


def test_a_subscription_to_a_server_that_dies_or_hangs_ends_with_the_reason(server: Server) -> None:
    async def check() -> None:
        for verb in ("kill", "pause"):
            node = server("newest-valkey")
            async with await Subscription.open(Endpoint("127.0.0.1", node.port), ["news"], ping_every=0.1) as messages:
                getattr(node, verb)()
                with pytest.raises(ConnectionLost, match="closed the connection" if verb == "kill" else "does not answer PING"):
                    await messages.next()
            await messages.close()

    run(check())


def test_a_user_who_may_not_hear_a_channel_learns_it_at_once(server: Server) -> None:
    async def check() -> None:
        node = server("newest-valkey", {"user": "deaf on >pw +@all ~* resetchannels"})
        with pytest.raises(ServerError, match="NOPERM"):
            await Subscription.open(Endpoint.parse(f"redis://deaf:pw@127.0.0.1:{node.port}"), ["news"])

    run(check())


def test_a_connection_comes_from_the_address_that_was_asked_for(server: Server) -> None:
    async def check() -> None:
        endpoint = Endpoint("127.0.0.1", server("newest-valkey").port)
        async with await Connection.open(endpoint, source_address="127.0.0.9") as connection:
            assert b" addr=127.0.0.9:" in await connection.call("CLIENT", "INFO")
        with pytest.raises(ConnectionLost, match="no connection to"):
            await Connection.open(endpoint, source_address="192.0.2.1")

    run(check())
