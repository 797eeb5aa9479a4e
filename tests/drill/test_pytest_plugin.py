"""Tests of an application get real topologies and faults: the example project passes, and what goes wrong is said clearly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]

PROJECT = Path(__file__).parents[2] / "examples" / "pytest-project"


def tried(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """pytest as a user runs it, with Valkeep's plugin as the entry point gives it; exit code and all that it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-rs", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=clean | environment)
    return done.returncode, done.stdout + done.stderr


def project(folder: Path, tests: str, settings: str = "") -> Path:
    (folder / "pyproject.toml").write_text(f'[tool.pytest.ini_options]\naddopts = ["--strict-markers", "--strict-config"]\n{settings}\n')
    (folder / "test_it.py").write_text("import asyncio\nimport os\nimport pytest\nimport valkey\n\n" + tests)
    return folder


@pytest.mark.parametrize("file", ["test_orders.py", "test_sums.py"])
def test_the_example_project_drills_itself(file: str) -> None:
    code, said = tried(PROJECT, f"tests/{file}")
    assert code == 0, said


def test_each_test_begins_empty_on_the_same_servers_until_one_changes_more_than_keys(tmp_path: Path) -> None:
    tests = """
def connect(server):
    return valkey.Valkey(*server.nodes[0])

seen = []

@pytest.mark.parametrize("turn", range(2))
def test_keys_are_gone_and_servers_stay(valkey_standalone, turn):
    with connect(valkey_standalone) as client:
        assert client.dbsize() == 0
        client.set("a", 1)
        seen.append(client.info("server")["run_id"])

def test_it_changes_a_setting(valkey_standalone):
    valkey_standalone.call("CONFIG", "SET", "maxmemory", "100mb")

def test_the_next_one_has_it_not(valkey_standalone):
    with connect(valkey_standalone) as client:
        assert client.config_get("maxmemory") == {"maxmemory": "0"}
        seen.append(client.info("server")["run_id"])
    assert seen[0] == seen[1] != seen[2]

@pytest.mark.valkey(settings={"maxmemory": "50mb"}, persistence="always", replicas=1)
def test_a_marker_makes_it_another(valkey_standalone):
    assert len(valkey_standalone.nodes) == 2
    assert valkey_standalone.call("CONFIG", "GET", "maxmemory")[1] == b"52428800"
    assert valkey_standalone.call("CONFIG", "GET", "appendfsync")[1] == b"always"
"""
    code, said = tried(project(tmp_path, tests))
    assert code == 0, said
    assert "5 passed" in said


def test_asynchronous_tests_go_on_while_faults_are_injected_and_all_is_healed_at_the_end(tmp_path: Path) -> None:
    tests = """
@pytest.fixture
def alive(valkey_standalone):
    yield
    assert valkey_standalone.call("PING") == b"PONG"  # after the faults' end, before the servers'

def test_asynchronous(valkey_standalone, alive, faults):
    async def check():
        beats = 0
        async def beat():
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1
        beating = asyncio.create_task(beat())
        await faults.aio.restart("n1")  # takes a hundred beats; a kill may be over before the next
        assert beats > 0
        struck = await faults.aio.kill("n1")
        assert struck.nodes == ("n1",)
        with pytest.raises(valkey.ConnectionError):
            valkey.Valkey(*valkey_standalone.nodes[0]).ping()
        beating.cancel()
    asyncio.run(check())
"""
    code, said = tried(project(tmp_path, tests))
    assert code == 0, said


def test_parallel_workers_have_topologies_of_their_own(tmp_path: Path) -> None:
    tests = """
@pytest.mark.parametrize("turn", range(4))
def test_alone(valkey_standalone, turn):
    with valkey.Valkey(*valkey_standalone.nodes[0]) as client:
        assert client.incrby("turn", 1) == 1
        client.client_pause(1)
"""
    code, said = tried(project(tmp_path, tests), "-n", "2")
    assert code == 0, said
    assert "4 passed" in said


def test_with_tls_and_users_an_application_gets_in_as_itself_and_finds_the_new_primary(tmp_path: Path) -> None:
    tests = """
import time
from valkey.sentinel import Sentinel

@pytest.mark.valkey(tls=True, acl=True, version="valkey-8.1", timeout_ms=2000)
def test_sentinel(valkey_sentinel, faults):
    sentinel = Sentinel(valkey_sentinel.sentinels, sentinel_kwargs=valkey_sentinel.options, **valkey_sentinel.options)
    old = valkey_sentinel.primary()
    sentinel.master_for(valkey_sentinel.name).set("k", "v")
    assert len(sentinel.discover_slaves(valkey_sentinel.name)) == 2
    faults.kill("primary")
    new = valkey_sentinel.wait_new_primary(old)
    deadline = time.monotonic() + 20
    while sentinel.discover_master(valkey_sentinel.name) != (new.host, new.port):  # most sentinels know it, and one is asked
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(valkey.exceptions.NoPermissionError):
        valkey.Valkey(new.host, new.port, **valkey_sentinel.options).config_get("maxmemory")
    assert valkey_sentinel.call("ACL", "WHOAMI") == b"valkeep-admin"

@pytest.mark.valkey(tls=True, acl=True, version="valkey-8.1")
def test_cluster(valkey_cluster):
    from valkey.cluster import ClusterNode, ValkeyCluster
    nodes = [ClusterNode(*node) for node in valkey_cluster.nodes]
    with ValkeyCluster(startup_nodes=nodes, **valkey_cluster.options) as client:
        for number in range(50):
            client.set(f"k{number}", number)
        assert client.dbsize(target_nodes=ValkeyCluster.PRIMARIES) == 50
"""
    code, said = tried(project(tmp_path, tests))
    assert code == 0, said
    assert "2 passed" in said


BAD = {
    "@pytest.mark.valkey(nodes=3)\ndef test_bad(valkey_standalone): ...": "the marker valkey does not know nodes",
    "@pytest.mark.valkey(persistence='paper')\ndef test_bad(valkey_standalone): ...": "makes no sense",
    "@pytest.mark.valkey(sentinels=0)\ndef test_bad(valkey_sentinel): ...": "it has no sentinel",
    "@pytest.mark.valkey(network='string')\ndef test_bad(valkey_standalone): ...": "is no network for tests",
    "def test_bad(faults):\n    faults.kill()": "faults are for a test with one topology, and this one has 0",
    "def test_bad(valkey_standalone, faults):\n    faults.partition('n1')": "can not do: partition",
    "def test_bad(valkey_standalone, faults):\n    faults.kill('replica')": "is no target on 1 server",
}


def test_what_makes_no_sense_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    tests = "\n\n".join(text.replace("test_bad", f"test_bad_{number}") for number, text in enumerate(BAD))
    code, said = tried(project(tmp_path, tests))
    assert code == 1
    for message in BAD.values():
        assert message in said
    assert not re.search(r"\d+ passed", said)


def test_an_error_of_valkeep_shows_its_remedy(tmp_path: Path) -> None:
    tests = "def test_it(valkey_standalone, faults):\n    faults.partition()\n"
    code, said = tried(project(tmp_path, tests), "test_it.py")
    assert code == 1
    assert "remedy: partition, delay: --network proxy, in tests @pytest.mark.valkey(network='proxy')" in said


def test_a_missing_server_is_a_skip_with_a_remedy_and_a_failure_in_continuous_integration(tmp_path: Path) -> None:
    folder = project(tmp_path, "def test_old(valkey_standalone): ...", 'valkey_version = "redis-5.0"')
    code, said = tried(folder)
    assert code == 0
    assert "1 skipped" in said
    assert "no redis-5.0 on this machine" in said
    code, said = tried(folder, CI="true")
    assert code == 1
    assert "no redis-5.0 on this machine" in said
    assert "remedy" in said
    code, said = tried(folder, "--valkey-version", "newest-valkey", CI="true")
    assert code == 0, said


def test_tests_that_ask_for_no_fixture_import_nothing_of_valkeep_and_start_nothing(tmp_path: Path) -> None:
    tests = """
import sys
def test_nothing():
    assert {name for name in sys.modules if name.startswith("valkeep")} == {"valkeep", "valkeep.pytest_plugin"}
"""
    code, said = tried(project(tmp_path, tests))
    assert code == 0, said


def test_a_killed_test_run_leaves_no_server_and_no_folder(tmp_path: Path) -> None:
    from tests.support.waiting import until
    from valkeep.runtime.janitor import started

    tests = """
def test_long(valkey_standalone):
    print(valkey_standalone.call("INFO", "server").decode().split("process_id:")[1].split()[0], flush=True)
    print(valkey_standalone.call("CONFIG", "GET", "dir")[1].decode(), flush=True)
    import time; time.sleep(60)
"""
    folder = project(tmp_path, tests)
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    pid, files = int(running.stdout.readline()), Path(running.stdout.readline().strip())
    assert started(pid)
    assert files.exists()
    running.kill()
    running.communicate()
    until(lambda: not started(pid) and not files.exists(), "server and files gone")
