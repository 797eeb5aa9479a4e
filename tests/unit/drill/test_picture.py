"""What a drill found, shown: as JSON, as a story with its tables, as a timeline, as JUnit."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from tests.support.drilled import ORIGIN, SECOND, invalid, outcome, unrunnable
from valkeep.drill.outcome import DrillsOutcome, LogLine, Met
from valkeep.drill.picture import LOG_LINES, drill_story, drill_timeline, drills_junit, drills_story, number, recovery_spans
from valkeep.drill.script import Expectation
from valkeep.report.html import page
from valkeep.report.story import Table

VALID = outcome(6000)
ALL = DrillsOutcome((VALID, invalid(2000), unrunnable()), 31.4)


def table(title: str, drill: object = VALID) -> Table:
    return next(one for one in drill_story(drill).tables if one.title == title)  # type: ignore[arg-type]


def test_the_json_of_a_drill_has_its_moments_in_seconds_since_the_load_began() -> None:
    found = json.loads(json.dumps(VALID.to_json(), allow_nan=False))
    assert found["schema"] == 1
    assert found["faults"] == [{"name": "kill", "target": "primary", "nodes": ["n1"], "start": 2.5, "end": 4.2, "detail": ""}]
    assert [step["name"] for step in found["recovery"][0]["steps"]] == ["sdown", "odown", "elected", "promoted", "first-ack", "redundant"]
    assert found["recovery"][0]["steps"][3] == {
        "name": "promoted",
        "at": 4.098,
        "ms": 1598.0,
        "line": "+promoted master valkeep 127.0.4.1 6379",
    }
    assert found["measures"]["gap_ms"] == 1712.34
    assert found["measures"]["wrong_node_ms"] is None
    assert [one["met"] for one in found["expectations"]] == [True, True, True]
    assert sum(found["operations"].values()) == 6000
    assert "history" not in found


def test_a_measure_without_end_is_null_in_json() -> None:
    found = replace(VALID, measures={"gap_ms": math.inf}).to_json()
    assert found["measures"] == {"gap_ms": None}


def test_an_expectation_without_its_measure_is_neither_met_nor_broken() -> None:
    expected = Expectation("gap_ms", None, 10, "why")
    assert Met.of(expected, {}).met is None
    assert Met.of(expected, {"gap_ms": 11.0}).met is False
    assert Met.of(expected, {"gap_ms": 10.0}).met is True


def test_the_story_says_what_was_expected_beside_what_was_measured() -> None:
    assert table("Expected and measured").rows[1] == ("✓", "1000 ≤ gap_ms ≤ 4000", "1,712", "down-after 1000 ms, then the election")
    bad = table("Expected and measured", invalid())
    assert [row[0] for row in bad.rows] == ["✗", "✗", "?"]
    assert bad.tones == ("bad", "bad", "warn")


def test_the_story_names_who_had_acked_what_is_gone_and_why() -> None:
    assert table("Acked writes that are gone").rows == (
        ("n1", "37", "37 asynchronous", "kill", "12.5", "900", "not yet sent when it was killed"),
    )
    assert table("Acked writes that are gone", invalid()).rows[-1][1:3] == ("3", "unexplained")
    tile = drill_story(invalid()).tiles[0]
    assert (tile.tone, tile.note.endswith("3 that nothing excuses")) == ("bad", True)


def test_the_parts_of_a_recovery_follow_each_other_from_the_fault_to_the_last_step() -> None:
    spans = recovery_spans(VALID, VALID.recovery[0])
    assert [span.name for span in spans] == ["detect", "agree", "elect", "promote", "clients find it", "rebuild redundancy"]
    assert math.isclose(spans[0].start, 2.5, abs_tol=1e-6)
    assert all(one.end == two.start for one, two in zip(spans, spans[1:], strict=False))
    assert math.isclose(spans[-1].end - spans[0].start, 1.35 * 1.7, abs_tol=1e-6)


def test_the_timeline_has_every_operation_the_faults_and_the_steps_and_knows_what_is_lost() -> None:
    shown = drill_timeline(VALID)
    assert shown is not None
    assert len(shown.operations) == 6000
    assert sum(one.lost for one in shown.operations) == 37
    assert [(span.name, span.band) for span in shown.faults] == [("kill primary (n1)", False), ("", True)]
    assert [mark.label for mark in shown.marks][-1] == "redundant again +2,295 ms"
    assert shown.start <= 0 < 6 <= shown.end + 0.1


def test_a_fault_that_is_never_healed_is_shaded_until_the_last_step_of_its_recovery() -> None:
    forever = replace(VALID, faults=(replace(VALID.faults[0], end_ns=ORIGIN + 100 * SECOND),))
    shown = drill_timeline(forever)
    assert shown is not None
    bar, shade = shown.faults
    assert bar.end == shown.end
    assert math.isclose(shade.end, 2.5 + 1.35 * 1.7, abs_tol=1e-6)


def test_lost_and_failed_operations_of_a_long_run_are_in_its_page() -> None:
    text = page(drill_story(VALID), drill_timeline(VALID))
    assert 'data-shown="6000"' in text
    assert "</b>" in text
    assert "<b>n2</b>" in text
    assert "Connection refused &lt;/script&gt;&lt;b&gt;" in text


def test_a_drill_that_could_not_run_still_has_a_page() -> None:
    drill = unrunnable()
    assert drill_timeline(drill) is None
    text = page(drill_story(drill), drill_timeline(drill))
    assert "user namespaces, which are forbidden here" in text
    assert drill_story(drill).panels == ()


def test_of_a_chatty_server_the_warnings_and_the_last_lines_are_shown() -> None:
    chatter = tuple(
        LogLine(ORIGIN + at * SECOND // 1000, "n1", "warning" if at == 3 else "info", f"line {at}") for at in range(LOG_LINES * 2)
    )
    lines = drill_story(replace(VALID, log=chatter)).log
    assert len(lines) == LOG_LINES
    assert lines[0].text == "line 3"
    assert lines[-1].text == f"line {LOG_LINES * 2 - 1}"


def test_several_drills_are_one_row_each_and_the_worst_verdict_is_theirs() -> None:
    assert ALL.verdict == "invalid"
    assert DrillsOutcome((VALID, unrunnable()), 1.0).verdict == "unknown"
    assert DrillsOutcome((), 0.0).verdict == "unknown"
    story = drills_story(ALL)
    assert [row[:4] for row in story.tables[0].rows] == [
        ("✓", "sentinel-kill-primary", "valid", "3/3"), ("✗", "cluster-kill-primary", "invalid", "0/3"), ("?", "sentinel-partition-primary", "unknown", "0/0"),
    ]  # fmt: skip
    assert story.sentence == "1 valid, 1 invalid, 1 unknown; 3 of 6 expectations met."
    assert story.reasons[-1].startswith("sentinel-partition-primary: directed partitions need")
    assert json.loads(json.dumps(ALL.to_json()))["drills"][1]["verdict"] == "invalid"


def test_the_junit_of_several_drills_has_a_case_each_with_measures_and_the_replay() -> None:
    suite = ET.fromstring(drills_junit(ALL).encode())[0]
    assert [(case.get("classname"), case.get("name")) for case in suite][:2] == [
        ("valkeep.drill.sentinel", "sentinel-kill-primary"), ("valkeep.drill.cluster", "cluster-kill-primary"),
    ]  # fmt: skip
    assert (suite.get("failures"), suite.get("errors"), suite.get("timestamp")) == ("1", "1", "2023-11-14T22:13:20")
    properties = {one.get("name"): one.get("value") for one in suite[0].iter("property")}
    assert properties["gap_ms"] == "1712.34"
    assert properties["seed"] == "7"
    assert "--seed 7" in (suite[0].findtext("system-out") or "")


def test_numbers_are_written_with_what_matters_of_them() -> None:
    assert [number(value) for value in (None, 0.0, 3.0, 12345.6, 12.34, 0.12345, 1e6)] == [
        "–",
        "0",
        "3",
        "12,346",
        "12.3",
        "0.123",
        "1,000,000",
    ]


def members(value: object) -> set[str]:
    """Names of members at any depth, but those of mappings from names to counts."""
    if isinstance(value, dict):
        return {str(name) for name in value} | {one for name, inner in value.items() if name not in OPEN for one in members(inner)}
    return {one for inner in value for one in members(inner)} if isinstance(value, list) else set()


OPEN = {"measures", "timers", "errors", "anomalies", "by_cause", "by_function", "explained", "wrong", "causes"}


def test_every_member_of_the_json_is_in_the_reference() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "drill-report.md").read_text()
    example = {"operation": 1, "function": "", "key": "", "value": 1, "node": "", "cause": "", "acked_at": 1, "wrong": ""}
    found = replace(ALL.drills[0], loss={**VALID.loss, "examples": [example]})
    undocumented = {name for name in members(DrillsOutcome((found, ALL.drills[1]), 1.0).to_json()) if f"`{name}`" not in text}
    assert undocumented == set()
