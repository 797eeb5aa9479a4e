"""What may happen to the source in the middle of a cut-over, and after it: restarts, Sentinels, operators, a second Valkeep, transactions, expiry.

In each the same must hold: nothing that was acknowledged is lost, and what could be lost from now on is said.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.conftest import Server
from tests.support.pair import ProxiedPair
from tests.support.proxy import Proxy
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.errors import ValkeepError
from valkeep.migrate.control import ask

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]
FENCE = b"$3\r\n255\r\n"
PROMOTE = b"REPLICAOF\r\n$2\r\nNO\r\n"


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Iterator[ProxiedPair]:
    """A source that keeps its data over a restart, and a target."""
    source, target = server("redis-7.0", appendonly="yes", appendfsync="always"), server("valkey-8.1")
    here = client(source)
    here.mset({f"k{number}": f"v{number}" for number in range(100)})
    with Proxy(source.address) as to_source, Proxy(target.address) as to_target:
        yield ProxiedPair(source, target, here, client(target), tmp_path, to_source, to_target)


def expect_called_off(pair: ProxiedPair, run: Valkeep, writers: Writers, code: str) -> None:
    """The source goes on as before, and the target was only detached."""
    assert run.wait() != 0
    assert run.code == code, run.stderr
    assert "cutover:promote" not in run.phases()
    assert pair.fence == "0"
    assert pair.promoted  # detached, that is
    writers.wait_for_acks(3)
    writers.stop()
    assert lost(writers.acknowledged(), pair.here) == []
    run.assert_nothing_left()


def test_a_source_that_restarts_behind_the_fence_is_not_given_up(pair: ProxiedPair) -> None:
    with Writers(pair.source.port) as writers, pair.run() as run:
        pair.to_source.when(FENCE, after=pair.source.restart)
        expect_called_off(pair, run, writers, "VK-CUTOVER-BROKEN")


def test_a_source_that_restarts_within_the_pause_is_not_given_up(pair: ProxiedPair) -> None:
    with Writers(pair.source.port) as writers, pair.run() as run:
        pair.to_source.when(b"PAUSE\r\n$4\r\n5000", after=pair.source.restart)
        expect_called_off(pair, run, writers, "VK-CUTOVER-BROKEN")


def test_a_source_that_restarts_at_the_promotion_is_said_to_take_writes(pair: ProxiedPair) -> None:
    """The one round trip that no look can cover: it is seen afterwards, and said."""
    with pair.run() as run:
        pair.to_target.when(PROMOTE, before=pair.source.restart)
        assert run.wait() == 0, run.stderr
    (source,) = json.loads((run.report / "cutover.json").read_text())["source_nodes"]
    assert source["takes_writes"] is True
    assert "it is not fenced any more" in source["why"]
    assert "it is not fenced any more" in run.stderr


def test_a_fence_that_somebody_lowers_calls_the_cut_over_off(pair: ProxiedPair) -> None:
    def lower() -> None:
        until(lambda: pair.fence == "255", "the fence is not there")
        pair.here.config_set("min-replicas-to-write", 0)

    with Writers(pair.source.port) as writers, pair.run() as run:
        pair.to_source.when(FENCE, after=lower)
        expect_called_off(pair, run, writers, "VK-CUTOVER-FENCE-LOST")


def test_a_replica_that_is_promoted_in_the_middle_calls_the_cut_over_off(server: Server, client: Client, pair: ProxiedPair) -> None:
    replica = server("redis-7.0")
    client(replica).replicaof("127.0.0.1", pair.source.port)
    until(lambda: client(replica).execute_command("ROLE")[3] == b"connected", "the replica does not follow")

    def promote() -> None:
        """As a Sentinel would."""
        client(replica).replicaof("no", "one")
        until(lambda: f"port={replica.port}," not in str(client(pair.source).execute_command("INFO", "replication")), "it is still there")

    with Writers(pair.source.port) as writers, pair.run() as run:
        pair.to_source.when(FENCE, after=promote)
        expect_called_off(pair, run, writers, "VK-CUTOVER-REPLICA")
    assert f"127.0.0.1:{replica.port} left the source" in run.stderr


def test_a_replica_that_flaps_in_a_manual_cut_over_costs_no_new_copy(server: Server, client: Client, pair: ProxiedPair) -> None:
    """A person has looked when they say go again; without one the move ends."""
    replica = server("redis-7.0")
    client(replica).replicaof("127.0.0.1", pair.source.port)
    until(lambda: client(replica).execute_command("ROLE")[3] == b"connected", "the replica does not follow")

    def flap() -> None:
        client(replica).replicaof("no", "one")
        until(lambda: f"port={replica.port}," not in str(client(pair.source).execute_command("INFO", "replication")), "it is still there")

    with Writers(pair.source.port) as writers, pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        pair.to_source.when(FENCE, after=flap)
        assert pair.valkeep("cutover").code == "VK-CUTOVER-REPLICA", run.stderr
        assert pair.fence == "0"
        until(lambda: pair.valkeep("cutover").process.returncode == 0, lambda: run.stderr)  # as soon as it waits again
        assert run.wait() == 0, run.stderr
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []


@pytest.mark.parametrize("watched", [False, True], ids=["", "a Sentinel watches"])
def test_replicas_of_the_source_are_told_as_read_only_and_not_fenced(
    server: Server, client: Client, pair: ProxiedPair, watched: bool
) -> None:
    replica = server("redis-7.0")
    client(replica).replicaof("127.0.0.1", pair.source.port)
    until(lambda: client(replica).execute_command("ROLE")[3] == b"connected", "the replica does not follow")
    with pair.here.pubsub() as sentinel, pair.run() as run:
        if watched:  # as one does
            sentinel.subscribe("__sentinel__:hello")
            sentinel.get_message(timeout=5)
        assert run.wait() == 0, run.stderr
    source, other = json.loads((run.report / "cutover.json").read_text())["source_nodes"]
    assert (source["takes_writes"], other["takes_writes"]) == (False, False)
    assert "until it is restarted" in source["why"]
    assert other["node"] == f"127.0.0.1:{replica.port}"
    assert other["watched"] is watched
    assert ("a Sentinel that watches the source" if watched else "until somebody promotes it") in other["why"]
    assert ("warning: on the source's side" in run.stderr) is watched


def test_what_was_written_in_spite_of_the_fence_is_on_the_target(pair: ProxiedPair) -> None:
    """A leak as of a script before Redis 7.0, between the two looks: the fence stands when we look, and something was written all the same."""

    def leak() -> None:
        pair.here.config_set("min-replicas-to-write", 0)
        pair.here.set("leaked", "1")
        pair.here.config_set("min-replicas-to-write", 255)

    with pair.run() as run:
        pair.to_source.when(FENCE, after=lambda: pair.to_source.when(b"commandstats", after=leak))
        assert run.wait() == 0, run.stderr
    assert pair.there.get("leaked") == b"1"


def test_of_two_cut_overs_of_one_source_the_second_is_refused_and_leaves_the_first_ones_fence(
    server: Server, client: Client, pair: ProxiedPair
) -> None:
    other = server("valkey-8.1")
    where = ("--source", pair.source.endpoint, "--target", other.endpoint, "--state", str(pair.folder / "other"))
    codes: list[str] = []

    def second() -> None:
        """Within the pause of the first, before its fence. The command in this process, as the first one waits for its reply meanwhile."""
        try:
            asyncio.run(ask(pair.folder / "other", "cutover"))
        except ValkeepError as error:
            codes.append(error.code)

    def second_and_wait() -> None:
        thread = threading.Thread(target=second)  # an event loop runs in the proxy's
        thread.start()
        thread.join()

    with (
        Writers(pair.source.port) as writers,
        Valkeep("migrate", "run", *where, "--acknowledge", "all", "--cutover", "manual", folder=pair.folder / "loser") as loser,
        pair.run("--cutover", "manual", "--lease", "20000") as run,
    ):
        loser.wait_for("waiting")
        run.wait_for("waiting")
        pair.to_source.when(b"PAUSE\r\n$5\r\n20000", after=second_and_wait)
        assert pair.valkeep("cutover").process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
        assert codes == ["VK-CUTOVER-CONCURRENT"], loser.stderr
        with Valkeep("migrate", "cutover", *where, folder=pair.folder / "second", report=False) as again:  # behind the fence of the first
            again.wait()
        assert again.code == "VK-CUTOVER-FENCED", again.stderr
        assert loser.wait() == 4, loser.stderr
        assert pair.fence == "255"
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
    assert client(other).execute_command("ROLE")[0] == b"master"
    with Valkeep("migrate", "abort", *where, folder=pair.folder / "abort", report=False) as abort:
        assert abort.wait() == 0, abort.stderr
    assert pair.fence == "255"  # the abort of the loser does not lift what was never its own


def test_the_abort_of_a_killed_migration_does_not_lift_the_fence_of_the_one_that_came_after_it(
    server: Server, client: Client, pair: ProxiedPair
) -> None:
    other = server("valkey-8.1")
    where = ("--source", pair.source.endpoint, "--target", other.endpoint, "--state", str(pair.folder / "other"))
    with Writers(pair.source.port) as writers:
        with pair.run() as killed:
            pair.to_source.when(b"PAUSE\r\n$4\r\n5000", after=killed.kill)
            until(lambda: not killed.running, lambda: killed.stderr, 40)
        with Valkeep("migrate", "run", *where, "--acknowledge", "all", folder=pair.folder / "moved") as moved:
            assert moved.wait() == 0, moved.stderr
        assert pair.fence == "255"
        late = pair.valkeep("abort")
        assert late.process.returncode == 0, late.stderr
        assert "fenced by somebody else" in late.stdout
        assert pair.fence == "255"
        writers.stop()
        assert lost(writers.acknowledged(), client(other)) == []
    assert pair.promoted  # detached


def test_a_direct_cut_over_waits_for_transactions_that_were_open_before_the_fence(pair: ProxiedPair) -> None:
    with valkey.Valkey(port=pair.source.port, single_connection_client=True) as writer, pair.run("--fence", "direct") as run:
        for command in (("MULTI",), ("SET", "queued", "1")):
            writer.connection.send_command(*command)
            writer.connection.read_response()
        begun = threading.Event()
        pair.to_source.when(FENCE, after=begun.set)
        assert begun.wait(30), run.stderr
        assert "cutover:drain" not in run.phases()
        with pytest.raises(valkey.exceptions.ExecAbortError):  # Redis 7.0 refuses it here; one before 6.0 would run it
            writer.connection.send_command("EXEC")
            writer.connection.read_response()
        assert run.wait() == 0, run.stderr
    assert pair.promoted


def test_a_transaction_that_stays_open_calls_a_direct_cut_over_off_when_the_lease_ends(pair: ProxiedPair) -> None:
    with (
        Writers(pair.source.port) as writers,
        valkey.Valkey(port=pair.source.port, single_connection_client=True) as writer,
        pair.run("--fence", "direct", "--lease", "400") as run,
    ):
        for command in (("MULTI",), ("SET", "queued", "1")):
            writer.connection.send_command(*command)
            writer.connection.read_response()
        expect_called_off(pair, run, writers, "VK-CUTOVER-TRANSACTION")


def test_an_external_cut_over_is_not_held_up_by_keys_that_expire(pair: ProxiedPair) -> None:
    pair.here.config_set("active-expire-effort", 10)
    pipe = pair.here.pipeline(transaction=False)
    for number in range(6000):  # for two minutes some expire all the time
        pipe.set(f"short:{number}", "1", px=1000 + 20 * number)
    pipe.execute()
    with pair.run("--fence", "external") as run:
        run.wait_for("cutover:wait-for-silence")
        began = pair.here.info("stats")["expired_keys"]
        assert run.wait() == 0, run.stderr
        assert pair.here.info("stats")["expired_keys"] > began, "nothing expired in the window"
    assert "still gets writes" not in run.stderr
    assert "it was not fenced" in run.stderr
    until(lambda: not pair.there.exists("short:0"), "an expired key is still there")
    assert pair.there.mget(f"k{number}" for number in range(100)) == [b"v%d" % number for number in range(100)]


def test_a_kept_fence_survives_a_restart_of_the_source_and_is_taken_out_again_by_an_abort(pair: ProxiedPair) -> None:
    with pair.run("--keep-fence") as run:
        assert run.wait() == 0, run.stderr
    (source,) = json.loads((run.report / "cutover.json").read_text())["source_nodes"]
    assert "also when it is restarted" in source["why"]
    pair.source.restart()
    assert pair.fence == "255"
    with pytest.raises(valkey.exceptions.ResponseError, match=r"NOREPLICAS|good replicas"):
        pair.here.set("late", "1")
    forced = pair.valkeep("abort", "--force")
    assert forced.process.returncode == 0, forced.stderr
    assert "its configuration file says so, too" in forced.stdout
    pair.source.restart()
    assert pair.fence == "0"


def test_a_user_who_may_see_little_cuts_over_and_is_told_what_cannot_be_seen(pair: ProxiedPair) -> None:
    pair.here.execute_command(
        "ACL", "SETUSER", "mover", "on", ">pw", "~*", "&*", "+@all", "-command", "-client|list", "-client|setname", "-pubsub"
    )
    where = ("--source", pair.to_source.url().replace("//", "//mover:pw@"), *pair.where()[2:])
    with (
        Writers(pair.source.port) as writers,
        Valkeep("migrate", "run", *where, "--acknowledge", "all", folder=pair.folder / "run") as run,
    ):
        assert run.wait() == 0, run.stderr
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
    assert "neither a second cut-over nor open transactions would be noticed" in run.stderr


@pytest.fixture
def holding(server: Server, client: Client, tmp_path: Path) -> Iterator[ProxiedPair]:
    """A source that has what its target cannot take: vector sets."""
    source, target = server("redis-8.0"), server("valkey-8.1")
    here = client(source)
    here.set("some", "1")
    with Proxy(source.address) as to_source, Proxy(target.address) as to_target:
        yield ProxiedPair(source, target, here, client(target), tmp_path, to_source, to_target)


def hold(pair: ProxiedPair) -> None:
    pair.here.execute_command("VADD", "vectors", "VALUES", 2, "1", "0", "e")


def test_a_stream_that_is_held_too_long_ends_the_migration_and_the_source_goes_on(holding: ProxiedPair) -> None:
    with Writers(holding.source.port) as writers, holding.run("--cutover", "manual", "--hold", "20") as run:
        run.wait_for("waiting")
        hold(holding)
        until(lambda: "nothing more is sent" in run.stderr, lambda: run.stderr)
        asked = holding.valkeep("cutover")
        assert (asked.process.returncode, asked.code) == (1, "VK-HELD"), asked.stderr
        assert run.running
        expect_called_off(holding, run, writers, "VK-HELD")
    assert "cutover:pause" not in run.phases()


def test_a_stream_that_is_held_within_the_pause_calls_the_cut_over_off_until_its_cause_is_gone(holding: ProxiedPair) -> None:
    with Writers(holding.source.port) as writers, holding.run("--cutover", "manual", "--hold", "60", "--lease", "1000") as run:
        run.wait_for("waiting")
        holding.to_source.when(b"PAUSE\r\n$4\r\n1000", before=lambda: hold(holding))
        asked = holding.valkeep("cutover")
        assert (asked.process.returncode, asked.code) == (1, "VK-CUTOVER-LAG"), asked.stderr
        assert holding.fence == "0"
        writers.wait_for_acks(3)
        holding.here.delete("vectors")
        until(lambda: holding.valkeep("cutover").process.returncode == 0, lambda: run.stderr, 60)
        assert run.wait() == 0, run.stderr
        writers.stop()
        assert lost(writers.acknowledged(), holding.there) == []
    assert holding.there.exists("vectors") == 0


def test_a_move_that_was_completed_is_not_begun_again_over_the_newer_data(pair: ProxiedPair) -> None:
    """Also with --wipe-target: the source is fenced, and what the promoted target got since is nowhere else."""
    with pair.run() as run:
        assert run.wait() == 0, run.stderr
    fenced = pair.here.config_get("min-replicas-*")
    pair.there.set("newer", "1")
    with pair.run("--wipe-target") as again:
        assert again.wait() == 4, again.stderr
    assert again.code == "VK-CUTOVER-FENCED"
    assert pair.there.get("newer") == b"1"
    assert pair.here.config_get("min-replicas-*") == fenced
    assert pair.valkeep("abort").code == "VK-ABORT-PROMOTED"
    assert pair.valkeep("abort", "--force").process.returncode == 0
    assert pair.here.config_get("min-replicas-*") == {"min-replicas-to-write": "0", "min-replicas-max-lag": "10"}
