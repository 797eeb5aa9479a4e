"""A cluster becomes another cluster: a lane for each shard, one cut-over for all, while writers write and slots move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_pair import Clusters, Roamers, clusters, fill
from tests.support.writers import lost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.server]


@pytest.fixture(params=[("redis-8.0", "valkey-9.1", 3, 3)])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clusters]:
    source, target, ours, theirs = request.param
    with clusters(source, target, tmp_path, (ours, theirs)) as found:
        yield found


@pytest.mark.parametrize("pair", [("redis-8.0", "valkey-9.1", 3, 3), ("redis-7.0", "valkey-8.1", 3, 5)], indirect=True)
def test_a_cluster_moves_to_another_and_no_acknowledged_write_is_lost(pair: Clusters) -> None:
    fill(pair.here, 600)
    with Roamers(pair.source) as writers:
        writers.wait_for_acks(20)
        with pair.run() as run:
            assert run.wait(90) == 0, run.stderr
        writers.stop()
    assert lost(writers.acknowledged(), pair.there) == []
    assert pair.markers() == []
