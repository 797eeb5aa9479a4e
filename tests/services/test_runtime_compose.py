"""The compose runtime: what a deployment promises, kept by containers; and the kill drills on them."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.drilled import unstalled
from tests.support.waiting import until
from valkeep.errors import ExitCode, Refused
from valkeep.runtime import compose, ports
from valkeep.runtime.compose import ComposeDeployment
from valkeep.runtime.docker import Docker, DockerFailed, DockerMissing
from valkeep.topology.spec import TopologySpec

NAMES = frozenset


def left_of(docker: Docker, project: str) -> str:
    """Containers, networks and volumes of a project."""
    label = f"label=com.docker.compose.project={project}"
    return "".join(
        docker.run(*words, "--filter", label, "--quiet") for words in (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    ).strip()


def nothing_left(docker: Docker, project: str) -> bool:
    return left_of(docker, project) == ""


def on_a_sentinel_topology(check: Callable[[ComposeDeployment], Awaitable[None]]) -> None:
    async def run() -> None:
        async with ComposeDeployment(TopologySpec.sentinel()) as deployment:
            await check(deployment)
        assert not deployment.folder.exists()
        assert left_of(deployment.docker, deployment.project) == ""

    asyncio.run(run())


async def role(deployment: ComposeDeployment, name: str) -> str:
    return (await deployment.prober.look()).nodes[name].role


@pytest.fixture
def network_in_the_way(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    docker.run("network", "create", "--subnet", "172.30.242.128/25", "in-the-way")
    monkeypatch.setattr(compose, "_prefixes", lambda _: iter(["172.30.242", "172.30.243"]))
    yield
    docker.run("network", "rm", "in-the-way")


def test_the_verbs_of_a_machine(docker: Docker, network_in_the_way: None) -> None:
    async def check(deployment: ComposeDeployment) -> None:
        replica, call = deployment.machines["n3"], deployment.prober.call
        assert deployment.server.startswith("Valkey 9.")
        assert deployment.network.prefix == "172.30.243", "the first one was taken"
        assert await call("n1", "CONFIG", "GET", "min-replicas-to-write") == [b"min-replicas-to-write", b"0"], "the spec decides"
        assert (
            await call("s1", "SENTINEL", "CKQUORUM", "valkeep")
            == b"OK 3 usable Sentinels. Quorum and failover authorization can be reached"
        )
        assert replica.alive
        assert "Ready to accept connections" in replica.log()
        with pytest.raises(Refused, match="runs already"):
            await replica.start()
        with pytest.raises(Refused, match="n3 runs"):
            await replica.empty()
        with pytest.raises(Refused, match="page cache"):
            await replica.crash()
        await replica.pause()
        await call("n1", "SET", "seen", "later")
        assert await call("n1", "WAIT", 1, 5000, timeout=8) >= 1
        assert await call("n1", "WAIT", 2, 300) == 1, "a paused replica acknowledges nothing"
        await replica.resume()
        assert await call("n1", "WAIT", 2, 5000, timeout=8) == 2
        await replica.kill()
        assert not replica.alive
        await replica.empty()
        await replica.start()
        assert replica.log().count("Ready to accept connections") == 2, "the log goes over every restart"
        await deployment.ready()
        await replica.stop()
        assert not replica.alive

    on_a_sentinel_topology(check)


def test_a_cut_is_one_way_outlives_a_restart_and_tells_clients_apart(docker: Docker) -> None:
    async def check(deployment: ComposeDeployment) -> None:
        network, call = deployment.network, deployment.prober.call
        assert deployment.abilities == {"partition"}
        mine, other = network.source("c1"), network.source("c2")
        assert mine != other
        await network.cut(NAMES(["n1", "c1"]), NAMES(["n2", "n3"]))
        await call("n1", "SET", "cut", "1")
        assert await call("n1", "WAIT", 1, 300) == 0
        assert (await call("n2", "PING")) == b"PONG", "Valkeep itself is not cut off"
        with pytest.raises(OSError, match="timed out"):
            socket.create_connection((network.hosts["n2"], deployment.machines["n2"].endpoint.port), 0.5, (mine, 0))
        socket.create_connection((network.hosts["n2"], deployment.machines["n2"].endpoint.port), 2, (other, 0)).close()
        await deployment.machines["n3"].kill()
        await deployment.machines["n3"].start()
        with pytest.raises(OSError, match="timed out"):
            socket.create_connection((network.hosts["n3"], deployment.machines["n3"].endpoint.port), 0.5, (mine, 0))
        await network.heal()
        socket.create_connection((network.hosts["n3"], deployment.machines["n3"].endpoint.port), 2, (mine, 0)).close()
        with pytest.raises(Refused, match="late"):
            await network.delay(NAMES(["n1"]), 10)

    on_a_sentinel_topology(check)


def test_kill_minus_nine_of_valkeep_leaves_nothing(docker: Docker, tmp_path: Path) -> None:
    program = """
import asyncio, sys
from valkeep.runtime.compose import ComposeDeployment
from valkeep.topology.spec import TopologySpec
async def main():
    deployment = ComposeDeployment(TopologySpec.sentinel())
    print(deployment.project, flush=True)
    await deployment.up()
    print(deployment.folder, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    for moment in ("while it starts", "when it runs"):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        project = child.stdout.readline().strip()
        if moment == "when it runs":
            folder = Path(child.stdout.readline().strip())
            assert folder.exists()
        else:
            until(functools.partial(left_of, docker, project), "something was made", 90)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        until(functools.partial(nothing_left, docker, project), f"nothing is left when killed {moment}", 90, every=0.1)
    until(lambda: not folder.exists(), "the folder is gone", 90)


def valkeep(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "valkeep")
    return subprocess.run(
        [program, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.mark.parametrize("name", ["sentinel-kill-primary", "cluster-kill-primary"])
def test_the_kill_drills_meet_their_expectations_on_containers(docker: Docker, name: str) -> None:
    # other containers run beside it: a stall of half the timeout makes the verdict unknown
    words = ("drill", "run", name, "--runtime", "compose", "--timeout-ms", "2000", "--json", "-")

    def run() -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        done = valkeep(*words)
        assert done.stdout, done.stderr
        return done, json.loads(done.stdout)

    done, outcome = unstalled(run, lambda ran: [(ran[1]["verdict"], str(ran[1]["reasons"]))])
    assert done.returncode == ExitCode.GOOD, done.stdout + done.stderr
    assert outcome["verdict"] == "valid"
    assert outcome["runtime"] == "compose"
    assert outcome["measures"]["operations"] >= 10_000


def test_up_status_and_down_from_the_command_line(docker: Docker, tmp_path: Path) -> None:
    state = {"XDG_RUNTIME_DIR": str(tmp_path)}
    up = valkeep("up", "sentinel", "--runtime", "compose", "--detach", "--json", str(tmp_path / "up.json"), **state)
    assert up.returncode == ExitCode.GOOD, up.stdout + up.stderr
    status = valkeep("status", **state)
    down = valkeep("down", **state)
    assert status.returncode == ExitCode.GOOD, status.stdout + status.stderr
    assert down.returncode == ExitCode.GOOD, down.stdout + down.stderr


def test_without_docker_compose_or_a_daemon_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: Docker) -> None:
    with monkeypatch.context() as without_daemon:
        without_daemon.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
        with pytest.raises(DockerMissing, match="daemon does not answer") as caught:
            ComposeDeployment(TopologySpec.sentinel())
        assert caught.value.exit_code is ExitCode.NOT_RUN
        assert "systemctl start docker" in caught.value.remedy
    with monkeypatch.context() as without_compose:
        without_compose.setenv("DOCKER_CONFIG", str(tmp_path))
        without_compose.setattr(
            "valkeep.runtime.docker.shutil.which", lambda name: None if name == "docker-compose" else f"/usr/bin/{name}"
        )
        with pytest.raises(DockerMissing, match="Compose 2 is not"):
            Docker.find()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DockerMissing, match="no docker on PATH") as caught:
        ComposeDeployment(TopologySpec.sentinel())
    assert "--runtime local" in caught.value.remedy
    done = valkeep("drill", "run", "sentinel-kill-primary", "--runtime", "compose", DOCKER_HOST=f"unix://{tmp_path}/nothing.sock")
    assert done.returncode == ExitCode.NOT_RUN


def test_a_port_that_is_taken_is_named(docker: Docker, bare_image: str) -> None:
    others = [ports.reserve() for _ in range(5)]  # the files' own ports may be in use by the tests beside this one
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = {f"VALKEY_{name}_PORT": str(one.port) for name, one in zip(("N1", "N3", "S1", "S2", "S3"), others, strict=True)}
        words = ("--project-name", f"valkeep-taken-{os.getpid()}", "--file", str(compose.FILES / "docker-compose.ha.yml"))
        try:
            with pytest.raises(DockerFailed, match=rf"127\.0\.0\.1:{port} is taken"):
                docker.compose_run(
                    *words,
                    "up",
                    "--detach",
                    environment={"VALKEY_IMAGE": bare_image, "VALKEY_N2_PORT": str(port), "VALKEY_NET": "172.30.81", **free},
                )
        finally:
            docker.compose_run(*words, "down", "--volumes", "--timeout", "0")
            for one in others:
                one.release()
