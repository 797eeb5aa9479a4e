"""A report folder is told again, whole or cut short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from valkeep.errors import UsageError
from valkeep.report.eventlog import EventLog
from valkeep.report.events import Lag, Phase
from valkeep.report.folder import tell
from valkeep.report.html import page
from valkeep.report.story import Story
from valkeep.report.storyfile import to_json

PREFLIGHT: dict[str, Any] = {
    "schema": 1, "verdict": "CONDITIONAL-GO", "may_start": True, "blockers": [], "conditions": ["VK-CENSUS-SAMPLED"], "acknowledged": [],
    "to_acknowledge": [], "field_ttl": "keep-field",
    "findings": [{"code": "VK-CENSUS-SAMPLED", "severity": "warning", "title": "only a sample was looked at", "evidence": {}, "remedy": "full"}],
    "source": {"product": "Redis 8.0.2", "version": "8.0.2"}, "target": {"product": "Valkey 8.1.1", "version": "8.1.1"},
}  # fmt: skip
STEPS = [("preflight", 500.0), ("attach", 501.0), ("online", 502.0), ("verify", 502.5), ("verified", 503.0), ("pause", 503.1), ("drain", 503.11),
         ("fence", 503.12), ("promote", 503.13), ("promoted", 503.14)]  # fmt: skip
RUN: dict[str, Any] = {
    "schema": 1, "verdict": "valid", "keys": 1000, "mismatches": 0, "full_sync_seconds": 0.5, "write_pause_ms": 40.0, "elapsed_seconds": 3.2,
    "source": {"version": "8.0.2", "rdb_version": 12}, "target": {"version": "8.1.1"}, "unexpected_error_replies": 0, "fence": "pause",
    "changed_keys_checked": 3, "ledger": [{"action": "degraded", "what": "field-ttl", "policy": "keep-field", "count": 3}],
    "timeline": [{"step": step, "at": at} for step, at in STEPS],
}  # fmt: skip
VERIFICATION = {
    "schema": 1,
    "verdict": "valid",
    "keys_source": 1000,
    "keys_target": 1000,
    "missing": 0,
    "extra": 0,
    "different": 0,
    "examples": [],
}
LEDGER = {"schema": 1, "action": "degraded", "what": "field-ttl", "why": "no field TTLs there", "policy": "keep-field", "key": "h:1", "key_hex": None,
          "database": 0, "source_offset": 7, "count": 3}  # fmt: skip


def folder(path: Path, *names: str) -> Path:
    files = {"preflight": PREFLIGHT, "run": RUN, "verification": VERIFICATION}
    for name in names:
        if name in files:
            (path / f"{name}.json").write_text(json.dumps(files[name]))
    if "ledger" in names:
        (path / "ledger.jsonl").write_text(json.dumps(LEDGER) + "\n" + '{"half a li')
    if "events" in names:
        with EventLog(path / "events.jsonl") as log:
            for event in (
                Phase(0.1, "preflight"),
                Phase(1.2, "attach"),
                Lag(2.6, "t", 100, 3.0),
                Lag(2.7, "t", 50, 2.0),
                Phase(3.3, "pause"),
            ):
                log.emit(event)
    return path


def test_a_whole_folder_is_told(tmp_path: Path) -> None:
    story = tell(folder(tmp_path, "preflight", "run", "verification", "ledger", "events"))
    assert (story.title, story.verdict) == ("Redis 8.0.2 → Valkey 8.1.1", "valid")
    assert "Every key was compared" in story.sentence
    assert "40 ms" in story.sentence
    titles = [table.title for table in story.tables]
    assert "Verification: valid" in titles
    assert "Ledger, by key" in titles
    assert page(story).startswith("<!doctype html>")


def test_the_two_clocks_are_tied_together(tmp_path: Path) -> None:
    story = tell(folder(tmp_path, "preflight", "run", "events"))
    pause = next(span for span in story.panels[0].spans if span.name == "write pause")
    assert pause.start == pytest.approx(1.2 + (503.1 - 501.0))


@pytest.mark.parametrize("names", [("run",), ("run", "ledger"), ("verification",), ("events",), ("preflight",)])
def test_any_file_may_be_missing(tmp_path: Path, names: tuple[str, ...]) -> None:
    story = tell(folder(tmp_path, *names))
    assert page(story)


def test_a_migration_that_did_not_end_is_unknown(tmp_path: Path) -> None:
    story = tell(folder(tmp_path, "preflight", "events"))
    assert story.verdict == "unknown"
    assert "did not end" in story.sentence


def test_a_refusal_by_preflight_is_told_with_its_reasons(tmp_path: Path) -> None:
    finding = {"code": "VK-FIELD-TTL", "severity": "blocker", "title": "hashes have TTLs on fields", "evidence": {}, "remedy": "keep-field"}
    refused = PREFLIGHT | {"verdict": "NO-GO", "may_start": False, "blockers": ["VK-FIELD-TTL"], "findings": [finding]}
    (tmp_path / "preflight.json").write_text(json.dumps(refused))
    story = tell(tmp_path)
    assert story.verdict == "NO-GO"
    assert story.reasons == ("VK-FIELD-TTL: hashes have TTLs on fields",)
    assert "nothing was changed" in story.sentence


def test_a_folder_with_differences_says_how_many_keys_differ(tmp_path: Path) -> None:
    found = VERIFICATION | {
        "verdict": "invalid",
        "missing": 2,
        "examples": [{"database": 0, "key": "k", "key_hex": None, "what": "missing", "detail": ""}],
    }
    (tmp_path / "verification.json").write_text(json.dumps(found))
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"verdict": "invalid", "mismatches": 2}))
    story = tell(tmp_path)
    assert "2 keys differ" in story.sentence
    assert story.tiles[0].tone == "bad"


@pytest.mark.parametrize(
    ("changed", "said", "unsaid"),
    [
        ({"ledger": [{"action": "converted", "what": "field-ttl", "policy": "", "count": 3}]}, "and is equal.", "except"),
        (
            {"ledger": [{"action": "degraded", "what": "field-ttl", "policy": "keep-field", "count": 3}]},
            "except for what the policy left out",
            "equal.",
        ),
        ({"verdict": "unknown", "ledger": []}, "could not be judged", "is equal."),
    ],
)
def test_equal_is_said_of_what_was_compared_and_not_of_what_the_policy_left_out(
    tmp_path: Path, changed: dict[str, object], said: str, unsaid: str
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RUN | changed))
    sentence = tell(tmp_path).sentence
    assert said in sentence
    assert unsaid not in sentence


def test_who_could_still_take_writes_at_the_source_is_told_and_coloured(tmp_path: Path) -> None:
    nodes = [
        {"node": "10.0.0.1:6379", "takes_writes": False, "watched": False, "why": "fenced"},
        {"node": "10.0.0.2:6379", "takes_writes": False, "watched": True, "why": "a replica"},
        {"node": "10.0.0.3:6379", "takes_writes": True, "watched": False, "why": "promoted"},
        {"node": "10.0.0.4:6379", "takes_writes": None, "watched": False, "why": "it did not answer"},
    ]
    cut = {"schema": 1, "timeline": RUN["timeline"], "source_nodes": nodes}
    (folder(tmp_path, "preflight", "run") / "cutover.json").write_text(json.dumps(cut))
    (table,) = [one for one in tell(tmp_path).tables if one.title.startswith("The source's side")]
    assert [row[:3] for row in table.rows] == [
        ("10.0.0.1:6379", "no", "no"),
        ("10.0.0.2:6379", "no", "yes"),
        ("10.0.0.3:6379", "yes", "no"),
        ("10.0.0.4:6379", "unknown", "no"),
    ]
    assert table.tones == ("good", "warn", "bad", "warn")


def test_a_story_in_the_folder_is_shown_as_it_is(tmp_path: Path) -> None:
    story = Story("A rehearsal", "sub", "valid", "All there.")
    (tmp_path / "story.json").write_text(json.dumps(to_json(story)))
    assert tell(tmp_path) == story


@pytest.mark.parametrize("broken", ["missing", "empty", "cut"])
def test_what_is_no_report_is_refused_with_a_remedy(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "none" if broken == "missing" else tmp_path
    if broken == "cut":
        (tmp_path / "run.json").write_text('{"schema": 1, "verd')
    with pytest.raises(UsageError) as caught:
        tell(path)
    assert caught.value.remedy


@pytest.mark.parametrize("where", ["", "sentinel-kill-primary"])
def test_a_folder_of_drills_says_where_their_pages_are(tmp_path: Path, where: str) -> None:
    drill = tmp_path / "sentinel-kill-primary"
    drill.mkdir()
    (drill / "drill.json").write_text("{}")
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(UsageError) as caught:
        tell(tmp_path / where)
    assert str(drill / "drill.html") in caught.value.remedy


def test_a_run_from_files_says_what_they_cannot_promise_and_nothing_of_writers(tmp_path: Path) -> None:
    limit = "what was written later is not there"
    run = RUN | {"read": "file", "fence": "", "limits": [limit], "verdict": "unknown", "write_pause_ms": 0.0}
    (tmp_path / "run.json").write_text(json.dumps(run))
    story = tell(folder(tmp_path, "preflight", "verification"))
    assert [table.rows for table in story.tables if table.title == "What this cannot promise"] == [((limit,),)]
    assert "Writers" not in story.sentence
    assert "Write pause" not in [tile.label for tile in story.tiles]
    assert "read from files" in story.subtitle
