"""What if: every combination of settings, each as a drill of its own."""

from __future__ import annotations

import pytest

from valkeep.drill.matrix import Axes, cells
from valkeep.topology.spec import Persistence


def test_every_combination_is_a_drill_with_just_these_settings() -> None:
    found = list(cells(Axes()))
    assert len(found) == 36
    assert len({drill.name for _, drill in found}) == 36
    for row, drill in found:
        spec = drill.topology
        assert spec.setting("min-replicas-to-write", "0") == str(row.min_replicas)
        assert {client.wait for client in drill.load.clients} == {row.wait}
        assert (spec.persistence.value, spec.timeout_ms) == (row.fsync, row.timeout_ms)
        assert row.verdict == "unknown"  # until it was measured


@pytest.mark.parametrize(("timeout", "most"), [(500, 3), (1000, 1), (5000, 1)])
def test_a_timeout_below_the_second_in_which_sentinel_reconnects_may_cost_a_second_failover(timeout: int, most: int) -> None:
    ((_, drill),) = cells(Axes((0,), (0,), (Persistence.EVERYSEC,), (timeout,)))
    (promotions,) = [one for one in drill.expects if one.measure == "promotions"]
    assert (promotions.least, promotions.most) == (1, most)


def test_the_partition_outlasts_the_failover() -> None:
    for row, drill in cells(Axes()):
        assert drill.steps[0].lasts > row.timeout_ms / 1000 + 3
