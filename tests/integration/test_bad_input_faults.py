"""Servers that die, restart or stall, and connections that are cut, in the middle of a migration."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
KEYS = 400


@dataclass
class Move:
    """A source whose snapshot takes a while, a target, and Valkeep between them; the gateway is reached through ``to_gateway``."""

    source: Process
    target: Process
    here: Any
    there: Any
    to_source: Proxy
    to_gateway: Proxy
    port: int
    folder: Path

    def run(self, *more: str) -> Valkeep:
        where = ("--source", self.to_source.url(), "--target", self.target.endpoint, "--state", str(self.folder / "state"))
        gateway = ("--listen", f"127.0.0.1:{self.port}", "--announce", f"127.0.0.1:{self.to_gateway.port}")
        return Valkeep("migrate", "run", *where, *gateway, "--acknowledge", "all", *more, folder=self.folder)

    def slow_snapshot(self) -> None:
        """About 1.5 s."""
        self.here.config_set("rdb-key-save-delay", 1_500_000 // KEYS)


@pytest.fixture
def move(server: Server, client: Client, tmp_path: Path) -> Iterator[Move]:
    source, target = server("redis-8.0"), server("valkey-9.1")
    here, there = client(source), client(target)
    here.mset({f"k{number}": f"v{number}" for number in range(KEYS)})
    reservation = ports.reserve()
    try:
        with Proxy(source.address) as to_source, Proxy(("127.0.0.1", reservation.port)) as to_gateway:
            yield Move(source, target, here, there, to_source, to_gateway, reservation.port, tmp_path)
    finally:
        reservation.release()


def ended(run: Valkeep, status: int, code: str, words: str) -> None:
    assert run.wait() == status, run.stderr
    assert run.code == code, run.stderr
    assert words in run.stderr
    assert "  remedy:   " in run.stderr
    assert "Traceback" not in run.stderr
    run.assert_nothing_left()


def serves(here: Any) -> None:
    assert here.set("still", "here") is True
    assert here.config_get("min-replicas-to-write") == {"min-replicas-to-write": "0"}
    until(lambda: here.info("replication")["connected_slaves"] == 0, "the source still has a replica")


@pytest.mark.parametrize("phase", ["attach", "waiting"])
@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_a_source_that_dies_or_restarts_ends_the_run_and_detaches_the_target(move: Move, phase: str, how: str) -> None:
    if phase == "attach":
        move.slow_snapshot()
    patience = "20" if (phase, how) == ("waiting", "restarted") else "1"  # longer than a restart takes, where it is to be seen
    with move.run("--cutover", "manual", "--source-patience", patience) as run:
        run.wait_for(phase)
        if how == "killed":
            move.source.kill()
        else:
            move.source.restart()
        if (phase, how) == ("waiting", "restarted"):
            ended(run, 4, "VK-SOURCE-OTHER", "another server or another data set answers")
        else:
            ended(run, 4, "VK-SOURCE-LOST", "closed the replication link")
    assert move.there.execute_command("ROLE")[0] == b"master"
    if how == "restarted":
        serves(move.here)


@pytest.mark.parametrize("phase", ["attach", "waiting"])
def test_a_target_that_restarts_ends_the_run(move: Move, phase: str) -> None:
    if phase == "attach":
        move.slow_snapshot()
    with move.run("--cutover", "manual") as run:
        run.wait_for(phase)
        until(lambda: move.there.execute_command("ROLE")[0] == b"slave", lambda: run.stderr)
        move.target.kill()
        move.target.restart()
        ended(run, 4, "VK-TARGET-LOST", "left the migration: it is a primary")
    serves(move.here)
    assert move.there.execute_command("ROLE")[0] == b"master"


def test_a_target_that_stays_dead_ends_the_run_after_a_while_and_says_that_it_could_not_be_detached(move: Move) -> None:
    with move.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        move.target.kill()
        ended(run, 5, "VK-TARGET-LOST", "has not answered for 10 s")
        assert "could not be detached" in run.stderr
    serves(move.here)


def test_a_target_that_cannot_reach_the_gateway_ends_the_run(move: Move) -> None:
    move.to_gateway.refuse()
    with move.run() as run:
        ended(run, 4, "VK-TARGET-UNREACHED", "does not get through to the gateway")
    serves(move.here)
    assert move.there.execute_command("ROLE")[0] == b"master"


def test_a_cut_link_to_the_target_is_continued_without_another_full_sync(move: Move) -> None:
    with move.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        before = move.here.info("stats")["sync_full"]
        for number in range(3):
            move.to_gateway.cut()
            move.here.set("after-cut", number)
            until(lambda text=b"%d" % number: move.there.get("after-cut") == text, lambda: run.stderr)  # type: ignore[misc]
        with Valkeep(
            "migrate", "cutover", *run.arguments[2:6], "--state", str(move.folder / "state"), folder=move.folder / "go", report=False
        ) as go:
            assert go.wait() == 0, go.stderr
        assert run.wait() == 0, run.stderr
        assert move.here.info("stats")["sync_full"] == before
    assert move.there.dbsize() == KEYS + 1


def test_a_cut_link_to_the_source_goes_on_and_everything_is_compared_again(move: Move) -> None:
    with move.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        for number in range(3):
            move.to_source.cut()
            move.here.set("after-cut", number)
            until(lambda text=b"%d" % number: move.there.get("after-cut") == text, lambda: run.stderr)  # type: ignore[misc]
        with Valkeep("migrate", "status", "--state", str(move.folder / "state"), folder=move.folder / "status", report=False) as status:
            assert status.wait() == 0, status.stderr
        assert f"runs, process {run.process.pid}" in status.stdout
        assert " bytes behind" in status.stdout
        with Valkeep(
            "migrate", "cutover", *run.arguments[2:6], "--state", str(move.folder / "state"), folder=move.folder / "go", report=False
        ) as go:
            assert go.wait() == 0, go.stderr
        assert run.wait() == 0, run.stderr
        assert run.stderr.count("the source starts a full sync") == 1
        assert "everything is compared again" in run.stderr
    assert move.there.dbsize() == KEYS + 1
    assert "valid: " in run.stdout


def test_a_cut_link_to_the_source_ends_a_run_that_has_half_of_a_snapshot(move: Move) -> None:
    move.slow_snapshot()
    with move.run("--cutover", "manual") as run:
        run.wait_for("attach")
        move.to_source.cut()
        assert run.wait() == 4, run.stderr
        assert "  remedy:   " in run.stderr
        assert "Traceback" not in run.stderr
        run.assert_nothing_left()
    serves(move.here)
    assert move.there.execute_command("ROLE")[0] == b"master"


def test_connections_cut_behind_the_fence_leave_the_source_writable(move: Move) -> None:
    with move.run() as run:
        move.to_source.when(b"$3\r\n255\r\n", after=lambda: _later(move.to_source.cut))
        ended(run, 4, "VK-CUTOVER-BROKEN", "the source goes on writing")
    serves(move.here)
    assert move.there.execute_command("ROLE")[0] == b"master"


def test_the_gateway_does_not_talk_to_strangers(move: Move) -> None:
    with move.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        with socket.create_connection(("127.0.0.1", move.port), timeout=10, source_address=("127.0.0.2", 0)) as stranger:
            with stranger.makefile("rb") as replies:
                assert replies.read() == b"-DENIED this gateway serves its own targets only\r\n"
        until(lambda: "127.0.0.2 tried to attach" in run.stderr, lambda: run.stderr)
        for host in ("127.0.0.2", "127.0.0.3"):
            with socket.socket() as other:
                assert other.connect_ex((host, move.port)) != 0, f"the gateway also listens on {host}"
        assert move.there.execute_command("ROLE")[3] == b"connected"


def _later(action: Callable[[], object]) -> None:
    import threading

    threading.Thread(target=action).start()


@pytest.mark.parametrize("comes_back", [True, False], ids=["and-comes-back", "and-stays-away"])
def test_a_source_that_dies_behind_the_fence_promotes_nobody(move: Move, comes_back: bool) -> None:
    with move.run() as run:

        def die() -> None:
            move.source.kill()
            if comes_back:
                move.source.launch()

        move.to_source.when(b"$3\r\n255\r\n", before=die, drop=True)
        status = run.wait()
        assert (status, run.code) in ((4, "VK-CUTOVER-BROKEN"), (5, "VK-CUTOVER-UNFENCE")), run.stderr
        assert status == 4 or not comes_back, run.stderr
        assert "Traceback" not in run.stderr
    role = move.there.execute_command("ROLE")[0]
    assert role == (b"master" if comes_back else b"slave")  # nobody could say what the source does: left as it is, for abort
    if not comes_back:
        move.source.launch()
        with Valkeep("migrate", "abort", *run.arguments[2:8], folder=move.folder / "abort", report=False) as abort:
            assert abort.wait() == 0, abort.stderr
        assert move.there.execute_command("ROLE")[0] == b"master"
    assert move.there.dbsize() == KEYS
    serves(move.here)
