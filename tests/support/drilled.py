"""A drill that nobody ran: what `sentinel-kill-primary` would have found, made of a seed. For tests of what is done with outcomes. And drills that are run
again where the machine stood still: what they measured is then unknown, as it should be, and says nothing of what they are to show."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.history import History
from valkeep.drill.outcome import DrillOutcome, FaultShown, LogLine, Met, Recovery, RecoveryStep
from valkeep.drill.script import Expectation

SECOND = 1_000_000_000
ORIGIN = 4711 * SECOND  # the clock's zero is not the run's

Ran = TypeVar("Ran")


def unstalled(run: Callable[[], Ran], judged: Callable[[Ran], Iterable[tuple[str, str]]]) -> Ran:
    """What a run gave, or another where a verdict was unknown because the machine stood still, up to the third. ``judged``: verdicts with their reasons."""
    ran = run()
    for _ in range(2):
        if not any(verdict == "unknown" and "stood still" in reasons for verdict, reasons in judged(ran)):
            break
        ran = run()
    return ran


def history(operations: int = 20_000, *, seconds: float = 6.0, killed: float = 2.5, gap: float = 1.7, seed: int = 1) -> History:
    """Four clients on n1; it is killed after ``killed`` s, and for ``gap`` s nobody answers; then n2 does."""
    rng = random.Random(seed)
    told = History(1_700_000_000 * SECOND)
    counts = [0, 0, 0, 0]
    lengths: dict[bytes, int] = {}
    for number in range(operations):
        client = rng.randrange(4)
        counts[client] += 1
        at = ORIGIN + int(number / operations * seconds * SECOND)
        function = rng.choices(("append", "write", "read", "incr", "add"), (30, 30, 25, 10, 5))[0]
        tag = f"{rng.randrange(12):02x}"
        key = (f"r:{{{tag}}}:{rng.randrange(200)}" if function in ("write", "read") else f"{function[0]}:{{{tag}}}").encode()
        value = (client + 1 << 40) | counts[client]
        open_one = told.invoke(client + 1, function, key, None if function == "read" else value, at)
        since = (at - ORIGIN) / SECOND - killed
        took = int(rng.lognormvariate(-8.0, 0.6) * SECOND)
        if 0 <= since < gap:
            if rng.random() < 0.02:
                told.info(open_one, at + int((gap - since) * SECOND), "n1", "timeout")
            elif rng.random() < 0.002:
                continue  # nothing ever came back
            else:
                told.fail(open_one, at + took // 4, "n1", "refused")
            continue
        lengths[key] = lengths.get(key, 0) + 1
        told.ok(open_one, at + took, "n1" if since < 0 else "n2", lengths[key])
    return told


def outcome(operations: int = 20_000, *, lost: int = 37, **options: float) -> DrillOutcome:
    """A valid one: ``lost`` acked writes are gone, each explained."""
    told = history(operations, **options)  # type: ignore[arg-type]
    seconds, killed, gap = options.get("seconds", 6.0), options.get("killed", 2.5), options.get("gap", 1.7)
    fault = ORIGIN + int(killed * SECOND)
    before = [one.number for one in told if one.node == "n1" and one.outcome.name == "OK" and one.function != "read"]
    gone = tuple(before[-lost:]) if lost else ()
    moments = (("sdown", 0.62), ("odown", 0.68), ("elected", 0.75), ("promoted", 0.94), ("first-ack", 1.0), ("redundant", 1.35))
    steps = tuple(
        RecoveryStep(name, fault + int(part * gap * SECOND), part * gap * 1000, f"+{name} master valkeep 127.0.4.1 6379")
        for name, part in moments
    )
    expects = (
        Expectation("unexplained", 0, 0, "every lost write has a cause"),
        Expectation("gap_ms", 1000, 4000, "down-after 1000 ms, then the election"),
        Expectation("lost", None, 5000, "asynchronous replication: only what was not sent yet"),
    )
    measures: dict[str, float | None] = {
        "gap_ms": gap * 1000 + 12.34, "lost": float(lost), "unexplained": 0.0, "operations": float(len(told)),
        "warm_operations_per_second": len(told) / seconds,
        "wrong_node_ms": None,
    }  # fmt: skip
    return DrillOutcome(
        name="sentinel-kill-primary",
        teaches="A killed primary costs its clients down-after and an election, and what it had acked but not sent.",
        topology="1 primary + 2 replicas + 3 sentinels, down-after 1000 ms",
        verdict="valid",
        server="valkey 9.1.2",
        network_how="nft",
        seed=7,
        schedule="kill:primary@2.5",
        timers={"down-after-milliseconds": 1000, "failover-timeout": 10_000},
        measures=measures,
        expectations=tuple(Met.of(one, measures) for one in expects),
        judgements=(
            Judgement("loss", "valid", len(before), lost, {}, (), "explained: asynchronous replication"),
            Judgement("registers", "valid", 9000, 0, {}),
            Judgement("counters", "valid", 1800, 0, {}),
        ),
        loss={
            "acked": len(before), "lost": lost, "maybe": 3, "explained": {"asynchronous": lost} if lost else {}, "wrong": {}, "by_function": {"append": lost},
            "nodes": [
                {
                    "node": "n1", "shard": 0, "deposed_by": "kill", "lost": lost, "by_cause": {"asynchronous": lost}, "first": fault, "last": fault,
                    "window_ms": 12.5, "before_ms": 12.5, "after_ms": 0.0, "allowed_ms": 900.0, "because": "not yet sent when it was killed",
                }
            ] if lost else [],
            "examples": [],
        },
        lost_operations=gone,
        recovery=(Recovery("kill primary", steps),),
        faults=(FaultShown("kill", "primary", ("n1",), fault, fault + int(gap * SECOND)),),
        log=(
            LogLine(fault - SECOND, "n1", "info", "Synchronization with replica 127.0.4.2:6379 succeeded"),
            *(LogLine(step.at_ns, f"s{place % 3 + 1}", "warning" if step.name.endswith("down") else "info", step.line) for place, step in enumerate(steps)),
            LogLine(fault + SECOND, "n2", "error", "Error condition on socket for SYNC: Connection refused </script><b>"),
        ),
        history=told,
        clients=("", "c1", "c2", "c3", "c4"),
        origin_ns=ORIGIN,
        started=1_700_000_000.0,
        finished=1_700_000_000.0 + seconds + 3,
        phases={"start": 2.6, "load": killed, "faults": gap, "settle": 1.0, "check": 0.35, "total": seconds + 3},
        replay="valkeep drill run sentinel-kill-primary --seed 7 --schedule 'kill:primary@2.5'",
    )  # fmt: skip


def invalid(operations: int = 4000) -> DrillOutcome:
    """The same drill with two expectations that were not met and one that could not be judged."""
    found = outcome(operations)
    measures = {**found.measures, "gap_ms": 7301.0, "unexplained": 3.0, "lost": None}
    expectations = tuple(
        Met.of(Expectation(one.measure, one.least, one.most, one.because), measures) for one in found.expectations
    )  # fmt: skip
    loss = {**found.loss, "wrong": {"unexplained": 3}}
    return replace(
        found, loss=loss, name="cluster-kill-primary", verdict="invalid", measures=measures, expectations=expectations,
        reasons=("unexplained = 0: 3 lost writes have no cause", "gap_ms: 7301 is more than 4000"),
    )  # fmt: skip


def unrunnable() -> DrillOutcome:
    """A drill that could not run here."""
    return DrillOutcome(
        name="sentinel-partition-primary", teaches="A partitioned primary goes on acking writes that nobody will keep.", topology="1 primary + 2 replicas",
        verdict="unknown", reasons=("directed partitions need user namespaces, which are forbidden here",),
    )  # fmt: skip
