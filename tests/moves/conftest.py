"""Fixtures of tests that move whole clusters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_pair import Clusters, clusters


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A net that no busy machine comes near to."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clusters]:
    """Two clusters. Its parameter: (the source's server, the target's, how many shards each has)."""
    source, target, ours, theirs = getattr(request, "param", ("redis-8.0", "valkey-9.1", 3, 3))
    with clusters(source, target, tmp_path, (ours, theirs)) as found:
        yield found
