"""A drill as a story for the page and the terminal, and as a timeline; several drills, a matrix and a scorecard as tables.

One page says: the verdict and what the drill teaches; the numbers; every operation on one axis with the faults, the steps of the
recovery and the servers' log lines; then the recovery of each fault, magnified and in parts; then tables, which hold all of it in words.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from valkeep.drill.history import Outcome
from valkeep.drill.measures import rates
from valkeep.drill.outcome import DrillOutcome, DrillsOutcome, FaultShown, Met, Recovery
from valkeep.report.junit import Case, junit
from valkeep.report.story import Chart, Line, Mark, Panel, Series, Span, Story, Table, Tile
from valkeep.report.timeline import FAIL, INFO, OK, Shown, Timeline, trend

__all__ = ["drill_brief", "drill_story", "drill_timeline", "drills_junit", "drills_story", "number", "recovery_spans", "step_words"]

REPLAY: Final = "Again, exactly"
LOG_LINES: Final = 2000  # in one page; the report folder has the servers' own files

_STEPS: Final = {
    "sdown": "one node sees it down", "odown": "enough nodes agree", "election": "election begins", "elected": "leader elected", "promoted": "promoted",
    "switched": "switch announced", "first-ack": "first ack", "redundant": "redundant again",
}  # fmt: skip
_PARTS: Final = {
    "sdown": "detect", "odown": "agree", "election": "begin election", "elected": "elect", "promoted": "promote", "switched": "confirm and announce",
    "first-ack": "clients find it", "redundant": "rebuild redundancy",
}  # fmt: skip
_TONES: Final = ("warn", "source", "replica", "target", "lag", "good")
_NODE_TONES: Final = ("target", "replica", "lag", "source", "plain")
_VERDICTS: Final = {"valid": "✓", "invalid": "✗"}
_VERDICT_TONES: Final = {"valid": "good", "invalid": "bad"}
_SIGNS: Final = {True: "✓", False: "✗", None: "?"}


def step_words(name: str) -> str:
    return _STEPS.get(name, name)


def number(value: float | None) -> str:
    """As in a table: whole numbers with thousands, others with what matters of them."""
    if value is None:
        return "–"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"


# ----------------------------------------------------------------------------------------------------------------------- one drill


def drill_story(outcome: DrillOutcome) -> Story:
    return Story(
        title=outcome.name,
        subtitle=_subtitle(outcome),
        verdict=outcome.verdict,
        sentence=outcome.teaches,
        tiles=_tiles(outcome),
        panels=tuple(_magnified(outcome, recovery) for recovery in outcome.recovery if recovery.steps),
        tables=tuple(table for table in _tables(outcome) if table.rows),
        log=_lines(outcome),
        reasons=outcome.reasons,
        command=outcome.replay,
        command_title=REPLAY,
        footer=f"valkeep drill · seed {outcome.seed} · {outcome.phases.get('total', 0):.1f} s · {outcome.driver}"
        + (" · all servers ran on this machine" if outcome.runtime != "remote" else ""),
    )


def drill_brief(outcome: DrillOutcome) -> Story:
    """What the terminal shows of one drill: expectations, losses and the parts of each recovery; the page has the rest."""
    lost = _lost(outcome)
    rows = tuple((node, f"{count} {kind}" if not node else kind, why) for node, count, kind, _, _, _, why in lost.rows)
    title = f"{outcome.loss.get('lost', 0):,} of {outcome.loss.get('acked', 0):,} acked writes are gone"
    short = Table(title, ("", "", ""), rows, tones=lost.tones)
    tables = tuple(replace(table, note="") for table in (_expected(outcome), short) if table.rows)
    panels = tuple(_parts(outcome, recovery) for recovery in outcome.recovery if recovery.steps)
    return Story(
        outcome.name, _subtitle(outcome), outcome.verdict, outcome.teaches, tables=tables, panels=panels, reasons=outcome.reasons,
        command=outcome.replay, command_title=REPLAY,
    )  # fmt: skip


def _subtitle(outcome: DrillOutcome) -> str:
    return " · ".join(part for part in (outcome.topology, outcome.server, outcome.runtime, outcome.schedule) if part)


def _tiles(outcome: DrillOutcome) -> tuple[Tile, ...]:
    counts = outcome.history.counts()
    tiles = []
    lost = outcome.loss.get("lost")
    if lost is not None:
        wrong = sum(outcome.loss.get("wrong", {}).values())
        note = f"of {outcome.loss.get('acked', 0):,}; " + (
            f"{wrong:,} that nothing excuses" if wrong else "each one explained" if lost else "each one checked"
        )
        tiles.append(Tile("Acked writes lost", f"{lost:,}", note=note, tone="bad" if wrong else "warn" if lost else "good"))
    tiles += [
        Tile(
            one.measure.removesuffix("_ms").replace("_", " "),
            number(one.value),
            "ms" if one.measure.endswith("_ms") else "",
            _bounds(one),
            _tone(one),
        )
        for one in outcome.expectations
        if one.measure not in ("lost", "unexplained")
    ]
    if counts["ok"]:
        rate = outcome.measures.get("warm_operations_per_second")
        note = f"{counts['fail']:,} failed, {counts['info']:,} unknown" + (f"; {rate:,.0f}/s before the fault" if rate else "")
        tiles.append(Tile("Operations acked", f"{counts['ok']:,}", note=note))
    return tuple(tiles)


def _bounds(one: Met) -> str:
    expected = one.expectation.replace(one.measure, "…", 1) if one.measure in one.expectation else one.expectation
    return f"expected {expected}" + (f": {one.because}" if one.because else "")


def _tone(one: Met) -> str:
    return "good" if one.met else "warn" if one.met is None else "bad"


def _lines(outcome: DrillOutcome) -> tuple[Line, ...]:
    """The last `LOG_LINES`; of more, what is no news goes first."""
    log = sorted(outcome.log, key=lambda line: line.at_ns)
    if len(log) > LOG_LINES:
        news = [line for line in log if line.level != "info"][-LOG_LINES:]
        rest = [line for line in log if line.level == "info"]
        log = sorted([*news, *rest[len(rest) - (LOG_LINES - len(news)) :]], key=lambda line: line.at_ns)
    return tuple(Line(outcome.seconds(line.at_ns), line.level, line.text, line.node) for line in log)


# ------------------------------------------------------------------------------------------------------------------- its timeline


def drill_timeline(outcome: DrillOutcome) -> Timeline | None:
    """None where nothing was recorded."""
    if not len(outcome.history):
        return None
    lost = frozenset(outcome.lost_operations)
    outcomes = {Outcome.OK: OK, Outcome.FAIL: FAIL, Outcome.INFO: INFO}
    shown = [
        Shown(
            outcome.seconds(one.invoked),
            outcome.seconds(one.returned) if one.returned >= 0 else -1e9,
            outcome.clients[one.process] if one.process < len(outcome.clients) else f"process {one.process}",
            one.function,
            one.key.decode("utf-8", "backslashreplace"),
            outcomes[one.outcome],
            one.node,
            one.error,
            one.value if isinstance(one.value, int) else None,
            one.result if isinstance(one.result, int) else None,
            one.number in lost,
        )
        for one in outcome.history
    ]
    shown.sort(key=lambda one: one.invoked)
    start = min(shown[0].invoked, *(outcome.seconds(fault.start_ns) for fault in outcome.faults), shown[-1].invoked)
    end = max(max(one.invoked, one.returned) for one in shown)
    end = max(end, *(outcome.seconds(step.at_ns) for recovery in outcome.recovery for step in recovery.steps), end)
    return Timeline(
        start,
        end,
        shown,
        trend(shown, start, end),
        tuple(span for place, fault in enumerate(outcome.faults) for span in _fault_spans(outcome, place, fault, end)),
        tuple(
            Mark(outcome.seconds(step.at_ns), f"{step_words(step.name)} +{step.ms:,.0f} ms", "soft")
            for recovery in outcome.recovery
            for step in recovery.steps
        ),
        note="Shaded: faults, until they were healed; those that never were, until the last step of the recovery. Dashed: these steps, counted from the fault.",
    )


def _fault_spans(outcome: DrillOutcome, place: int, fault: FaultShown, end: float) -> tuple[Span, Span]:
    """Its bar, and its shade through everything."""
    began, healed = outcome.seconds(fault.start_ns), outcome.seconds(fault.end_ns)
    steps = outcome.recovery[place].steps if place < len(outcome.recovery) else ()
    shaded = max(outcome.seconds(step.at_ns) for step in steps) if steps and healed >= end else healed
    return Span(fault.title, began, min(healed, end), "bad", fault.detail), Span("", began, min(shaded, end), "bad", band=True)


def recovery_spans(outcome: DrillOutcome, recovery: Recovery) -> tuple[Span, ...]:
    """What lasted from each step to the next: the parts that the recovery is made of."""
    if not recovery.steps:
        return ()
    steps = sorted(recovery.steps, key=lambda step: step.at_ns)
    fault = steps[0].at_ns - round(steps[0].ms * 1e6)
    moments = [("", fault), *((step.name, step.at_ns) for step in steps)]
    return tuple(
        Span(_PARTS.get(name, step_words(name)), outcome.seconds(start), outcome.seconds(end), _TONES[place % len(_TONES)])
        for place, ((_, start), (name, end)) in enumerate(pairwise(moments))
    )


def _parts(outcome: DrillOutcome, recovery: Recovery) -> Panel:
    """What the recovery is made of, without what the clients saw of it."""
    spans = recovery_spans(outcome, recovery)
    zero, last = spans[0].start, spans[-1].end
    room = max(0.1, (last - zero) * 0.12)
    title = f"After {recovery.fault}: {last - zero:,.2f} s, in parts"
    return Panel(title, zero - room, last + room, "Each part ends with the step that the next one waits for.", spans, zero=zero)


def _magnified(outcome: DrillOutcome, recovery: Recovery) -> Panel:
    panel = _parts(outcome, recovery)
    series = []
    step = 20 if panel.end - panel.start < 5 else 100
    for turn, node in enumerate(sorted(name for name in outcome.history.nodes.names if name)):
        acks = outcome.history.ack_times(node=node)
        points = tuple((at, value) for at, value in rates(acks, outcome.origin_ns, step) if panel.start <= at <= panel.end)
        if points:
            series.append(Series(node, _NODE_TONES[turn % len(_NODE_TONES)], points))
    marks = tuple(Mark(outcome.seconds(one.at_ns), f"{step_words(one.name)} +{one.ms:,.0f} ms", "soft") for one in recovery.steps)
    charts = (Chart("Acked operations, by node", "per second", tuple(series), area=True, height=110),) if series else ()
    return replace(panel, marks=marks, charts=charts)


# ---------------------------------------------------------------------------------------------------------------------- its tables


def _tables(outcome: DrillOutcome) -> list[Table]:
    return [
        _expected(outcome),
        _lost(outcome),
        *(_recovered(recovery) for recovery in outcome.recovery),
        Table(
            "Faults",
            ("fault", "met", "from s", "to s", ""),
            tuple(
                (f"{one.name} {one.target}", ", ".join(one.nodes), f"{outcome.seconds(one.start_ns):.3f}", f"{outcome.seconds(one.end_ns):.3f}", one.detail)
                for one in outcome.faults
            ),
            numeric=frozenset({2, 3}),
        ),
        _checked(outcome),
        Table("Measured", ("measure", "value"), tuple((name, number(value)) for name, value in outcome.measures.items()), numeric=frozenset({1})),
        Table(
            "Errors that clients met", ("error", "operations"),
            tuple((text, f"{count:,}") for text, count in sorted(outcome.history.error_counts().items(), key=lambda pair: -pair[1])[:20]),
            numeric=frozenset({1}),
        ),
        _run(outcome),
        Table("Where the time went", ("phase", "s"), tuple((name, f"{took:.2f}") for name, took in outcome.phases.items()), numeric=frozenset({1})),
    ]  # fmt: skip


def _expected(outcome: DrillOutcome) -> Table:
    rows = tuple((_SIGNS[one.met], one.expectation, number(one.value), one.because) for one in outcome.expectations)
    note = "Fixed in the drill's code; the drill is valid only when each one is met."
    return Table(
        "Expected and measured",
        ("", "expected", "measured", "because"),
        rows,
        note,
        frozenset({2}),
        tuple(map(_tone, outcome.expectations)),
    )


def _run(outcome: DrillOutcome) -> Table:
    rows = (
        ("topology", outcome.topology), ("server", outcome.server), ("runtime", outcome.runtime), ("network cut by", outcome.network_how),
        ("clients", outcome.driver), ("seed", str(outcome.seed)), ("schedule", outcome.schedule),
        *((name, f"{value:,} ms") for name, value in outcome.timers.items()),
    )  # fmt: skip
    return Table("How it ran", ("", ""), tuple(row for row in rows if row[1]))


def _lost(outcome: DrillOutcome) -> Table:
    """Whose acked writes are gone, and why: one row for each reign that lost some, then what nothing excuses."""
    rows, tones = [], []
    for node in outcome.loss.get("nodes", ()):
        causes = ", ".join(f"{count:,} {cause}" for cause, count in node["by_cause"].items())
        allowed = "open" if node["allowed_ms"] is None else number(node["allowed_ms"])
        rows.append((node["node"], number(node["lost"]), causes, node["deposed_by"], number(node["window_ms"]), allowed, node["because"]))
        tones.append("plain")
    for kind, count in outcome.loss.get("wrong", {}).items():
        rows.append(("", number(count), kind, "", "", "", "nothing excuses these"))
        tones.append("bad")
    columns = ("acked by", "lost", "cause", "deposed by", "within ms", "allowed ms", "because")
    note = "Every one is at the end of what its node had acked; that the configuration allows a loss does not make it good."
    return Table("Acked writes that are gone", columns, tuple(rows), note, frozenset({1, 4, 5}), tuple(tones))


def _recovered(recovery: Recovery) -> Table:
    rows, before = [], 0.0
    for step in sorted(recovery.steps, key=lambda one: one.at_ns):
        rows.append((step_words(step.name), f"{step.ms:,.1f}", f"{step.ms - before:,.1f}", step.line))
        before = step.ms
    return Table(
        f"Recovery after {recovery.fault}",
        ("step", "ms since the fault", "ms since the last", "said by"),
        tuple(rows),
        numeric=frozenset({1, 2}),
    )


def _checked(outcome: DrillOutcome) -> Table:
    rows, tones = [], []
    for one in outcome.judgements:
        found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(one.counts.items())) or one.note or "–"
        rows.append((_VERDICTS.get(one.verdict, "?"), one.checker, f"{one.operations:,}", f"{one.lost:,}", found))
        tones.append(_VERDICT_TONES.get(one.verdict, "warn"))
    return Table("Checkers", ("", "checker", "acked", "lost", "found"), tuple(rows), numeric=frozenset({2, 3}), tones=tuple(tones))


# ------------------------------------------------------------------------------------------------------------------------- several


def drills_story(outcome: DrillsOutcome) -> Story:
    """``--all``: one row each."""
    counts = {verdict: sum(drill.verdict == verdict for drill in outcome.drills) for verdict in ("valid", "invalid", "unknown")}
    met = [one.met for drill in outcome.drills for one in drill.expectations]
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "none ran"
    return Story(
        title=f"{len(outcome.drills)} drills",
        subtitle=f"in {outcome.seconds:,.1f} s",
        verdict=outcome.verdict,
        sentence=f"{words}; {sum(one is True for one in met)} of {len(met)} expectations met.",
        tables=(drills_table(outcome),),
        reasons=tuple(f"{drill.name}: {reason}" for drill in outcome.drills if drill.verdict != "valid" for reason in drill.reasons[:3]),
    )


def drills_table(outcome: DrillsOutcome) -> Table:
    rows, tones = [], []
    for drill in outcome.drills:
        met = f"{sum(one.met is True for one in drill.expectations)}/{len(drill.expectations)}"
        gap, lost, took = number(drill.measures.get("gap_ms")), number(drill.loss.get("lost")), f"{drill.phases.get('total', 0):.1f}"
        rows.append(
            (_VERDICTS.get(drill.verdict, "?"), drill.name, drill.verdict, met, gap, lost, number(drill.history.counts()["ok"]), took)
        )
        tones.append(_VERDICT_TONES.get(drill.verdict, "warn"))
    columns = ("", "drill", "verdict", "met", "gap ms", "acked lost", "acked", "s")
    return Table("Drills", columns, tuple(rows), numeric=frozenset({3, 4, 5, 6, 7}), tones=tuple(tones))


def drills_junit(outcome: DrillsOutcome, *, hostname: str = "") -> str:
    """One test case for each drill, with every measure as a property."""
    cases = [
        Case(
            drill.name,
            f"valkeep.drill.{drill.name.partition('-')[0]}",
            drill.verdict,
            drill.phases.get("total", 0.0),
            drill.reasons,
            {
                "server": drill.server,
                "topology": drill.topology,
                "driver": drill.driver,
                "seed": drill.seed,
                "schedule": drill.schedule,
                **drill.measures,
            },
            "\n".join(text for text in (drill.teaches, drill.replay) if text),
        )
        for drill in outcome.drills
    ]
    began = min((drill.started for drill in outcome.drills if drill.started), default=0.0)
    timestamp = datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return junit("valkeep drill", cases, seconds=outcome.seconds, timestamp=timestamp, hostname=hostname)
