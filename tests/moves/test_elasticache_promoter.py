"""ElastiCache as a promoter: nine planted faults, lost answers, and what is left at AWS. An ordinary Redis 7.0 plays the gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.elasticache_plane import GROUP, PlaneOfTests
from tests.support.lying_gateway import LyingGateway, pairs, with_field
from tests.support.waiting import holds, until
from valkeep.cli.migrate_elasticache import target_of
from valkeep.errors import ConnectionLost, Refused, UsageError, ValkeepError
from valkeep.migrate.delivery import elasticache
from valkeep.migrate.delivery.elasticache import ElastiCache
from valkeep.migrate.elasticache.address import GroupAddress
from valkeep.migrate.elasticache.plane import Plane
from valkeep.runtime.node import Process

Client = Callable[..., Any]


class Lab:
    def __init__(self, gateway: Process, plane: PlaneOfTests, here: Any, there: Any) -> None:
        self.gateway = gateway
        self.plane = plane
        self.here = here
        self.there = there
        self.said: list[str] = []

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.gateway.port

    @property
    def role(self) -> str:
        return str(self.there.execute_command("ROLE")[0].decode())

    def promoter(self, *, again: bool = False) -> ElastiCache:
        async def look() -> dict[str, str]:
            return {name: str(value) for name, value in self.there.info("replication").items()}

        def say(level: str, text: str) -> None:
            self.said.append(f"{level}: {text}")

        def streams() -> set[str]:
            return {str(self.here.info("replication")["master_replid"])}

        return ElastiCache(Plane(GroupAddress(GROUP, None, self.plane.url)), say, look, streams, "16", seconds=10.0, again=again)

    def run(self, work: Callable[[ElastiCache], Awaitable[Any]], *, again: bool = False) -> Any:
        async def main() -> Any:
            return await work(self.promoter(again=again))

        return asyncio.run(main())

    def fails(self, work: Callable[[ElastiCache], Awaitable[Any]]) -> ValkeepError:
        with pytest.raises(ValkeepError) as raised:
            self.run(work)
        assert raised.value.remedy
        return raised.value

    def synced(self) -> None:
        until(lambda: self.there.info("replication").get("master_link_status") == "up", "not in sync")


@pytest.fixture
def lab(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    gateway, target = server("redis-7.0", protected_mode="no"), server("valkey-8.1")
    client(gateway).mset({f"k{number}": number for number in range(50)})
    monkeypatch.setattr(elasticache, "LONGEST_POLL", 0.2)
    with PlaneOfTests(target) as plane:
        for name, value in plane.environment.items():
            monkeypatch.setenv(name, value)
        yield Lab(gateway, plane, client(gateway), client(target))


@pytest.fixture
def liar(lab: Lab) -> Iterator[LyingGateway]:
    with LyingGateway(to=lab.gateway.port) as one:
        yield one


async def begin(promoter: ElastiCache, gateway: tuple[str, int]) -> None:
    await promoter.prepare(gateway)
    await promoter.begin(gateway)


async def whole(promoter: ElastiCache, lab: Lab) -> None:
    await begin(promoter, lab.address)
    await asyncio.to_thread(lab.synced)
    await promoter.promote()


def test_probe_start_and_completion_leave_a_primary_with_the_data(lab: Lab) -> None:
    lab.run(lambda promoter: whole(promoter, lab))
    assert lab.role == "master"
    assert lab.there.dbsize() == 50
    assert [call for call in lab.plane.calls if call.endswith("Migration")] == ["TestMigration", "StartMigration", "CompleteMigration"]
    assert any("Test migration successful" in one for one in lab.said)


PROBES: tuple[tuple[str, str, Callable[[bytes], bytes | None], str], ...] = (
    ("a probe unanswered", "CLUSTER INFO", lambda _: None, "does not answer everything"),
    ("a command renamed", "COMMAND INFO", lambda _: b"*6\r\n" + b"*-1\r\n" * 6, "renamed or missing"),
    ("wrong version", "INFO", lambda reply: with_field(reply, "redis_version", "8.0.2"), "presents itself as 8.0.2"),
    ("databases", "CONFIG GET DATABASES", lambda _: pairs("databases", "32"), "says 32 databases, the target has 16"),
    ("no offset", "INFO", lambda reply: with_field(reply, "master_repl_offset", "-1"), "no replication offset"),
    ("a replica", "INFO", lambda reply: with_field(reply, "role", "slave"), "no standalone primary"),
    ("AUTH on", "PING", lambda _: b"-NOAUTH Authentication required.\r\n", "asks for a password"),
    ("protected mode", "CONFIG GET PROTECTED-MODE", lambda _: pairs("protected-mode", "yes"), "protected-mode is on"),
)


@pytest.mark.parametrize(("command", "lie", "said"), [row[1:] for row in PROBES], ids=[row[0] for row in PROBES])
def test_an_answer_that_elasticache_would_not_take_is_found_before_it_asks(
    lab: Lab, liar: LyingGateway, monkeypatch: pytest.MonkeyPatch, command: str, lie: Callable[[bytes], bytes | None], said: str
) -> None:
    if said == "does not answer everything":
        monkeypatch.setattr("valkeep.migrate.elasticache.probe.TIMEOUT", 0.5)
    liar.lies[command] = lie
    error = lab.fails(lambda promoter: begin(promoter, ("127.0.0.1", liar.port)))
    assert error.code == "VK-EC-PROBE"
    assert said in error.message
    assert error.definite
    assert lab.plane.calls == []


def test_an_unreachable_port_is_found_before_elasticache_is_asked(lab: Lab, liar: LyingGateway) -> None:
    liar.close()
    error = lab.fails(lambda promoter: begin(promoter, ("127.0.0.1", liar.port)))
    assert error.code == "VK-EC-PROBE"
    assert "nothing answers at the gateway's address" in error.message
    assert lab.plane.calls == []


def test_an_address_of_another_machine_that_is_not_reached_from_here_is_left_to_aws_test(
    lab: Lab, liar: LyingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elasticache, "is_here", lambda _: False)  # behind NAT
    liar.close()
    error = lab.fails(lambda promoter: begin(promoter, ("127.0.0.1", liar.port)))
    assert error.code == "VK-EC-TEST"
    assert "unable to connect" in error.message
    assert any("TestMigration decides" in one for one in lab.said)


def test_what_only_aws_finds_wrong_ends_in_its_own_words(lab: Lab) -> None:
    lab.plane.newest = (7, 0)
    lab.plane.databases = 32
    error = lab.fails(lambda promoter: begin(promoter, lab.address))
    assert error.code == "VK-EC-TEST"
    assert "Test migration failed" in error.message
    assert "StartMigration" not in lab.plane.calls


def test_a_failure_that_belongs_to_a_killed_run_is_not_taken_for_this_ones(lab: Lab) -> None:
    def before(action: str) -> None:
        if action in ("TestMigration", "StartMigration") and action not in lab.plane.calls:
            lab.plane.events.append(
                (datetime.now(UTC), f"{action.removesuffix('Migration')} migration failed for {GROUP}: nobody was there")
            )

    async def watched(promoter: ElastiCache) -> None:
        await begin(promoter, lab.address)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await promoter.watch()
        await asyncio.to_thread(lab.synced)
        await promoter.promote()

    lab.plane.before = before
    lab.run(watched, again=True)
    assert lab.plane.calls.count("TestMigration") == 2
    assert lab.plane.calls.count("StartMigration") == 1
    assert lab.role == "master"
    assert lab.there.dbsize() == 50


def test_a_test_that_fails_twice_has_failed(lab: Lab) -> None:
    lab.plane.newest = (7, 0)
    with pytest.raises(Refused) as refused:
        lab.run(lambda promoter: begin(promoter, lab.address), again=True)
    assert refused.value.code == "VK-EC-TEST"
    assert lab.plane.calls.count("TestMigration") == 2


def test_encryption_that_was_turned_on_since_preflight_is_refused_by_aws(lab: Lab) -> None:
    lab.plane.group["TransitEncryptionEnabled"] = True
    error = lab.fails(lambda promoter: begin(promoter, lab.address))
    assert error.code == "VK-EC-PARAMETER"
    assert "In-transit encryption must be disabled" in error.message


def test_a_snapshot_that_does_not_come_is_a_migration_that_aws_gives_up(lab: Lab, liar: LyingGateway) -> None:
    liar.hold = True
    lab.plane.patience = 0.5

    async def watched(promoter: ElastiCache) -> None:
        await begin(promoter, ("127.0.0.1", liar.port))
        await promoter.watch()

    error = lab.fails(watched)
    assert error.code == "VK-EC-GAVE-UP"
    assert "did not arrive in time" in error.message
    assert lab.plane.group["Status"] == "available"


def test_somebody_else_who_completes_the_migration_is_noticed(lab: Lab) -> None:
    async def watched(promoter: ElastiCache) -> None:
        await begin(promoter, lab.address)
        await asyncio.to_thread(lab.synced)
        async with asyncio.timeout(60):
            looks = lab.plane.calls.count("DescribeReplicationGroups") + 2
            watching = asyncio.ensure_future(promoter.watch())
            await holds(
                lambda: lab.plane.calls.count("DescribeReplicationGroups") >= looks, "it has seen the group migrate, and looks again"
            )
            await Plane(GroupAddress(GROUP, None, lab.plane.url)).complete()
            await watching

    assert lab.fails(watched).code == "VK-EC-NOT-UNDER-MIGRATION"


def test_offsets_that_do_not_agree_are_data_not_in_sync_and_it_may_be_tried_again(lab: Lab, liar: LyingGateway) -> None:
    async def twice(promoter: ElastiCache) -> None:
        await begin(promoter, ("127.0.0.1", liar.port))
        await asyncio.to_thread(lab.synced)
        liar.lies["INFO"] = lambda reply: with_field(reply, "master_replid", "0" * 40)
        with pytest.raises(Refused) as refused:
            await promoter.promote()
        assert refused.value.code == "VK-EC-SYNC"
        assert "data not in sync" in refused.value.message
        assert refused.value.definite
        assert lab.role == "slave"
        liar.lies.clear()
        await promoter.promote()

    lab.run(twice)
    assert lab.plane.calls.count("CompleteMigration") == elasticache.ATTEMPTS + 1
    assert lab.role == "master"


# -- answers that are lost or denied -----------------------------------------------------------------------------------------------------


def test_a_lost_answer_to_start_and_complete_is_no_reason_to_give_up(lab: Lab) -> None:
    lose = {"StartMigration", "CompleteMigration"}
    lab.plane.lose = lose
    lab.run(lambda promoter: whole(promoter, lab))
    assert lab.role == "master"
    assert not lab.plane.lose


@pytest.mark.parametrize("action", ["TestMigration", "StartMigration"])
def test_a_permission_that_is_missing_for_the_start_changes_nothing(lab: Lab, action: str) -> None:
    lab.plane.denied = {action}

    async def begun(promoter: ElastiCache) -> list[str]:
        with pytest.raises(Refused) as refused:
            await begin(promoter, lab.address)
        assert refused.value.code == "VK-AWS-DENIED"
        assert f"elasticache:{action}" in refused.value.remedy
        return await promoter.undo()

    assert lab.run(begun) == [f"StartMigration was not called: {GROUP} is as it was"]
    assert lab.plane.group["Status"] == "available"


def test_events_that_may_not_be_read_stop_it_before_anything_is_started(lab: Lab) -> None:
    lab.plane.denied = {"DescribeEvents"}
    error = lab.fails(lambda promoter: begin(promoter, lab.address))
    assert "elasticache:DescribeEvents" in error.remedy
    assert "TestMigration" not in lab.plane.calls


def test_a_group_that_somebody_else_migrates_is_left_alone(lab: Lab) -> None:
    lab.plane.group["Status"] = "migrating"
    error = lab.fails(lambda promoter: begin(promoter, lab.address))
    assert error.code == "VK-EC-UNDER-MIGRATION"
    assert lab.plane.group["Status"] == "migrating"


def undone(lab: Lab, meanwhile: Callable[[], Any]) -> Callable[[ElastiCache], Coroutine[Any, Any, list[str]]]:
    async def work(promoter: ElastiCache) -> list[str]:
        await begin(promoter, lab.address)
        await asyncio.to_thread(lab.synced)
        await asyncio.to_thread(meanwhile)
        return await promoter.undo()

    return work


def test_what_was_started_is_ended_with_force_which_is_the_only_way(lab: Lab) -> None:
    (said,) = lab.run(undone(lab, lambda: None))
    assert "CompleteMigration --force" in said
    assert lab.role == "master"


def test_a_stop_while_the_start_is_under_way_ends_what_was_started(lab: Lab) -> None:
    asked, answers = threading.Event(), threading.Event()

    def slow(action: str) -> None:
        if action == "StartMigration":
            asked.set()
            answers.wait(30)  # AWS takes its time to answer

    lab.plane.before = slow

    async def stopped(promoter: ElastiCache) -> list[str]:
        beginning = asyncio.ensure_future(begin(promoter, lab.address))
        await asyncio.to_thread(asked.wait)
        beginning.cancel()
        answers.set()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        return await promoter.undo()

    (said,) = lab.run(stopped)
    assert "CompleteMigration --force" in said
    assert lab.plane.calls[-2:] != ["CompleteMigration", "StartMigration"]
    until(lambda: lab.plane.group["Status"] == "available", "still migrating")


def test_a_migration_that_aws_ended_by_itself_is_not_ended_twice(lab: Lab) -> None:
    (said,) = lab.run(undone(lab, lambda: lab.plane.group.update(Status="available")))
    assert "had ended the migration" in said


def test_a_migration_that_may_not_be_ended_says_by_which_command_a_person_does(lab: Lab) -> None:
    (said,) = lab.run(undone(lab, lambda: lab.plane.denied.add("CompleteMigration")))
    assert f"aws elasticache complete-migration --replication-group-id {GROUP} --force" in said
    assert "elasticache:CompleteMigration" in said


def test_an_api_that_is_away_for_a_while_does_not_end_a_migration(lab: Lab) -> None:
    async def watched(promoter: ElastiCache) -> None:
        await begin(promoter, lab.address)
        lab.plane.denied = {"DescribeEvents"}
        watching = asyncio.ensure_future(promoter.watch())
        await holds(lambda: sum("nobody knows what ElastiCache does" in one for one in lab.said) >= 2, "it says so, and looks again")
        assert not watching.done()
        watching.cancel()

    lab.run(watched)


# -- the command line --------------------------------------------------------------------------------------------------------------------


def test_a_group_in_cluster_mode_is_refused_before_anything(lab: Lab) -> None:
    lab.plane.group["ClusterEnabled"] = True
    with pytest.raises(Refused) as refused:
        target_of(f"elasticache:{GROUP}", "", lab.plane.url, None, None, unlike=())
    assert refused.value.code == "VK-EC-CLUSTER"


def test_a_groups_primary_endpoint_is_the_target(lab: Lab) -> None:
    target, group = target_of(f"elasticache:{GROUP}", "", lab.plane.url, None, None, unlike=())
    assert target.address == f"127.0.0.1:{lab.plane.target.port}"
    assert group == GroupAddress(GROUP, None, lab.plane.url)


@pytest.mark.parametrize(
    ("target", "more", "said"),
    [
        ("elasticache:lab", {"unlike": ("--deliver push",)}, "does not go with"),
        ("elasticache:lab", {"password_env": "HOME"}, "no password while it is migrated"),
        ("elasticache:lab:6379", {}, "mixes two forms"),
        ("elasticache://lab", {}, "mixes two forms"),
        ("valkey://127.0.0.1:1", {"url": "http://127.0.0.1:1"}, "belong to --target elasticache:ID"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(target: str, more: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"region": "", "url": "", "password_file": None, "password_env": None, "unlike": ()} | more
    with pytest.raises(UsageError, match=said) as refused:
        target_of(target, **given)
    assert refused.value.remedy


def test_a_lost_answer_that_cannot_be_cleared_up_is_not_definite(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begun(promoter: ElastiCache) -> None:
        await begin(promoter, lab.address)
        await asyncio.to_thread(lab.synced)
        lab.plane.refuse_to_answer = True
        await promoter.promote()

    monkeypatch.setattr("valkeep.migrate.elasticache.plane.ATTEMPTS", 1)
    error = lab.fails(begun)
    assert isinstance(error, ConnectionLost)
    assert not error.definite
