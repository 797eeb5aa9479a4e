"""Ctrl-C and SIGTERM in every phase: the exit code says so, the target is detached, the source writes on, nothing is left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.pair import ProxiedPair
from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost

pytestmark = [pytest.mark.slow]

INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture
def pair(server: Server, client: Callable[..., Any], tmp_path: Path) -> Iterator[ProxiedPair]:
    source, target = server("redis-8.0"), server("valkey-9.1")
    here, there = client(source), client(target)
    for number in range(100):
        here.zadd("scores", {f"m{number}": number})
    with Proxy(source.address) as to_source, Proxy(target.address) as to_target:
        yield ProxiedPair(source, target, here, there, tmp_path, to_source, to_target)


def expect_as_before(pair: ProxiedPair, run: Valkeep, writers: Writers) -> None:
    writers.wait_for_acks(3)
    assert pair.here.config_get("min-replicas-to-write") == {"min-replicas-to-write": "0"}
    assert pair.there.execute_command("ROLE")[0] == b"master"
    until(lambda: pair.here.info("replication")["connected_slaves"] == 0, "the source still has a replica")
    assert not [one for one in pair.here.client_list() if one["name"].startswith("valkeep")]
    run.assert_nothing_left()
    assert run.stderr.splitlines()[-1] in ("valkeep: interrupted", "valkeep: terminated")


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (INT, "preflight"),
        (TERM, "snapshot"),
        (INT, "attach"),
        (TERM, "verify-snapshots"),
        (INT, "waiting"),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value,
)
def test_a_signal_ends_a_migration_and_leaves_everything_as_it_was(pair: ProxiedPair, number: signal.Signals, phase: str) -> None:
    with Writers(pair.source.port) as writers, pair.run("--cutover", "manual") as run:  # so that it cannot be over before the signal
        run.wait_for(phase)
        run.send(number)
        assert run.wait() == 128 + number, run.stderr
        expect_as_before(pair, run, writers)


@pytest.mark.parametrize(
    ("number", "request_"), [(TERM, b"PAUSE\r\n$4\r\n5000"), (INT, b"$3\r\n255\r\n")], ids=["in-the-pause", "behind-the-fence"]
)
def test_a_signal_in_the_cut_over_calls_it_off(pair: ProxiedPair, number: signal.Signals, request_: bytes) -> None:
    with Writers(pair.source.port) as writers, pair.run() as run:
        seen = pair.to_source.when(request_, after=lambda: run.send(number))
        until(lambda: seen.is_set() or not run.running, lambda: run.stderr, 40)
        assert run.wait() == 128 + number, run.stderr
        assert "cutover:call-off" in run.phases()
        expect_as_before(pair, run, writers)


def test_a_signal_after_the_point_of_no_return_completes_the_cut_over_and_says_so(pair: ProxiedPair) -> None:
    with Writers(pair.source.port) as writers, pair.run() as run:

        def stop() -> None:
            pair.to_target.delay = 0.05  # the reply comes after the signal
            run.send(TERM)

        pair.to_target.when(b"REPLICAOF\r\n$2\r\nNO\r\n", before=stop)
        assert run.wait() == 128 + TERM, run.stderr
        assert "the cut-over is complete" in run.stderr
        assert pair.there.execute_command("ROLE")[0] == b"master"
        assert pair.here.config_get("min-replicas-to-write") == {"min-replicas-to-write": "255"}
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        run.assert_nothing_left()
    with Valkeep("migrate", "abort", *pair.where(), folder=pair.folder, report=False) as abort:
        assert abort.wait() == 4
        assert abort.code == "VK-ABORT-PROMOTED"


def test_ctrl_c_reaches_the_whole_foreground_group_and_still_cleans_up(pair: ProxiedPair) -> None:
    import os

    with Writers(pair.source.port) as writers, pair.run("--cutover", "manual") as run:
        run.wait_for("verify-snapshots")
        os.killpg(run.process.pid, INT)
        assert run.wait() == 130, run.stderr
        expect_as_before(pair, run, writers)
        assert "Traceback" not in run.stderr
