"""``valkeep migrate run --target elasticache:ID`` again after a kill -9: it goes on where the killed one was, or says why it does not.

What is killed, and when; what was planted meanwhile; and what AWS was told in all, which is never two migrations.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.aws_wire import Denial
from tests.support.elasticache_lab import ElastiCacheLab, elasticache_lab
from tests.support.elasticache_plane import GROUP
from tests.support.lying_gateway import LyingGateway
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost

Client = Callable[..., Any]
pytestmark = [pytest.mark.slow]
MANUAL = ("--cutover", "manual")
ENDS = f"aws elasticache complete-migration --replication-group-id {GROUP} --force"
ONCE = ["TestMigration", "StartMigration", "CompleteMigration"]


@pytest.fixture
def lab(server: Server, client: Client, tmp_path: Path) -> Iterator[ElastiCacheLab]:
    with elasticache_lab(server, client, tmp_path) as one:
        yield one


@pytest.fixture
def killed(lab: ElastiCacheLab) -> ElastiCacheLab:
    """A run that was killed when the target followed it."""
    with lab.run(*MANUAL, name="killed") as run:
        run.wait_for("waiting")
        run.kill()
    assert lab.state["step"] == "attached"
    return lab


@pytest.fixture
def liar() -> Iterator[LyingGateway]:
    with LyingGateway() as one:
        yield one


def killed_when(lab: ElastiCacheLab, action: str, *more: str, carried_out: bool = True) -> None:
    """A run that is killed when AWS has got this request, and before it has answered."""
    process = lab.run(*more, name="killed")

    def before(asked: str) -> None:
        if asked == action:
            process.kill()
            if not carried_out:
                raise Denial("InternalFailure", "nobody hears this", 500)

    lab.plane.before = before
    with process:
        process.process.wait(60)
    lab.plane.before = None
    assert lab.state["step"] == "attaching"


def refused(lab: ElastiCacheLab, *more: str, name: str = "refused") -> Valkeep:
    """A run that ends without having changed anything: nothing was told to AWS, the state is as it was, and the source is writable."""
    before, told, status = lab.state, lab.told, lab.plane.group["Status"]
    with lab.run(*more, name=name) as run:
        assert run.wait() == 4, run.stderr
    assert "remedy:" in run.stderr
    assert (lab.state, lab.told, lab.plane.group["Status"], lab.fence) == (before, told, status, "0")
    return run


def moves(lab: ElastiCacheLab, *more: str) -> Valkeep:
    """A run that comes to its end, and has everything."""
    with lab.run(*more, name="last") as run:
        assert run.wait() == 0, run.stderr
    assert lab.role == b"master"
    assert lab.there.dbsize() == lab.here.dbsize()
    assert lab.plane.group["Status"] == "available"
    assert '"mismatches": 0' in (run.report / "run.json").read_text()
    run.assert_nothing_left()
    return run


def full_syncs(lab: ElastiCacheLab) -> int:
    return int(lab.here.info("stats")["sync_full"])


# -- what goes on -----------------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_again_and_again_goes_on_with_its_migration_and_loses_nothing(lab: ElastiCacheLab) -> None:
    with Writers(lab.source.port, 2) as writers:
        for number, phase in enumerate(("waiting", "attach", "follow")):
            with lab.run(*MANUAL, name=f"killed-{number}") as run:
                run.wait_for(phase, 60)
                run.kill()
            assert lab.plane.group["Status"] == "migrating"
            writers.wait_for_acks(5)
        with lab.run(name="last") as run:
            assert run.wait() == 0, run.stderr
        writers.stop()
        acknowledged = writers.acknowledged()
    assert "killed when the target followed it; this one goes on" in run.stderr
    assert "StartMigration is not called again" in run.stderr
    assert lost(acknowledged, lab.there) == []
    assert lab.there.dbsize() == lab.here.dbsize()
    assert '"mismatches": 0' in (run.report / "run.json").read_text()
    assert lab.told == ONCE
    assert full_syncs(lab) <= 1 + 4, "ours, and one for each verification"
    assert lab.plane.target.log().count("Full resync from primary") == 1
    run.assert_nothing_left()


def test_a_run_that_is_killed_once_costs_the_source_one_full_sync_and_the_target_one(killed: ElastiCacheLab) -> None:
    found = moves(killed)
    assert killed.told == ONCE
    assert full_syncs(killed) == 1 + 2, "ours, and one for each verification"
    assert killed.plane.target.log().count("Full resync from primary") == 1
    preflight = (found.report / "preflight.json").read_text()
    assert "a killed run's, which this one goes on with" in preflight
    assert '"status": "migrating"' in preflight


def test_a_group_in_which_something_else_is_done_meanwhile_is_gone_on_with(killed: ElastiCacheLab) -> None:
    killed.plane.group["Status"] = "modifying"
    with killed.run(*MANUAL, name="again") as run:
        run.wait_for("waiting")
        run.kill()
    killed.plane.group["Status"] = "migrating"
    moves(killed)
    assert killed.told == ONCE


def test_killed_before_the_start_was_asked_for_it_is_asked_for_once_and_the_snapshot_is_kept(lab: ElastiCacheLab) -> None:
    killed_when(lab, "TestMigration")
    assert lab.state["gateway"] == ""
    run = moves(lab)
    assert "killed when the target did not follow it yet" in run.stderr
    assert lab.told == ["TestMigration", *ONCE]
    assert full_syncs(lab) == 1 + 1


def test_killed_before_the_start_was_carried_out_it_is_asked_for_again(lab: ElastiCacheLab) -> None:
    killed_when(lab, "StartMigration", carried_out=False)
    assert lab.state["gateway"]
    run = moves(lab)
    assert "of which nothing came" in run.stderr
    assert lab.told == ["TestMigration", *ONCE]
    assert full_syncs(lab) == 1 + 1


def test_killed_before_the_answer_to_the_start_it_waits_for_the_target_and_does_not_ask_again(lab: ElastiCacheLab) -> None:
    lab.plane.starts.clear()  # the target is a primary still
    killed_when(lab, "StartMigration")
    until(lambda: lab.plane.group["Status"] == "migrating", "not carried out")
    with lab.run(name="last") as run:
        until(lambda: "not called again" in run.stderr or not run.running, lambda: run.stderr)
        assert lab.role == b"master"
        lab.plane.starts.set()
        assert run.wait() == 0, run.stderr
    assert lab.told == ONCE
    assert lab.there.dbsize() == lab.here.dbsize()
    assert full_syncs(lab) == 1 + 1


def test_a_start_that_aws_gave_up_meanwhile_is_asked_for_again(lab: ElastiCacheLab) -> None:
    killed_when(lab, "StartMigration")
    lab.plane.wait_for("Start migration failed")  # there was no gateway
    run = moves(lab)
    assert "of which nothing came" in run.stderr
    assert lab.told == ["TestMigration", "StartMigration", *ONCE]
    assert full_syncs(lab) == 1 + 1


def test_killed_while_the_target_waits_for_its_snapshot_it_gets_that_at_the_address_that_aws_was_told(
    lab: ElastiCacheLab, liar: LyingGateway
) -> None:
    liar.hold = True
    with lab.run(*liar.options, name="killed") as run:
        until(lambda: lab.role == b"slave", lambda: run.stderr, 120)
        run.kill()
    assert (lab.state["step"], lab.state["gateway"]) == ("attaching", f"127.0.0.1:{liar.port}")
    liar.hold = False
    moves(lab, *liar.options)
    assert lab.told == ONCE
    assert full_syncs(lab) == 1 + 1


def test_a_wiped_target_is_wiped_by_the_run_that_goes_on_too(lab: ElastiCacheLab) -> None:
    lab.there.set("of-before", "1")
    killed_when(lab, "TestMigration", "--wipe-target")
    run = refused(lab)
    assert run.code == "VK-TARGET-LEFT"
    moves(lab, "--wipe-target")
    assert lab.there.get("of-before") is None


def test_a_stop_of_the_run_that_goes_on_ends_the_migration_that_the_killed_one_began(killed: ElastiCacheLab) -> None:
    with killed.run(*MANUAL, name="again") as run:
        run.wait_for("waiting")
        with killed.abort() as abort:
            assert abort.wait() == 0, abort.stderr
            assert "CompleteMigration --force" in abort.stdout
        assert run.wait() == 4
    assert killed.plane.group["Status"] == "available"
    assert killed.role == b"master"


# -- what is refused --------------------------------------------------------------------------------------------------------------------


def test_to_begin_anew_is_refused_while_the_migration_is_under_way(killed: ElastiCacheLab) -> None:
    run = refused(killed, "--fresh", "--wipe-target")
    assert run.code == "VK-EC-UNDER-MIGRATION"
    assert ENDS in run.stderr
    moves(killed)
    assert killed.told == ONCE


def test_to_begin_anew_is_possible_once_a_person_has_ended_the_migration(killed: ElastiCacheLab) -> None:
    killed.plane.on_CompleteMigration({"Force": "true"})
    until(lambda: killed.plane.group["Status"] == "available", "still migrating")
    run = refused(killed)
    assert run.code == "VK-TARGET-LEFT"
    assert "was promoted while nobody looked" in run.stderr
    killed.plane.calls.clear()
    moves(killed, "--fresh", "--wipe-target")
    assert killed.told == ONCE


def test_what_was_kept_and_is_gone_is_no_reason_to_begin_anew_beside_the_migration(killed: ElastiCacheLab) -> None:
    (killed.folder / "state" / "gateway.json").unlink()
    run = refused(killed)
    assert run.code == "VK-EC-UNDER-MIGRATION"
    assert ENDS in run.stderr


@pytest.mark.parametrize("option", ["--listen", "--announce"])
def test_a_gateway_at_another_address_than_aws_was_told_is_refused(killed: ElastiCacheLab, liar: LyingGateway, option: str) -> None:
    where = killed.state["gateway"]
    run = refused(killed, option, f"127.0.0.1:{liar.port}")
    assert run.code == "VK-EC-ADDRESS"
    assert where in run.stderr
    assert ENDS in run.stderr
    moves(killed, "--listen", where.replace("127.0.0.1", "localhost"))


def test_the_state_of_a_migration_into_another_group_is_not_gone_on_with(killed: ElastiCacheLab) -> None:
    killed.rewrite_state(group="elasticache:other")
    for number, more in enumerate(((), ("--fresh",))):
        run = refused(killed, *more, name=f"refused-{number}")
        assert run.code == "VK-STATE-OTHER"
        assert "elasticache:other" in run.stderr
    with killed.abort() as abort:
        assert abort.wait() == 4
    assert abort.code == "VK-STATE-OTHER"
    killed.rewrite_state(group=f"elasticache:{GROUP}")
    moves(killed)


def test_a_migration_that_was_begun_without_us_is_somebody_elses(lab: ElastiCacheLab, server: Server) -> None:
    killed_when(lab, "TestMigration")
    lab.plane.group["Status"] = "migrating"
    assert refused(lab, name="early").code == "VK-EC-OTHER"
    lab.plane.admin.execute_command("REPLICAOF", "127.0.0.1", server("valkey-8.1").port)
    run = refused(lab, name="later")
    assert run.code == "VK-EC-OTHER"
    assert "of which it was not told" in run.stderr
    assert lab.role == b"slave"


def test_a_target_that_was_told_to_follow_another_since_is_somebody_elses(killed: ElastiCacheLab, server: Server) -> None:
    other = server("valkey-8.1")
    killed.plane.admin.execute_command("REPLICAOF", "127.0.0.1", other.port)
    until(lambda: killed.there.info("replication")["master_link_status"] == "up", "not in sync")
    run = refused(killed)
    assert run.code == "VK-EC-OTHER"
    assert f"follows 127.0.0.1:{other.port}" in run.stderr
    assert killed.there.info("replication")["master_port"] == other.port


def test_a_migration_that_turns_out_to_be_another_is_left_alone(lab: ElastiCacheLab, server: Server) -> None:
    other = server("valkey-8.1")
    lab.plane.starts.clear()
    killed_when(lab, "StartMigration")
    with lab.run(name="again") as run:
        until(lambda: "not called again" in run.stderr or not run.running, lambda: run.stderr)
        lab.plane.admin.execute_command("REPLICAOF", "127.0.0.1", other.port)
        assert run.wait() == 4, run.stderr
    assert run.code == "VK-EC-OTHER"
    assert "nothing was done to lab" in run.stderr
    assert "CompleteMigration" not in lab.told
    assert lab.plane.group["Status"] == "migrating"
    assert lab.there.info("replication")["master_port"] == other.port
    assert lab.fence == "0"


def test_a_target_that_was_restarted_is_no_copy_before_it_follows_again(killed: ElastiCacheLab) -> None:
    host, _, port = killed.state["gateway"].partition(":")
    killed.plane.target.restart()
    killed.plane.take_rights()
    run = refused(killed)
    assert run.code == "VK-TARGET-LEFT"
    assert "it was restarted" in run.stderr
    assert "the same command goes on" in run.stderr
    assert ENDS in run.stderr
    killed.plane.admin.execute_command("REPLICAOF", host, port)  # as ElastiCache does with a node that it replaced
    moves(killed)
    assert killed.told == ONCE
    assert full_syncs(killed) == 1 + 2


def test_a_target_that_follows_us_without_a_migration_is_refused(killed: ElastiCacheLab) -> None:
    killed.plane.group["Status"] = "available"
    run = refused(killed)
    assert run.code == "VK-EC-STATE"
    assert "no migration is under way" in run.stderr
    killed.plane.group["Status"] = "migrating"
    moves(killed)


def test_an_address_that_somebody_else_has_taken_costs_nothing(killed: ElastiCacheLab) -> None:
    host, _, port = killed.state["gateway"].partition(":")
    with socket.create_server((host, int(port))):
        run = refused(killed)
    assert run.code in ("VK-A-29", "VK-LISTEN")
    moves(killed)


def test_a_source_that_does_not_reach_back_far_enough_leaves_the_migration_to_a_person(killed: ElastiCacheLab) -> None:
    killed.here.config_set("repl-backlog-size", 16384)
    for number in range(20):
        killed.here.set(f"more:{number}", bytes(100_000))
    assert refused(killed).code == "VK-SOURCE-GAP"
    assert refused(killed, "--fresh", "--wipe-target", name="fresh").code == "VK-EC-UNDER-MIGRATION"
    killed.plane.on_CompleteMigration({"Force": "true"})
    until(lambda: killed.plane.group["Status"] == "available", "still migrating")
    moves(killed, "--fresh", "--wipe-target")


def test_status_names_the_group_for_what_is_to_be_done(killed: ElastiCacheLab) -> None:
    with Valkeep("migrate", "status", "--state", str(killed.folder / "state"), folder=killed.folder / "status", report=False) as status:
        assert status.wait() == 0, status.stderr
    assert "the same run again goes on with it" in " ".join(status.stdout.split())
    assert f"--target elasticache:{GROUP}" in status.stdout


def test_what_a_killed_run_leaves_at_aws_is_said_by_abort_and_by_the_next_run(killed: ElastiCacheLab) -> None:
    with killed.abort() as abort:
        assert abort.wait() == 0, abort.stderr
    assert ENDS in abort.stdout
    with killed.run(name="again") as again:
        assert again.wait() == 4
    assert again.code == "VK-A-01"
    assert ENDS in again.stderr
    assert killed.plane.group["Status"] == "migrating"
    assert killed.fence == "0"


def test_abort_says_of_a_start_without_an_answer_that_it_may_be_under_way(lab: ElastiCacheLab) -> None:
    lab.plane.starts.clear()
    killed_when(lab, "StartMigration")
    with lab.abort() as abort:
        assert abort.wait() == 0, abort.stderr
    assert ENDS in abort.stdout
