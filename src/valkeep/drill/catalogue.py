"""The drills that come with Valkeep, and how others are added.

Each is a function of the timeout (down-after or node-timeout, in ms), because what one may expect of a failover depends on it. What is
expected is fixed here, in numbers; a drill that shows something else is invalid, also where it shows something better.

Whoever has drills of their own registers them under the entry point group ``valkeep.drills``: a `Drill`, or a function of the timeout
that returns one::

    [project.entry-points."valkeep.drills"]
    our-failover = "our_package.drills:our_failover"

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

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Final

from valkeep.drill.script import HEAL, ClientSpec, Drill, Expectation, Load, Step
from valkeep.errors import UsageError, ValkeepError
from valkeep.topology.spec import Persistence, TopologySpec

__all__ = ["BUILT_IN", "GROUP", "RANDOM", "drills", "find", "random_drills"]

GROUP: Final = "valkeep.drills"
TIMEOUT_MS: Final = 1000
FAILOVER_TIMEOUT_MS: Final = 5000
RECONNECT_MS: Final = 1000

Maker = Callable[[int], Drill]

FOLLOWERS: Final = tuple(ClientSpec(f"c{number}") for number in range(1, 5))
STAYER: Final = (ClientSpec("c1", follow=False), *FOLLOWERS[1:])
EXPLAINED: Final = Expectation(
    "unexplained", 0, 0, "every lost write has a cause, lies at the end of its node's stream and within the bound"
)
NOTHING_LOST: Final = Expectation("lost", 0, 0, "nothing that was acked may be gone")


def _sentinel(timeout: int) -> TopologySpec:
    return replace(TopologySpec.sentinel(), timeout_ms=timeout, failover_timeout_ms=FAILOVER_TIMEOUT_MS)


def _cluster(timeout: int) -> TopologySpec:
    return replace(TopologySpec.cluster(), timeout_ms=timeout)


def _failed_over(count: int = 1) -> Expectation:
    return Expectation("promotions", count, count, "one node after the other reigns")


def _took_over(timeout: int) -> Expectation:
    """For Sentinel where the old primary does not answer; see above for short timeouts."""
    if timeout >= RECONNECT_MS:
        return _failed_over()
    return Expectation("promotions", 1, 3, "down-after is shorter than the second that Sentinel takes to connect to a new primary")


def _gap(timeout: int, sentinel: bool = True) -> Expectation:
    most = timeout + 2 * FAILOVER_TIMEOUT_MS + 6000 if sentinel else 2.5 * timeout + 4000
    return Expectation("gap_ms", timeout * 0.5, most, "silence is noticed after the timeout, and not before")


def sentinel_kill_primary(timeout: int) -> Drill:
    return Drill(
        "sentinel-kill-primary",
        "What a crash of the primary costs: the outage is mostly the time that Sentinel waits before it believes it.",
        _sentinel(timeout),
        (Step("kill", "primary", until="settled"),),
        (EXPLAINED, _took_over(timeout), _gap(timeout), Expectation("lost", 0, 3000, "only what was on its way to the replicas")),
        settle=0.5,
    )


def sentinel_plain_failover(timeout: int) -> Drill:
    return Drill(
        "sentinel-plain-failover",
        "SENTINEL FAILOVER of a healthy primary: a client that stays connected writes to the deposed one for seconds, and all of it is lost.",
        _sentinel(timeout),
        (Step("promote", "primary", until="settled", options=(("mode", "plain"),)),),
        (
            Expectation("lost", 1000, None, "the client that stayed was acked by a primary that nobody follows"),
            Expectation("lost_stale_primary", 1000, None, "all after the promotion"),
            EXPLAINED,
            _failed_over(),
            Expectation("gap_ms", None, 3000, "who follows +switch-master hardly notices"),
        ),
        load=Load(clients=STAYER),
    )


def sentinel_coordinated_failover(timeout: int) -> Drill:
    return Drill(
        "sentinel-coordinated-failover",
        "SENTINEL FAILOVER … COORDINATED (Valkey 9.0): the old primary stops writing first, so nothing is lost and clients wait a moment.",
        _sentinel(timeout),
        (Step("promote", "primary", until="settled", options=(("mode", "coordinated"),)),),
        (NOTHING_LOST, EXPLAINED, _failed_over(), Expectation("gap_ms", None, 5000, "writes are held while the replica catches up")),
        needs_valkey=(9, 0),
    )


def sentinel_partition_primary(timeout: int) -> Drill:
    return Drill(
        "sentinel-partition-primary",
        "A primary cut off with a client on its side: it acks for the whole partition and for seconds after, and all of that is lost.",
        _sentinel(timeout),
        (Step("partition", "primary,c1", lasts=4.0, until="settled"),),
        (
            Expectation("lost", 1000, None, "nobody else heard of these writes"),
            Expectation("lost_partition", 500, None, "acked while cut off"),
            EXPLAINED,
            _took_over(timeout),
            _gap(timeout),
        ),
        load=Load(clients=STAYER),
    )


def sentinel_partition_with_wait(timeout: int) -> Drill:
    return Drill(
        "sentinel-partition-with-wait",
        "The same partition with WAIT 1 after each write: what the minority acks it does not count as written, so nothing acked is lost.",
        _sentinel(timeout),
        (Step("partition", "primary,c1", lasts=4.0, until="settled"),),
        (
            Expectation("lost", 0, 0, "WAIT counted a replica for each of them"),
            Expectation("indefinite", 1, None, "the minority's writes are in doubt, and said to be"),
            EXPLAINED,
            _took_over(timeout),
        ),
        load=Load(clients=tuple(replace(client, wait=1, wait_ms=100) for client in STAYER)),
        warm_up=3.0,
    )


def sentinel_quorum_loss(timeout: int) -> Drill:
    return Drill(
        "sentinel-quorum-loss",
        "Two of three sentinels gone, then the primary: nobody may decide, so nothing is promoted until the sentinels are back.",
        _sentinel(timeout),
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


def sentinel_rolling_restart(timeout: int) -> Drill:
    coordinated = (("mode", "coordinated"),)
    return Drill(
        "sentinel-rolling-restart",
        "A rolling upgrade done right: replicas first, then a coordinated failover, then the old primary. Nothing is lost.",
        replace(_sentinel(timeout), persistence=Persistence.EVERYSEC),
        (
            Step("restart", "n2", until="redundant"),
            Step("restart", "n3", until="redundant"),
            Step("promote", "primary", until="settled", options=coordinated),
            Step("restart", "n1", until="redundant"),
        ),
        (NOTHING_LOST, EXPLAINED, _failed_over(), Expectation("gap_ms", None, 5000, "one handover is all that clients see")),
        needs_valkey=(9, 0),
    )


def sentinel_restart_empty_primary(timeout: int) -> Drill:
    return Drill(
        "sentinel-restart-empty-primary",
        "A primary without persistence that restarts by itself is back before Sentinel notices: it is empty, and empties its replicas.",
        _sentinel(timeout),
        (Step("restart-empty", "primary", until="redundant"),),
        (
            Expectation("lost", 5000, None, "everything acked before the restart is gone, on every node"),
            Expectation("lost_restart", 5000, None, "and this is why"),
            EXPLAINED,
            Expectation("gap_ms", None, timeout, "it was faster than the failover"),
        ),
    )


def cluster_kill_primary(timeout: int) -> Drill:
    return Drill(
        "cluster-kill-primary",
        "What a crash of one primary costs a cluster: its slots wait for node-timeout and a vote; with full coverage asked for, so do all others.",
        _cluster(timeout),
        (Step("kill", "primary:1", until="moved"),),
        (EXPLAINED, _failed_over(), _gap(timeout, sentinel=False), Expectation("lost", 0, 3000, "only what was on its way to the replica")),
        settle=0.5,
    )


def cluster_kill_shard(timeout: int) -> Drill:
    return Drill(
        "cluster-kill-shard",
        "A primary and its only replica gone: nobody can be promoted, the cluster is down until they are back, and the AOF brings all back.",
        replace(_cluster(timeout), persistence=Persistence.EVERYSEC),
        (Step("kill", "shard:1", lasts=timeout / 1000 + 2.0, until="recovered"),),
        (
            NOTHING_LOST,
            EXPLAINED,
            Expectation("gap_ms", timeout + 2000, timeout + 20_000, "no failover can help; the shard has to come back"),
        ),
    )


def cluster_redirects(timeout: int) -> Drill:
    return Drill(
        "cluster-redirects",
        "CLUSTER FAILOVER by hand: every client's map is wrong for a moment, MOVED puts it right, and nothing is lost.",
        _cluster(timeout),
        (Step("promote", "primary:1", until="moved"), Step("promote", "primary:2", after=0.5, until="moved")),
        (
            NOTHING_LOST,
            EXPLAINED,
            _failed_over(2),
            Expectation("redirects", 1, None, "clients are told where the slots went"),
            Expectation("gap_ms", None, 3000, "a handover, not a failure"),
        ),
    )


def cluster_slot_migration(timeout: int) -> Drill:
    return Drill(
        "cluster-slot-migration",
        "Slots move from one shard to another under load: clients follow MOVED and ASK, and no write is lost, doubled or out of order.",
        _cluster(timeout),
        (Step("slot-migration", "primary:1,primary:2", until="recovered"),),
        (
            NOTHING_LOST,
            EXPLAINED,
            _failed_over(0),
            Expectation("redirects", 1, None, "clients are told where the slots went"),
            Expectation("gap_ms", None, 3000, "a slot is away for less than a moment"),
        ),
    )


def cluster_distribution(timeout: int) -> Drill:
    return Drill(
        "cluster-distribution",
        "Keys spread over the shards by their slots: counted on each, no shard has twice its share, and every slot is served.",
        _cluster(timeout),
        (),
        (
            NOTHING_LOST,
            EXPLAINED,
            _failed_over(0),
            Expectation("keys_least_share", 0.2, None, "a third each, give or take"),
            Expectation("keys_most_share", None, 0.5, "a third each, give or take"),
            Expectation("redirects", 0, 0, "a client that knows the map asks the right node"),
        ),
        load=Load(tags=120),
        warm_up=3.0,
    )


def cluster_partition(timeout: int) -> Drill:
    return Drill(
        "cluster-partition",
        "A primary in the minority with a client on its side: it stops by itself after node-timeout, so the loss is bounded, unlike Sentinel's.",
        _cluster(timeout),
        (Step("partition", "primary:1,c1", lasts=2 * timeout / 1000 + 3.0, until="settled"),),
        (
            Expectation("lost", 1, None, "what the minority acked before it stopped"),
            Expectation("loss_window_ms", None, 1.5 * timeout + 2000, "it stops after node-timeout"),
            EXPLAINED,
            _failed_over(),
        ),
        load=Load(clients=STAYER),
    )


def standalone_machine_crash(timeout: int) -> Drill:  # noqa: ARG001 - a standalone server has no timeout
    return Drill(
        "standalone-machine-crash",
        "Power loss with appendfsync everysec: what was not synced yet is gone, up to two seconds of acked writes.",
        replace(TopologySpec.standalone(), persistence=Persistence.EVERYSEC),
        (Step("crash", "primary", lasts=0.2, until="recovered"),),
        (
            Expectation("lost", 1, None, "acked, and not on the disk"),
            Expectation("lost_crash", 1, None, "and this is why"),
            EXPLAINED,
            Expectation("loss_window_ms", None, 2000, "everysec: one second, two when the disk is slow"),
        ),
    )


def standalone_machine_crash_always(timeout: int) -> Drill:  # noqa: ARG001
    return Drill(
        "standalone-machine-crash-always",
        "The same power loss with appendfsync always: every ack waited for the disk, and nothing is gone.",
        replace(TopologySpec.standalone(), persistence=Persistence.ALWAYS),
        (Step("crash", "primary", lasts=0.2, until="recovered"),),
        (NOTHING_LOST, EXPLAINED),
    )


BUILT_IN: Final[tuple[Maker, ...]] = (
    sentinel_kill_primary,
    sentinel_plain_failover,
    sentinel_coordinated_failover,
    sentinel_partition_primary,
    sentinel_partition_with_wait,
    sentinel_quorum_loss,
    sentinel_rolling_restart,
    sentinel_restart_empty_primary,
    cluster_kill_primary,
    cluster_kill_shard,
    cluster_redirects,
    cluster_slot_migration,
    cluster_distribution,
    cluster_partition,
    standalone_machine_crash,
    standalone_machine_crash_always,
)


_FAIR: Final = "whatever sound servers do under these faults is explained"


def sentinel_random(timeout: int) -> Drill:
    return Drill(
        "sentinel-random",
        "Faults drawn from the seed, one after the other: whatever comes of it is explained, and all is well at the end.",
        _sentinel(timeout),
        (),
        (Expectation("unexplained", 0, 0, _FAIR),),
        load=Load(clients=STAYER, rate=6000),
        random=4,
    )


def cluster_random(timeout: int) -> Drill:
    return Drill(
        "cluster-random",
        "The same on a cluster, on any of its shards.",
        _cluster(timeout),
        (),
        (Expectation("unexplained", 0, 0, _FAIR),),
        load=Load(clients=STAYER, rate=6000),
        random=4,
    )


RANDOM: Final[tuple[Maker, ...]] = (sentinel_random, cluster_random)
"""Not part of ``--all``: each seed is another drill."""


def drills(timeout_ms: int | None = None) -> dict[str, Drill]:
    """Name → drill: those of Valkeep, then those of other packages. ``timeout_ms``: None for what each drill uses by itself (1000)."""
    found = _made(BUILT_IN, timeout_ms)
    for entry in entry_points(group=GROUP):
        drill = _loaded(entry.name, entry.load, timeout_ms or TIMEOUT_MS)
        if drill.name in found:
            raise ValkeepError(
                f"the drill {drill.name!r} of {entry.value} is there already", remedy="rename it, or uninstall the package that brings it"
            )
        found[drill.name] = drill
    return found


def random_drills(timeout_ms: int | None = None) -> dict[str, Drill]:
    """Those whose steps are drawn from the seed."""
    return _made(RANDOM, timeout_ms)


def _made(makers: tuple[Maker, ...], timeout_ms: int | None) -> dict[str, Drill]:
    return {drill.name: drill for drill in (maker(timeout_ms or TIMEOUT_MS) for maker in makers)}


def _loaded(name: str, load: Callable[[], object], timeout_ms: int) -> Drill:
    try:
        made = load()
        drill = made if isinstance(made, Drill) else made(timeout_ms) if callable(made) else None
    except Exception as error:
        raise ValkeepError(
            f"the drill {name!r} of another package can not be loaded: {type(error).__name__}: {error}",
            remedy="mend or uninstall the package that brings it",
        ) from error
    if not isinstance(drill, Drill):
        raise ValkeepError(
            f"the entry point {name!r} is no drill", remedy="it has to be a Drill, or a function of the timeout in ms that returns one"
        )
    return drill


def find(name: str, timeout_ms: int | None = None) -> Drill:
    """The drill of this name; other packages, which may make theirs of ours by this very function, are asked last. Raises ``UsageError``
    with the nearest one."""
    import difflib

    ours = _made(BUILT_IN + RANDOM, timeout_ms)
    if name in ours:
        return ours[name]
    known = drills(timeout_ms) | ours
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        f"there is no drill {name!r}",
        remedy=f"did you mean {near[0]}? 'valkeep drill list' shows all" if near else "'valkeep drill list' shows all",
    )
