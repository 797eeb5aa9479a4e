"""A drill on a topology of somebody else: found from one URL, written to, judged while its owner breaks it, and left as it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.drilled import unstalled
from tests.support.lying_network import LyingNetwork
from tests.support.waiting import holds, until
from valkeep import cli
from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint, Secret
from valkeep.drill import observing
from valkeep.drill import play as playing
from valkeep.drill.observing import Observation, observe
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.workloads import keys
from valkeep.errors import ConnectionLost, Refused, ServerError, UsageError
from valkeep.report.events import Event, Note, Phase, Pulse
from valkeep.runtime import network as networks
from valkeep.runtime.local import LocalDeployment
from valkeep.runtime.network.addresses import Addresses
from valkeep.runtime.remote import RemoteDeployment, RemoteNetwork, discover
from valkeep.topology.spec import MONITORED, Kind, TopologySpec

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]

TAGS = keys.tags_in((((0, 16383),),))


class Seen:
    """What was told while a topology was observed."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def acked(self) -> int:
        return max((one.acked for one in self.events if isinstance(one, Pulse)), default=0)

    @property
    def primaries(self) -> tuple[str, ...]:
        return next((one.primaries for one in reversed(self.events) if isinstance(one, Pulse)), ())


async def ask(endpoint: Endpoint, *words: str | bytes) -> Value:
    async with await Connection.open(endpoint) as connection:
        return await connection.call(*words)


async def names(sentinel: Endpoint, node: Endpoint) -> bool:
    """Whether this node is the primary, by a sentinel's word."""
    return bool(await ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MONITORED) == [node.host.encode(), b"%d" % node.port])


async def ours(deployment: LocalDeployment) -> list[Value]:
    """Keys of a load that stay on a node that runs: a replica that is just being synchronised gets the deletion a moment later."""
    nodes = [one.endpoint for one in deployment.of("primary", "replica") if one.alive]
    deadline = time.monotonic() + 10
    while left := [key for node in nodes for key in await _listed(node)]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    return left


async def _listed(node: Endpoint) -> list[Value]:
    found = await ask(node, "KEYS", "*{valkeep-*")
    assert isinstance(found, list)
    return found


Breaking = Callable[[LocalDeployment, Seen], Awaitable[None]]


def observed(
    spec: TopologySpec,
    breaking: Breaking | None = None,
    by: str = "n1",
    prepare: Callable[[LocalDeployment], Awaitable[None]] | None = None,
    network: str = "none",
    **options: Any,
) -> tuple[DrillOutcome, Seen]:
    """Observe a topology of the test, known by the URL of one node, while ``breaking`` does something to it; its keys are gone afterwards."""

    async def main() -> tuple[DrillOutcome, Seen]:
        seen = Seen()
        async with LocalDeployment(spec, network=networks.make(spec, network)) as deployment:
            if prepare is not None:
                await prepare(deployment)
            what = Observation(deployment.machines[by].endpoint, **{"seconds": 4.0, "rate": 3000, **options})
            work = asyncio.create_task(observe(what, seen.events.append))
            if breaking is not None:
                await holds(lambda: seen.acked > 1500 or work.done(), "the load does not run")
                await breaking(deployment, seen)
            outcome = await work
            assert await ours(deployment) == []
            return outcome, seen

    return unstalled(lambda: asyncio.run(main()), lambda ran: [(ran[0].verdict, str(ran[0].reasons))])


# --------------------------------------------------------------------------------------------------------- broken by its owner


def test_what_replicas_did_not_have_when_somebody_killed_the_primary_is_a_loss_explained() -> None:
    async def kill(deployment: LocalDeployment, seen: Seen) -> None:
        await deployment.network.cut(frozenset({"n1"}), frozenset({"n2", "n3"}))
        acked = seen.acked
        await holds(lambda: seen.acked > acked + 600, "the primary acks nothing while its replicas hear nothing")
        await deployment.machines["n1"].kill()
        sentinel, heirs = deployment.machines["s2"].endpoint, [deployment.machines[name].endpoint for name in ("n2", "n3")]

        async def taken_over() -> bool:
            return any([await names(sentinel, heir) for heir in heirs])

        await holds(taken_over, "nobody takes over", 60)  # an election that nobody wins costs twenty seconds
        await deployment.network.heal()

    outcome, seen = observed(replace(TopologySpec.sentinel(), timeout_ms=800), kill, by="s2", network="proxy", seconds=10.0)
    assert outcome.verdict == "valid", outcome.reasons
    assert (outcome.measures["promotions"] or 0) >= 1
    assert (outcome.measures["lost"] or 0) > 100
    assert outcome.measures["unexplained"] == 0
    assert (outcome.runtime, outcome.network_how, outcome.faults) == ("remote", "none", ())
    assert outcome.topology == "1 primary + 2 replicas + 3 sentinels, down-after 800 ms"
    kinds = [(type(one), getattr(one, "name", "")) for one in seen.events]
    assert kinds.index((Note, "")) < kinds.index((Phase, "load"))
    said = next(one.text for one in seen.events if isinstance(one, Note))
    assert all(one.address in said for one in [Endpoint.parse(outcome.replay.split()[4])])


def test_what_was_written_to_a_successor_whose_predecessor_was_promoted_again_is_a_loss_explained() -> None:
    """Sentinel takes 8 s to tell a primary that it is none any more. Until then it may be promoted again, and goes on as if nothing had been."""

    async def over_to(successor: str, deployment: LocalDeployment, seen: Seen) -> None:
        sentinel = deployment.machines["s1"].endpoint

        async def begins() -> bool:
            try:
                await ask(sentinel, "SENTINEL", "FAILOVER", MONITORED)
            except ServerError as error:
                if error.kind not in ("INPROG", "NOGOODSLAVE"):
                    raise
                return False
            return True

        await holds(begins, "no failover begins", 8)
        await holds(lambda: names(sentinel, deployment.machines[successor].endpoint), f"{successor} is not promoted", 8)
        acked = seen.acked
        await holds(lambda: seen.acked > acked + 1500, "clients do not follow")

    async def there_and_back(deployment: LocalDeployment, seen: Seen) -> None:
        await over_to("n2", deployment, seen)
        await over_to("n1", deployment, seen)

    outcome, seen = observed(TopologySpec.sentinel(replicas=1), there_and_back, by="s2", seconds=15.0)
    assert outcome.verdict == "valid", outcome.reasons
    assert (outcome.measures["lost"] or 0) > 100
    assert outcome.measures["unexplained"] == 0
    assert set(seen.primaries) <= {"n1", "n2"}


def test_a_cluster_whose_slots_are_shared_out_in_any_way_is_judged_shard_by_shard() -> None:
    async def uneven(deployment: LocalDeployment) -> None:
        """A hundred slots, which are empty, go from the middle of the first shard to the third."""
        first, third = deployment.machines["n1"].endpoint, deployment.machines["n3"].endpoint
        to, away = await ask(third, "CLUSTER", "MYID"), await ask(first, "CLUSTER", "MYID")
        assert isinstance(to, bytes)
        assert isinstance(away, bytes)
        for slot in map(str, range(1, 101)):
            await ask(third, "CLUSTER", "SETSLOT", slot, "IMPORTING", away)
            await ask(first, "CLUSTER", "SETSLOT", slot, "MIGRATING", to)
            for place in (third, first):
                await ask(place, "CLUSTER", "SETSLOT", slot, "NODE", to)
        wanted = ((0, 0), (101, 5460)), ((1, 100), (10922, 16383)), ((5461, 10921),)

        async def everywhere() -> bool:
            try:
                return (await discover(deployment.machines["n2"].endpoint)).spec.slices == wanted
            except Refused:  # while they do not agree
                return False

        await holds(everywhere, "the slots are not shared out", 20)

    async def kill(deployment: LocalDeployment, seen: Seen) -> None:
        await deployment.machines["n3"].kill()

        async def taken_over() -> bool:
            said = await ask(deployment.machines["n6"].endpoint, "ROLE")
            assert isinstance(said, list)
            return bool(said[0] == b"master")

        await holds(taken_over, "nobody takes the shard over", 60)

    outcome, _ = observed(replace(TopologySpec.cluster(), timeout_ms=800), kill, by="n5", prepare=uneven, seconds=10.0)
    assert outcome.verdict == "valid", outcome.reasons
    assert outcome.measures["promotions"] == 1
    assert 5562 <= (outcome.measures["slots_uncovered"] or 0) < 16384
    assert outcome.measures["gap_ms"] is not None
    assert outcome.measures["gap_ms"] > 500


def test_a_server_that_came_back_empty_lost_what_it_did_not_promise_to_keep() -> None:
    async def again(deployment: LocalDeployment, seen: Seen) -> None:
        await deployment.machines["n1"].kill()
        await deployment.machines["n1"].start()
        acked = seen.acked
        await holds(lambda: seen.acked > acked, "clients do not come back")

    outcome, _ = observed(TopologySpec.standalone(), again, seconds=8.0)
    assert outcome.verdict == "valid", outcome.reasons
    assert (outcome.measures["lost"] or 0) > 1000
    assert outcome.measures["unexplained"] == 0


def test_a_topology_that_never_comes_back_is_invalid_and_its_owner_is_told_which_keys_may_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "FINAL_PATIENCE", 0.3)
    monkeypatch.setattr(observing, "DELETED_WITHIN", 0.3)

    async def kill(deployment: LocalDeployment, seen: Seen) -> None:
        assert seen.acked
        await deployment.machines["n1"].kill()

    outcome, seen = observed(TopologySpec.standalone(), kill, seconds=5.0)
    assert outcome.verdict == "invalid"
    assert any("no primary at the end" in one for one in outcome.reasons)
    (told,) = [one.text for one in seen.events if isinstance(one, Note) and one.level == "warning"]
    assert "12 tags could not be deleted" in told
    assert "--pattern '*{valkeep-*'" in told
    assert told in outcome.reasons


@pytest.mark.parametrize("lie", ["acks-appends-without-forwarding", "doubles-increments"])
def test_a_topology_that_lies_is_found_out(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TopologySpec.standalone()

    async def main() -> DrillOutcome:
        async with LocalDeployment(spec, network=LyingNetwork(Addresses(spec, "proxy"), lie)) as deployment:
            monkeypatch.setattr(
                RemoteNetwork, "source", lambda _self, client: deployment.network.source(client)
            )  # liars know clients by it
            return await observe(Observation(deployment.machines["n1"].endpoint, seconds=1.5, rate=3000), lambda _event: None)

    assert asyncio.run(main()).verdict == "invalid"


def test_what_was_asked_for_is_part_of_the_verdict() -> None:
    outcome, _ = observed(TopologySpec.standalone(), seconds=1.0, mix="append")
    assert (outcome.verdict, outcome.expectations[0].measure) == ("valid", "unexplained")
    assert {one.checker for one in outcome.judgements} >= {"loss", "journals"}
    assert "counters" not in {one.checker for one in outcome.judgements}


# ----------------------------------------------------------------------------------------------------------------- refused


def refused(prepare: Callable[[LocalDeployment], Awaitable[None]], spec: TopologySpec | None = None, **options: Any) -> str:
    """Why nothing was written; nothing was."""

    async def main() -> str:
        async with LocalDeployment(spec or TopologySpec.standalone()) as deployment:
            await prepare(deployment)
            before = await ours(deployment)
            with pytest.raises(Refused) as error:
                await observe(Observation(deployment.machines["n1"].endpoint, **options), lambda _event: None)
            assert await ours(deployment) == before
            assert error.value.remedy
            return error.value.message

    return asyncio.run(main())


@pytest.mark.parametrize("key", [keys.journal(TAGS[0]), keys.register(TAGS[-1], 7), keys.pair(TAGS[5]) + b":b"])
def test_a_key_that_would_be_written_to_is_left_alone(key: bytes) -> None:
    async def prepare(deployment: LocalDeployment) -> None:
        await ask(deployment.machines["n1"].endpoint, "SET", key, "mine")

    assert f"has the key {key.decode()} already" in refused(prepare)


def test_a_server_that_may_evict_any_key_is_not_loaded() -> None:
    spec = TopologySpec.standalone().with_settings(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    assert "may evict any key (maxmemory-policy allkeys-lru)" in refused(_nothing, spec)


def test_a_server_whose_memory_may_not_suffice_is_not_loaded() -> None:
    spec = TopologySpec.standalone().with_settings(maxmemory="10mb")
    assert "this load may take 14 MB" in refused(_nothing, spec, rate=1000, seconds=60)


async def _nothing(deployment: LocalDeployment) -> None:
    assert deployment.machines


def test_who_is_no_sentinel_or_watches_somebody_else_is_said() -> None:
    async def main() -> None:
        async with LocalDeployment(TopologySpec.sentinel(replicas=1, sentinels=1)) as deployment:
            sentinel, primary = deployment.machines["s1"].endpoint, deployment.machines["n1"].endpoint
            with pytest.raises(UsageError, match="watches no primary named 'other'"):
                await discover(sentinel, monitored="other")
            with pytest.raises(UsageError, match="is no sentinel"):
                await discover(primary, monitored="valkeep")
            by_replica = await discover(deployment.machines["n2"].endpoint)
            assert (by_replica.spec.kind, by_replica.nodes["n1"].address) == (Kind.STANDALONE, primary.address)
            await deployment.machines["n2"].kill()
            left: list[str] = []
            async with asyncio.timeout(10):
                while not left:  # until the sentinel knows
                    with contextlib.suppress(ConnectionLost):
                        left += (await discover(sentinel)).left_out
            assert left[0].startswith(f"replica {deployment.machines['n2'].endpoint.address}: ")

    asyncio.run(main())


def test_nodes_of_somebody_else_are_not_touched() -> None:
    async def main() -> None:
        async with (
            LocalDeployment(TopologySpec.standalone()) as local,
            RemoteDeployment(await discover(local.machines["n1"].endpoint)) as remote,
        ):
            machine, network = remote.machines["n1"], remote.network
            here = frozenset({"n1"})
            for verb in (machine.kill, machine.stop, machine.start, machine.pause, machine.resume, machine.empty, machine.crash):
                with pytest.raises(Refused, match="is not ours"):
                    await verb()
            for cut in (network.cut(here, here), network.delay(here, 5.0)):
                with pytest.raises(Refused, match="is not ours"):
                    await cut
            assert (machine.log(), remote.abilities) == ("", frozenset())
            folder = remote.folder
            assert folder.is_dir()
        assert not folder.exists()

    asyncio.run(main())


def test_a_user_with_the_rights_that_the_manual_names_is_enough() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "how-to" / "drill-your-own.md").read_text()
    rights = manual.partition("`+@read")[2].partition("`")[0].split()

    async def main() -> DrillOutcome:
        async with LocalDeployment(TopologySpec.sentinel(replicas=1, sentinels=1)) as deployment:
            for machine in deployment.of("primary", "replica"):
                await ask(machine.endpoint, "ACL", "SETUSER", "probe", "on", ">word", "~*{valkeep-*", "&*{valkeep-*", "+@read", *rights)
            sentinel = deployment.machines["s1"].endpoint
            login = replace(sentinel, username="probe", password=Secret("word"))
            outcome = await observe(Observation(sentinel, login, seconds=1.0, mix="scripts"), lambda _event: None)
            assert await ours(deployment) == []
            return outcome

    outcome = unstalled(lambda: asyncio.run(main()), lambda one: [(one.verdict, str(one.reasons))])
    assert outcome.verdict == "valid", outcome.reasons
    assert "word" not in outcome.replay


# ------------------------------------------------------------------------------------------------------------- command line


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from valkeep.cli import main; main()", *words]


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def drill_observe(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """``valkeep drill observe`` in this process."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def go(*words: str) -> Said:
        capfd.readouterr()
        status = cli.run(["drill", "observe", *words])
        said = Said(int(status), *capfd.readouterr())
        assert "Traceback" not in said.err
        return said

    return go


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who must not be spoken to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "is not ours"),
        (("--allow-remote", "127.0.0.1:1"), "--allow-remote names 127.0.0.1:1, and the URL"),
        (("--allow-remote", "localhost:{port}"), "--allow-remote names localhost"),
        (("--schedule", "kill:primary@1"), "--schedule"),
        (("--seconds", "0"), "--seconds"),
        (("--rate", "0"), "--rate"),
        (("--password-env", "NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE"),
    ],
)
def test_nothing_is_sent_to_whom_nobody_allowed(
    drill_observe: Callable[..., Said], listener: socket.socket, more: tuple[str, ...], said: str
) -> None:
    port = listener.getsockname()[1]
    done = drill_observe("--url", f"redis://127.0.0.1:{port}", *(word.format(port=port) for word in more))
    assert done.status == 2
    assert said in done.err
    if "allow" in said or "ours" in said:
        assert f"--allow-remote 127.0.0.1:{port}" in done.err


def test_of_an_address_that_is_allowed_it_is_said_what_is_wrong_with_it(drill_observe: Callable[..., Said]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    there = ("--url", f"redis://{address}", "--allow-remote", address)
    nobody = drill_observe(*there)
    assert (nobody.status, address in nobody.err, "remedy:" in nobody.err) == (4, True, True)
    mix = drill_observe(*there, "--mix", "everything")
    assert (mix.status, "mixes are append, mixed" in mix.err) == (2, True)
    database = drill_observe("--url", f"redis://{address}/3", "--allow-remote", address)
    assert (database.status, "database 3" in database.err) == (2, True)
    secret = drill_observe("--url", f"redis://:word@{address}", "--allow-remote", address)
    assert (secret.status, "word" in secret.err) == (4, False)


def test_nodes_of_valkeep_up_are_ours_and_the_report_has_everything(drill_observe: Callable[..., Said], tmp_path: Path) -> None:
    up = subprocess.run(
        command("up", "standalone", "--detach", "--name", "mine", "--json", "-"), capture_output=True, text=True, timeout=60, check=True
    )
    try:
        (node,) = json.loads(up.stdout)["nodes"]
        there, report = ("--url", f"redis://{node['address']}", "--seconds", "1"), tmp_path / "report"
        done = drill_observe(*there, "--json", "-", "--report", str(report), "--most-gap-ms", "5000")
        assert done.status == 0, done.err
        found = json.loads(done.out)
        assert (found["verdict"], found["runtime"]) == ("valid", "remote")
        assert {one["measure"] for one in found["expectations"]} == {"unexplained", "gap_ms"}
        assert "deletes them at the end" in done.err
        assert {one.name for one in (report / "observe").iterdir()} == {"drill.json", "drill.html", "history.vkh"}
        assert drill_observe(*there, "--most-gap-ms", "0").status == 1
    finally:
        subprocess.run(command("down", "mine"), timeout=60, check=True, capture_output=True)


async def _count(endpoint: Endpoint) -> int:
    return len(await _listed(endpoint))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_keys_go_also_when_it_is_called_off(tmp_path: Path, number: signal.Signals) -> None:
    async def main() -> None:
        async with LocalDeployment(TopologySpec.standalone()) as deployment:
            there = deployment.machines["n1"].endpoint

            async def written() -> bool:
                return await _count(there) >= 50

            words = ("drill", "observe", "--url", f"redis://{there.address}", "--allow-remote", there.address)
            env = {**os.environ, "TMPDIR": str(tmp_path)}
            job = await asyncio.create_subprocess_exec(*command(*words), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                await holds(written, "nothing is written")
                job.send_signal(number)
                assert await asyncio.wait_for(job.wait(), 30) == 128 + number
                assert await _count(there) == 0
            finally:
                with contextlib.suppress(ProcessLookupError):
                    job.kill()
                await job.wait()

    asyncio.run(main())
    until(lambda: not list(tmp_path.glob("*valkeep-node*")), "the recorder's folder stays")
