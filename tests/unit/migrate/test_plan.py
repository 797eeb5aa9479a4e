"""How a migration splits: pure, from facts; every figure follows from them, and what can't start is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.migrate.test_preflight_checks import MIB, SOURCE, TARGET, change, shards, source_shards
from tests.unit.test_house_codes import members
from valkeep.migrate.plan import GATEWAY_BYTES, VERIFIER_BYTES, Plan, plan
from valkeep.migrate.preflight.facts import Permission, Rate, ServerFacts


def planned(source: Mapping[str, Any] = {}, target: Mapping[str, Any] = {}) -> Plan:
    return plan(change(SOURCE, source), change(TARGET, target))


def ways(found: Plan) -> tuple[str, str]:
    return found.read, found.deliver


def test_one_server_to_one_server_is_one_lane_and_replicates() -> None:
    found = planned()
    assert ways(found) == ("psync", "native")
    (lane,) = found.lanes
    assert (lane.source, lane.keys, lane.ranges, lane.slots) == (SOURCE.address, 1000, None, None)
    assert [(one.target, one.slots) for one in lane.gives] == [(TARGET.address, None)]
    assert found.blockers == ()
    assert found.cost.source_forks == {SOURCE.address: 2}
    assert found.cost.target_forks == {TARGET.address: 1}
    assert found.cost.processes == 3
    assert "--deliver" not in found.command


def test_a_lane_for_each_shard_writes_where_its_slots_are() -> None:
    found = planned(source_shards(), shards())
    assert ways(found) == ("psync", "push")
    assert "both sides are clusters" in found.why
    assert [(lane.name, lane.slots, [(one.target, one.slots) for one in lane.gives]) for lane in found.lanes] == [
        ("1", 8192, [("10.0.0.11:6379", 8192)]),
        ("2", 8192, [("10.0.0.12:6379", 8192)]),
    ]
    assert found.blockers == ()
    assert found.cost.processes == 5
    assert found.cost.memory_bytes == 2 * (GATEWAY_BYTES + VERIFIER_BYTES)
    assert found.cost.source_connections == {"10.0.0.31:6379": 10, "10.0.0.32:6379": 10}
    assert found.cost.target_connections == {"10.0.0.11:6379": 10, "10.0.0.12:6379": 10}
    assert found.cost.target_forks == {"10.0.0.11:6379": 1, "10.0.0.12:6379": 1}
    assert found.command.endswith("--deliver push")
    assert any("can't be spread over machines" in text for text in found.advice)


def test_a_primary_without_slots_has_a_lane_that_writes_to_nobody() -> None:
    source = change(SOURCE, source_shards())
    assert source.cluster is not None
    shard = source.cluster.shards[0]
    assert shard.facts is not None
    empty = replace(shard.facts, address="10.0.0.33:6379", run_ids=("9" * 40,))
    idle = replace(shard, address=empty.address, ranges=(), facts=empty)
    cluster = replace(source.cluster, shards=(*source.cluster.shards, idle))
    found = plan(replace(source, cluster=cluster), change(TARGET, shards()))
    assert [(lane.source, lane.slots, bool(lane.gives)) for lane in found.lanes] == [
        ("10.0.0.31:6379", 8192, True),
        ("10.0.0.32:6379", 8192, True),
        ("10.0.0.33:6379", 0, False),
    ]
    assert found.cost.target_forks == {"10.0.0.11:6379": 1, "10.0.0.12:6379": 1}
    assert found.cost.source_forks == {"10.0.0.31:6379": 2, "10.0.0.32:6379": 2, "10.0.0.33:6379": 1}
    assert found.cost.processes == 5
    assert cluster.size == "2 shards and 1 primary without slots"


def test_one_server_into_a_cluster_is_one_lane_that_feeds_every_shard() -> None:
    found = planned({}, shards())
    assert ways(found) == ("psync", "push")
    (lane,) = found.lanes
    assert [one.slots for one in lane.gives] == [8192, 8192]
    assert found.cost.target_connections == {"10.0.0.11:6379": 6, "10.0.0.12:6379": 6}


def test_what_may_not_replicate_is_read_and_written_otherwise() -> None:
    denied = {"commands": {"PSYNC": Permission.DENIED}}
    assert ways(planned(denied)) == ("scan", "native")
    assert planned(denied).cost.source_forks == {SOURCE.address: 0}
    renamed = {"commands": {"REPLICAOF": Permission.MISSING}}
    assert ways(planned({}, renamed)) == ("psync", "push")
    assert "REPLICAOF missing" in planned({}, renamed).why


@pytest.mark.parametrize(
    ("source", "target", "code"),
    [
        (source_shards(), {}, "VK-CLUSTER"),
        (source_shards(served=16000), shards(), "VK-SOURCE-CLUSTER"),
        (source_shards(), shards(moving="slot 1 at 10.0.0.11:6379"), "VK-TARGET-CLUSTER"),
        (source_shards(second={"commands": {"PSYNC": Permission.DENIED}}), shards(), "VK-SOURCE-COMMANDS"),
        ({}, {"run_ids": ("1" * 40,)}, "VK-SAME-SERVER"),
        ({"info": dict.fromkeys(SOURCE.info)}, {}, "VK-INFO-DENIED"),
        ({"mode": "sentinel", "role": "sentinel"}, {}, "VK-PEER"),
    ],
    ids=["one server", "unserved", "moving", "no psync", "the same", "no info", "a sentinel"],
)
def test_what_cannot_start_is_planned_and_said(source: dict[str, Any], target: dict[str, Any], code: str) -> None:
    found = planned(source, target)
    assert code in {finding.code for finding in found.blockers}
    assert found.to_json()["may_start"] is False


def test_keys_in_the_target_are_told_and_no_reason_not_to_plan() -> None:
    full = {"info": {"db0": "keys=3,expires=0,avg_ttl=0"}}
    for found in (planned({}, full), planned(source_shards(), shards(second=full))):
        assert found.blockers == ()
        assert any("--wipe-target" in text for text in found.advice)


def test_disk_and_network_are_the_sum_of_all_lanes_and_of_what_is_written_meanwhile() -> None:
    big = {"info": {"used_memory_dataset": str(5000 * MIB)}, "rate": Rate(10e6, True, 1.0, 5000.0)}
    found = planned(_every(source_shards(), big), shards())
    data = 2 * 5000 * MIB
    seconds = data / 50e6  # the slowest estimate
    assert found.cost.copy_seconds[1] == pytest.approx(seconds)
    assert found.cost.spool_bytes == pytest.approx(data + 20e6 * seconds)
    assert found.cost.network_out_bytes == data
    assert found.cost.gigabit_seconds == pytest.approx(data / 125e6)
    assert found.cost.network_bytes_per_second == 60_000_000


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (Rate(30e6, True, 1.0, 1000.0), "more than half of 1 Gbit/s"),
        (Rate(1e6, True, 1.0, 30_000.0), "the lag was measured"),
        (Rate(1e6, True, 1.0, 500_000.0), "one process has been seen to take in"),
        (None, "could not be measured"),
    ],
    ids=["network", "lag", "processor", "unknown"],
)
def test_what_one_machine_may_not_bear_is_said(rate: Rate | None, words: str) -> None:
    assert any(words in text for text in planned({"rate": rate}).advice)
    assert not any(words in text for text in planned().advice)


def test_the_members_of_its_json_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "plan.md").read_text()
    told = planned(source_shards(), shards()).to_json()
    assert members(text, "JSON: plan") == set(told) - {"schema"}
    assert members(text, "JSON: lanes") == set(told["lanes"][0])
    assert members(text, "JSON: cost") == set(told["cost"])


def _every(source: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same cluster, all shards changed."""
    cluster = source["cluster"]
    found = tuple(replace(shard, facts=_changed(shard.facts, changes)) for shard in cluster.shards)
    return {**source, "cluster": replace(cluster, shards=found)}


def _changed(facts: ServerFacts, changes: Mapping[str, Any]) -> ServerFacts:
    return change(facts, changes)
