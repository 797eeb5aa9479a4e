"""The ways to cut over, and the ways in which a cut-over is called off; writers go on all the time, and nothing they were told is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.conftest import Server
from tests.support.pair import Pair
from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]
FENCED, OPEN = "255", "0"


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Pair:
    source, target = server("redis-8.0"), server("valkey-9.1")
    here = client(source)
    here.mset({f"k{number}": f"v{number}" for number in range(200)})
    return Pair(source, target, here, client(target), tmp_path)


@pytest.mark.parametrize("fence", ["pause", "direct"])
def test_a_cut_over_under_writers_loses_nothing(pair: Pair, fence: str) -> None:
    with Writers(pair.source.port) as writers, pair.run("--fence", fence) as run:
        assert run.wait() == 0, run.stderr
        assert pair.fence == FENCED
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        assert writers.acked > 100
        assert writers.refused > 0
        run.assert_nothing_left()
    cut = json.loads((run.report / "cutover.json").read_text())
    assert cut["fence"] == fence
    assert 0 < cut["write_pause_ms"] < 5000
    written = {path.name for path in run.report.iterdir()}
    assert written >= {"preflight.json", "ledger.jsonl", "verification.json", "cutover.json", "run.json", "events.jsonl"}
    result = json.loads((run.report / "run.json").read_text())
    assert (result["verdict"], result["mismatches"], result["unexpected_error_replies"]) == ("valid", 0, 0)


def test_a_source_that_is_emptied_after_it_was_compared_is_compared_again_and_cut_over(pair: Pair) -> None:
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        pair.here.flushall()
        pair.here.mset({f"new{number}": number for number in range(50)})
        assert pair.valkeep("cutover").process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
    assert json.loads((run.report / "run.json").read_text())["verdict"] == "valid"
    assert json.loads((run.report / "verification.json").read_text())["keys_source"] == pair.there.dbsize() == 50


def test_a_report_that_cannot_be_written_any_more_does_not_hide_a_cut_over(pair: Pair) -> None:
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        (run.report / "cutover.json").mkdir()
        (run.report / "run.json").mkdir()
        assert pair.valkeep("cutover").process.returncode == 0
        assert run.wait() == 0, run.stderr
        assert "cutover.json cannot be written" in run.stderr
    assert pair.fence == FENCED
    assert pair.there.execute_command("ROLE")[0] == b"master"


def test_writers_that_their_owner_did_not_stop_hold_up_an_external_cut_over(pair: Pair) -> None:
    with Writers(pair.source.port) as writers, pair.run("--fence", "external") as run:
        run.wait_for("cutover:call-off")
        writers.wait_for_acks(3)
        writers.stop()
        assert run.wait() == 0, run.stderr
    assert "the source still gets writes" in run.stderr
    assert pair.fence == OPEN
    assert lost(writers.acknowledged(), pair.there) == []


def test_a_target_that_does_not_drain_within_the_lease_calls_the_cut_over_off_and_the_source_writes_on(pair: Pair) -> None:
    with Proxy(pair.source.address) as to_source, Writers(pair.source.port) as writers:
        where = ("--source", to_source.url(), *pair.where()[2:])
        with Valkeep(
            "migrate", "run", *where, "--acknowledge", "all", "--cutover", "manual", "--lease", "1500", folder=pair.folder / "run"
        ) as run:
            run.wait_for("waiting")
            to_source.when(b"$5\r\nPAUSE\r\n$4\r\n1500\r\n", before=pair.target.pause)
            try:
                asked = pair.valkeep("cutover")
                assert asked.process.returncode == 1, asked.stdout
                assert asked.code == "VK-CUTOVER-LAG", asked.stderr
                assert pair.fence == OPEN
                writers.wait_for_acks(5)
                assert run.running
            finally:
                pair.target.resume()
            for _ in range(4):  # a busy machine may need more than the lease, too
                again = pair.valkeep("cutover")
                if again.process.returncode == 0:
                    break
            assert run.wait() == 0, run.stderr + again.stderr
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []


def test_a_difference_planted_before_the_verification_ends_the_run(pair: Pair) -> None:
    pair.there.config_set("replica-read-only", "no")
    with Writers(pair.source.port) as writers, Proxy(pair.target.address) as to_target:

        def plant() -> None:
            """When the verification asks what the target has; the preflight asks whether it may."""
            if pair.there.execute_command("ROLE")[0] == b"slave":
                pair.there.set("planted", "1")
            else:
                to_target.when(b"PSYNC", before=plant)

        to_target.when(b"PSYNC", before=plant)
        where = (*pair.where()[:2], "--target", to_target.url("valkey"), *pair.where()[4:])
        with Valkeep("migrate", "run", *where, "--acknowledge", "all", folder=pair.folder / "run") as run:
            assert run.wait() == 1, run.stderr
            assert run.code == "VK-VERIFY", run.stderr
            assert "(0 missing, 1 extra, 0 different)" in run.stderr
            assert pair.there.execute_command("ROLE")[0] == b"master"
            writers.wait_for_acks(3)
            run.assert_nothing_left()
    assert json.loads((run.report / "verification.json").read_text())["extra"] == 1


def test_a_difference_planted_while_the_target_follows_calls_the_cut_over_off(pair: Pair) -> None:
    pair.there.config_set("replica-read-only", "no")
    pair.here.rpush("queue", "a")
    with Writers(pair.source.port) as writers, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        pair.there.rpush("queue", "planted")
        pair.here.rpush("queue", "b")
        asked = pair.valkeep("cutover")
        assert asked.process.returncode not in (0, None)
        assert run.wait() == 1, run.stderr
        assert run.code in ("VK-CUTOVER-DIFFERENT", "VK-VERIFY"), run.stderr
        assert pair.fence == OPEN
        writers.wait_for_acks(3)
        assert pair.there.execute_command("ROLE")[0] == b"master"
        run.assert_nothing_left()
    found = json.loads((run.report / "verification.json").read_text())
    assert found["different"] == 1
    assert any("queue" in json.dumps(example) for example in found["examples"]), found


def test_a_source_that_is_a_replica_is_fenced_at_its_primary_and_aborted_there(
    server: Server, client: Client, pair: Pair, tmp_path: Path
) -> None:
    primary, replica = pair.source, server("redis-8.0")
    client(replica).replicaof("127.0.0.1", primary.port)
    until(lambda: client(replica).execute_command("ROLE")[3] == b"connected", "the source follows nobody")
    where = ("--source", replica.endpoint, *pair.where()[2:])
    with Writers(primary.port) as writers:
        with Valkeep("migrate", "run", *where, "--acknowledge", "all", folder=tmp_path / "run") as run:
            assert run.wait() == 0, run.stderr
        assert pair.fence == FENCED
        refused = writers.refused
        until(lambda: writers.refused > refused, "the primary does not refuse the writers")
        assert lost(writers.acknowledged(), pair.there) == []
        for more, status in ((), 4), (("--force",), 0):
            with Valkeep("migrate", "abort", *where, *more, folder=tmp_path / "abort", report=False) as abort:
                assert abort.wait() == status, abort.stderr
        writers.wait_for_acks(3)
        assert pair.fence == OPEN


def test_after_a_kill_behind_the_fence_another_run_waits_for_the_abort(pair: Pair) -> None:
    with Proxy(pair.source.address) as to_source, Writers(pair.source.port) as writers:
        where = ("--source", to_source.url(), *pair.where()[2:], "--acknowledge", "all")
        with Valkeep("migrate", "run", *where, folder=pair.folder / "killed") as killed:
            to_source.when(b"$3\r\n255\r\n", after=killed.kill)
            until(lambda: not killed.running, lambda: killed.stderr, 40)
        assert pair.fence == FENCED
        with Valkeep("migrate", "run", *where, "--wipe-target", folder=pair.folder / "again") as again:
            assert again.wait() == 4
            assert again.code == "VK-STATE-UNFINISHED", again.stderr
        assert pair.valkeep("abort").process.returncode == 0
        assert pair.fence == OPEN
        writers.wait_for_acks(3)
        second = pair.valkeep("abort")
        assert second.process.returncode == 0
        assert "nothing is left to undo" in second.stdout
        with Valkeep("migrate", "run", *where, "--wipe-target", folder=pair.folder / "moved") as moved:
            assert moved.wait() == 0, moved.stderr
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []


def test_a_source_that_somebody_else_fenced_is_not_cut_over(pair: Pair) -> None:
    pair.here.config_set("min-replicas-to-write", 255)
    with pair.run() as run:
        assert run.wait() == 4, run.stderr
        assert run.code == "VK-CUTOVER-FENCED", run.stderr
    assert pair.fence == FENCED
    assert pair.there.execute_command("ROLE")[0] == b"master"


def test_nothing_to_cut_over_and_nothing_to_abort_is_said(pair: Pair) -> None:
    for command, words in (("cutover", "no migration runs"), ("abort", "no migration is recorded")):
        asked = pair.valkeep(command)
        assert asked.process.returncode == 4
        assert words in asked.stderr


def test_abort_without_the_target_wants_force_once_the_cut_over_had_begun(pair: Pair) -> None:
    with Proxy(pair.source.address) as to_source, Writers(pair.source.port) as writers:
        with Valkeep(
            "migrate", "run", "--source", to_source.url(), *pair.where()[2:], "--acknowledge", "all", folder=pair.folder / "run"
        ) as run:
            to_source.when(b"$3\r\n255\r\n", after=run.kill)
            until(lambda: not run.running, lambda: run.stderr, 40)
        pair.target.kill()
        refused = pair.valkeep("abort")
        assert (refused.process.returncode, refused.code) == (4, "VK-ABORT-UNKNOWN"), refused.stderr
        assert pair.fence == FENCED
        forced = pair.valkeep("abort", "--force")
        assert forced.process.returncode == 0, forced.stderr
        assert "the target does not answer" in forced.stdout
        assert pair.fence == OPEN
        writers.wait_for_acks(3)


def test_abort_does_not_take_a_restarted_target_for_a_promoted_one(pair: Pair) -> None:
    with Proxy(pair.source.address) as to_source, Writers(pair.source.port) as writers:
        with Valkeep(
            "migrate", "run", "--source", to_source.url(), *pair.where()[2:], "--acknowledge", "all", folder=pair.folder / "run"
        ) as run:
            to_source.when(b"$3\r\n255\r\n", after=run.kill)
            until(lambda: not run.running, lambda: run.stderr, 40)
        pair.target.restart()
        assert pair.there.execute_command("ROLE")[0] == b"master"
        refused = pair.valkeep("abort")
        assert (refused.process.returncode, refused.code) == (4, "VK-ABORT-UNKNOWN"), refused.stderr
        assert "it was restarted since" in refused.stderr
        assert pair.fence == FENCED
        assert pair.valkeep("abort", "--force").process.returncode == 0
        assert pair.fence == OPEN
        writers.wait_for_acks(3)


def test_abort_without_a_fenced_source_undoes_nothing_and_can_be_repeated(pair: Pair) -> None:
    with Proxy(pair.source.address) as to_source, Writers(pair.source.port, 1) as writers:
        where = ("--source", to_source.url(), *pair.where()[2:])
        with Valkeep("migrate", "run", *where, "--acknowledge", "all", folder=pair.folder / "run") as run:
            to_source.when(b"$3\r\n255\r\n", after=run.kill)
            until(lambda: not run.running, lambda: run.stderr, 40)
        to_source.refuse()
        for allowed, status, code in ((False, 5, "VK-CUTOVER-UNFENCE"), (False, 5, "VK-CUTOVER-UNFENCE"), (True, 0, "")):
            to_source.refuse(not allowed)
            with Valkeep("migrate", "abort", *where, folder=pair.folder / "abort", report=False) as abort:
                assert (abort.wait(), abort.code) == (status, code), abort.stderr
        assert pair.fence == OPEN
        writers.wait_for_acks(3)
        assert pair.there.execute_command("ROLE")[0] == b"master"


def test_abort_without_the_source_still_detaches_the_target(pair: Pair) -> None:
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        run.kill()
    pair.source.kill()
    assert pair.there.execute_command("ROLE")[0] == b"slave"
    done = pair.valkeep("abort")
    assert done.process.returncode == 0, done.stderr
    assert pair.there.execute_command("ROLE")[0] == b"master"
    assert pair.there.dbsize() == 200


@pytest.mark.parametrize("spec", ["redis-7.0", "redis-8.0", "valkey-8.1"])
def test_the_fence_holds_against_transactions_scripts_and_functions(server: Server, client: Client, spec: str) -> None:
    here = client(server(spec))
    here.function_load("#!lua name=lib\nredis.register_function('put', function(keys) return redis.call('SET', keys[1], 1) end)")
    here.config_set("min-replicas-to-write", 255)
    for command in (
        ("SET", "k", "1"),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", "1", "k"),
        ("EVAL", "#!lua\nreturn redis.call('SET', KEYS[1], 1)", "1", "k"),
        ("FCALL", "put", "1", "k"),
    ):
        with pytest.raises(valkey.ResponseError, match=r"NOREPLICAS|Not enough good replicas"):
            here.execute_command(*command)
    with pytest.raises((valkey.ResponseError, valkey.exceptions.ExecAbortError)):
        here.pipeline().set("k", "1").execute()
    assert here.dbsize() == 0
