"""A source whose cluster has a primary without slots: a run has a lane for it, so preflight asks and judges it as the others, and the plan counts it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
import valkey

from tests.support.cluster_pair import fill
from tests.support.cluster_target import cluster_of
from tests.support.waiting import until
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.plan import Gives, survey
from valkeep.migrate.preflight import PreflightOptions, PreflightReport, preflight
from valkeep.migrate.preflight.finding import Finding, Severity, Verdict
from valkeep.migrate.preflight.render import lines
from valkeep.runtime.local import LocalDeployment
from valkeep.runtime.node import Process

PUSH = PreflightOptions(deliver="push", rate_seconds=0, timeout=2.0)


class Source:
    """Three shards, and a primary that has no slots: ``idle``."""

    def __init__(self, cluster: LocalDeployment, lone: LocalDeployment) -> None:
        machines = [*cluster.machines.values(), *lone.machines.values()]
        self.endpoints = [machine.endpoint for machine in machines]
        self.nodes = [valkey.Valkey(host=one.host, port=one.port, decode_responses=True) for one in self.endpoints]
        self.idle = self.nodes[-1]
        self.process: Process = machines[-1].process
        self.own = str(self.endpoints[-1].address)

    def join(self) -> None:
        self.idle.flushall()
        self.idle.execute_command("CLUSTER RESET", "HARD")
        self.nodes[0].execute_command("CLUSTER MEET", self.endpoints[-1].host, self.endpoints[-1].port)
        until(lambda: all(self._knows(node) for node in self.nodes), "they meet")

    def _knows(self, node: valkey.Valkey) -> bool:
        said = str(node.execute_command("CLUSTER NODES"))
        return self.own in said and "handshake" not in said and len(node.execute_command("CLUSTER SLOTS")) == 3

    def mover(self, *rules: str) -> Endpoint:
        """A user of every node; ``rules``: of what the idle one denies."""
        for node in self.nodes:
            node.execute_command("ACL SETUSER", "mover", "reset", "on", ">secret", "allkeys", "allchannels", "+@all")
        if rules:
            self.idle.execute_command("ACL SETUSER", "mover", *rules)
        return Endpoint.parse(f"redis://mover:secret@{self.endpoints[0].address}")


@pytest.fixture(scope="module")
def joined() -> Iterator[tuple[Source, Endpoint]]:
    with cluster_of("redis-7.0") as cluster, cluster_of("redis-7.0", 1) as lone, cluster_of("newest-valkey", 1) as target:
        found = Source(cluster, lone)
        found.join()
        (there,) = (machine.endpoint for machine in target.machines.values())
        with valkey.Valkey(host=there.host, port=there.port) as c:
            c.flushall()
        with valkey.ValkeyCluster(host=found.endpoints[0].host, port=found.endpoints[0].port) as c:
            c.flushall(target_nodes=valkey.ValkeyCluster.PRIMARIES)  # what the deployment left when it looked whether they answer
            fill(c, 60)
        yield found, there
        for node in found.nodes:
            node.close()


@pytest.fixture
def source(joined: tuple[Source, Endpoint]) -> Source:
    return joined[0]


@pytest.fixture
def target(joined: tuple[Source, Endpoint]) -> Endpoint:
    return joined[1]


def asked(source: Endpoint, target: Endpoint, options: PreflightOptions = PUSH) -> PreflightReport:
    return asyncio.run(preflight(source, target, options, lambda _event: None))


def bad(report: PreflightReport, code: str) -> Finding:
    (found,) = [finding for finding in report.findings if finding.code == code and finding.severity is not Severity.OK]
    return found


def test_a_primary_without_slots_that_is_as_it_should_be_is_no_obstacle(source: Source, target: Endpoint) -> None:
    for given in (source.mover(), source.endpoints[-1]):  # whichever node is given
        report = asked(given, target)
        assert report.blockers == ()
        assert report.verdict is not Verdict.NO_GO
        assert report.source.cluster is not None
        assert [shard.slots for shard in report.source.cluster.shards] == [5461, 5461, 5462, 0]
        assert report.source.cluster.shards[-1].address == source.own
        assert [facts.keys for facts in report.source.shards][-1] == 0
        assert "(3 shards and 1 primary without slots)" in next(lines(report)).plain
        assert not [one for one in report.findings if one.severity is not Severity.OK and one.evidence.get("shards") == source.own]
        assert report.target is not None
        assert report.target.cluster is not None
        assert len(report.target.cluster.shards) == 1


def test_what_it_denies_is_no_go_and_names_it(source: Source, target: Endpoint) -> None:
    report = asked(source.mover("-psync"), target)
    assert report.verdict is Verdict.NO_GO
    denied = bad(report, "VK-SOURCE-COMMANDS")
    assert denied.severity is Severity.BLOCKER
    assert denied.evidence["shards"] == source.own
    assert "PSYNC denied" in denied.evidence["source"]
    assert "+psync" in denied.remedy


def test_its_settings_are_judged_as_those_of_the_others(source: Source, target: Endpoint) -> None:
    source.idle.config_set("repl-timeout", 5)
    try:
        assert bad(asked(source.mover(), target), "VK-REPL-TIMEOUT").evidence["shards"] == source.own
    finally:
        source.idle.config_set("repl-timeout", 60)


def test_one_that_hangs_or_does_not_let_us_in_is_no_go(source: Source, target: Endpoint) -> None:
    given = source.mover()
    source.idle.execute_command("ACL DELUSER", "mover")
    lost = bad(asked(given, target), "VK-SOURCE-CLUSTER")
    assert lost.severity is Severity.BLOCKER
    assert source.own in lost.evidence["primaries"]
    given = source.mover()
    source.process.pause()
    try:
        lost = bad(asked(given, target, PreflightOptions(deliver="push", rate_seconds=0, timeout=0.5)), "VK-SOURCE-CLUSTER")
    finally:
        source.process.resume()
        until(lambda: not any("fail" in str(node.execute_command("CLUSTER NODES")) for node in source.nodes), "nobody takes it for dead")
    assert source.own in lost.evidence["primaries"]


def test_a_full_census_reads_it_too(source: Source, target: Endpoint) -> None:
    report = asked(source.mover(), target, PreflightOptions(deliver="push", rate_seconds=0, full_census=True))
    seen = [one.census.seen for one in report.source.shards if one.census is not None and one.census.mode == "full"]
    assert len(seen) == 4
    assert (sum(seen), seen[-1]) == (60, 0)


def test_it_has_a_lane_in_the_plan_that_carries_nothing(source: Source, target: Endpoint) -> None:
    found = asyncio.run(survey(source.mover(), target, lambda _event: None, rate_seconds=0))
    assert [(lane.slots, bool(lane.gives)) for lane in found.lanes] == [(5461, True), (5461, True), (5462, True), (0, False)]
    assert found.lanes[0].gives == (Gives(target.address, 5461),)
    assert found.lanes[-1].keys == 0
    assert found.to_json()["lanes"][-1]["slots"] == 0
    assert not found.blockers
    assert found.cost.target_forks == {target.address: 3}
    assert found.cost.source_forks[source.own] == 1
    with contextlib.closing(valkey.Valkey(host=target.host, port=target.port)) as c:
        assert c.dbsize() == 0
