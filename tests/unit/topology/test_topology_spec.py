"""What should run: descriptions that make sense, and clear words for those that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from valkeep.errors import UsageError
from valkeep.topology.spec import Kind, TopologySpec


def test_a_sentinel_topology_names_primary_replicas_and_sentinels_in_the_order_of_their_start() -> None:
    nodes = TopologySpec.sentinel(replicas=2, sentinels=3).nodes()
    assert [node.name for node in nodes] == ["n1", "n2", "n3", "s1", "s2", "s3"]
    assert [node.role for node in nodes] == ["primary", "replica", "replica", "sentinel", "sentinel", "sentinel"]
    assert {node.of for node in nodes if node.role == "replica"} == {"n1"}


def test_a_cluster_spreads_its_replicas_over_the_shards() -> None:
    nodes = TopologySpec.cluster(shards=3, replicas=2).nodes()
    assert [(node.name, node.of) for node in nodes if node.role == "replica"] == [
        ("n4", "n1"), ("n5", "n2"), ("n6", "n3"), ("n7", "n1"), ("n8", "n2"), ("n9", "n3"),
    ]  # fmt: skip
    assert all(node.shard == int(node.of[1]) - 1 for node in nodes if node.of)


def test_the_last_setting_of_a_name_wins() -> None:
    spec = TopologySpec.sentinel().with_settings(min_replicas_to_write=1).with_settings(min_replicas_to_write=2)
    assert spec.setting("min-replicas-to-write") == "2"
    assert spec.setting("maxmemory", "none") == "none"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": Kind.STANDALONE, "shards": 3},
        {"kind": Kind.STANDALONE, "sentinels": 3},
        {"kind": Kind.CLUSTER, "sentinels": 3},
        {"kind": Kind.SENTINEL, "sentinels": 0},
        {"kind": Kind.SENTINEL, "sentinels": 3, "timeout_ms": 10},
        {"kind": Kind.CLUSTER, "shards": 0},
        {"kind": Kind.CLUSTER, "replicas": 99},
        {"settings": (("maxmemory", "10mb"), ("port", "1"))},
    ],
)
def test_a_topology_that_can_not_be_is_refused_with_a_remedy(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError) as refused:
        replace(TopologySpec.standalone(), **wrong)  # type: ignore[arg-type]
    assert refused.value.remedy


def test_the_quorum_is_more_than_half() -> None:
    assert [TopologySpec.sentinel(sentinels=number).quorum for number in (1, 2, 3, 5)] == [1, 2, 2, 3]
