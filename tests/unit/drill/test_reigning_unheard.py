"""Who reigned when on a topology whose logs nobody has: from samples of INFO alone, and no stricter than what they prove."""

from __future__ import annotations

import pytest

from valkeep.drill.checkers.promise import Settings
from valkeep.drill.checkers.reigns import ALWAYS, NEVER, Cause, Reign
from valkeep.drill.reigning import Struck, reigns_of
from valkeep.drill.script import parse_schedule
from valkeep.drill.watch import Sample
from valkeep.topology.spec import FoundSpec, Kind, NodeSpec, Persistence, TopologySpec
from valkeep.topology.view import data_view

MS = 1_000_000


def seen(since: int, until: int, role: str, replid: str, old: str = "", old_offset: int = -1) -> list[Sample]:
    """Every 100 ms; the offset is the time in ms."""
    return [Sample(at * MS, (at + 1) * MS, role, replid, at, 2, "", 0, old, old_offset) for at in range(since, until, 100)]


def reigns(spec: TopologySpec, samples: dict[str, list[Sample]], settings: Settings | None = None) -> list[Reign]:
    named = {node.name: samples.get(node.name, []) for node in spec.nodes() if node.role != "sentinel"}
    found = reigns_of(spec, settings or Settings(spec.kind, spec.persistence), named, [], [], 0)
    return list(found)


def test_a_promotion_is_read_from_info_and_begins_where_the_node_was_last_something_else() -> None:
    first, second = reigns(
        TopologySpec.sentinel(),
        {"n1": seen(0, 5000, "primary", "a"), "n2": [*seen(0, 6500, "replica", "a"), *seen(6500, 9000, "primary", "b", "a", 4930)]},
    )
    assert (first.node, second.node, second.begins, second.deposed) == ("n1", "n2", 6400 * MS, None)
    assert first.deposed is not None
    assert first.deposed.cause is Cause.FAILOVER
    assert first.deposed.bound.since == 4900 * MS  # the last sample that the successor has
    assert first.deposed.bound.until == NEVER  # cut off for as long as somebody liked


def test_what_counts_from_a_fault_that_nobody_tells_of_bounds_nothing() -> None:
    spec = TopologySpec.sentinel()
    first, _ = reigns(
        spec,
        {"n1": seen(0, 1000, "primary", "a"), "n2": [*seen(0, 31_000, "replica", "a"), *seen(31_000, 32_000, "primary", "b", "a", 40)]},
        Settings(spec.kind, spec.persistence, min_replicas=1, max_lag=2),
    )
    assert first.deposed is not None
    assert first.deposed.bound.since == 0  # of the sample at 0; not max-lag before a promotion half a minute later


def test_a_cluster_says_itself_how_long_a_minority_acks() -> None:
    spec = TopologySpec.cluster()
    first = reigns(
        spec, {"n1": seen(0, 5000, "primary", "a"), "n4": [*seen(0, 6500, "replica", "a"), *seen(6500, 9000, "primary", "b", "a", 4930)]}
    )[0]
    assert first.deposed is not None
    assert first.deposed.bound.until == (6400 + 1500 + 1000) * MS


@pytest.mark.parametrize(
    ("persistence", "since"), [(Persistence.NONE, ALWAYS), (Persistence.EVERYSEC, (4901 - 2000) * MS), (Persistence.ALWAYS, NEVER)]
)
def test_who_came_back_under_a_new_id_may_have_lost_its_machine(persistence: Persistence, since: int) -> None:
    spec = TopologySpec.standalone()
    first, second = reigns(
        spec, {"n1": [*seen(0, 5000, "primary", "a"), *seen(6000, 9000, "primary", "c")]}, Settings(spec.kind, persistence)
    )
    assert (first.node, second.node) == ("n1", "n1")
    assert first.deposed is not None
    assert (first.deposed.cause, first.deposed.at, first.deposed.bound.since) == (Cause.CRASH, 4901 * MS, since)


def test_who_comes_back_with_its_old_stream_after_its_successor_began_does_not_succeed_it() -> None:
    found = reigns(
        TopologySpec.sentinel(),
        {
            "n1": [*seen(0, 5000, "primary", "a"), *seen(8000, 8500, "primary", "x", "a", 4000), *seen(8500, 9000, "replica", "b")],
            "n2": [*seen(0, 6500, "replica", "a"), *seen(6500, 9000, "primary", "b", "a", 4930)],
        },
    )
    assert [one.node for one in found if one.deposed is None and one.begins == 6400 * MS] == ["n2"]
    in_line = [one for one in found if not one.apart]
    assert [one.node for one in in_line] == ["n1", "n2"]


def _promoted_again(until: int) -> list[Reign]:
    """n2 succeeds n1 and n3 succeeds n2, which is not told, and is promoted again. It reigns on under its id until ``until`` (ms), then under another."""
    return reigns(
        TopologySpec.sentinel(),
        {
            "n1": seen(0, 5000, "primary", "a"),
            "n2": [*seen(0, 6500, "replica", "a"), *seen(6500, until, "primary", "b", "a", 4930), *seen(until, 12_000, "primary", "d")],
            "n3": [
                *seen(0, 7000, "replica", "a"),
                *seen(7000, 8000, "replica", "b"),
                *seen(8000, 11_000, "primary", "c", "b", 7890),
                *seen(11_000, 12_000, "replica", "c"),  # it is told, and has nothing yet of the one that it follows
            ],
        },
    )


def test_a_reign_comes_to_nothing_when_the_one_before_it_is_promoted_again() -> None:
    first, second, void = _promoted_again(until=12_000)
    assert [(one.node, one.apart) for one in (first, second, void)] == [("n1", False), ("n2", False), ("n3", True)]
    assert second.deposed is None
    assert void.deposed is not None
    assert (void.deposed.bound.since, void.deposed.until) == (ALWAYS, 11_001 * MS)


def test_a_reign_did_not_come_to_nothing_when_the_one_before_it_came_back_under_another_id() -> None:
    assert ("n3", 7900 * MS, False) in [(one.node, one.begins, one.apart) for one in _promoted_again(until=9000)]


def _gave_way(spec: TopologySpec, until: int, *struck: Struck, alive: int = 70_000) -> Reign:
    """n1 hangs from 5 s on, and is a primary under its id again from 0.5 s before ``until`` to ``alive``; n2 succeeds it at 6.5 s, and is its replica from
    ``until`` on (ms): n2's reign."""
    two = "n2" if spec.kind is Kind.SENTINEL else "n4"
    found = reigns_of(
        spec,
        Settings(spec.kind, spec.persistence),
        {
            **{node.name: [] for node in spec.nodes() if node.role != "sentinel"},
            "n1": [*seen(0, 5000, "primary", "a"), *seen(until - 500, alive, "primary", "a")],
            two: [
                *seen(0, 6500, "replica", "a"),
                *seen(6500, until, "primary", "b", "a", 4930),
                *seen(until, 70_000, "replica", "a"),
            ],
        },
        [],
        struck,
        0,
    )
    return next(one for one in found if one.node == two)


def test_a_reign_that_lasted_longer_than_two_primaries_take_to_be_told_did_not_come_to_nothing_by_that() -> None:
    """All of it is gone, and that is not explained to the end."""
    late = 6400 * MS + 2 * 19_000 * MS  # 4 × 2 s + 10 s, and a second of slack
    deposed = _gave_way(TopologySpec.sentinel(), 60_000).deposed
    assert deposed is not None
    assert deposed.bound.until == late
    assert deposed.until == 60_001 * MS
    short = _gave_way(TopologySpec.sentinel(), 20_000).deposed
    assert short is not None
    assert short.bound.until == 20_001 * MS


def test_no_cluster_promotes_a_primary_again() -> None:
    reign = _gave_way(TopologySpec.cluster(), 60_000)
    assert (reign.apart, reign.deposed) == (False, None)


def test_a_coordinated_failover_may_lose_nothing_of_a_reign_that_came_to_nothing() -> None:
    (step,) = parse_schedule("promote:primary(mode=coordinated)@0")
    deposed = _gave_way(TopologySpec.sentinel(), 20_000, Struck(step, ("n2",), 19_000 * MS, 19_001 * MS)).deposed
    assert deposed is not None
    assert (deposed.cause, deposed.bound.since) == (Cause.COORDINATED, NEVER)


def test_a_reign_did_not_come_to_nothing_when_the_one_before_it_was_gone_by_then() -> None:
    reign = _gave_way(TopologySpec.sentinel(), 20_000, alive=19_900)
    assert (reign.apart, reign.deposed) == (False, None)


def test_info_names_the_stream_that_a_node_had_before_its_own() -> None:
    text = b"role:master\r\nmaster_replid:%b\r\nmaster_replid2:%b\r\nmaster_repl_offset:99\r\nsecond_repl_offset:%d\r\n"
    view = data_view("n1", [text % (b"b" * 40, b"a" * 40, 57)])
    assert (view.old, view.old_offset) == ("a" * 40, 56)
    never = data_view("n1", [text % (b"b" * 40, b"0" * 40, -1)])
    assert (never.old, never.old_offset) == ("", -1)


def test_a_topology_that_was_found_has_the_nodes_and_slots_that_it_has() -> None:
    nodes = (NodeSpec("n1", "primary", 0), NodeSpec("n2", "primary", 1), NodeSpec("n3", "replica", 1, "n2"))
    spec = FoundSpec(Kind.CLUSTER, shards=2, replicas=1, found=nodes, owned=(((0, 9), (100, 16383)), ((10, 99),)), called="mine")
    assert spec.nodes() == nodes
    assert [spec.shard_of_slot(slot) for slot in (0, 9, 10, 99, 100, 16383)] == [0, 0, 1, 1, 0, 0]
    assert spec.described == "2 primaries + 1 replicas, node-timeout 1000 ms"
    assert (spec.monitored, TopologySpec.sentinel().monitored) == ("mine", "valkeep")
    assert TopologySpec.cluster().slices == (((0, 5460),), ((5461, 10921),), ((10922, 16383),))
    assert {TopologySpec.cluster().shard_of_slot(slot) for slot in (5461, 10921)} == {1}
    assert TopologySpec.sentinel().shard_of_slot(9999) == 0
