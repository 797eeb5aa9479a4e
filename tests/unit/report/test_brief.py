"""A result in a few lines: what was expected and found, what lasted how long, also where a terminal knows only ASCII."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.support.drilled import invalid, outcome, unrunnable
from valkeep.drill.outcome import DrillsOutcome
from valkeep.drill.picture import drill_brief, drills_story
from valkeep.report.brief import brief, waterfall
from valkeep.report.story import Panel, Span, Story


def printed(story: Story, *, encoding: str = "utf-8", width: int = 100) -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    brief(story, Console(file=out, width=width, highlight=False))
    return raw.getvalue().decode(encoding)


def test_the_block_of_a_drill_says_what_it_teaches_what_was_expected_what_is_lost_and_how_to_repeat_it() -> None:
    text = printed(drill_brief(outcome(3000)))
    assert "A killed primary costs its clients" in text
    assert "✓  1000 ≤ gap_ms ≤ 4000  1,712  down-after 1000 ms, then the election" in text
    assert "acked writes are gone\n  n1  37 asynchronous  not yet sent when it was killed" in text
    assert "valkeep drill run sentinel-kill-primary --seed 7 --schedule 'kill:primary@2.5'" in text
    assert len(text.splitlines()) <= 24


def test_an_invalid_drill_shows_what_was_not_met_and_why() -> None:
    text = printed(drill_brief(invalid(2000)))
    assert "✗  unexplained = 0           3" in text
    assert "?  lost ≤ 5000" in text
    assert "3 unexplained" in text
    assert "✗ gap_ms: 7301 is more than 4000" in text


def test_a_drill_that_could_not_run_says_why_with_a_question_mark() -> None:
    text = printed(drill_brief(unrunnable()))
    assert "  ? directed partitions need user namespaces" in text
    assert "Again, exactly" not in text


def test_a_terminal_that_knows_only_ascii_can_tell_good_from_bad() -> None:
    text = printed(drill_brief(invalid(2000)), encoding="ascii")
    assert "x  1000 <= gap_ms <= 4000" in text
    assert "####" in text
    assert "+  unexplained = 0" in printed(drill_brief(outcome(2000)), encoding="ascii")


def test_each_part_of_a_recovery_begins_where_the_one_before_it_ended() -> None:
    rows = waterfall(Panel("p", 0, 10, spans=(Span("detect", 0, 6), Span("elect", 6, 6.01), Span("promote", 6.01, 10))), cell="#", wide=10)
    assert rows == [("detect", "######", "6,000 ms"), ("elect", "      #", "10 ms"), ("promote", "      ####", "3,990 ms")]
    assert waterfall(Panel("p", 0, 10)) == []
    assert waterfall(Panel("p", 1, 1, spans=(Span("at once", 1, 1),)), cell="#", wide=4) == [("at once", "#", "0 ms")]


@pytest.mark.parametrize("width", [60, 80])
def test_the_parts_of_a_recovery_have_a_line_each_in_narrow_terminals(width: int) -> None:
    parts = printed(drill_brief(outcome(2000)), width=width).partition("in parts")[2].strip().splitlines()[:4]
    assert all(line.endswith(" ms") and "█" in line and len(line) <= width for line in parts), parts


def test_several_drills_end_in_one_table_with_a_line_each() -> None:
    text = printed(drills_story(DrillsOutcome((outcome(2000), invalid(2000), unrunnable()), 30.0)), width=90)
    lines = [line for line in text.splitlines() if "sentinel-partition-primary" in line]
    assert lines[0].split() == ["?", "sentinel-partition-primary", "unknown", "0/0", "–", "–", "0", "0.0"]
    assert "3 of 6 expectations met" in text
