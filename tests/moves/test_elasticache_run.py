"""``valkeep migrate run --target elasticache:ID``: the whole story against a control plane over a real Valkey, and what is left where it ends badly.

Faults that need no whole run are planted in `test_elasticache_promoter`, kills in `test_elasticache_resumption`. AWS itself is not in here: see
`tests.support.elasticache_plane`.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.elasticache_lab import ElastiCacheLab, elasticache_lab
from tests.support.elasticache_plane import GROUP
from tests.support.lying_gateway import LyingGateway, with_field
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost

Client = Callable[..., Any]
pytestmark = [pytest.mark.slow]


@pytest.fixture
def lab(server: Server, client: Client, tmp_path: Path) -> Iterator[ElastiCacheLab]:
    with elasticache_lab(server, client, tmp_path) as one:
        yield one


def test_a_source_of_redis_8_moves_under_writers_and_no_acknowledged_write_is_lost(lab: ElastiCacheLab) -> None:
    lab.plane.delay = 0.5  # AWS says "minutes"
    order: list[str] = []
    with Writers(lab.source.port, 3) as writers, lab.run() as process:
        lab.plane.before = lambda action: order.extend([action] if "snapshot-taken" in process.phases() else [])
        assert process.wait() == 0, process.stderr
        writers.stop()
        acknowledged = writers.acknowledged()
    assert lost(acknowledged, lab.there) == []
    assert {"TestMigration", "StartMigration"} <= set(order), "told before the whole snapshot was spooled"
    assert lab.role == b"master"
    assert lab.there.dbsize() == lab.here.dbsize()
    assert lab.plane.group["Status"] == "available"
    assert lab.told == ["TestMigration", "StartMigration", "CompleteMigration"]
    assert "ElastiCache: Test migration successful" in process.stderr
    result = json.loads((process.report / "run.json").read_text())
    assert (result["verdict"], result["mismatches"], result["unexpected_error_replies"]) == ("valid", 0, 0)
    assert result["delivery"] == {"how": "external", "promoter": "ElastiCache"}
    assert any("never against AWS itself" in limit for limit in result["limits"])
    assert 500 <= result["write_pause_ms"] < 30_000, "as long as it was"
    preflight = json.loads((process.report / "preflight.json").read_text())
    assert [one["code"] for one in preflight["findings"][:31]] == [f"VK-A-{number:02}" for number in range(1, 32)]
    process.assert_nothing_left()
    with Valkeep("report", str(process.report), folder=lab.folder / "shown", report=False) as shown:
        assert shown.wait() == 0, shown.stderr
    assert all(f"VK-A-{number:02}" in shown.stdout for number in range(1, 32)), "numbered checks are shown whole"
    assert "never against AWS itself" in shown.stdout
    everything = "".join(path.read_text(errors="replace") for path in lab.folder.rglob("*") if path.is_file())
    assert "never-shown-anywhere" not in everything


def test_a_cut_over_by_hand_finds_the_migration_by_the_groups_id(lab: ElastiCacheLab) -> None:
    with lab.run("--cutover", "manual") as process:
        process.wait_for("waiting")
        with lab.valkeep("cutover", "--target", f"elasticache:{GROUP}", report=False) as cutover:
            assert cutover.wait() == 0, cutover.stderr
        assert process.wait() == 0, process.stderr
    assert lab.role == b"master"


# -- planted faults -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def liar() -> Iterator[LyingGateway]:
    with LyingGateway() as one:
        yield one


def test_an_answer_that_elasticache_would_not_take_stops_the_run_before_anything_is_started(
    lab: ElastiCacheLab, liar: LyingGateway
) -> None:
    liar.lies["INFO"] = lambda reply: with_field(reply, "redis_version", "8.0.2")
    with lab.run(*liar.options) as process:
        assert process.wait() == 4
    assert process.code == "VK-EC-PROBE"
    assert "presents itself as 8.0.2" in process.stderr
    assert "remedy:" in process.stderr
    assert lab.as_it_was()
    assert "TestMigration" not in lab.plane.calls
    process.assert_nothing_left()


def test_encryption_in_transit_stops_the_run_with_its_number(lab: ElastiCacheLab) -> None:
    lab.plane.group["TransitEncryptionEnabled"] = True
    with lab.run() as process:
        assert process.wait() == 4
    assert process.code == "VK-A-22"
    assert "modify-replication-group" in process.stderr
    assert lab.as_it_was()


def test_a_snapshot_that_comes_too_late_is_a_migration_that_aws_gives_up(lab: ElastiCacheLab, liar: LyingGateway) -> None:
    liar.hold = True
    lab.plane.patience = 1.0
    with lab.run(*liar.options) as process:
        assert process.wait() in (4, 5)
    assert process.code == "VK-EC-GAVE-UP"
    assert "did not arrive in time" in process.stderr
    assert lab.plane.group["Status"] == "available"
    assert lab.role == b"master"
    assert lab.fence == "0"


def test_offsets_that_do_not_agree_are_data_not_in_sync_and_the_source_writes_again(lab: ElastiCacheLab, liar: LyingGateway) -> None:
    liar.lies["INFO"] = lambda reply: with_field(reply, "master_repl_offset", "999999999")
    with Writers(lab.source.port, 2) as writers, lab.run(*liar.options) as process:
        assert process.wait() == 1, process.stderr
        assert "data not in sync" in process.stderr
        until(lambda: lab.fence == "0", "the source is fenced")
        writers.wait_for_acks(3)
    assert lab.plane.calls.count("CompleteMigration") >= 3
    assert lab.plane.group["Status"] == "available", "what was begun was ended"
    assert "--force" in process.stderr


# -- the way back, and what AWS denies ---------------------------------------------------------------------------------------------------


def test_a_run_that_is_aborted_ends_the_migration_at_aws_too(lab: ElastiCacheLab) -> None:
    with lab.run("--cutover", "manual") as process:
        process.wait_for("waiting")
        with lab.valkeep("abort", "--target", f"elasticache:{GROUP}", report=False) as abort:
            assert abort.wait() == 0, abort.stderr
            assert "CompleteMigration --force" in abort.stdout
        assert process.wait() == 4
    assert process.code == "VK-ABORTED"
    assert lab.plane.group["Status"] == "available"
    assert lab.role == b"master"
    assert lab.fence == "0"


def test_a_run_that_is_killed_while_aws_promotes_loses_nothing_and_gives_no_writers_back(lab: ElastiCacheLab) -> None:
    with Writers(lab.source.port, 2) as writers:
        with lab.run() as process:
            lab.plane.promotes.clear()
            until(lambda: lab.plane.promoting, lambda: process.stderr, 120)
            process.kill()
        with lab.valkeep("abort", "--target", f"elasticache:{GROUP}", report=False, name="early") as early:
            assert early.wait() == 4
        assert early.code == "VK-ABORT-UNKNOWN"
        assert lab.fence == "255"
        lab.plane.promotes.set()
        lab.plane.wait_for("Complete Migration successful")
        with lab.valkeep("abort", "--target", f"elasticache:{GROUP}", report=False, name="late") as late:
            assert late.wait() == 4
        assert late.code == "VK-ABORT-PROMOTED"
        writers.stop()
        assert lost(writers.acknowledged(), lab.there) == []
    assert lab.role == b"master"


def test_a_stop_in_the_middle_ends_what_was_started_at_aws(lab: ElastiCacheLab) -> None:
    with lab.run("--cutover", "manual") as process:
        until(lambda: lab.plane.said("Start migration successful"), lambda: process.stderr, 120)
        process.send(signal.SIGINT)
        assert process.wait() == 130
    until(lambda: lab.plane.group["Status"] == "available", "still migrating")
    assert "CompleteMigration --force" in process.stderr
    assert lab.role == b"master"
    assert lab.fence == "0"


def test_a_permission_that_is_missing_for_the_end_gives_the_writers_back(lab: ElastiCacheLab) -> None:
    def before(action: str) -> None:
        if action == "StartMigration":
            lab.plane.denied = {"CompleteMigration"}

    lab.plane.before = before
    with Writers(lab.source.port, 1) as writers, lab.run() as process:
        assert process.wait() == 1, process.stderr
        assert "elasticache:CompleteMigration" in process.stderr
        until(lambda: lab.fence == "0", "the source is fenced")
        writers.wait_for_acks(3)
    assert "could not be ended" in process.stderr
    assert lab.plane.group["Status"] == "migrating"
