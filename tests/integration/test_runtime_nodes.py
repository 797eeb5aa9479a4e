"""Nodes: started when they answer, gone when they should be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Server
from tests.support.waiting import until
from valkeep.errors import ValkeepError
from valkeep.runtime import ports, servers
from valkeep.runtime.node import Node, NodeFailed


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # a zombie that its new parent has not reaped yet has ended too
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return not sys.platform.startswith("linux")


@pytest.mark.parametrize("spec", servers.SPECS)
def test_every_test_server_runs_and_is_what_its_spec_says(server: Server, client: Callable, spec: str) -> None:
    node = server(spec)
    info = client(node).info("server")
    name, version = spec.split("-")
    assert info[f"{name}_version" if name == "valkey" else "redis_version"].startswith(version + ".")
    assert info["process_id"] == node.pid
    assert client(node).config_get("propagation-error-behavior") == {"propagation-error-behavior": "panic"}


def test_data_survives_an_orderly_restart_and_a_killed_node_says_so(server: Server, client: Callable) -> None:
    node = server("valkey-9.1", save="3600 1")
    client(node).set("k", "v")
    node.restart()
    assert client(node).get("k") == b"v"
    node.kill()
    assert node.returncode == -signal.SIGKILL
    with pytest.raises(NodeFailed, match="does not run") as caught:
        _ = node.pid
    assert caught.value.remedy


def test_a_paused_node_hangs_and_a_resumed_one_answers(server: Server, client: Callable) -> None:
    import valkey

    node = server("valkey-9.1")
    node.pause()
    with pytest.raises(valkey.exceptions.TimeoutError):
        client(node, socket_timeout=0.2).ping()
    node.resume()
    assert client(node).ping()


def test_a_node_that_can_not_start_shows_the_last_words_of_its_log(binary: Callable, tmp_path: Path) -> None:
    with pytest.raises(NodeFailed, match=r"no-such-setting"), Node.start(binary("valkey-9.1"), {"no-such-setting": 1}, directory=tmp_path):
        pass
    assert (tmp_path / "node.log").exists()


def test_the_folder_of_a_node_is_removed_at_the_end_unless_the_caller_named_it(binary: Callable, tmp_path: Path) -> None:
    with Node.start(binary("valkey-9.1")) as node:
        folder = node.directory
        assert (folder / "node.conf").stat().st_mode & 0o077 == 0  # it may hold a password
    assert not folder.exists()
    with Node.start(binary("valkey-9.1"), directory=tmp_path):
        pass
    assert (tmp_path / "node.conf").exists()


def test_two_nodes_never_get_the_same_port_and_a_taken_port_is_refused(binary: Callable) -> None:
    with Node.start(binary("valkey-9.1")) as one, Node.start(binary("valkey-9.1")) as two:
        assert one.port != two.port
        assert max(one.port, two.port) + ports.BUS < 32768
        with pytest.raises(ValkeepError, match=f"port {one.port}"), Node.start(binary("valkey-9.1"), port=one.port):
            pass
    ports.reserve(one.port).release()


def test_an_asynchronous_node_is_stopped_when_its_block_is_left_by_an_error(binary: Callable) -> None:
    seen: list[int] = []

    async def scenario() -> None:
        async with Node.start(binary("valkey-9.1")) as node:
            await node.kill()
            await node.restart()
            seen.append(node.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())
    assert gone(seen[0])


def test_a_node_outlives_the_thread_that_asked_for_it(server: Server, client: Callable) -> None:
    """PR_SET_PDEATHSIG is sent when the starting *thread* ends; the starter thread must take that upon itself."""
    nodes = []
    thread = threading.Thread(target=lambda: nodes.append(server("valkey-9.1")))
    thread.start()
    thread.join()
    assert client(nodes[0]).ping()
    assert nodes[0].alive


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_parent_leaves_no_server_behind(binary: Callable, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom valkeep.runtime import servers\nfrom valkeep.runtime.node import Node\n"
        "with Node.start(servers.probe(sys.argv[1]), directory=__import__('pathlib').Path(sys.argv[2])) as node:\n"
        "    print(node.pid, flush=True)\n    sys.stdin.read()\n"
    )
    path = str(binary("valkey-9.1").path)
    parent = subprocess.Popen([sys.executable, "-c", script, path, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.communicate()
    until(lambda: gone(pid), "the server to be gone")


def test_the_folder_of_a_killed_parent_is_removed_by_the_next_start(binary: Callable) -> None:
    script = (
        "import sys\nfrom valkeep.runtime import servers\nfrom valkeep.runtime.node import Node\n"
        "with Node.start(servers.probe(sys.argv[1])) as node:\n"
        "    print(node.directory, flush=True)\n    sys.stdin.read()\n"
    )
    server = binary("valkey-9.1")
    parent = subprocess.Popen([sys.executable, "-c", script, str(server.path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    folder = Path(parent.stdout.readline().strip())
    with Node.start(server):
        assert folder.exists(), "its process lives"
    parent.kill()
    parent.communicate()
    with Node.start(server):
        assert not folder.exists()
