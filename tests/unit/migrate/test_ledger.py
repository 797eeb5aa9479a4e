"""The ledger: a line for whatever crossed in another form, before it is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from valkeep.errors import ValkeepError
from valkeep.migrate.ledger import Ledger


def test_a_line_says_what_why_under_which_policy_and_where(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    ledger.record(
        "degraded", "field-ttl", 'no "TTLs" there', policy="keep-field", key="müsli:7".encode(), database=3, source_offset=812, count=2
    )
    ledger.record("held", "command VADD", "not known", key=b"\xff\x00")
    ledger.record("stripped", "module-aux", "not needed")
    ledger.close()
    lines = [json.loads(line) for line in (tmp_path / "deep" / "ledger.jsonl").read_text().splitlines()]
    first = {"schema": 1, "action": "degraded", "what": "field-ttl", "why": 'no "TTLs" there', "policy": "keep-field"}
    assert lines[0] == first | {"key": "müsli:7", "key_hex": None, "database": 3, "source_offset": 812, "count": 2}
    assert (lines[1]["key"], lines[1]["key_hex"]) == (None, "ff00")
    assert (lines[2]["key"], lines[2]["key_hex"], lines[2]["source_offset"], lines[2]["count"]) == (None, None, -1, 1)
    assert [set(line) for line in lines] == [set(lines[0])] * 3


def test_counts_are_of_things_and_the_most_frequent_stand_first(tmp_path: Path) -> None:
    ledger = Ledger(None)
    ledger.record("recopied", "key", "x")
    for _ in range(3):
        ledger.record("degraded", "field-ttl", "x", policy="drop-field", count=2)
    assert ledger.lines == 4
    assert ledger.summary() == [
        {"action": "degraded", "what": "field-ttl", "policy": "drop-field", "count": 6},
        {"action": "recopied", "what": "key", "policy": "", "count": 1},
    ]


def test_it_appends_to_what_a_first_run_left(tmp_path: Path) -> None:
    for _ in range(2):
        ledger = Ledger(tmp_path / "ledger.jsonl")
        ledger.record("stripped", "module-aux", "x")
        ledger.close()
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 2


def test_a_ledger_that_cannot_be_written_stops_the_migration() -> None:
    ledger = Ledger(Path("/dev/full"))
    with pytest.raises(ValkeepError, match="ledger") as full:
        ledger.record("stripped", "module-aux", "x")
        ledger.flush()
    assert full.value.code == "VK-LEDGER-WRITE"
    assert "space" in full.value.remedy
    with pytest.raises(ValkeepError):
        ledger.flush()
    assert ledger._file is not None
    with pytest.raises(OSError, match="space"):
        ledger._file.close()


def test_who_watches_hears_of_what_a_person_should_know() -> None:
    heard: list[tuple[str, str, str, bytes | None]] = []
    ledger = Ledger(None, watch=lambda *line: heard.append(line))
    ledger.record("degraded", "field-ttl", "many of these", key=b"k")
    ledger.record("held", "command VADD", "why", key=b"k")
    assert heard == [("held", "command VADD", "why", b"k")]
