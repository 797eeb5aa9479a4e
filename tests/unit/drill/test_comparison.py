"""Settings and clients side by side: every number in its row and its cell, and nothing that was not measured counts as zero."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from valkeep.drill.comparison import MatrixRow, ScoreRow, clients_json, clients_story, matrix_json, matrix_story
from valkeep.report.html import page
from valkeep.report.storyfile import from_json, to_json

ROWS = [
    MatrixRow(minimum, wait, "everysec", timeout, "valid", 20_000, 0 if wait else 900 // (1 + 9 * minimum), timeout * 1.4, 0.4 + wait, 2.0, 9000.4)
    for minimum in (0, 1)
    for wait in (0, 1)
    for timeout in (500, 1000)
]  # fmt: skip
UNKNOWN = replace(
    ROWS[0],
    timeout_ms=5000,
    verdict="unknown",
    lost=None,
    gap_ms=None,
    p50_ms=None,
    p99_ms=None,
    per_second=None,
    reason="the host stalled",
)
SCORES = [
    ScoreRow("valkey-py", "6.2", "cluster-kill-primary", "valid", 9000, 1402.4, 185, 230.0, 0, 12),
    ScoreRow("glide", "2.5", "cluster-kill-primary", "valid", 9000, 1500.0, 3, 1500.0, 1, 12),
    ScoreRow("glide", "2.5", "sentinel-kill-primary", "unknown", reason="GLIDE has no Sentinel"),
]


def test_the_matrix_has_a_row_for_each_setting_with_what_it_costs_against_the_defaults() -> None:
    story = matrix_story(ROWS, subtitle="s", seconds=10)
    assert len(story.tables[0].rows) == 8
    assert story.tables[0].rows[0] == ("✓", "0", "0", "everysec", "500", "20,000", "900", "700", "0.4", "2", "1.0×", "9,000")
    assert story.tables[0].rows[2][10] == "3.5×"
    assert "At worst 900 acked writes were lost (min-replicas 0, WAIT 0, everysec, 500 ms); 4 of 8 settings lost none" in story.sentence


def test_the_matrix_is_a_grid_for_each_number_with_timeouts_as_columns() -> None:
    loss, gap, latency = matrix_story(ROWS, subtitle="s", seconds=10).grids
    assert loss.columns == ("500 ms", "1,000 ms")
    assert loss.rows[0] == ("min-replicas 0, WAIT 0, everysec", (900, 900))
    assert gap.rows[3][1] == (700.0, 1400.0)
    assert latency.rows[1][1] == (1.4, 1.4)


def test_what_could_not_be_measured_is_said_and_is_no_zero() -> None:
    story = matrix_story([*ROWS, UNKNOWN], subtitle="s", seconds=10)
    assert story.verdict == "unknown"
    assert story.tables[0].rows[-1][6:] == ("–",) * 6
    assert story.grids[0].rows[0][1] == (900, 900, None)
    assert "4 of 8 settings" in story.sentence
    assert story.reasons == ("min-replicas 0, WAIT 0, everysec, 5000 ms: the host stalled",)
    assert matrix_story([UNKNOWN], subtitle="s", seconds=1).sentence == "No setting could be measured."
    assert json.loads(json.dumps(matrix_json([UNKNOWN], seconds=1.234, seed=3)))["rows"][0]["lost"] is None


def test_the_scorecard_has_each_client_in_each_drill() -> None:
    story = clients_story(SCORES, subtitle="s", seconds=10)
    assert story.tables[0].rows[0] == ("✓", "cluster-kill-primary", "valkey-py 6.2", "1,402", "185", "230", "0", "12", "9,000")
    assert story.grids[1].rows == (("valkey-py", (185, None)), ("glide", (3, None)))
    assert (story.verdict, story.reasons) == ("unknown", ("glide, sentinel-kill-primary: GLIDE has no Sentinel",))
    assert clients_json(SCORES, seconds=2, seed=1)["rows"][1]["duplicates"] == 1


def test_the_grids_are_on_the_page_and_survive_the_storys_json() -> None:
    story = matrix_story([*ROWS, UNKNOWN], subtitle="s", seconds=10)
    text = page(story)
    assert text.count('class="heat"') == 3
    assert '<td style="--part:1.000">900</td>' in text
    assert "<td>–</td>" in text
    assert from_json(json.loads(json.dumps(to_json(story)))) == story


def test_every_member_of_the_rows_is_in_the_reference() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "drill-report.md").read_text()
    members = set(matrix_json(ROWS, seconds=1, seed=1)) | set(matrix_json(ROWS, seconds=1, seed=1)["rows"][0])
    members |= set(clients_json(SCORES, seconds=1, seed=1)["rows"][0])
    assert {name for name in members if f"`{name}`" not in text} == set()
