"""A shard of the source is emptied while the cluster moves, and functions come and go on every shard: the target follows, and keeps what other shards have."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cluster_pair import Clusters, fill
from tests.support.moving import cut_over, nodes_of
from tests.support.rdb_oracle import said
from tests.support.waiting import until
from valkeep.migrate.marker import is_marker
from valkeep.runtime.local import LocalDeployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.server]
LIBRARY = "#!lua name=%s\nredis.register_function('%s', function() return %d end)"


def libraries(node: Any) -> dict[bytes, bytes]:
    return {library[1]: library[-1] for library in node.execute_command("FUNCTION", "LIST", "WITHCODE")}


def data(pair: Clusters, cluster: LocalDeployment) -> set[bytes]:
    return {key for key in pair.keys(cluster) if not is_marker(0, key)}


def same(pair: Clusters) -> bool:
    keys = data(pair, pair.source)
    return keys == data(pair, pair.target) and all(said(pair.here, key) == said(pair.there, key) for key in sorted(keys))


@pytest.mark.parametrize("pair", [("redis-7.0", "valkey-8.1", 2, 3), ("valkey-9.1", "valkey-9.1", 2, 3)], indirect=True)
def test_what_a_shard_loses_is_lost_in_the_target_and_nothing_else(pair: Clusters) -> None:
    fill(pair.here, 600)
    source, target = nodes_of(pair.source), nodes_of(pair.target)
    for node in source:
        node.function_load(LIBRARY % ("old", "old", 1))
    with pair.run("--cutover", "manual") as run:
        run.wait_for("waiting")
        emptied = source[0]
        other = source[1].dbsize()
        emptied.flushall()
        for number, node in enumerate(source):  # one after the other, as people do it
            node.function_delete("old")
            node.function_load(LIBRARY % ("new", "new", 2))
            if not number:
                until(lambda: all(b"new" in libraries(one) for one in target), "the first shard's library")
        fill(pair.here, 60)
        until(lambda: all(set(libraries(node)) == {b"new"} for node in target), "the libraries")
        assert source[1].dbsize() >= other
        until(lambda: same(pair), "the same keys with the same values on both sides")
        cut_over(pair, run)  # what a FLUSHALL spoils is compared again
    assert pair.markers() == []
    for node in (*source, *target):
        node.close()
