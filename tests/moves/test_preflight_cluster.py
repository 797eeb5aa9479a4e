"""Preflight with a real cluster as the target: every shard is asked, and what is planted into one of them is found and named."""

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
from valkeep.cli import run
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ExitCode, Refused
from valkeep.migrate.feed.psync import PsyncFeed
from valkeep.migrate.feed.scan import ScanFeed
from valkeep.migrate.preflight import PreflightOptions, PreflightReport, preflight
from valkeep.migrate.preflight.finding import Finding

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


def test_a_cluster_as_the_source_is_refused_by_everything_that_moves(
    server: Server, nodes: list[Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = server("newest-valkey").endpoint
    source = nodes[0].display
    assert "not supported yet" in bad(asked(source, Endpoint.parse(target)), "VK-CLUSTER").title
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
