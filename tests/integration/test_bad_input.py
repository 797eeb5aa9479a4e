"""What cannot work is said: one sentence, a remedy, the right exit code; and the source goes on as if nothing had been asked of it."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from valkeep import cli
from valkeep.runtime.node import Process

Run = Callable[..., "Said"]
Client = Callable[..., Any]


class Said:
    """How a command ended. ``code``: the VK- code; ``error``: its sentence."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err
        found = re.findall(r"^valkeep: (.*?)(?: \[(VK-[A-Z0-9-]+)\])?$", err, re.MULTILINE)
        self.error: str = found[-1][0] if found else ""
        self.code: str = found[-1][1] if found else ""

    def expect(self, status: int, code: str, words: str) -> None:
        assert (self.status, self.code) == (status, code), self.err
        assert words in self.error, self.error
        remedy = re.search(r"^  remedy:   (.+)$", self.err, re.MULTILINE)
        assert remedy, self.err
        assert "Traceback" not in self.err
        if status == 4:
            assert "  changed:  nothing" in self.err


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """``valkeep migrate run`` in this process."""

    def go(source: str, target: str, *more: str) -> Said:
        capfd.readouterr()
        where = ["--source", source, "--target", target, "--state", str(tmp_path / "state")]
        status = cli.run(["migrate", "run", *where, "--acknowledge", "all", *more])
        left = [path for path in tmp_path.rglob("*") if path.name.startswith("valkeep-spool") or path.is_socket()]
        assert not left, left
        return Said(int(status), *capfd.readouterr())

    return go


@pytest.fixture
def source(server: Server, client: Client) -> Iterator[Process]:
    """A source with some data; afterwards it must be as it was."""
    node = server("redis-8.0", rdbcompression="no")
    here = client(node)
    here.mset({f"k{number}": f"v{number}" for number in range(200)})
    here.set("marker", "value")
    yield node
    assert here.dbsize() == 201
    assert here.set("marker", "value") is True
    assert here.config_get("min-replicas-to-write") == {"min-replicas-to-write": "0"}
    until(lambda: here.info("replication")["connected_slaves"] == 0, "the source still has a replica")


@pytest.fixture
def target(server: Server) -> Process:
    return server("valkey-9.1")


def untouched(there: Any, keys: int = 0) -> None:
    assert there.execute_command("ROLE")[0] == b"master"
    assert there.dbsize() == keys


# -- the servers are not what they should be -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def web_server() -> Iterator[int]:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield httpd.server_address[1]
        httpd.shutdown()
        thread.join()


def test_a_source_that_is_not_redis_is_named_as_such(run: Run, target: Process, client: Client) -> None:
    with web_server() as port:
        said = run(f"redis://127.0.0.1:{port}", target.endpoint)
    said.expect(4, said.code, f"127.0.0.1:{port}")
    assert "HTTP" in said.err or "not" in said.error
    untouched(client(target))


def test_nobody_at_the_source_address(run: Run, target: Process) -> None:
    said = run("redis://127.0.0.1:1", target.endpoint)
    said.expect(4, said.code, "nothing listens there")


def test_a_wrong_password_of_the_source(run: Run, server: Server, target: Process) -> None:
    source = server("redis-8.0", requirepass="right-word")
    said = run(f"redis://:wrong-word@127.0.0.1:{source.port}", target.endpoint)
    said.expect(4, said.code, "did not accept the password")
    assert "wrong-word" not in said.err + said.out


def test_a_wrong_password_of_the_target(run: Run, server: Server, source: Process) -> None:
    target = server("valkey-9.1", requirepass="right-word")
    said = run(source.endpoint, f"valkey://:wrong-word@127.0.0.1:{target.port}")
    said.expect(4, said.code, "did not accept the password")


def test_a_source_user_who_may_not_psync(run: Run, source: Process, target: Process, client: Client) -> None:
    client(source).execute_command("ACL", "SETUSER", "mover", "on", ">word", "~*", "+@all", "-psync", "-sync")
    said = run(f"redis://mover:word@127.0.0.1:{source.port}", target.endpoint)
    assert said.status == 4, said.err
    assert "psync" in said.err.lower()
    assert "remedy" in said.err
    untouched(client(target))


def test_a_target_with_keys_is_refused_and_keeps_them(run: Run, source: Process, target: Process, client: Client) -> None:
    there = client(target)
    there.set("precious", "1")
    said = run(source.endpoint, target.endpoint)
    said.expect(4, "VK-TARGET-NOT-EMPTY", "the target has keys")
    assert "--wipe-target" in said.err
    untouched(there, 1)


def test_a_target_with_keys_is_replaced_where_that_is_allowed(run: Run, server: Server, target: Process, client: Client) -> None:
    source = server("redis-8.0")
    client(source).set("new", "2")
    there = client(target)
    there.set("old", "1")
    said = run(source.endpoint, target.endpoint, "--wipe-target")
    assert said.status == 0, said.err
    assert there.keys() == [b"new"]


def test_a_target_that_is_a_replica(run: Run, server: Server, source: Process, target: Process, client: Client) -> None:
    other = server("valkey-9.1")
    there = client(target)
    there.replicaof("127.0.0.1", other.port)
    until(lambda: there.execute_command("ROLE")[3] == b"connected", "the target is no replica")
    said = run(source.endpoint, target.endpoint)
    said.expect(4, "VK-TARGET-REPLICA", "replica")
    assert there.execute_command("ROLE")[0] == b"slave"


def test_the_same_server_twice(run: Run, source: Process) -> None:
    with Proxy(source.address) as other_name:
        said = run(source.endpoint, other_name.url("valkey"))
    said.expect(4, "VK-SAME-SERVER", "")


# -- the snapshot is damaged -----------------------------------------------------------------------------------------------------------

RECORD = b"\x00\x06marker\x05value"


@pytest.mark.parametrize(
    ("becomes", "words"),
    [
        (b"\x00\x06marker\x05valuE", "checksum"),
        (b"\xc8\x06marker\x05value", "200"),
        (b"\x00\x06marker\x80\x7f\xff\xff\xffvalue", ""),
        (b"\x00\x06marker\x81\x7f\xff\xff\xff\xff\xff\xff\xffvalue", ""),
        (b"\x00\x81\x80\x00\x00\x00\x00\x00\x00\x00marker\x05value", ""),
    ],
    ids=["bad-crc", "unknown-type", "length-past-the-end", "length-2-63", "key-length-2-63"],
)
def test_a_damaged_snapshot_is_refused_and_never_reaches_the_data_of_the_target(
    run: Run, source: Process, target: Process, client: Client, becomes: bytes, words: str
) -> None:
    there = client(target)
    there.set("precious", "1")
    damaged = []

    def damage(data: bytes) -> bytes:
        if RECORD in data:
            damaged.append(len(data))
        return data.replace(RECORD, becomes)

    with Proxy(source.address) as between:
        between.mangle = damage
        said = run(between.url(), target.endpoint, "--wipe-target")
    assert damaged
    assert said.status == 4, said.err
    assert words in said.error
    assert "remedy" in said.err
    untouched(there, 1)
    assert there.get("precious") == b"1"
    assert there.info("stats")["unexpected_error_replies"] == 0


def test_a_snapshot_that_breaks_off(run: Run, source: Process, target: Process, client: Client) -> None:
    def truncate(data: bytes) -> bytes:
        at = data.find(RECORD)
        return data if at < 0 else data[: at + 4]

    with Proxy(source.address) as between:
        between.mangle = truncate
        between.when(RECORD, after=lambda: threading.Thread(target=between.cut).start(), direction="to-client")
        said = run(between.url(), target.endpoint)
    said.expect(4, "VK-SOURCE-LOST", "in the snapshot")
    untouched(client(target))


# -- disks and folders -----------------------------------------------------------------------------------------------------------------


def test_a_spool_that_reaches_its_limit(run: Run, source: Process, target: Process, client: Client) -> None:
    here = client(source)
    here.set("marker", b"x" * (3 << 20))
    said = run(source.endpoint, target.endpoint, "--spool-limit", "1")
    here.set("marker", "value")
    said.expect(4, "VK-SPOOL-FULL", "reached its limit")
    untouched(client(target))


def test_a_full_disk_under_the_spool(source: Process, target: Process, client: Client, tmp_path: Path) -> None:
    here = client(source)
    here.set("marker", b"x" * (3 << 20))
    where = ("--source", source.endpoint, "--target", target.endpoint, "--state", str(tmp_path / "state"), "--acknowledge", "all")
    with Valkeep("migrate", "run", *where, folder=tmp_path, limit_file=1 << 20) as process:
        status = process.wait()
        Said(status, process.stdout, process.stderr).expect(4, "VK-SPOOL-FULL", "no space left")
        process.assert_nothing_left()
    here.set("marker", "value")
    untouched(client(target))


def test_a_limited_spool_gives_back_what_the_target_has(run: Run, server: Server, target: Process, client: Client, tmp_path: Path) -> None:
    source, spool = server("redis-8.0"), tmp_path / "spool"
    here, there = client(source), client(target)
    where = ("--source", source.endpoint, "--target", target.endpoint, "--state", str(tmp_path / "state"), "--acknowledge", "all")
    with Valkeep("migrate", "run", *where, "--cutover", "manual", "--spool-limit", "8", "--spool", str(spool), folder=tmp_path) as process:
        process.wait_for("waiting")
        for number in range(24):
            here.set("big", b"%02d" % number * (1 << 19))
            here.set("seen", number)
            until(lambda text=b"%d" % number: there.get("seen") == text, lambda: process.stderr)  # type: ignore[misc]
            until(lambda: sum(map(size, spool.rglob("stream-*"))) < 6 << 20, lambda: process.stderr)
        assert process.running, process.stderr


def size(path: Path) -> int:
    """0 where it is gone meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


@pytest.mark.parametrize("option", ["--spool", "--report"])
def test_a_folder_that_cannot_be_made(run: Run, source: Process, target: Process, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    said = run(source.endpoint, target.endpoint, option, str(tmp_path / "file" / "below"))
    said.expect(4, said.code, str(tmp_path / "file" / "below"))


def test_two_runs_on_one_state_folder(run: Run, source: Process, target: Process, client: Client, tmp_path: Path) -> None:
    where = ("--source", source.endpoint, "--target", target.endpoint, "--state", str(tmp_path / "state"), "--acknowledge", "all")
    with Valkeep("migrate", "run", *where, "--cutover", "manual", folder=tmp_path) as first:
        first.wait_for("waiting")
        with Valkeep("migrate", "run", *where, folder=tmp_path / "second") as second:
            Said(second.wait(), second.stdout, second.stderr).expect(4, "VK-STATE-LOCKED", "another Valkeep works on this migration")
        elsewhere = (*where[:5], str(tmp_path / "elsewhere"), *where[6:])
        with Valkeep("migrate", "run", *elsewhere, folder=tmp_path / "third") as third:
            Said(third.wait(), third.stdout, third.stderr).expect(4, "VK-TARGET-REPLICA", "replica")
        assert first.running
        assert client(target).execute_command("ROLE")[3] == b"connected"
        with Valkeep("migrate", "abort", *where[:6], folder=tmp_path / "fourth", report=False) as abort:
            assert abort.wait() == 0, abort.stderr
        assert first.wait() == 4
        assert first.code == "VK-ABORTED", first.stderr
        first.assert_nothing_left()
    untouched(client(target), 201)
