"""A rehearsal as a story for the page and the terminal: numbers, one timeline, two magnified moments, and the proof in tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.measures import rates
from valkeep.drill.rehearsal.outcome import Rehearsal
from valkeep.report.recording import Recording, label, spans_between
from valkeep.report.story import Chart, Mark, Panel, Series, Span, Story, Table, Tile

__all__ = ["NEXT", "picture"]

NEXT: Final = "valkeep migrate preflight --source redis://YOUR-SOURCE:6379 --target valkey://YOUR-TARGET:6379"

_WORDS: Final = {
    "set": "SET", "incr": "INCR", "rpush": "RPUSH", "xadd": "XADD", "spop": "SPOP", "multi": "MULTI … EXEC", "expire": "EXPIRE",
    "failover": "lost only a suffix",
}  # fmt: skip
_PROMISES: Final = {
    "set": "the last acked value is there",
    "incr": "no increment missing, none twice",
    "rpush": "every element once, in each writer's order",
    "xadd": "every entry once, with the id that was answered",
    "spop": "popped members gone, the others there",
    "multi": "all of a transaction or nothing",
    "expire": "expires at the very moment that was acked",
    "failover": "nothing before a survivor, nothing that the replica had",
}


def picture(outcome: Rehearsal, recording: Recording) -> Story:
    """``recording``: the events of the same run (lag, notes)."""
    return Story(
        title=f"{_name(outcome.source.server)} → {_name(outcome.target.server)}",
        subtitle=_subtitle(outcome),
        verdict=outcome.verdict,
        sentence=_sentence(outcome),
        tiles=_tiles(outcome),
        panels=(_whole(outcome, recording), _cut(outcome), _failover(outcome)),
        tables=_tables(outcome),
        log=tuple(recording.lines),
        reasons=tuple(outcome.reasons),
        command=NEXT,
        footer=f"valkeep rehearse · seed {outcome.seed} · {outcome.elapsed:.1f} s on this machine · all servers ran locally",
    )


def _name(server: str) -> str:
    product, _, version = server.partition(" ")
    return f"{product.capitalize()} {version}"


def _subtitle(outcome: Rehearsal) -> str:
    kind = "" if outcome.representative else " · not representative: Valkey takes this source's snapshots natively"
    ttls = f"field TTLs: {outcome.field_ttl}" if outcome.target.rdb_version < 80 else "field TTLs carried"
    return (
        f"A rehearsed migration of {outcome.keys:,} keys under {outcome.writes_per_second:,.0f} acked writes/s, "
        f"RDB {outcome.source.rdb_version} → {outcome.target.rdb_version}, {ttls}{kind}"
    )


def _sentence(outcome: Rehearsal) -> str:
    acked = outcome.move.acked
    if outcome.verdict == "valid":
        lost = outcome.failover.lost
        after = (
            f"The failover afterwards lost {lost} acked writes, all of them after the replica's last offset: asynchronous replication allows that."
            if lost
            else "The failover afterwards lost none."
        )
        return f"All {acked:,} writes that were acked during the move are on the target, unchanged. {after}"
    wrong = f"{outcome.move.lost:,} are lost and {outcome.move.wrong:,} checks found something else"
    return f"Of {acked:,} writes acked during the move, {wrong}; {outcome.mismatches:,} keys differ."


def _tiles(outcome: Rehearsal) -> tuple[Tile, ...]:
    failover = outcome.failover
    lost, mismatches = outcome.move.lost + outcome.move.wrong, outcome.mismatches
    moved = outcome.moved.keys or outcome.keys
    seconds = outcome.moved.full_sync_seconds
    speed = f"{moved / max(seconds, 1e-3):,.0f} keys/s, while being written to"
    return (
        Tile("Acked writes lost in the move", f"{lost:,}", note=f"of {outcome.move.acked:,}, each one checked", tone="bad" if lost else "good"),
        Tile("Keys that differ", f"{mismatches:,}", note=f"of {moved:,}; {outcome.spot.keys:,} again by plain commands", tone="bad" if mismatches else "good"),
        Tile("Write pause at the cut", f"{outcome.write_pause.ms:.0f}", "ms", "longest gap between acked writes"),
        Tile("Full sync", f"{seconds:.1f}", "s", speed),
        Tile("Failover gap", f"{outcome.failover_gap.ms:.0f}", "ms", f"killed primary; {failover.lost} acked writes lost, {failover.allowed} of them allowed",
             "bad" if failover.lost > failover.allowed else "plain"),
        Tile("Sustained writes", f"{outcome.writes_per_second:,.0f}", "/s", "acked, through the cut"),
    )  # fmt: skip


def _series(outcome: Rehearsal, bucket_ms: int, low: float, high: float) -> tuple[Series, ...]:
    """Throughput by the node that acked, each over its own reign."""
    series = []
    for node in ("source", "target", "replica"):
        acks = outcome.history.ack_times(node=node)
        points = tuple((at, value) for at, value in rates(acks, outcome.origin_ns, bucket_ms) if low <= at <= high)
        if points:
            label = {"replica": "promoted replica"}.get(node, node)
            series.append(Series(label, node, points))
    return tuple(series)


def _whole(outcome: Rehearsal, recording: Recording) -> Panel:
    own = {"start", "load", "failure", "warm-up", "settle", "checkpoint", "failover", "judge"}
    names = {"failure": "native sync refused", "settle": "on the target", "checkpoint": "checkpoint (writers rest)", "load": "load"}
    spans = [
        Span(names.get(name, name), start, end, "replica" if name == "failover" else "warn" if name == "failure" else "plain")
        for name, start, end in outcome.phases
        if name in own and end - start > 0.1
    ]
    end_of_move = next((end for name, _, end in outcome.phases if name == "move"), outcome.elapsed)
    steps = outcome.moved.timeline
    cut = next((at for at, (step, _) in enumerate(steps) if step in ("pause", "fence")), len(steps))
    spans += spans_between(steps[:cut], steps[cut][1] if cut < len(steps) else end_of_move, tone="target", least=0.15)
    spans += [
        _band(outcome, "write pause", outcome.write_pause.start, outcome.write_pause.end),
        _band(outcome, "failover gap", outcome.failover_gap.start, outcome.failover_gap.end),
    ]
    charts = (
        Chart("Acked writes", "per second", _series(outcome, 100, 0, outcome.elapsed), area=True, height=150),
        *recording.charts_of_lag(),
    )
    note = "Who acknowledged the writers, second by second. Shaded: the pause at the cut and the gap of the failover, magnified below."
    return Panel("Timeline", 0.0, outcome.elapsed, note, tuple(spans), (), charts)


def _band(outcome: Rehearsal, name: str, start: int, end: int) -> Span:
    return Span(name, (start - outcome.origin_ns) / 1e9, (end - outcome.origin_ns) / 1e9, "bad", band=True)


def _cut(outcome: Rehearsal) -> Panel:
    pause = _band(outcome, "write pause", outcome.write_pause.start, outcome.write_pause.end)
    room = max(0.15, (pause.end - pause.start) * 1.5)
    low, high = pause.start - room, pause.end + room
    marks = tuple(Mark(at, label(step), "soft") for step, at in outcome.moved.timeline if low <= at <= high)
    chart = Chart("Acked writes", "per second", _series(outcome, 20, low, high), area=True, height=120)
    note = f"{outcome.write_pause.ms:.0f} ms without an acked write: the source is fenced before the target is promoted."
    return Panel("The cut-over, magnified", low, high, note, (replace(pause, name=""),), marks, (chart,), zero=pause.start)


def _failover(outcome: Rehearsal) -> Panel:
    gap = _band(outcome, "failover gap", outcome.failover_gap.start, outcome.failover_gap.end)
    room = max(0.1, (gap.end - gap.start) * 0.8)
    low, high = gap.start - room, gap.end + room
    events = outcome.events
    moments = [("killed", events.killed), ("detected", events.detected), ("promoted", events.promoted), ("first ack", outcome.turns[2])]
    marks = tuple(Mark((at - outcome.origin_ns) / 1e9, name, "bad" if name == "killed" else "soft") for name, at in moments if at)
    chart = Chart("Acked writes", "per second", _series(outcome, 20, low, high), area=True, height=120)
    note = "The new primary is killed (SIGKILL). The rehearsal itself notices and promotes; with Sentinel, detection takes its down-after longer."
    return Panel(
        "The failover, magnified",
        low,
        high,
        note,
        (replace(gap, name=""),),
        marks,
        (chart,),
        zero=(events.killed - outcome.origin_ns) / 1e9,
    )


def _tables(outcome: Rehearsal) -> tuple[Table, ...]:
    events, origin = outcome.events, outcome.events.killed
    first = outcome.turns[2]
    failover_rows = [
        ("killed", "0.0", "SIGKILL"),
        ("detected", f"{(events.detected - origin) / 1e6:.1f}", "3 refused connections, 50 ms apart"),
        ("promoted", f"{(events.promoted - origin) / 1e6:.1f}", "REPLICAOF NO ONE answered"),
        ("first ack", f"{(first - origin) / 1e6:.1f}" if first else "never", "a writer's next acked write"),
    ]
    lost = f"{outcome.failover.lost} acked writes lost, {outcome.failover.allowed} of them allowed: acked after the replica's last offset."
    tables = [
        _checked("The move: every acked write", outcome.move.judgements,
                 "Read by ordinary commands from the target while the writers rested, before anything was killed. No loss is excused here."),
        _checked("The failover", outcome.failover.judgements,
                 f"{lost} Everything else on the promoted replica, including the whole move, was checked again."),
        Table("The failover, step by step", ("step", "ms after the kill", ""), tuple(failover_rows), numeric=frozenset({1})),
    ]  # fmt: skip
    if outcome.moved.timeline:
        steps = outcome.moved.timeline
        rows = tuple(
            (label(step), f"{at:.3f}", f"{(at - before) * 1000:.1f}")
            for (step, at), (_, before) in zip(steps, (steps[0], *steps), strict=False)
        )
        tables.append(Table("The migration, step by step", ("step", "s", "ms since the last"), rows, numeric=frozenset({1, 2})))
    ledger = tuple((str(row["what"]), str(row["action"]), str(row["policy"] or "–"), f"{row['count']:,}") for row in outcome.moved.ledger)
    tables.append(
        Table(
            "Ledger: what was changed on the way",
            ("what", "action", "policy", "count"),
            ledger or (("nothing", "–", "–", "0"),),
            numeric=frozenset({3}),
        )
    )
    if outcome.failure.shown:
        rows2 = ((outcome.failure.server, outcome.failure.line),)
        tables.append(Table("Without Valkeep", ("server", "told REPLICAOF the source, it says"), rows2))
    return tuple(tables)


def _checked(title: str, judgements: tuple[Judgement, ...], note: str) -> Table:
    rows, tones = [], []
    for judgement in judgements:
        other = ", ".join(f"{count} {kind}" for kind, count in sorted(judgement.counts.items()) if kind != "lost")
        tones.append({"valid": "good", "invalid": "bad"}.get(judgement.verdict, "warn"))
        rows.append((
            {"valid": "✓", "invalid": "✗"}.get(judgement.verdict, "?"), _WORDS.get(judgement.checker, judgement.checker),
            _PROMISES.get(judgement.checker, ""), f"{judgement.operations:,}", f"{judgement.lost:,}", other or "–",
        ))  # fmt: skip
    columns = ("", "operation", "what is asked", "acked", "lost", "other findings")
    return Table(title, columns, tuple(rows), note, frozenset({3, 4}), tuple(tones))
