"""From what a drill left behind to its verdict: reigns, checkers, measures, expectations; a pure function of `Played`.

The verdict:

    invalid   a checker found what no configuration allows, or a number lies outside what the drill expects
    unknown   a number is missing, a checker could not tell, or the host stood still for longer than half the timeout, so that the
              servers' own timers can't be told from its stall. What no stall explains (a hole, a duplicate, …) stays invalid
    valid     otherwise: also when writes were lost, where the loss is explained and the drill expects it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise, zip_longest
from typing import Final

from valkeep.drill.checkers.coverage import SlotSample
from valkeep.drill.checkers.judgement import Judgement, worst
from valkeep.drill.checkers.loss import LossReport
from valkeep.drill.checkers.reigns import Loss, Reign
from valkeep.drill.checkers.verdicts import Context, Verdicts, check_all
from valkeep.drill.history import History, Outcome
from valkeep.drill.outcome import DrillOutcome, FaultShown, LogLine, Met, Recovery
from valkeep.drill.play import Played
from valkeep.drill.recovery import recovery
from valkeep.drill.reigning import Struck, reigns_of
from valkeep.drill.script import schedule_text
from valkeep.drill.serverlog import moments
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import Kind

__all__ = ["judge"]

_LOG_LINES = 400  # shown; of more, the newest of each node's warnings and steps come first
DRIFT_MS: Final = 50.0
LOOK_NS: Final = 100_000_000  # in which the watcher surely has asked every node
_TIMERS = {Kind.SENTINEL: "down-after-milliseconds", Kind.CLUSTER: "cluster-node-timeout"}


def judge(played: Played) -> DrillOutcome:
    """Everything but what only the run knows: server, runtime, network, seed, phases of the start, times of day (see `run`)."""
    drill, spec = played.drill, played.drill.topology
    history = played.recorded.history
    reigns = reigns_of(
        spec, played.settings, played.samples, list(played.said), played.struck, played.origin
    )  # fmt: skip
    faults = tuple(_span(one, played.ended) for one in played.struck)
    recorded = played.recorded
    context = Context(
        reigns,
        faults,
        stalls=tuple((one.at, one.ms) for one in recorded.stalls if one.at >= played.origin),
        timeout_ms=spec.timeout_ms,
        redirects=recorded.moved if spec.kind is Kind.CLUSTER else None,
        slots=tuple(_coverage(played)) if spec.kind is Kind.CLUSTER else None,
    )
    verdicts = Verdicts(None, ()) if played.final is None else check_all(history, played.final, context)
    recovered = tuple(_recoveries(played, reigns))
    measures = _measures(played, reigns, verdicts, recovered)
    expectations = tuple(Met.of(expected, measures) for expected in drill.expects)
    verdict, reasons = _verdict(played, verdicts.judgements, expectations)
    return DrillOutcome(
        name=drill.name,
        teaches=drill.teaches,
        topology=spec.described,
        verdict=verdict,
        reasons=reasons,
        driver=drill.load.driver,
        schedule=schedule_text(drill.steps),
        timers=_timers(played),
        measures=measures,
        expectations=expectations,
        judgements=verdicts.judgements,
        loss={} if verdicts.loss is None else verdicts.loss.to_json(),
        lost_operations=verdicts.lost_operations,
        recovery=recovered,
        faults=tuple(
            FaultShown(one.step.fault, one.step.target, one.nodes, one.at, end) for one, (_, end) in zip(played.struck, faults, strict=True)
        ),
        log=_log(played),
        history=history,
        clients=tuple(process.client for process in played.recorded.processes),
        origin_ns=played.origin,
        phases=dict(played.phases),
    )


def _verdict(played: Played, judgements: Iterable[Judgement], expectations: tuple[Met, ...]) -> tuple[str, tuple[str, ...]]:
    reasons: list[str] = []
    found = list(judgements)
    safety = worst(found)
    for judgement in found:
        if judgement.verdict == "invalid":
            counts = ", ".join(f"{count} {kind}" for kind, count in judgement.counts.items())
            reasons.append(f"{judgement.checker}: {counts}" + (f" ({judgement.anomalies[0].detail})" if judgement.anomalies else ""))
        elif judgement.verdict == "unknown" and judgement.checker != "host":
            reasons.append(f"{judgement.checker} can not tell: {judgement.note}")
    broken = [met for met in expectations if met.met is False]
    unmeasured = [met for met in expectations if met.met is None]
    reasons += [f"expected {met.expectation}, measured {met.value:g}" + (f": {met.because}" if met.because else "") for met in broken]
    reasons += [f"expected {met.expectation}, and it could not be measured" for met in unmeasured]
    reasons += played.missed
    doubt = _doubt(played, found)
    if safety == "invalid":
        return "invalid", tuple(reasons)
    if doubt:
        return "unknown", (doubt, *reasons)
    if broken or played.missed:
        return "invalid", tuple(reasons)
    return ("unknown" if unmeasured or safety == "unknown" else "valid"), tuple(reasons)


def _doubt(played: Played, judgements: Iterable[Judgement]) -> str:
    """Why times measured here can not be trusted; "" where they can."""
    host = next((one.note for one in judgements if one.checker == "host" and one.verdict == "unknown"), "")
    if not host and abs(played.drift_ms) > DRIFT_MS:
        return f"the wall clock was set by {played.drift_ms:+.0f} ms during the drill, so the servers' logs can not be put on one axis"
    return host


def _coverage(played: Played) -> Iterable[SlotSample]:
    """Without holes that are shorter than it takes to ask every node: one had given the slots away, the other was asked just before it got them."""
    changes = [*played.coverage, (played.ended, *played.coverage[-1][1:])] if played.coverage else []
    for (at, uncovered, disputed), after in zip_longest(changes, changes[1:]):
        if after is None or after[0] - at >= LOOK_NS or not (uncovered or disputed):
            yield SlotSample(at, uncovered, disputed)


def _span(one: Struck, ended: int) -> tuple[int, int]:
    """A fault without anything to undo was healed when it was done; one that never was lasted until the end."""
    return one.at, ended if one.healed is None else one.healed


def _recoveries(played: Played, reigns: tuple[Reign, ...]) -> Iterable[Recovery]:
    told = list(moments(list(played.said)))
    for number, one in enumerate(played.struck):
        until = played.struck[number + 1].at if number + 1 < len(played.struck) else played.ended
        heirs = {reign.node: reign.begins for reign in reigns if one.at <= reign.begins < until and not reign.apart}
        acks = sorted(ack for node in heirs for ack in played.recorded.history.ack_times(node=node))
        names = ", ".join(one.nodes)
        yield recovery(
            f"{one.step.fault} {one.step.target} ({names})", one.at, until, told, acks, _redundant(played, heirs), heirs=frozenset(heirs)
        )


def _redundant(played: Played, heirs: Mapping[str, int]) -> int | None:
    """When the first of the new primaries was seen with a replica online again. ``heirs``: node → since when it reigns; what it said before is
    of a time when all was well still."""
    return min(
        (
            sample.answered
            for name, since in heirs.items()
            for sample in played.samples.get(name, ())
            if sample.at > since and sample.role == "primary" and sample.online
        ),
        default=None,
    )


def _measures(played: Played, reigns: tuple[Reign, ...], verdicts: Verdicts, recovered: tuple[Recovery, ...]) -> dict[str, float | None]:
    history = played.recorded.history
    counts = history.counts()
    measures: dict[str, float | None] = {
        "operations": len(history),
        "operations_per_second": round(len(history) / _loaded(played), 1),
        "warm_operations_per_second": _warm_rate(played, history),
        "acked": counts["ok"],
        "refused": counts["fail"],
        "indefinite": counts["info"],
        "promotions": sum(
            before.node != after.node for before, after in pairwise(reigns) if before.shard == after.shard and not after.apart
        ),
        "redirects": len(played.recorded.moved),
        "stall_ms": round(max((one.ms for one in played.recorded.stalls), default=0.0), 1),
    }
    measures |= _losses(verdicts.loss)
    measures |= _gaps(played, history)
    measures |= _waits(verdicts)
    if recovered:
        first = next((one for one in recovered if len(one.steps) > 1), recovered[0])
        measures |= {f"{step.name.replace('-', '_')}_ms": round(step.ms, 1) for step in first.steps}
    measures |= _shares(played)
    return measures


def _warm_rate(played: Played, history: History) -> float:
    """Operations/s before the first fault: what the load is while all is well."""
    invoked = history.columns.invoked
    until = played.struck[0].at if played.struck else played.ended
    warm = sum(1 for at in invoked if at < until)
    return round(warm / max((until - invoked[0]) / 1e9, 1e-3), 1) if warm else 0.0


def _loaded(played: Played) -> float:
    """Seconds for which the load ran."""
    return max(sum(played.phases.get(name, 0.0) for name in ("load", "faults")) + played.drill.settle, 1e-3)


def _losses(loss: LossReport | None) -> Mapping[str, float | None]:
    if loss is None:
        return {"lost": None, "unexplained": None}
    causes = {f"lost_{cause.value.replace(' ', '_')}": float(loss.explained.get(cause.value, 0)) for cause in Loss}
    windows = [node.window_ms for node in loss.nodes]
    return {"lost": loss.lost, "unexplained": loss.unexplained, "loss_window_ms": round(max(windows, default=0.0), 1), **causes}


def _gaps(played: Played, history: History) -> Mapping[str, float | None]:
    """The longest time without an ack, of the worst shard: ``gap_ms`` of clients that follow the primary, ``gap_sticky_ms`` of those that stay.
    What still waits when the load ends has waited until then. Slots that moved to another shard count apart from those that stayed: the
    acks of the ones say nothing about the others."""
    follows = {client.name: client.follow for client in played.drill.load.clients}
    owner = {number: follows.get(process.client, True) for number, process in enumerate(played.recorded.processes)}
    columns = history.columns
    groups = _groups(played, history)
    acks: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
    for outcome, process, key, returned in zip(columns.outcome, columns.process, columns.key, columns.returned, strict=True):
        listed = acks.setdefault((owner.get(process, True), groups[key]), [])
        if outcome == Outcome.OK:
            listed.append(returned)
    begin, end = min(columns.invoked, default=played.origin), max(columns.invoked, default=played.ended)
    found: dict[str, float | None] = {"gap_ms": None}
    for (follow, _), listed in acks.items():
        times = [*sorted(listed or [begin]), end]
        gap = max(after - before for before, after in pairwise(times)) / 1e6
        name = "gap_ms" if follow else "gap_sticky_ms"
        found[name] = max(round(gap, 1), found.get(name) or 0.0)
    return found


def _groups(played: Played, history: History) -> list[tuple[int, ...]]:
    """For each key the shards by whose nodes its slot was served, its own first."""
    spec, columns = played.drill.topology, history.columns
    shards = {node.name: node.shard for node in spec.nodes() if node.role != "sentinel"}
    slots = [key_slot(key) for key in history.keys.names]
    served: dict[int, set[int]] = {}
    for key, node, outcome in set(zip(columns.key, columns.node, columns.outcome, strict=True)):
        shard = shards.get(history.nodes.names[node])
        if outcome == Outcome.OK and shard is not None:
            served.setdefault(slots[key], set()).add(shard)
    own = [spec.shard_of_slot(slot) for slot in slots]
    return [(shard, *sorted(served.get(slot, set()) - {shard})) for shard, slot in zip(own, slots, strict=True)]


def _waits(verdicts: Verdicts) -> Mapping[str, float | None]:
    """Latencies before the first fault; ``gap_lasting_ms``: the longest time without a write that lasts (a lost one does not end it);
    for how long slots were served by nobody; redirects."""
    found: dict[str, float | None] = {}
    if verdicts.availability is not None:
        before = verdicts.availability.phases[0]
        found |= {"p50_ms": round(before.p50_ms, 3), "p99_ms": round(before.p99_ms, 3)}
        gaps = verdicts.availability.gaps
        found["gap_lasting_ms"] = round(gaps[0].ms, 1) if gaps else None
    if verdicts.coverage is not None:
        found |= {"slots_uncovered_ms": round(verdicts.coverage.uncovered_ms, 1), "slots_uncovered": verdicts.coverage.most}
    if verdicts.redirects is not None:
        found["redirect_hops"] = verdicts.redirects.hops
    return found


def _shares(played: Played) -> Mapping[str, float | None]:
    """``keys``: on all primaries at the end, as they counted them; ``keys_least_share``, ``keys_most_share``: of them on one shard, least and most."""
    if played.drill.topology.kind is not Kind.CLUSTER or not played.keys:
        return {}
    total = max(sum(played.keys.values()), 1)
    shares = [count / total for count in played.keys.values()]
    return {"keys": total, "keys_least_share": round(min(shares), 4), "keys_most_share": round(max(shares), 4)}


def _timers(played: Played) -> dict[str, int]:
    spec = played.drill.topology
    timers = {_TIMERS[spec.kind]: spec.timeout_ms} if spec.kind in _TIMERS else {}
    if spec.kind is Kind.SENTINEL:
        timers["failover-timeout"] = spec.failover_timeout_ms
    if played.settings.min_replicas:
        timers |= {"min-replicas-to-write": played.settings.min_replicas, "min-replicas-max-lag": played.settings.max_lag * 1000}
    return timers


def _log(played: Played) -> tuple[LogLine, ...]:
    """Warnings and steps first, then the rest from the end, so that a chatty server does not push out what matters; by time."""
    told = {(moment.node, moment.at, moment.text) for moment in moments(list(played.said))}
    lines = [line for line in played.said if line.level != "debug"]
    ranked = sorted(lines, key=lambda line: ((line.node, line.at, line.text) not in told, line.level != "warning", -line.at))
    kept = sorted(ranked[:_LOG_LINES], key=lambda line: line.at)
    return tuple(LogLine(line.at, line.node, line.level, line.text) for line in kept)
