"""Preflight with real clusters as the target and as the source: every shard is asked, and what is planted into one of them is found and named."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.conftest import Server
from tests.support.cluster_target import cluster_of
from tests.support.waiting import until
from valkeep.cli import run
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ExitCode, Refused
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.feed.scan import ScanFeed
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.preflight import PreflightOptions, PreflightReport, preflight
from valkeep.migrate.preflight.facts import Permission
from valkeep.migrate.preflight.finding import Finding
from valkeep.migrate.preflight.render import lines
from valkeep.runtime.local import LocalDeployment
from valkeep.runtime.node import Process
from valkeep.topology.slots import key_slot

Client = Callable[..., Any]
PUSH = PreflightOptions(deliver="push", rate_seconds=0)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Endpoint]]:
    with cluster_of("newest-valkey") as deployment:
        yield [machine.endpoint for machine in deployment.machines.values()]


@pytest.fixture
def shards(nodes: list[Endpoint]) -> Iterator[list[Any]]:
    """A client to each shard; all are empty."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(valkey.Valkey(host=node.host, port=node.port)) for node in nodes]
        for one in found:
            one.flushall()
        yield found


def asked(source: str, target: Endpoint | None, options: PreflightOptions = PUSH) -> PreflightReport:
    return asyncio.run(preflight(Endpoint.parse(source), target, options, lambda _event: None))


def bad(report: PreflightReport, code: str) -> Finding:
    (found,) = [finding for finding in report.findings if finding.code == code and finding.severity != "ok"]
    return found


def test_an_empty_cluster_is_no_obstacle_to_push_and_is_one_to_replication(
    server: Server, nodes: list[Endpoint], shards: list[Any]
) -> None:
    source = server("newest-valkey").endpoint
    report = asked(source, nodes[1])
    assert not report.blockers
    assert report.target is not None
    assert report.target.cluster is not None
    assert [shard.slots for shard in report.target.cluster.shards] == [5461, 5461, 5462]
    assert len(shards) == len(report.to_json()["target"]["cluster"]["shards"]) == 3
    assert "VK-CLUSTER-COMMANDS" not in report.conditions
    native = asked(source, nodes[1], PreflightOptions(rate_seconds=0))
    assert "--deliver push" in bad(native, "VK-CLUSTER").remedy


def test_what_is_planted_into_one_shard_is_found(server: Server, client: Client, nodes: list[Endpoint], shards: list[Any]) -> None:
    source = server("newest-valkey")
    c = client(source)
    c.mset({"a": 1, "b": 2})
    c.eval("return 1", 0)
    client(source, db=4).set("elsewhere", 1)
    slots = range(16384)
    name = next(f"key:{number}" for number in slots if shards[2].execute_command("CLUSTER", "KEYSLOT", f"key:{number}") > 12000)
    shards[2].set(name, 1)
    shards[1].config_set("maxmemory", "1mb")
    report = asked(source.endpoint, nodes[0])
    shards[1].config_set("maxmemory", 0)
    assert bad(report, "VK-TARGET-NOT-EMPTY").evidence["shards"] == nodes[2].address
    assert bad(report, "VK-CLUSTER-DATABASES").evidence["source"] == "db4: 1 keys"
    assert bad(report, "VK-CLUSTER-COMMANDS").evidence["source"] == "EVAL 1, MSET 1"
    assert bad(report, "VK-CLUSTER-REPLICAS").severity == "info"
    other = shards[1].execute_command("CLUSTER", "MYID")
    shards[0].execute_command("CLUSTER", "SETSLOT", 5, "MIGRATING", other)
    try:
        assert f"slot 5 at {nodes[0].address}" in bad(asked(source.endpoint, nodes[2]), "VK-TARGET-CLUSTER").evidence["moving"]
    finally:
        shards[0].execute_command("CLUSTER", "SETSLOT", 5, "STABLE")


@contextlib.contextmanager
def held(process: Process) -> Iterator[None]:
    """It hangs."""
    process.pause()
    try:
        yield
    finally:
        process.resume()


class SourceCluster:
    """Three shards, each with a replica that never takes over. ``primaries``: clients, by shard."""

    def __init__(self, deployment: LocalDeployment) -> None:
        self.machines = list(deployment.machines.values())
        self.endpoints = [machine.endpoint for machine in self.machines]
        for one in self.endpoints:
            with valkey.Valkey(host=one.host, port=one.port) as c:
                c.config_set("cluster-replica-no-failover", "yes")
                c.config_set("cluster-node-timeout", 5000)
        self.primaries = [valkey.Valkey(host=one.host, port=one.port) for one in self.endpoints[:3]]

    def complete(self) -> bool:
        """Every node knows the owner of every slot."""
        with contextlib.ExitStack() as stack:
            nodes = [stack.enter_context(valkey.Valkey(host=one.host, port=one.port)) for one in self.endpoints]
            return all(b"cluster_slots_ok:16384" in one.execute_command("CLUSTER", "INFO") for one in nodes)

    def everywhere(self, *words: Any) -> None:
        """Said to every node; those that know it already refuse."""
        for endpoint in self.endpoints:
            with valkey.Valkey(host=endpoint.host, port=endpoint.port) as c, contextlib.suppress(valkey.ResponseError):
                c.execute_command("CLUSTER", *words)

    def own(self, shard: int) -> str:
        return str(self.endpoints[shard].address)


@pytest.fixture(scope="module")
def source_cluster() -> Iterator[SourceCluster]:
    with cluster_of("redis-7.0", replicas=1) as deployment:
        yield SourceCluster(deployment)


@pytest.fixture
def source(source_cluster: SourceCluster) -> SourceCluster:
    """Some keys in each shard."""
    for number, primary in enumerate(source_cluster.primaries):
        primary.flushall()
        for key in [key for key in map(str, range(400)) if key_slot(key.encode()) * 3 // 16384 == number][: 50 + number]:
            primary.set(key, "x" * 100)
    return source_cluster


def test_any_node_of_a_cluster_leads_to_all_its_shards(source: SourceCluster, nodes: list[Endpoint], shards: list[Any]) -> None:
    del shards
    report = asked(source.endpoints[4].display, nodes[1])  # a replica
    assert not report.blockers
    assert report.source.address == source.own(0)
    assert report.source.cluster is not None
    assert [shard.slots for shard in report.source.cluster.shards] == [5461, 5461, 5462]
    assert [len(shard.replicas) for shard in report.source.cluster.shards] == [1, 1, 1]
    assert [facts.census.seen for facts in report.source.shards if facts.census is not None] == [50, 51, 52]
    assert {facts.may("CLUSTER GETKEYSINSLOT") for facts in report.source.shards} == {Permission.OK}
    assert report.cutover is FenceMode.PAUSE
    told = report.to_json()
    assert [shard["keys"] for shard in told["source_shards"]] == [{"0": 50}, {"0": 51}, {"0": 52}]
    assert {"VK-CLUSTER-COMMANDS", "VK-CLUSTER-DATABASES"}.isdisjoint(one.code for one in report.findings)
    assert "(3 shards)" in next(lines(report)).plain


def test_a_full_census_of_a_cluster_is_one_of_each_shard(source: SourceCluster) -> None:
    notes: list[str] = []
    options = PreflightOptions(deliver="push", rate_seconds=0, full_census=True)
    report = asyncio.run(preflight(source.endpoints[1], None, options, lambda event: notes.append(getattr(event, "text", ""))))
    assert [(one.census.mode, one.census.seen) for one in report.source.shards if one.census is not None] == [
        ("full", 50),
        ("full", 51),
        ("full", 52),
    ]
    assert sum("fork once" in note for note in notes) == 3
    assert not report.blockers


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (PreflightOptions(rate_seconds=0), "--deliver push"),
        (PreflightOptions(deliver="push", read="scan", rate_seconds=0), "leave --read out"),
        (PreflightOptions(deliver="push", rollback=True, rate_seconds=0), "leave --rollback out"),
    ],
    ids=["native", "scan", "rollback"],
)
def test_what_a_cluster_cannot_be_moved_by_is_said_with_what_it_can(
    source: SourceCluster, nodes: list[Endpoint], shards: list[Any], options: PreflightOptions, remedy: str
) -> None:
    del shards
    report = asked(source.endpoints[0].display, nodes[0], options)
    assert remedy in next(
        one.remedy for one in report.findings if one.code == "VK-CLUSTER" and one.severity == "blocker" and "source" in one.evidence
    )


def test_a_server_that_is_no_cluster_is_no_target_of_one_and_a_cluster_of_one_shard_is(server: Server, source: SourceCluster) -> None:
    alone = Endpoint.parse(server("newest-valkey").endpoint)
    assert "CLUSTER ADDSLOTSRANGE 0 16383" in bad(asked(source.endpoints[0].display, alone), "VK-CLUSTER").remedy
    one = server("newest-valkey", cluster_enabled="yes")
    with valkey.Valkey(host="127.0.0.1", port=one.port) as c:
        c.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: b"cluster_state:ok" in c.execute_command("CLUSTER", "INFO"), "the cluster")
    assert not asked(source.endpoints[0].display, Endpoint.parse(one.endpoint)).blockers


def test_a_cluster_on_both_sides_is_the_same_whichever_node_is_given(source: SourceCluster) -> None:
    report = asked(source.endpoints[0].display, source.endpoints[5])
    assert "VK-SAME-SERVER" in report.blockers


def test_what_is_planted_into_a_shard_of_the_source_is_found(source: SourceCluster, nodes: list[Endpoint], shards: list[Any]) -> None:
    del shards
    _, second, third = source.primaries
    any_node = source.endpoints[0].display
    third.config_set("repl-timeout", 5)
    third.execute_command("ACL", "SETUSER", "mover", "on", ">secret", "allkeys", "+@all", "-cluster|getkeysinslot", "-config|set")
    for number in (0, 1, 3, 4, 5):
        with valkey.Valkey(host=source.endpoints[number].host, port=source.endpoints[number].port) as c:
            c.execute_command("ACL", "SETUSER", "mover", "on", ">secret", "allkeys", "+@all")
    name = third.execute_command("CLUSTER", "MYID").decode()
    try:
        report = asked(any_node.replace("redis://", "redis://mover:secret@"), nodes[0])
        assert bad(report, "VK-REPL-TIMEOUT").evidence["shards"] == source.own(2)
        denied = bad(report, "VK-SOURCE-COMMANDS")
        assert denied.evidence["shards"] == source.own(2)
        assert "+cluster|getkeysinslot" in denied.remedy
        assert report.cutover is FenceMode.EXTERNAL
        assert bad(report, "VK-CUTOVER").evidence["shards"] == source.own(2)
        assert "secret" not in str(report.to_json())
        second.execute_command("CLUSTER", "SETSLOT", 6000, "MIGRATING", name)
        moving = bad(asked(any_node, nodes[0]), "VK-SOURCE-CLUSTER")
        assert (moving.severity, moving.evidence["moving"]) == ("blocker", f"slot 6000 at {source.own(1)}")
        goes_on = asked(any_node, nodes[0], PreflightOptions(deliver="push", rate_seconds=0, goes_on=True))
        assert "VK-SOURCE-CLUSTER" not in goes_on.blockers
    finally:
        second.execute_command("CLUSTER", "SETSLOT", 6000, "STABLE")
        third.config_set("repl-timeout", 60)
        source.everywhere("DELUSER", "mover")


def test_a_shard_that_hangs_or_lost_a_slot_is_no_go(source: SourceCluster, nodes: list[Endpoint], shards: list[Any]) -> None:
    del shards
    quick = PreflightOptions(deliver="push", rate_seconds=0, timeout=1.0)
    with held(source.machines[1].process):
        lost = bad(asked(source.endpoints[0].display, nodes[0], quick), "VK-SOURCE-CLUSTER")
    assert lost.severity == "blocker"
    assert source.own(1) in lost.evidence["primaries"]
    source.primaries[2].execute_command("CLUSTER", "DELSLOTS", 16383)  # first: what it has it tells the others
    source.everywhere("DELSLOTS", 16383)
    try:
        assert "without an owner" in bad(asked(source.endpoints[0].display, nodes[0], quick), "VK-SOURCE-CLUSTER").title
    finally:
        source.primaries[2].execute_command("CLUSTER", "ADDSLOTS", 16383)
        until(source.complete, "the slot's owner")


def test_a_source_that_does_not_say_its_slots_is_no_go_and_told_how_to_permit_it(
    server: Server, nodes: list[Endpoint], shards: list[Any]
) -> None:
    del shards
    lone = server("newest-valkey", cluster_enabled="yes")
    unassigned = bad(asked(lone.endpoint, nodes[0]), "VK-SOURCE-CLUSTER")
    assert unassigned.severity == "blocker"
    with valkey.Valkey(host="127.0.0.1", port=lone.port) as c:
        c.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        c.execute_command("ACL", "SETUSER", "mover", "on", ">secret", "allkeys", "+@all", "-cluster|slots")
    denied = bad(asked(lone.endpoint.replace("://", "://mover:secret@"), nodes[0]), "VK-SOURCE-CLUSTER")
    assert "+cluster|slots" in denied.remedy


def test_a_cluster_as_the_source_is_refused_by_everything_that_moves(
    server: Server, nodes: list[Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = server("newest-valkey").endpoint
    source = nodes[0].display
    assert "the target is none" in bad(asked(source, Endpoint.parse(target)), "VK-CLUSTER").title
    for feed in (PsyncFeed(nodes[0], patience=1.0), ScanFeed(nodes[0], tmp_path, lambda _event: None, time.monotonic)):
        with pytest.raises(Refused, match="node of a cluster") as refused:
            asyncio.run(feed.look())
        assert refused.value.code == "VK-CLUSTER"
    state = ["--state", str(tmp_path / "state")]
    words = ["--source", source, "--target", target, "--acknowledge", "all", "--report", str(tmp_path / "report"), *state]
    assert run(["migrate", "run", *words]) == ExitCode.NOT_RUN
    assert "VK-CLUSTER" in "".join(capsys.readouterr())
    serving = ["--source", source, "--listen", "127.0.0.1:0", "--allow", "127.0.0.1", "--target-version", "8.1"]
    assert run(["migrate", "gateway", *serving, *state]) == ExitCode.NOT_RUN
    assert "node of a cluster" in "".join(capsys.readouterr())
