"""``valkeep migrate run`` again after a kill -9: it goes on where the killed one was, or says why it cannot."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.load import Load, digest
from tests.support.pair import Pair
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from valkeep.migrate.control import SOCKET
from valkeep.migrate.state import MigrationState, StateFile

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]
MANUAL = ("--cutover", "manual")


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Pair:
    source = server("redis-8.0", enable_debug_command="yes", repl_backlog_size="128mb")
    target = server("valkey-9.1", propagation_error_behavior="panic", enable_debug_command="yes")
    here, there = client(source), client(target)
    here.mset({f"k{number}": number for number in range(500)})
    return Pair(source, target, here, there, tmp_path)


@pytest.fixture
def killed(pair: Pair) -> Pair:
    """A run that was killed when the target followed it."""
    with pair.run(*MANUAL, name="killed") as run:
        waiting(run)
        run.kill()
    return pair


def waiting(run: Valkeep) -> None:
    until(lambda: "waiting" in run.phases() or not run.running, lambda: run.stderr, timeout=120)
    assert run.running, run.stderr


def kept(pair: Pair) -> list[Path]:
    return [path for path in (pair.folder / "state").iterdir() if path.name.startswith(("gateway.json", "valkeep-"))]


def test_where_an_earlier_migration_ended_is_not_taken_for_where_this_one_is(pair: Pair) -> None:
    pair.here.config_set("repl-diskless-sync-delay", 60)  # nothing is attached meanwhile
    StateFile(pair.folder / "state").write(MigrationState("promoted", pair.source.endpoint, pair.target.endpoint, 1))
    with pair.run(*MANUAL) as run:
        until(lambda: (pair.folder / "state" / SOCKET).exists() or not run.running, lambda: run.stderr)
        cutover, abort = pair.valkeep("cutover"), pair.valkeep("abort")
        assert "not ready to be cut over yet" in cutover.stderr
        assert (abort.process.returncode, abort.stdout.strip()) == (0, "nothing had been changed yet"), abort.stderr
        assert (run.wait(), run.code) == (4, "VK-ABORTED")
    assert pair.there.dbsize() == 0


def test_a_run_that_is_killed_under_load_goes_on_and_is_cut_over_without_another_full_sync(pair: Pair) -> None:
    with Load(pair.source.port, 5) as load:
        with pair.run(*MANUAL, name="first") as run:
            waiting(run)
            run.kill()
        with pair.run(*MANUAL, name="second") as run:
            until(lambda: "goes on behind offset" in run.stderr or not run.running, lambda: run.stderr)
            run.kill()  # before anything of it is there
        with pair.run(name="third") as run:
            load.pause(1.0)
            load.stop()
            assert run.wait() == 0, run.stderr
        assert "was killed when the target followed it; this one goes on" in run.stderr
    assert pair.promoted
    assert digest(pair.there) == digest(pair.here)
    stats = pair.here.info("stats")
    assert stats["sync_partial_ok"] >= 1
    assert stats["sync_full"] <= 4  # one; and one for the verification of each run that came to it
    assert pair.target.log().count("Full resync from primary") == 1
    assert kept(pair) == []


def test_a_target_that_was_promoted_and_written_to_is_named_and_left_alone(killed: Pair) -> None:
    killed.there.replicaof("NO", "ONE")
    killed.there.set("mine", "1")
    with killed.run() as run:
        assert run.wait() == 4, run.stderr
    assert run.code == "VK-TARGET-LEFT"
    assert "was promoted while nobody looked" in run.stderr
    assert "it was written to since" in run.stderr
    assert killed.there.get("mine") == b"1"
    with killed.run("--fresh", "--wipe-target", name="fresh") as run:
        assert run.wait() == 0, run.stderr
    assert killed.there.get("mine") is None
    assert kept(killed) == []


def test_a_start_that_fails_costs_nothing_that_is_kept_and_a_source_that_cannot_go_on_is_named(killed: Pair) -> None:
    where = json.loads((killed.folder / "state" / "gateway.json").read_text())["listen"]
    with socket.create_server(tuple(where)), killed.run(name="listen") as run:
        assert run.wait() == 4, run.stderr
    assert run.code == "VK-LISTEN"
    assert kept(killed)
    killed.here.config_set("repl-backlog-size", 16384)
    for number in range(20):
        killed.here.set(f"more:{number}", bytes(100_000))
    with killed.run(name="gap") as run:
        assert run.wait() == 4, run.stderr
    assert run.code == "VK-SOURCE-GAP"
    assert "--fresh" in run.stderr
    assert kept(killed)
    with killed.run("--fresh", "--wipe-target", name="fresh") as run:
        assert run.wait() == 0, run.stderr
    assert killed.there.dbsize() == 520
    assert kept(killed) == []


def test_with_the_folder_of_a_migration_to_another_target_nothing_is_begun_and_what_was_done_there_is_not_forgotten(
    killed: Pair, server: Server
) -> None:
    before = (killed.folder / "state" / "migration.json").read_text()
    other = replace(killed, target=server("valkey-9.1"))
    for number, process in enumerate((other.run(), other.run("--fresh", name="fresh"))):
        with process as run:
            assert run.wait() == 4, run.stderr
        assert (number, run.code) == (number, "VK-STATE-OTHER")
        assert killed.target.endpoint.rpartition("/")[2] in run.stderr
    abort = other.valkeep("abort")
    assert abort.wait() == 4, abort.stderr
    assert (killed.folder / "state" / "migration.json").read_text() == before
    assert kept(killed)
    assert killed.valkeep("abort").wait() == 0
    assert killed.promoted
    assert kept(killed) == []


def test_abort_lets_a_killed_run_go_and_nothing_is_left(killed: Pair) -> None:
    assert kept(killed)
    assert killed.valkeep("abort").wait() == 0
    assert kept(killed) == []
    assert killed.promoted


def test_a_run_that_was_killed_before_the_snapshot_was_whole_begins_anew(pair: Pair) -> None:
    pair.here.config_set("rdb-key-save-delay", 10_000)  # microseconds for each key
    with pair.run(*MANUAL, name="killed") as run:
        until(lambda: "attach" in run.phases() or not run.running, lambda: run.stderr, timeout=120)
        run.kill()
    pair.here.config_set("rdb-key-save-delay", 0)
    with pair.run(name="again") as run:
        assert run.wait() == 0, run.stderr
    assert "this one begins anew" in run.stderr
    assert pair.there.dbsize() == 500
    assert kept(pair) == []
