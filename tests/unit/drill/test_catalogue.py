"""The catalogue: every drill can be done, expects numbers and teaches something; other packages bring their own."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from valkeep.drill import catalogue, faults
from valkeep.drill.catalogue import GROUP, drills, find
from valkeep.drill.drills import BUILT_IN, Maker
from valkeep.drill.script import Drill, Expectation, Step, parse_schedule, schedule_text
from valkeep.errors import UsageError, ValkeepError
from valkeep.topology.spec import TopologySpec

OURS = Drill("ours", "Ours.", TopologySpec.sentinel(), (Step("kill", "primary"),), (Expectation("unexplained", 0, 0),))
NAMES = [maker(1000).name for maker in BUILT_IN]
WANTED = {
    "sentinel-kill-primary", "sentinel-plain-failover", "sentinel-coordinated-failover", "sentinel-partition-primary", "sentinel-partition-with-wait",
    "sentinel-quorum-loss", "sentinel-rolling-restart", "sentinel-restart-empty-primary", "cluster-kill-primary", "cluster-kill-shard",
    "cluster-redirects", "cluster-slot-migration", "cluster-distribution", "cluster-partition", "standalone-machine-crash",
}  # fmt: skip


def ours(timeout: int) -> Drill:
    return find("sentinel-kill-primary", timeout)


def no_drill(_timeout: int) -> str:
    return "no drill"


def with_entries(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    listed = [EntryPoint(name, f"{__name__}:{value}", GROUP) for name, value in entries.items()]
    made: Any = lambda group: [entry for entry in listed if entry.group == group]  # noqa: E731
    monkeypatch.setattr(catalogue, "entry_points", made)


def test_all_drills_that_were_asked_for_are_there_under_names_of_their_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) >= WANTED


@pytest.mark.parametrize("timeout", [300, 1000, 30_000])
@pytest.mark.parametrize("maker", BUILT_IN, ids=NAMES)
def test_each_can_be_done_teaches_something_and_expects_numbers(maker: Maker, timeout: int) -> None:
    drill = maker(timeout)
    faults.check(drill.steps, drill.topology, drill.load, frozenset({"partition", "delay", "fsync", "full-disk"}))
    assert parse_schedule(schedule_text(drill.steps)) == drill.steps
    assert drill.teaches.endswith(".")
    assert drill.expects
    assert all(one.least is not None or one.most is not None for one in drill.expects)
    assert all(one.least is None or one.most is None or one.least <= one.most for one in drill.expects)
    assert any(one.measure == "unexplained" and one.most == 0 for one in drill.expects)
    assert (drill.warm_up, drill.warm_operations) >= (2.0, 10_000)


def test_an_unknown_drill_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        find("cluster-kil-primary")
    assert "cluster-kill-primary" in caught.value.remedy
    with pytest.raises(UsageError) as caught:
        find("xyzzy")
    assert "drill list" in caught.value.remedy


def test_drills_of_other_packages_are_found_as_values_and_as_functions_of_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entries(monkeypatch, ours="OURS")
    assert find("ours") == OURS
    assert list(drills())[-1] == "ours"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"twice": "ours"}, "is there already"),
        ({"broken": "nothing_here"}, "can not be loaded"),
        ({"wrong": "no_drill"}, "is no drill"),
        ({"number": "GROUP"}, "is no drill"),
    ],
)
def test_a_drill_of_another_package_that_is_none_is_said_with_its_name(
    monkeypatch: pytest.MonkeyPatch, entry: dict[str, str], message: str
) -> None:
    with_entries(monkeypatch, **entry)
    with pytest.raises(ValkeepError, match=message) as caught:
        drills()
    assert caught.value.remedy


@pytest.mark.parametrize(("timeout", "most"), [(300, 3), (1000, 1), (30_000, 1)])
def test_a_second_failover_is_allowed_where_sentinel_is_told_to_be_faster_than_it_reconnects(timeout: int, most: int) -> None:
    (expected,) = (one for one in find("sentinel-kill-primary", timeout).expects if one.measure == "promotions")
    assert (expected.least, expected.most) == (1, most)
