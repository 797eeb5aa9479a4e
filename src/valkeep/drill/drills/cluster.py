"""Drills on a cluster."""

from __future__ import annotations

from dataclasses import replace

from valkeep.drill.drills.parts import EXPLAINED, FAIR, NOTHING_LOST, STAYER, cluster_spec, failed_over, gap
from valkeep.drill.script import Drill, Expectation, Load, Step
from valkeep.topology.spec import Persistence


def kill_primary(timeout: int) -> Drill:
    return Drill(
        "cluster-kill-primary",
        "What a crash of one primary costs a cluster: its slots wait for node-timeout and a vote; with full coverage asked for, so do all others.",
        cluster_spec(timeout),
        (Step("kill", "primary:1", until="moved"),),
        (EXPLAINED, failed_over(), gap(timeout, sentinel=False), Expectation("lost", 0, 3000, "only what was on its way to the replica")),
        settle=0.5,
    )


def kill_shard(timeout: int) -> Drill:
    return Drill(
        "cluster-kill-shard",
        "A primary and its only replica gone: nobody can be promoted, the cluster is down until they are back, and the AOF brings all back.",
        replace(cluster_spec(timeout), persistence=Persistence.EVERYSEC),
        (Step("kill", "shard:1", lasts=timeout / 1000 + 2.0, until="recovered"),),
        (
            NOTHING_LOST,
            EXPLAINED,
            Expectation("gap_ms", timeout + 2000, timeout + 20_000, "no failover can help; the shard has to come back"),
        ),
    )


def redirects(timeout: int) -> Drill:
    return Drill(
        "cluster-redirects",
        "CLUSTER FAILOVER by hand: every client's map is wrong for a moment, MOVED puts it right, and nothing is lost.",
        cluster_spec(timeout),
        (Step("promote", "primary:1", until="moved"), Step("promote", "primary:2", after=0.5, until="moved")),
        (
            NOTHING_LOST,
            EXPLAINED,
            failed_over(2),
            Expectation("redirects", 1, None, "clients are told where the slots went"),
            Expectation("gap_ms", None, 3000, "a handover, not a failure"),
        ),
    )


def slot_migration(timeout: int) -> Drill:
    return Drill(
        "cluster-slot-migration",
        "Slots move from one shard to another under load: clients follow MOVED and ASK, and no write is lost, doubled or out of order.",
        cluster_spec(timeout),
        (Step("slot-migration", "primary:1,primary:2", until="recovered"),),
        (
            NOTHING_LOST,
            EXPLAINED,
            failed_over(0),
            Expectation("redirects", 1, None, "clients are told where the slots went"),
            Expectation("gap_ms", None, 3000, "a slot is away for less than a moment"),
        ),
    )


def distribution(timeout: int) -> Drill:
    return Drill(
        "cluster-distribution",
        "Keys spread over the shards by their slots: counted on each, no shard has twice its share, and every slot is served.",
        cluster_spec(timeout),
        (),
        (
            NOTHING_LOST,
            EXPLAINED,
            failed_over(0),
            Expectation("keys_least_share", 0.2, None, "a third each, give or take"),
            Expectation("keys_most_share", None, 0.5, "a third each, give or take"),
            Expectation("redirects", 0, 0, "a client that knows the map asks the right node"),
        ),
        load=Load(tags=120),
        warm_up=3.0,
    )


def partition(timeout: int) -> Drill:
    return Drill(
        "cluster-partition",
        "A primary in the minority with a client on its side: it stops by itself after node-timeout, so the loss is bounded, unlike Sentinel's.",
        cluster_spec(timeout),
        (Step("partition", "primary:1,c1", lasts=2 * timeout / 1000 + 3.0, until="settled"),),
        (
            Expectation("lost", 1, None, "what the minority acked before it stopped"),
            Expectation("loss_window_ms", None, 1.5 * timeout + 2000, "it stops after node-timeout"),
            EXPLAINED,
            failed_over(),
        ),
        load=Load(clients=STAYER),
    )


def random(timeout: int) -> Drill:
    return Drill(
        "cluster-random",
        "The same on a cluster, on any of its shards.",
        cluster_spec(timeout),
        (),
        (FAIR,),
        load=Load(clients=STAYER, rate=6000),
        random=4,
    )
