"""Client libraries as drivers of a load: what a history says of an operation is what happened, also behind the library's back."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificate import self_signed
from tests.support.nodes import Setting, start
from tests.support.proxy import TO_CLIENT, Proxy
from tests.support.waiting import holds
from valkeep.client.connection import Connection
from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.client.resilient import ResilientClient
from valkeep.drill.history import Outcome
from valkeep.drill.script import ClientSpec, Load
from valkeep.drill.workloads.driver import DRIVERS, Shown, driver_of
from valkeep.drill.workloads.mixes import Step
from valkeep.drill.workloads.recorder import Recorder, RecorderResult
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import Refused, ServerError, ValkeepError
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.spec import Kind, TopologySpec

pytestmark = pytest.mark.server

TWINS = ("valkey-py", "redis-py")
CLIENT = ClientSpec("c1")
GLIDES = {(Outcome.INFO, "TimeoutError"), (Outcome.FAIL, "UNREACHED"), (Outcome.FAIL, "NOGROUP")}  # the last when it gave up on making one


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100):
            await test

    asyncio.run(bounded())


def alone(port: int, **login: object) -> Targets:
    return Targets(Kind.STANDALONE, {"n1": Endpoint("127.0.0.1", port, **login)})  # type: ignore[arg-type]


def load(driver: str, mix: str = "mixed") -> Load:
    return Load(mix, (ClientSpec("c1"), ClientSpec("c2")), 1500, driver=driver)


async def recorded(recorder: Recorder, more: int) -> None:
    goal = recorder.acked + more
    await holds(lambda: recorder.acked >= goal, f"{more} acks")


def append(value: int = 1) -> Step:
    return Step("append", b"j:{1}", value, ((b"RPUSH", b"j:{1}", value),))


def only_ok(driver: str, result: RecorderResult) -> bool:
    """Whether nothing went wrong. GLIDE gives up after a quarter of a second by itself, which a busy machine may take."""
    errors = {(operation.outcome, operation.error) for operation in result.history if operation.outcome is not Outcome.OK}
    return errors <= (GLIDES if driver == "glide" else set())


async def journals(client: ResilientClient, result: RecorderResult) -> dict[bytes, list[int]]:
    found = sorted({operation.key for operation in result.history.of("append")})
    return {key: [int(value) for value in await client.call("LRANGE", key, 0, -1)] for key in found}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("mix", ["mixed", "streams"])
def test_every_library_acks_what_is_there_in_a_cluster(driver: str, mix: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.cluster(replicas=0)) as deployment:
            targets = Targets.of(deployment)
            async with Recorder(load(driver, mix), targets, tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 600)
                await recorder.pause()
                result = await recorder.finish()
            assert only_ok(driver, result)
            async with ResilientClient.cluster(list(targets.nodes.values())) as client:
                for key, listed in (await journals(client, result)).items():
                    appended = [operation for operation in result.history.of("append") if operation.key == key]
                    acked = {operation.result: operation.value for operation in appended if operation.outcome is Outcome.OK}
                    unsure = {operation.value for operation in appended if operation.outcome is Outcome.INFO}
                    assert acked == {place: value for place, value in enumerate(listed, 1) if value not in unsure}
            nodes = {operation.node for operation in result.history}
            assert nodes == ({""} if driver == "glide" else {"n1", "n2", "n3"})
            assert (len(list(result.history.of("ack"))) > 30) is (mix == "streams")

    run(test())


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_clusters_primary_is_killed_and_what_failed_was_not_done(driver: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.cluster()) as deployment:
            targets = Targets.of(deployment)
            async with Recorder(load(driver), targets, tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 1000)
                await deployment.machines["n1"].kill()
                async with ResilientClient.cluster(list(targets.nodes.values())) as client:
                    await client.each_primary("PING")
                    for tag in targets.tags:  # every slot is served again
                        await client.call("GET", b"r:{%s}:0" % tag)
                    await recorded(recorder, 1000)
                    await recorder.pause()
                    result = await recorder.finish()
                    left = {value for listed in (await journals(client, result)).values() for value in listed}
            failed = [operation for operation in result.history.of("append") if operation.outcome is Outcome.FAIL]
            assert not [operation for operation in failed if operation.value in left]
            if driver == "glide":  # it waits, and gives up in doubt
                assert {operation.error for operation in failed} <= {"UNREACHED"}
            else:
                assert {operation.node for operation in result.history if operation.outcome is Outcome.OK} >= {"n2", "n3", "n4"}

    run(test())


@pytest.mark.parametrize("driver", TWINS)
def test_behind_sentinels_the_new_primary_is_found(driver: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            LocalDeployment(TopologySpec.sentinel()) as deployment,
            Recorder(load(driver), Targets.of(deployment), tmp_path / "work", 1) as recorder,
        ):
            await recorder.start()
            await recorded(recorder, 500)
            await deployment.machines["n1"].kill()
            await recorded(recorder, 1000)  # some of n1's are not counted yet
            await recorder.pause()
            result = await recorder.finish()
            acked = Counter(operation.node for operation in result.history if operation.outcome is Outcome.OK)
            assert acked["n1"] >= 500
            assert acked["n2"] + acked["n3"] >= 500
            errors = Counter(operation.error for operation in result.history if operation.outcome is Outcome.FAIL)
            assert set(errors) <= {"ConnectionError", "MasterNotFoundError", "TimeoutError", "UNREACHED", "LOADING", "READONLY"}

    run(test())


@pytest.mark.parametrize(("driver", "times"), [("valkey-py", 1), ("redis-py", 2)])
def test_a_reply_that_is_lost_shows_who_sends_again_by_himself(driver: str, times: int) -> None:
    async def test() -> None:
        async with start("newest-valkey") as node:
            with Proxy(("127.0.0.1", node.port)) as proxy:
                session = await driver_of(driver).open(CLIENT, alone(proxy.port))
                assert (await session.perform(append(1))).replies == [1]
                lost = proxy.when(b":2\r\n", direction=TO_CLIENT, drop=True)
                performing = asyncio.ensure_future(session.perform(append(2)))
                assert await asyncio.to_thread(lost.wait, 10)
                proxy.cut()
                if times == 1:
                    with pytest.raises(Shown) as caught:
                        await performing
                    assert (caught.value.kind, caught.value.definite) == ("ConnectionError", False)
                else:
                    assert (await performing).replies == [3]
                await session.close()
            async with await Connection.open(Endpoint("127.0.0.1", node.port)) as connection:
                assert await connection.call("LRANGE", "j:{1}", 0, -1) == [b"1", *[b"2"] * times]

    run(test())


@pytest.mark.parametrize("driver", TWINS)
def test_a_refusal_is_definite_and_one_after_a_lost_reply_is_not(driver: str) -> None:
    async def test() -> None:
        async with start("newest-valkey") as node, await Connection.open(Endpoint("127.0.0.1", node.port)) as admin:
            with Proxy(("127.0.0.1", node.port)) as proxy:
                session = await driver_of(driver).open(CLIENT, alone(proxy.port))
                await session.perform(append(1))
                await admin.call("CONFIG", "SET", "min-replicas-to-write", 1)
                (refusal,) = (await session.perform(append(2))).replies
                assert isinstance(refusal, ServerError)
                assert refusal.kind == "NOREPLICAS"
                multi = Step("multi", b"x:{1}", 3, ((b"MULTI",), (b"SET", b"x:{1}:a", 3), (b"SET", b"x:{1}:b", 3), (b"EXEC",)))
                with pytest.raises(ServerError, match="NOREPLICAS"):
                    await session.perform(multi)
                await admin.call("CONFIG", "SET", "min-replicas-to-write", 0)
                assert (await session.perform(multi)).replies[-1] == [True, True]

                async def refused_from_now_on() -> None:
                    await asyncio.to_thread(lost.wait, 10)
                    await admin.call("CONFIG", "SET", "min-replicas-to-write", 1)
                    proxy.cut()

                lost = proxy.when(b":2\r\n", direction=TO_CLIENT, drop=True)
                cutting = asyncio.ensure_future(refused_from_now_on())
                with pytest.raises(Shown) as caught:
                    await session.perform(append(4))
                assert not caught.value.definite
                await cutting
                await session.close()
            assert await admin.call("LRANGE", "j:{1}", 0, -1) == [b"1", b"4"]
            node.process.stop()

    run(test())


@pytest.mark.parametrize("driver", TWINS)
def test_a_server_that_is_gone_is_a_definite_failure_and_is_come_back_to(driver: str) -> None:
    async def test() -> None:
        async with start("newest-valkey") as node:
            session = await driver_of(driver).open(CLIENT, alone(node.port))
            answer = await session.perform(append(1))
            assert answer == ([1], "n1")
            await node.stop()
            with pytest.raises(Shown) as caught:
                for _ in range(2):  # the first may have been sent into a connection whose end was not seen yet
                    await session.perform(append(2))
            await node.restart()
            while True:
                try:
                    await session.perform(append(3))
                    break
                except Shown as error:
                    caught.value.add_note(str(error))
            await session.close()

    run(test())


@pytest.mark.parametrize("driver", TWINS)
def test_a_client_with_an_address_connects_from_there_with_tls_and_a_login(driver: str, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "IP:127.0.0.1")

    async def test() -> None:
        config: dict[str, Setting] = {
            "tls-replication": "no",
            "tls-cert-file": str(cert),
            "tls-key-file": str(key),
            "tls-auth-clients": "no",
        }
        async with start("valkey-8.1", config) as node:
            async with await Connection.open(Endpoint("127.0.0.1", node.port)) as admin:
                await admin.call("ACL", "SETUSER", "app", "on", ">pw", "+@all", "~*")
                session = await driver_of(driver).open(
                    ClientSpec("c1", source="127.0.0.77"), alone(node.port, username="app", password=Secret("pw"))
                )
                await session.perform(append())
                assert b" addr=127.0.0.77:" in await admin.call("CLIENT", "LIST")
                await session.close()
                await admin.call("CONFIG", "SET", "port", 0, "tls-port", node.port)
            login: dict[str, object] = {"username": "app", "password": Secret("pw"), "tls": TLS(ca=str(cert))}
            session = await driver_of(driver).open(ClientSpec("c1", source="127.0.0.77"), alone(node.port, **login))
            assert (await session.perform(append())).replies == [2]
            await session.close()

    run(test())


def test_every_library_gets_into_a_cluster_with_tls_and_users(tmp_path: Path) -> None:
    async def test() -> None:
        spec = replace(TopologySpec.cluster(replicas=0), tls=True, acl=True, server="valkey-8.1")
        async with LocalDeployment(spec) as deployment:
            for number, driver in enumerate(DRIVERS):
                async with Recorder(load(driver, "append"), Targets.of(deployment), tmp_path / driver, number) as recorder:
                    await recorder.start()
                    await recorded(recorder, 100)
                    result = await recorder.finish()
                    assert only_ok(driver, result), driver

    run(test())


def test_a_library_that_does_not_fit_or_is_missing_is_told_before_the_load_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        behind = Targets(Kind.SENTINEL, {"n1": Endpoint("127.0.0.1", 1)}, {"s1": Endpoint("127.0.0.1", 2)})
        with pytest.raises(Refused, match="through Sentinel"):
            await driver_of("glide").open(CLIENT, behind)
        for driver, package in (("valkey-py", "valkey"), ("redis-py", "redis"), ("glide", "glide")):
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, package, None)
                with pytest.raises(ValkeepError, match="is not installed") as caught:
                    await driver_of(driver).open(CLIENT, alone(1))
                assert "valkeep[clients]" in caught.value.remedy
            assert driver_of(driver).version[0].isdigit()
        async with start("newest-valkey", {"requirepass": "secret"}) as node:
            unknown = Targets(Kind.CLUSTER, {"n1": Endpoint("127.0.0.1", node.port, password=Secret("secret"))})
            with pytest.raises(ValkeepError):
                async with Recorder(load("glide"), unknown, tmp_path / "work", 1):
                    pass

    run(test())
