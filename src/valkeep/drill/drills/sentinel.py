"""Drills on a primary that sentinels watch."""

from __future__ import annotations

from dataclasses import replace

from valkeep.drill.drills.parts import EXPLAINED, FAIR, NOTHING_LOST, STAYER, failed_over, gap, sentinel_spec, took_over
from valkeep.drill.script import HEAL, Drill, Expectation, Load, Step
from valkeep.topology.spec import Persistence


def kill_primary(timeout: int) -> Drill:
    return Drill(
        "sentinel-kill-primary",
        "What a crash of the primary costs: the outage is mostly the time that Sentinel waits before it believes it.",
        sentinel_spec(timeout),
        (Step("kill", "primary", until="settled"),),
        (EXPLAINED, took_over(timeout), gap(timeout), Expectation("lost", 0, 3000, "only what was on its way to the replicas")),
        settle=0.5,
    )


def plain_failover(timeout: int) -> Drill:
    return Drill(
        "sentinel-plain-failover",
        "SENTINEL FAILOVER of a healthy primary: a client that stays connected writes to the deposed one for seconds, and all of it is lost.",
        sentinel_spec(timeout),
        (Step("promote", "primary", until="settled", options=(("mode", "plain"),)),),
        (
            Expectation("lost", 1000, None, "the client that stayed was acked by a primary that nobody follows"),
            Expectation("lost_stale_primary", 1000, None, "all after the promotion"),
            EXPLAINED,
            failed_over(),
            Expectation("gap_ms", None, 3000, "who follows +switch-master hardly notices"),
        ),
        load=Load(clients=STAYER),
    )


def coordinated_failover(timeout: int) -> Drill:
    return Drill(
        "sentinel-coordinated-failover",
        "SENTINEL FAILOVER … COORDINATED (Valkey 9.0): the old primary stops writing first, so nothing is lost and clients wait a moment.",
        sentinel_spec(timeout),
        (Step("promote", "primary", until="settled", options=(("mode", "coordinated"),)),),
        (NOTHING_LOST, EXPLAINED, failed_over(), Expectation("gap_ms", None, 5000, "writes are held while the replica catches up")),
        needs_valkey=(9, 0),
    )


def partition_primary(timeout: int) -> Drill:
    return Drill(
        "sentinel-partition-primary",
        "A primary cut off with a client on its side: it acks for the whole partition and for seconds after, and all of that is lost.",
        sentinel_spec(timeout),
        (Step("partition", "primary,c1", lasts=4.0, until="settled"),),
        (
            Expectation("lost", 1000, None, "nobody else heard of these writes"),
            Expectation("lost_partition", 500, None, "acked while cut off"),
            EXPLAINED,
            took_over(timeout),
            gap(timeout),
        ),
        load=Load(clients=STAYER),
    )


def partition_with_wait(timeout: int) -> Drill:
    return Drill(
        "sentinel-partition-with-wait",
        "The same partition with WAIT 1 after each write: what the minority acks it does not count as written, so nothing acked is lost.",
        sentinel_spec(timeout),
        (Step("partition", "primary,c1", lasts=4.0, until="settled"),),
        (
            Expectation("lost", 0, 0, "WAIT counted a replica for each of them"),
            Expectation("indefinite", 1, None, "the minority's writes are in doubt, and said to be"),
            EXPLAINED,
            took_over(timeout),
        ),
        load=Load(clients=tuple(replace(client, wait=1, wait_ms=100) for client in STAYER)),
        warm_up=3.0,
    )


def quorum_loss(timeout: int) -> Drill:
    return Drill(
        "sentinel-quorum-loss",
        "Two of three sentinels gone, then the primary: nobody may decide, so nothing is promoted until the sentinels are back.",
        sentinel_spec(timeout),
        (
            Step("quorum-loss", "sentinel:3", until="none"),
            Step("kill", "primary", until="none"),
            Step(HEAL, "quorum-loss", after=timeout / 1000 + 3.0, until="recovered"),
        ),
        (
            Expectation("gap_ms", timeout + 3000, timeout + 60_000, "no failover without a majority of sentinels"),
            Expectation("unexplained", 0, 0, "the loss has a cause"),
        ),
    )


def rolling_restart(timeout: int) -> Drill:
    coordinated = (("mode", "coordinated"),)
    return Drill(
        "sentinel-rolling-restart",
        "A rolling upgrade done right: replicas first, then a coordinated failover, then the old primary. Nothing is lost.",
        replace(sentinel_spec(timeout), persistence=Persistence.EVERYSEC),
        (
            Step("restart", "n2", until="redundant"),
            Step("restart", "n3", until="redundant"),
            Step("promote", "primary", until="settled", options=coordinated),
            Step("restart", "n1", until="redundant"),
        ),
        (NOTHING_LOST, EXPLAINED, failed_over(), Expectation("gap_ms", None, 5000, "one handover is all that clients see")),
        needs_valkey=(9, 0),
    )


def restart_empty_primary(timeout: int) -> Drill:
    return Drill(
        "sentinel-restart-empty-primary",
        "A primary without persistence that restarts by itself is back before Sentinel notices: it is empty, and empties its replicas.",
        sentinel_spec(timeout),
        (Step("restart-empty", "primary", until="redundant"),),
        (
            Expectation("lost", 5000, None, "everything acked before the restart is gone, on every node"),
            Expectation("lost_restart", 5000, None, "and this is why"),
            EXPLAINED,
            Expectation("gap_ms", None, timeout, "it was faster than the failover"),
        ),
    )


def random(timeout: int) -> Drill:
    return Drill(
        "sentinel-random",
        "Faults drawn from the seed, one after the other: whatever comes of it is explained, and all is well at the end.",
        sentinel_spec(timeout),
        (),
        (FAIR,),
        load=Load(clients=STAYER, rate=6000),
        random=4,
    )
