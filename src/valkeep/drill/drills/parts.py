"""What several drills are made of: clients, topologies, expectations.

Where the bounds come from (measured on 2 cores; the servers' sources say why):

* A failover by Sentinel takes down-after, up to a second each until the quorum is asked, until the promoted node is seen to be primary
  and until a client hears of it: timeout + 0.7 … 2.5 s. A lost election costs 2 × failover-timeout more; that is not expected, and allowed.
* A cluster's takes node-timeout, half of it until the next ping, and less than a second for the vote: timeout + 0.3 … 2 s.
* After +switch-master a sentinel connects to the new primary a second after it last tried the dead one (sentinel.c,
  sentinelReconnectInstance), and counts down-after from the switch. With a shorter down-after it holds the new one for down as well, and
  may replace it once more (at 300 ms: in 5 of 8 runs).
* A plain SENTINEL FAILOVER leaves the old primary writing until Sentinel demotes it: 4 × 2 s, found out every 10 s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from valkeep.drill.script import ClientSpec, Expectation
from valkeep.topology.spec import TopologySpec

__all__ = [
    "EXPLAINED",
    "FAILOVER_TIMEOUT_MS",
    "FAIR",
    "FOLLOWERS",
    "NOTHING_LOST",
    "STAYER",
    "cluster_spec",
    "failed_over",
    "gap",
    "sentinel_spec",
    "took_over",
]

FAILOVER_TIMEOUT_MS: Final = 5000  # stock: 180000; a second attempt comes after twice that
RECONNECT_MS: Final = 1000

FOLLOWERS: Final = tuple(ClientSpec(f"c{number}") for number in range(1, 5))
STAYER: Final = (ClientSpec("c1", follow=False), *FOLLOWERS[1:])
"""One client stays with the node that it first had."""
EXPLAINED: Final = Expectation(
    "unexplained", 0, 0, "every lost write has a cause, lies at the end of its node's stream and within the bound"
)
NOTHING_LOST: Final = Expectation("lost", 0, 0, "nothing that was acked may be gone")
FAIR: Final = Expectation("unexplained", 0, 0, "whatever sound servers do under these faults is explained")


def sentinel_spec(timeout: int) -> TopologySpec:
    return replace(TopologySpec.sentinel(), timeout_ms=timeout, failover_timeout_ms=FAILOVER_TIMEOUT_MS)


def cluster_spec(timeout: int) -> TopologySpec:
    return replace(TopologySpec.cluster(), timeout_ms=timeout)


def failed_over(count: int = 1) -> Expectation:
    return Expectation("promotions", count, count, "one node after the other reigns")


def took_over(timeout: int) -> Expectation:
    """For Sentinel where the old primary does not answer; see above for short timeouts."""
    if timeout >= RECONNECT_MS:
        return failed_over()
    return Expectation("promotions", 1, 3, "down-after is shorter than the second that Sentinel takes to connect to a new primary")


def gap(timeout: int, sentinel: bool = True) -> Expectation:
    most = timeout + 2 * FAILOVER_TIMEOUT_MS + 6000 if sentinel else 2.5 * timeout + 4000
    return Expectation("gap_ms", timeout * 0.5, most, "silence is noticed after the timeout, and not before")
