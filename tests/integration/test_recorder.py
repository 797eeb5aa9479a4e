"""The recorder on real servers: what it records is what happened, whatever happens to the servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificate import self_signed
from tests.support.nodes import start
from tests.support.waiting import holds, until
from valkeep.client.connection import Connection
from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.drill.history import History, Operation, Outcome
from valkeep.drill.script import ClientSpec, Load
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.final import read_final
from valkeep.drill.workloads.recorder import Recorder, RecorderResult, Tick
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ValkeepError
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import Kind, TopologySpec

pytestmark = pytest.mark.server

TWO = (ClientSpec("c1"), ClientSpec("c2"))
RATE = 3000


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100):
            await test

    asyncio.run(bounded())


def alone(node: object, **login: object) -> Targets:
    return Targets(Kind.STANDALONE, {"n1": Endpoint(*node.address, **login)})  # type: ignore[attr-defined, arg-type]


async def recorded(recorder: Recorder, more: int) -> None:
    """Until that many operations more were acked."""
    goal = recorder.acked + more
    await holds(lambda: recorder.acked >= goal, f"{more} acks")


def of(history: History, *functions: str) -> list[Operation]:
    return list(history.of(*functions))


def errors(history: History, outcome: Outcome) -> Counter[str]:
    return Counter(operation.error for operation in history if operation.outcome is outcome)


# ------------------------------------------------------------------------------------------------------------- standalone


@pytest.mark.parametrize("mix", ["mixed", "append", "registers", "scripts"])
def test_what_was_acked_is_there_and_every_place_of_a_journal_is_an_operation(mix: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with start("newest-valkey") as node, Recorder(Load(mix, TWO, RATE), alone(node), tmp_path / "work", 1) as recorder:
            await recorder.start()
            await recorded(recorder, 1500)
            await recorder.pause()
            stood = recorder.operations
            result = await recorder.finish()
            assert len(result.history) == stood
            assert result.history.counts() == {"ok": stood, "fail": 0, "info": 0}
            async with await Connection.open(Endpoint(*node.address)) as connection:
                for key in {operation.key for operation in result.history.of("append")}:
                    appended = {operation.result: operation.value for operation in result.history.of("append") if operation.key == key}
                    listed = [int(value) for value in await connection.call("LRANGE", key, 0, -1)]
                    assert appended == dict(enumerate(listed, 1))
            assert result.processes[of(result.history, "append")[0].process].node == "n1"

    run(test())


def test_nothing_is_sent_while_it_is_paused_and_it_goes_on_afterwards(tmp_path: Path) -> None:
    async def test() -> None:
        async with start("newest-valkey") as node, Recorder(Load("append", TWO, RATE), alone(node), tmp_path / "work", 1) as recorder:
            async with await Connection.open(Endpoint(*node.address)) as connection:
                await recorder.start()
                await recorded(recorder, 200)
                await recorder.pause()

                async def lengths() -> list[int]:
                    return await connection.pipeline([("LLEN", keys.journal(tag)) for tag in keys.tags_for()])

                then = await lengths()
                assert sum(then) == recorder.acked
                await asyncio.sleep(0.05)
                assert await lengths() == then
                await recorder.start()
                await recorded(recorder, 200)
                await recorder.finish()

    run(test())


def test_ticks_tell_how_many_were_acked_and_when_each_node_last_acked(tmp_path: Path) -> None:
    async def test() -> None:
        ticks: list[Tick] = []
        async with (
            start("newest-valkey") as node,
            Recorder(Load("mixed", TWO, RATE), alone(node), tmp_path / "w", 1, ticks.append) as recorder,
        ):
            await recorder.start()
            await holds(lambda: len(ticks) >= 4, "four ticks")
        assert [tick.acked for tick in ticks] == sorted(tick.acked for tick in ticks)
        last = ticks[-1]
        assert last.operations >= last.acked > 0
        assert 0 < last.nodes["n1"] <= last.at

    run(test())


def test_a_password_never_stands_in_the_arguments_or_the_environment(tmp_path: Path) -> None:
    async def test() -> None:
        async with start("newest-valkey", {"requirepass": "hunter2"}) as node:
            async with Recorder(Load("append", TWO, RATE), alone(node, password=Secret("hunter2")), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 100)
                process = recorder._child._process
                assert process is not None
                for what in ("cmdline", "environ"):
                    assert b"hunter2" not in Path(f"/proc/{process.pid}/{what}").read_bytes()  # noqa: ASYNC240
                result = await recorder.finish()
            assert result.history.counts()["fail"] == 0

    run(test())


def test_without_a_password_every_attempt_is_a_definite_failure_and_says_why(tmp_path: Path) -> None:
    async def test() -> None:
        async with start("newest-valkey", {"requirepass": "hunter2"}) as node:
            async with Recorder(Load("append", TWO, RATE), alone(node), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await holds(lambda: recorder.last.refused > 5, "refusals")
                result = await recorder.finish()
        assert set(errors(result.history, Outcome.FAIL)) == {"UNREACHED"}
        assert result.history.counts()["ok"] == result.history.counts()["info"] == 0
        assert any("wants a password" in trouble.text for trouble in result.errors)

    run(test())


def test_a_server_with_tls_and_users_is_written_to(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "DNS:valkeep.test")
    login = {"username": "writer", "password": Secret("hunter2"), "tls": TLS(ca=str(cert), server_name="valkeep.test")}

    async def test() -> None:
        config = {"tls-replication": "no", "tls-cert-file": str(cert), "tls-key-file": str(key), "tls-auth-clients": "no"}
        async with start("valkey-8.1", {**config}) as node:
            async with await Connection.open(Endpoint(*node.address)) as admin:
                await admin.call("ACL", "SETUSER", "writer", "on", ">hunter2", "~*", "&*", "+@all")
                await admin.call("CONFIG", "SET", "port", 0, "tls-port", node.port)
            async with Recorder(Load("mixed", TWO, RATE), alone(node, **login), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 200)
                result = await recorder.finish()
        assert result.history.counts()["fail"] == result.history.counts()["info"] == 0

    run(test())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.0/8")
def test_a_client_with_an_address_of_its_own_connects_from_there_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.sentinel()) as deployment:
            clients = tuple(replace(client, source=deployment.network.source(client.name)) for client in TWO)
            async with Recorder(Load("append", clients, RATE), Targets.of(deployment), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 200)
                found: dict[str, set[str]] = {"c1": set(), "c2": set()}
                for name in ("n1", "s1", "s2", "s3"):
                    async with await Connection.open(deployment.machines[name].endpoint) as connection:
                        listed = (await connection.call("CLIENT", "LIST")).decode()
                    for address, client in re.findall(r" addr=([\d.]+):\d+ .*? name=valkeep-(c\d)", listed):
                        found[client].add(address)
        assert found == {client.name: {client.source} for client in clients}

    run(test())


def test_a_server_that_hangs_leaves_infos_and_a_new_process_goes_on_afterwards(tmp_path: Path) -> None:
    async def test() -> None:
        async with start("newest-valkey") as node, Recorder(Load("append", TWO, RATE), alone(node), tmp_path / "work", 1) as recorder:
            await recorder.start()
            await recorded(recorder, 300)
            await node.pause()
            await holds(lambda: recorder.last.refused > 3, "attempts that found nobody")
            await node.resume()
            await recorded(recorder, 300)
            result = await recorder.finish()
        history = result.history
        assert set(errors(history, Outcome.INFO)) == {"TIMEOUT"}
        retired = {operation.process for operation in history if operation.outcome is Outcome.INFO}
        for process in retired:
            outcomes = [operation.outcome for operation in history if operation.process == process]
            assert outcomes == sorted(outcomes), "an operation of a process followed one in doubt"
        assert {operation.process for operation in of(history, "append")[-20:]}.isdisjoint(retired)

    run(test())


def test_what_an_ended_server_had_answered_is_acked_and_only_the_rest_is_in_doubt(tmp_path: Path) -> None:
    async def test() -> None:
        async with start("newest-valkey", {"appendonly": "yes"}) as node:
            async with Recorder(Load("append", TWO, RATE), alone(node), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 300)
                await node.kill()
                await holds(lambda: recorder.last.refused > 3, "refused connections")
                await node.restart()
                await recorded(recorder, 300)
                await recorder.pause()
                result = await recorder.finish()
            async with await Connection.open(Endpoint(*node.address)) as connection:
                kept: set[int] = set()
                for tag in keys.tags_for():
                    kept |= {int(value) for value in await connection.call("LRANGE", keys.journal(tag), 0, -1)}
        by_outcome = {outcome: {operation.value for operation in result.history if operation.outcome is outcome} for outcome in Outcome}
        assert by_outcome[Outcome.OK] <= kept
        assert by_outcome[Outcome.FAIL].isdisjoint(kept)
        assert kept <= by_outcome[Outcome.OK] | by_outcome[Outcome.INFO]
        assert set(errors(result.history, Outcome.FAIL)) <= {"UNREACHED", "LOADING"}

    run(test())


def test_too_few_replicas_leave_writes_in_doubt_and_reads_not(tmp_path: Path) -> None:
    async def test() -> None:
        clients = (ClientSpec("c1", wait=1, wait_ms=20),)
        async with (
            start("newest-valkey") as node,
            Recorder(Load("registers", clients, RATE), alone(node), tmp_path / "work", 1) as recorder,
        ):
            await recorder.start()
            await holds(lambda: recorder.operations > 100, "operations")
            result = await recorder.finish()
        assert set(errors(result.history, Outcome.INFO)) == {"WAIT 0"}
        assert {operation.function for operation in result.history if operation.outcome is Outcome.OK} == {"read"}

    run(test())


def test_enough_replicas_leave_nothing_in_doubt(tmp_path: Path) -> None:
    async def test() -> None:
        clients = (ClientSpec("c1", wait=1, wait_ms=2000),)
        async with LocalDeployment(TopologySpec.standalone(replicas=1)) as deployment:
            async with Recorder(Load("mixed", clients, RATE), Targets.of(deployment), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 300)
                result = await recorder.finish()
        assert result.history.counts()["info"] == result.history.counts()["fail"] == 0

    run(test())


def test_nobody_to_write_to_is_an_error_with_a_remedy_and_leaves_no_process(tmp_path: Path) -> None:
    async def test() -> None:
        nobody = Endpoint("127.0.0.1", 1)
        recorder = Recorder(Load(), Targets(Kind.SENTINEL, {"n1": nobody}, {"s1": nobody}), tmp_path / "work", 1)
        with pytest.raises(ValkeepError, match="no sentinel tells the client c1") as caught:
            async with recorder:
                pass
        assert "sentinels" in caught.value.remedy
        assert recorder._child._process is not None
        assert recorder._child._process.returncode is not None

    run(test())


def test_a_recorder_that_stood_still_says_when_and_for_how_long_and_loses_no_reply(tmp_path: Path) -> None:
    async def test() -> None:
        async with start("newest-valkey") as node, Recorder(Load("append", TWO, RATE), alone(node), tmp_path / "work", 1) as recorder:
            await recorder.start()
            await recorded(recorder, 300)
            process = recorder._child._process
            assert process is not None
            before = time.monotonic_ns()
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.8)  # longer than an operation waits
            after = time.monotonic_ns()
            process.send_signal(signal.SIGCONT)
            await recorded(recorder, 300)
            result = await recorder.finish()
        longest = max(result.stalls, key=lambda stall: stall.ms)
        assert longest.ms > 700
        assert before - 500_000_000 < longest.at < after
        assert result.history.counts()["info"] == 0

    run(test())


HOLDER = """
import asyncio, json, sys
from pathlib import Path
from valkeep.client.endpoint import Endpoint
from valkeep.drill.script import Load
from valkeep.drill.workloads.final import read_final
from valkeep.drill.workloads.recorder import Recorder
from valkeep.drill.workloads.targets import Targets
from valkeep.topology.spec import Kind

async def main(port, folder):
    async with Recorder(Load(), Targets(Kind.STANDALONE, {"n1": Endpoint("127.0.0.1", port)}), Path(folder), 1) as recorder:
        await recorder.start()
        while not recorder.acked:
            await asyncio.sleep(0.01)
        print(json.dumps(recorder._child._process.pid), flush=True)
        await asyncio.sleep(60)

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


def test_a_killed_parent_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with start("newest-valkey") as node:
        parent = subprocess.Popen([sys.executable, "-c", HOLDER, str(node.port), str(tmp_path / "work")], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        pid = json.loads(parent.stdout.readline())
        assert (tmp_path / "work").is_dir()
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
        until(lambda: not (tmp_path / "work").exists(), "the folder is removed")
        until(lambda: ended(pid), "the recorder has ended")


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


def test_every_entry_of_a_stream_is_delivered_once_and_then_acknowledged_or_pending(tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.standalone()) as deployment:
            targets = Targets.of(deployment, tags=3)
            async with Recorder(Load("streams", TWO, RATE), targets, tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 3000)
                result = await recorder.finish()
            async with await Connection.open(deployment.machines["n1"].endpoint) as connection:
                final = await read_final({0: connection}, deployment.spec, targets)
        assert result.history.counts()["fail"] == 0
        for tag in targets.tags:
            key = keys.stream(tag)
            added = {one.value for one in result.history.of("xadd") if one.key == key}
            delivered = [one.result for one in result.history.of("deliver") if one.key == key and one.result is not None]
            acknowledged = {one.value for one in result.history.of("ack") if one.key == key}
            stream = final.streams[key]
            assert acknowledged
            assert set(stream.entries) == added
            assert len(delivered) == len(set(delivered))
            assert set(delivered) == acknowledged | stream.pending
            assert added == set(delivered) | stream.undelivered

    run(test())


def test_what_is_published_is_heard_by_everybody_who_had_subscribed(tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.cluster(shards=3, replicas=0)) as deployment:
            async with Recorder(Load("pubsub", (*TWO, ClientSpec("c3")), RATE), Targets.of(deployment), tmp_path / "work", 1) as recorder:
                await holds(lambda: recorder.operations >= 2, "two subscriptions")
                await recorder.start()
                await recorded(recorder, 2000)
                result = await recorder.finish()
        history = result.history
        subscribed = of(history, "subscribe")
        assert sorted(whose(result, one) for one in subscribed) == ["c1", "c2"]
        published = {one.value for one in history.of("publish")}
        for one in subscribed:
            heard = [message.value for message in history.of("receive") if message.process == one.process]
            assert len(heard) == len(set(heard))
            assert set(heard) == published
        assert len(of(history, "unsubscribe")) == 2

    run(test())


# ------------------------------------------------------------------------------------------------------- sentinel and cluster


def test_followers_go_to_the_new_primary_and_a_client_that_stays_stays(tmp_path: Path) -> None:
    async def test() -> None:
        clients = (ClientSpec("c1", follow=False), ClientSpec("c2"))
        async with LocalDeployment(TopologySpec.sentinel()) as deployment:
            async with Recorder(Load("append", clients, RATE), Targets.of(deployment), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 500)
                async with await Connection.open(deployment.machines["s1"].endpoint) as sentinel:
                    assert await sentinel.call("SENTINEL", "FAILOVER", "valkeep") == b"OK"
                await holds(lambda: set(recorder.last.nodes) > {"n1"}, "an ack of the new primary")
                await recorded(recorder, 500)
                result = await recorder.finish()
        acked_by = {
            name: {operation.node for operation in result.history if whose(result, operation) == name and operation.outcome is Outcome.OK}
            for name in ("c1", "c2")
        }
        assert acked_by["c1"] == {"n1"}
        assert len(acked_by["c2"]) == 2

    run(test())


def whose(result: RecorderResult, operation: Operation) -> str:
    return result.processes[operation.process].client


def test_a_killed_primary_is_left_for_the_one_that_the_sentinels_choose(tmp_path: Path) -> None:
    async def test() -> None:
        spec = replace(TopologySpec.sentinel(), timeout_ms=500)
        async with LocalDeployment(spec) as deployment:
            async with Recorder(Load("mixed", TWO, RATE), Targets.of(deployment), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 500)
                await deployment.machines["n1"].kill()
                await holds(lambda: set(recorder.last.nodes) > {"n1"}, "an ack of the new primary")
                result = await recorder.finish()
        assert set(errors(result.history, Outcome.INFO)) <= {"LOST"}
        assert "UNREACHED" in errors(result.history, Outcome.FAIL)
        for process, (_, node) in enumerate(result.processes):
            seen = {operation.node for operation in result.history if operation.process == process}
            assert node == "" or seen <= {node}, "one connection, one node"

    run(test())


def test_a_slot_that_moves_is_followed_and_the_operation_that_was_told_so_failed(tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.cluster(shards=3, replicas=0)) as deployment:
            targets = Targets.of(deployment)
            slot = key_slot(targets.tags[0])
            clients = (*TWO, ClientSpec("c3", follow=False))
            async with Recorder(Load("mixed", clients, RATE), targets, tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 500)
                await migrate(deployment, slot, "n1", "n2")
                await recorded(recorder, 1000)
                result = await recorder.finish()
        told = [redirect for redirect in result.moved if redirect.kind == "MOVED"]
        assert told
        assert {(redirect.answered, redirect.named, redirect.slot) for redirect in told} == {("n1", "n2", slot)}
        assert result.history.counts()["info"] == 0
        assert errors(result.history, Outcome.FAIL)["MOVED"] == len(told)
        mine = [operation for operation in result.history if key_slot(operation.key) == slot and operation.outcome is Outcome.OK]
        by_client = {name: {operation.node for operation in mine if whose(result, operation) == name} for name in ("c1", "c2", "c3")}
        assert by_client["c1"] == by_client["c2"] == {"n1", "n2"}
        assert by_client["c3"] == {"n1"}

    run(test())


async def migrate(deployment: LocalDeployment, slot: int, source: str, target: str) -> None:
    """A slot moved key by key, as all versions can: in between its keys are on both nodes, and ASK leads to the second."""
    async with (
        await Connection.open(deployment.machines[source].endpoint) as giving,
        await Connection.open(deployment.machines[target].endpoint) as taking,
    ):
        ids = {name: await one.call("CLUSTER", "MYID") for name, one in ((source, giving), (target, taking))}
        await taking.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        await giving.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        await asyncio.sleep(0.2)  # clients meet the half-moved slot
        host, port = deployment.machines[target].endpoint.host, deployment.machines[target].endpoint.port
        while found := await giving.call("CLUSTER", "GETKEYSINSLOT", slot, 1):
            await giving.call("MIGRATE", host, port, "", 0, 5000, "KEYS", *found)
            await asyncio.sleep(0.02)
        for one in (taking, giving):
            await one.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target])


def test_a_half_moved_slot_is_asked_for_at_its_new_node(tmp_path: Path) -> None:
    async def test() -> None:
        async with LocalDeployment(TopologySpec.cluster(shards=3, replicas=0)) as deployment:
            targets = Targets.of(deployment)
            slot = key_slot(targets.tags[0])
            async with Recorder(Load("mixed", TWO, RATE), targets, tmp_path / "work", 1) as recorder:
                await recorder.start()
                await recorded(recorder, 500)
                await migrate(deployment, slot, "n1", "n2")
                await recorded(recorder, 500)
                result = await recorder.finish()
        asks = [redirect for redirect in result.moved if redirect.kind == "ASK"]
        assert {(redirect.answered, redirect.named, redirect.slot) for redirect in asks} == {("n1", "n2", slot)}
        first = asks[0].at
        moved = min(redirect.at for redirect in result.moved if redirect.kind == "MOVED")
        between = [
            operation
            for operation in result.history
            if key_slot(operation.key) == slot and operation.node == "n2" and operation.outcome is Outcome.OK and operation.invoked < moved
        ]
        assert between
        assert all(operation.invoked > first for operation in between)

    run(test())
