"""Topologies of this machine: ready means proven, on every version; what can't be is said before; nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import valkey

from tests.support.nodes import binary as server_binary
from tests.support.waiting import until
from valkeep.client.endpoint import Endpoint
from valkeep.drill.playground import Faults, Playground, Topology
from valkeep.errors import Refused, ValkeepError
from valkeep.runtime import ports, servers
from valkeep.runtime.converge import CANARY, NotReady
from valkeep.runtime.janitor import started
from valkeep.runtime.local import LocalDeployment
from valkeep.runtime.node import NodeFailed
from valkeep.topology.slots import tag_for
from valkeep.topology.spec import Kind, TopologySpec

pytestmark = pytest.mark.server

KINDS = {"standalone": TopologySpec.standalone(replicas=1), "sentinel": TopologySpec.sentinel(), "cluster": TopologySpec.cluster()}
VERSIONS = ["valkey-9.1", "valkey-8.1", "redis-7.0", "redis-8.0"]


def plain(endpoint: Endpoint) -> Any:
    """An ordinary client of the node, with its login."""
    options: dict[str, Any] = {}
    if endpoint.password is not None:
        options |= {"username": endpoint.username, "password": endpoint.password.reveal()}
    if endpoint.tls is not None:
        options |= {"ssl": True, "ssl_ca_certs": endpoint.tls.ca}
    return valkey.Valkey(endpoint.host, endpoint.port, socket_timeout=5, **options)


def assert_proven(deployment: LocalDeployment) -> None:
    """What ready claims, by ordinary commands, at once: nothing is waited for."""
    spec = deployment.spec
    for machine in deployment.of("primary"):
        with plain(machine.endpoint) as client:
            info = client.info("replication")
            assert info["role"] == "master"
            assert info["connected_slaves"] == spec.replicas
            keys = list(client.scan_iter(CANARY + b"*"))
            assert len(keys) == 1
            canary = client.get(keys[0])
        for replica in [one for one in deployment.of("replica") if one.spec.of == machine.spec.name]:
            with plain(replica.endpoint) as client:
                if spec.kind is Kind.CLUSTER:
                    client.execute_command("READONLY")
                assert client.get(keys[0]) == canary, "WAIT counted it"
                assert client.info("replication")["master_link_status"] == "up"
    for machine in deployment.of("primary", "replica") if spec.kind is Kind.CLUSTER else ():
        with plain(machine.endpoint) as client:
            about = client.execute_command("CLUSTER INFO")
            assert (about["cluster_state"], about["cluster_slots_ok"]) == ("ok", "16384")
            assert int(about["cluster_known_nodes"]) == spec.shards * (1 + spec.replicas)
    for machine in deployment.of("sentinel"):
        with plain(machine.endpoint) as client:
            (known,) = client.sentinel_masters().values()
            assert f"{known['ip']}:{known['port']}" == deployment.addresses["n1"]
            assert (known["num-slaves"], known["num-other-sentinels"], known["quorum"]) == (spec.replicas, spec.sentinels - 1, spec.quorum)
            assert not known["is_sdown"]


def stands(spec: TopologySpec) -> None:
    async def check() -> None:
        async with LocalDeployment(spec) as deployment:
            await asyncio.to_thread(assert_proven, deployment)

    asyncio.run(check())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_ready_means_proven(kind: str, version: str) -> None:
    server_binary(version)
    stands(replace(KINDS[kind], server=version))


SIZES = {
    "a server alone": TopologySpec.standalone(),
    "one sentinel": TopologySpec.sentinel(replicas=1, sentinels=1),
    "more of all": TopologySpec.sentinel(replicas=3, sentinels=5),
    "no replicas": TopologySpec.cluster(shards=4, replicas=0),
    "two replicas each": TopologySpec.cluster(shards=3, replicas=2),
    "one shard": TopologySpec.cluster(shards=1, replicas=1),
}


@pytest.mark.parametrize("size", SIZES)
def test_other_sizes(size: str) -> None:
    stands(SIZES[size])


@pytest.mark.parametrize("victim", ["n3", "s2"])
def test_it_is_not_ready_while_a_node_hangs_and_says_which(victim: str) -> None:
    async def check() -> None:
        deployment = LocalDeployment(TopologySpec.sentinel(), timeout=2.0)
        try:
            await deployment.up()
            await deployment.machines[victim].pause()
            with pytest.raises(NotReady, match=victim):
                await deployment.ready()
        finally:
            await deployment.down()

    asyncio.run(check())


# --------------------------------------------------------------------------------------------------------- nothing is left


class Left(NamedTuple):
    folder: Path
    pids: list[int]
    seats: list[tuple[str, int]]

    def assert_nothing(self) -> None:
        assert not self.folder.exists()
        until(lambda: not any(map(started, self.pids)), "servers gone", 5.0)
        for host, port in self.seats:
            ports.reserve(port, host).release()


def noted(deployment: LocalDeployment) -> Left:
    machines = deployment.machines.values()
    return Left(deployment.folder, [one.pid for one in machines if one.alive], [(one.process.host, one.process.port) for one in machines])


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_in_the_block_leaves_nothing(kind: str) -> None:
    async def check() -> Left:
        left = None
        with pytest.raises(ZeroDivisionError):
            async with LocalDeployment(KINDS[kind]) as deployment:
                left = noted(deployment)
                assert left.pids
                raise ZeroDivisionError
        assert left is not None
        return left

    asyncio.run(check()).assert_nothing()


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4, 0.8])
def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def check() -> LocalDeployment:
        deployment = LocalDeployment(TopologySpec.sentinel())
        starting = asyncio.create_task(deployment.__aenter__())
        await asyncio.wait([starting], timeout=seconds)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await deployment.down()  # may be called twice
        return deployment

    deployment = asyncio.run(check())
    assert not any(machine.alive for machine in deployment.machines.values())
    assert [path.name for path in tmp_path.iterdir() if "ports" not in path.name] == []


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_an_interrupted_start_of_a_playground_has_cleaned_up_when_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = threading.active_count()
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        Playground(TopologySpec.cluster())
        pytest.fail("it was quicker than the signal")
    timer.join()
    assert list(tmp_path.glob("valkeep-node-*")) == []
    assert threading.active_count() <= threads + 1  # the thread that starts servers stays


# ---------------------------------------------------------------------------------------------------------- what can't be


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of this test; nothing but locks of ports is in it at the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert [path.name for path in tmp_path.rglob("valkeep-node-*")] == []


def refused(deployment: LocalDeployment, kind: type[ValkeepError], says: str) -> None:
    async def check() -> None:
        with pytest.raises(kind, match=says) as caught:
            async with deployment:
                raise AssertionError("it is up")
        assert caught.value.remedy
        assert not any(machine.alive for machine in deployment.machines.values())

    asyncio.run(check())


def test_a_port_that_somebody_takes_meanwhile_is_named(place: Path) -> None:
    deployment = LocalDeployment(TopologySpec.sentinel())
    with socket.create_server(deployment.network.listen("n2")):
        refused(deployment, NodeFailed, r"(?s)n2|port \d+.*(Address already in use|Failed listening)")


def test_ports_that_are_in_use_are_not_taken() -> None:
    reservation = ports.reserve()
    with pytest.raises(ValkeepError, match="is in use"):
        ports.reserve(reservation.port)
    reservation.release()
    with socket.create_server(("127.0.0.1", reservation.port)), pytest.raises(ValkeepError, match="is in use"):
        ports.reserve(reservation.port)


def test_a_server_that_does_not_start_is_shown_with_its_last_words(place: Path, tmp_path: Path) -> None:
    program = tmp_path / "valkey-server"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "Valkey server v=9.1.2" && exit 0\necho "no such instruction" >&2\nexit 3\n'
    )
    program.chmod(0o755)
    refused(LocalDeployment(replace(TopologySpec.sentinel(), server=str(program))), NodeFailed, "status 3.*no such instruction")


def test_a_setting_that_the_server_does_not_know_is_shown(place: Path) -> None:
    refused(LocalDeployment(TopologySpec.cluster().with_settings(no_such_setting=1)), NodeFailed, "no-such-setting")


def test_too_little_disk_is_said_before_anything_starts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=30 << 20))
    refused(LocalDeployment(TopologySpec.sentinel()), Refused, "30 MB left, and 6 nodes take 80 MB")


def test_a_folder_that_can_not_be_written_or_is_not_empty_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(LocalDeployment(TopologySpec.standalone(), folder=tmp_path / "file" / "x"), Refused, "can not be written")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    refused(LocalDeployment(TopologySpec.standalone(), folder=tmp_path / "full"), Refused, "is not empty")
    assert (tmp_path / "full" / "precious").read_text() == "x"


def test_tls_with_a_server_that_has_none_or_without_openssl_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_binary("valkey-8.1")
    spec = replace(TopologySpec.standalone(), tls=True, server="valkey-8.1")
    monkeypatch.setattr(servers, "speaks_tls", lambda _: False)
    with pytest.raises(Refused, match="was built without TLS") as caught:
        LocalDeployment(spec)
    assert "--fetch valkey-8.1" in caught.value.remedy
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    deployment = LocalDeployment(spec)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    refused(deployment, Refused, "no openssl")


# -------------------------------------------------------------------------------------------------------------- TLS and ACL


@pytest.mark.parametrize("version", ["redis-7.0", "redis-8.0", "valkey-8.1"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_tls_and_users_ready_means_proven_too(kind: str, version: str) -> None:
    server_binary(version)
    stands(replace(KINDS[kind], tls=True, acl=True, server=version))


@pytest.mark.parametrize(("kind", "version"), [("sentinel", "valkey-8.1"), ("cluster", "valkey-8.1"), ("cluster", "redis-7.0")])
def test_with_tls_and_users_a_killed_primary_is_replaced_and_nobody_gets_in_without(kind: str, version: str) -> None:
    server_binary(version)
    playground = Playground(replace(KINDS[kind], tls=True, acl=True, server=version, timeout_ms=500))
    try:
        topology, faults = Topology(playground), Faults(lambda: playground)
        old = topology.primary()
        with pytest.raises(valkey.ConnectionError):
            valkey.Valkey(old.host, old.port, socket_timeout=2).ping()
        with plain(replace(old, password=None)) as stranger, pytest.raises(valkey.AuthenticationError):
            stranger.get("k")
        faults.kill("primary:1")
        with plain(topology.wait_new_primary(old)) as client:
            client.set(b"{%s}k" % tag_for(0), "v")
        if kind == "cluster":  # sentinels take nine seconds more to demote who comes back
            faults.heal()
            topology.wait_whole()
    finally:
        playground.close()


def test_with_users_a_coordinated_failover_of_valkey_9_is_allowed_to_the_sentinels() -> None:
    server_binary("valkey-9.1")
    playground = Playground(replace(TopologySpec.sentinel(), acl=True, server="valkey-9.1"))
    try:
        topology, faults = Topology(playground), Faults(lambda: playground)
        old = topology.primary()
        faults.promote("primary", mode="coordinated")
        assert topology.wait_new_primary(old, 20.0) != old
    finally:
        playground.close()


@pytest.mark.parametrize("version", ["valkey-9.1", "valkey-8.1"])
def test_with_users_slots_with_keys_move(version: str) -> None:
    server_binary(version)
    playground = Playground(replace(TopologySpec.cluster(), acl=True, server=version))
    try:
        topology, faults = Topology(playground), Faults(lambda: playground)
        with plain(topology.primary(1)) as client:
            keys = [b"{%s}k" % tag_for(slot) for slot in range(100, 200)]
            for key in keys:
                client.set(key, key)
        faults.slot_migration("primary:1", to=2, slots="100-199")
        with plain(topology.primary(2)) as client:
            assert [client.get(key) for key in keys] == keys
    finally:
        playground.close()


def test_a_drill_with_tls_and_users_is_judged_as_without() -> None:
    server_binary("valkey-8.1")
    command = "drill run sentinel-kill-primary --tls --acl --server valkey-8.1 --json -"
    done = subprocess.run([sys.executable, "-m", "valkeep", *command.split()], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    drill = json.loads(done.stdout)
    assert drill["verdict"] == "valid"
    assert drill["replay"].endswith("--server valkey-8.1 --tls --acl")
