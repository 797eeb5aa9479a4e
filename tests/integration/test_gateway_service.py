"""``valkeep migrate gateway``: a service that targets attach to and leave, with numbers that can be scraped."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from valkeep.runtime import ports
from valkeep.runtime.node import Process

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]


class Service:
    """A running gateway on ``port``; ``get("/ready")`` gives (status, text) of its metrics port."""

    def __init__(self, process: Valkeep, port: int, metrics: int) -> None:
        self.process, self.port, self.metrics = process, port, metrics

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def number(self, name: str, *labels: str) -> float:
        """The sum of a metric's samples whose labels hold all the given texts."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))

    def ready(self) -> None:
        until(lambda: self.get("/ready")[0] == 200, lambda: f"{self.get('/ready')} {self.process.stderr}")


@contextmanager
def serving(source: Process, folder: Path, *versions: str, options: tuple[str, ...] = ()) -> Iterator[Service]:
    with ExitStack() as stack:
        taken = [ports.reserve(), ports.reserve()]
        for one in taken:
            stack.callback(one.release)
        listen, metrics = (one.port for one in taken)
        where = (
            "--source",
            source.endpoint,
            "--listen",
            f"127.0.0.1:{listen}",
            "--allow",
            "127.0.0.1",
            "--metrics",
            f"127.0.0.1:{metrics}",
        )
        wanted = [text for version in versions for text in ("--target-version", version)]
        process = stack.enter_context(Valkeep("migrate", "gateway", *where, *wanted, *options, folder=folder, report=False))
        service = Service(process, listen, metrics)
        service.ready()
        yield service


def follow(there: Any, port: int) -> None:
    there.replicaof("127.0.0.1", port)
    until(lambda: there.execute_command("ROLE")[3] == b"connected", "the target did not come online")


def test_two_targets_of_different_versions_from_one_snapshot(server: Server, client: Client, tmp_path: Path) -> None:
    source, old, new = server("redis-8.0"), server("valkey-8.1"), server("valkey-9.1")
    here = client(source)
    here.mset({f"k{number}": number for number in range(500)})
    with serving(source, tmp_path, "8.1", "9.1") as service:
        assert here.info("stats")["sync_full"] == 1
        targets = [client(old), client(new)]
        for there in targets:
            follow(there, service.port)
        here.incr("counter")
        for there in targets:
            until(lambda there=there: there.get("counter") == b"1", "the stream did not come")  # type: ignore[misc]
            assert there.dbsize() == 501
            assert there.get("k77") == b"77"
        assert here.info("stats")["sync_full"] == 1
        assert service.get("/health")[0] == 200
        assert service.number("valkeep_snapshot_keys_total", 'version="8.1"') == 500
        assert service.number("valkeep_snapshot_keys_total", 'version="9.1"') == 500
        assert service.number("valkeep_target_online") == 2
        until(lambda: service.number("valkeep_source_offset_bytes") >= here.info("replication")["master_repl_offset"] - 50, "offset")
        for there in targets:
            there.replicaof("NO", "ONE")
        until(lambda: service.number("valkeep_target_online") == 0, "the targets did not leave")
        service.process.send(signal.SIGTERM)
        assert service.process.wait() == 0, service.process.stderr
        service.process.assert_nothing_left()
    until(lambda: here.info("replication")["connected_slaves"] == 0, "the source still has a replica")


def test_a_snapshot_is_given_up_when_much_was_written_since_and_targets_that_follow_stay(
    server: Server, client: Client, tmp_path: Path
) -> None:
    source, first, late = server("redis-8.0"), server("valkey-9.1"), server("valkey-9.1")
    here, there = client(source), client(first)
    here.set("before", 1)
    with serving(source, tmp_path, "9.1", options=("--keep", "1")) as service:
        follow(there, service.port)
        for number in range(30):
            here.set(f"large:{number}", b"x" * 100_000)
        until(lambda: "no further target can attach" in service.process.stderr, "the snapshot was not given up")
        client(late).replicaof("127.0.0.1", service.port)
        until(lambda: "not kept any more" in service.process.stderr, "the late target was not told")
        here.set("after", 2)
        until(lambda: there.get("after") == b"2", "the first target does not follow any more")
        assert client(late).dbsize() == 0


def test_a_target_that_comes_back_is_continued_and_one_that_is_stopped_holds_up_nobody(
    server: Server, client: Client, tmp_path: Path
) -> None:
    source, one, other = server("redis-8.0"), server("valkey-9.1"), server("valkey-8.1")
    here, first, second = client(source), client(one), client(other)
    here.set("k", "v")
    with serving(source, tmp_path, "9.1", "8.1") as service, Proxy(("127.0.0.1", service.port)) as link:
        follow(first, link.port)
        follow(second, service.port)
        # cut: PSYNC continues
        partial = one.log().count("Successful partial resynchronization")
        full = one.log().count("Full resync from primary")
        link.cut()
        here.set("k", "after the cut")
        until(lambda: first.get("k") == b"after the cut", one.log)
        assert one.log().count("Successful partial resynchronization") == partial + 1
        assert one.log().count("Full resync from primary") == full
        assert here.info("stats")["sync_full"] == 1
        # stopped: the other goes on, and the source's buffer stays empty
        other.pause()
        try:
            for number in range(40):
                here.set("big", b"%02d" % number * (1 << 17))
            here.set("k", "while stopped")
            until(lambda: first.get("k") == b"while stopped", one.log)
            until(lambda: service.number("valkeep_target_lag_bytes", str(other.port)) > 8 << 20, lambda: service.get("/metrics")[1])
            buffers = [int(line["omem"]) for line in here.client_list() if "S" in line["flags"]]
            assert buffers
            assert max(buffers) < 1 << 20
        finally:
            other.resume()
        until(lambda: second.get("k") == b"while stopped", other.log)
        assert here.info("stats")["sync_full"] == 1
        assert second.info("stats")["unexpected_error_replies"] == 0


def test_a_gateway_whose_source_dies_says_so_and_ends(server: Server, client: Client, tmp_path: Path) -> None:
    source = server("redis-8.0")
    with serving(source, tmp_path, "9.1", options=("--source-patience", "0.5")) as service:
        source.kill()
        assert service.process.wait() == 4, service.process.stderr
        assert service.process.code == "VK-SOURCE-LOST"
        service.process.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_gateway_that_still_waits_for_the_snapshot_is_not_ready_and_ends_on_a_signal(
    server: Server, client: Client, tmp_path: Path, number: signal.Signals
) -> None:
    source = server("redis-8.0", rdb_key_save_delay=20_000)
    here = client(source)
    here.mset({f"k{number}": number for number in range(300)})
    with ExitStack() as stack:
        metrics = ports.reserve()
        stack.callback(metrics.release)
        where = ("--source", source.endpoint, "--listen", "127.0.0.1:0", "--allow", "127.0.0.1", "--metrics", f"127.0.0.1:{metrics.port}")
        process = stack.enter_context(Valkeep("migrate", "gateway", *where, "--target-version", "9.1", folder=tmp_path, report=False))
        service = Service(process, 0, metrics.port)
        until(lambda: service.get("/health")[0] == 200, lambda: process.stderr)
        status, text = service.get("/ready")
        assert status == 503
        assert "not complete" in text
        process.send(number)
        assert process.wait() == 0, process.stderr
        process.assert_nothing_left()
