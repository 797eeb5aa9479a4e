"""The drills that come with Valkeep, by the topology that they need.

Each is a function of the timeout (down-after or node-timeout, in ms), because what one may expect of a failover depends on it. What is
expected is fixed here, in numbers; a drill that shows something else is invalid, also where it shows something better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from valkeep.drill.drills import cluster, sentinel, standalone
from valkeep.drill.script import Drill

__all__ = ["BUILT_IN", "RANDOM", "Maker"]

Maker = Callable[[int], Drill]

BUILT_IN: Final[tuple[Maker, ...]] = (
    sentinel.kill_primary,
    sentinel.plain_failover,
    sentinel.coordinated_failover,
    sentinel.partition_primary,
    sentinel.partition_with_wait,
    sentinel.quorum_loss,
    sentinel.rolling_restart,
    sentinel.restart_empty_primary,
    cluster.kill_primary,
    cluster.kill_shard,
    cluster.redirects,
    cluster.slot_migration,
    cluster.distribution,
    cluster.partition,
    standalone.machine_crash,
    standalone.machine_crash_always,
)

RANDOM: Final[tuple[Maker, ...]] = (sentinel.random, cluster.random)
"""Not part of ``--all``: each seed is another drill."""
