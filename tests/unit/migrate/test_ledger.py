"""The ledger: a line for whatever crossed in another form, before it is sent."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from valkeep.errors import ValkeepError
from valkeep.migrate.gateway.ledger import Ledger
from valkeep.migrate.transform.notes import LedgerNote
from valkeep.report.eventlog import EventLog, read_events
from valkeep.report.events import Event, LedgerEntry, fan_out
from valkeep.report.terminal import Dashboard


def test_a_line_says_what_why_under_which_policy_and_where(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    ledger.record(LedgerNote("degraded", "field-ttl", 'no "TTLs" there', "keep-field", "müsli:7".encode(), 3, 812, 2))
    ledger.record(LedgerNote("held", "command VADD", "not known", key=b"\xff\x00"))
    ledger.record(LedgerNote("stripped", "module-aux", "not needed"))
    ledger.close()
    lines = [json.loads(line) for line in (tmp_path / "deep" / "ledger.jsonl").read_text().splitlines()]
    first = {"schema": 1, "action": "degraded", "what": "field-ttl", "why": 'no "TTLs" there', "policy": "keep-field"}
    assert lines[0] == first | {"key": "müsli:7", "key_hex": None, "database": 3, "source_offset": 812, "count": 2}
    assert (lines[1]["key"], lines[1]["key_hex"]) == (None, "ff00")
    assert (lines[2]["key"], lines[2]["key_hex"], lines[2]["source_offset"], lines[2]["count"]) == (None, None, -1, 1)
    assert [set(line) for line in lines] == [set(lines[0])] * 3


def test_counts_are_of_things_and_the_most_frequent_stand_first(tmp_path: Path) -> None:
    ledger = Ledger(None)
    ledger.record(LedgerNote("recopied", "key", "x"))
    for _ in range(3):
        ledger.record(LedgerNote("degraded", "field-ttl", "x", policy="drop-field", things=2))
    assert ledger.lines == 4
    assert ledger.summary() == [
        {"action": "degraded", "what": "field-ttl", "policy": "drop-field", "count": 6},
        {"action": "recopied", "what": "key", "policy": "", "count": 1},
    ]


def test_it_appends_to_what_a_first_run_left(tmp_path: Path) -> None:
    for _ in range(2):
        ledger = Ledger(tmp_path / "ledger.jsonl")
        ledger.record(LedgerNote("stripped", "module-aux", "x"))
        ledger.close()
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 2


def test_a_ledger_that_cannot_be_written_stops_the_migration() -> None:
    ledger = Ledger(Path("/dev/full"))
    with pytest.raises(ValkeepError, match="ledger") as full:
        ledger.record(LedgerNote("stripped", "module-aux", "x"))
        ledger.flush()
    assert full.value.code == "VK-LEDGER-WRITE"
    assert "space" in full.value.remedy
    with pytest.raises(ValkeepError):
        ledger.flush()
    assert ledger._file is not None
    with pytest.raises(OSError, match="space"):
        ledger._file.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_many_lines_are_one_event_of_their_kind_in_a_second_with_their_number_and_the_last_of_them() -> None:
    events: list[Event] = []
    clock = Clock()
    ledger = Ledger(None, events.append, clock)
    for number in range(10_000):
        ledger.record(LedgerNote("degraded", "field-ttl", "why", "drop-field", b"%d" % number, 2, 812, 3))
        ledger.record(LedgerNote("stripped", "module-aux", "unused"))
        clock.now += 0.001
        ledger.tell()
    assert 20 <= len(events) <= 24  # two kinds, ten seconds
    ledger.close()
    entries = [event for event in events if isinstance(event, LedgerEntry)]
    assert events == entries
    assert entries[-2] == LedgerEntry(clock.now, "degraded", "field-ttl", "why", "drop-field", b"9999", 2, 812, entries[-2].count)
    told = Counter[tuple[str, str, str]]()
    for entry in entries:
        told[entry.action, entry.what, entry.policy] += entry.count
    assert told == ledger.counts


@pytest.mark.parametrize("action", ["held", "refused", "recopied"])
def test_what_a_person_may_have_to_act_on_is_told_at_once(action: str) -> None:
    events: list[Event] = []
    clock = Clock()
    ledger = Ledger(None, events.append, clock)
    ledger.record(LedgerNote(action, "command VADD", "not known", key=b"k"))
    assert events == [LedgerEntry(100.0, action, "command VADD", "not known", "", b"k", 0, -1, 1)]
    for _ in range(50):
        ledger.record(LedgerNote(action, "command VADD", "not known"))  # a thousand keys of one MSETEX are no thousand events
    assert len(events) == 1
    clock.now += 1
    ledger.tell()
    assert [event.count for event in events if isinstance(event, LedgerEntry)] == [1, 50]


def test_the_event_log_and_the_live_view_show_what_was_recorded(tmp_path: Path) -> None:
    board = Dashboard()
    with EventLog(tmp_path / "events.jsonl") as log:
        ledger = Ledger(None, fan_out(log.emit, board.emit), Clock())
        for number in range(1000):
            ledger.record(LedgerNote("degraded", "field-ttl", "why", "drop-field", b"%d" % number, things=3))
        ledger.record(LedgerNote("recopied", "key", "why", key=b"\xff"))
        ledger.close()
    shown = dict(board.rows())["ledger"]
    assert "3,001" in shown
    with (tmp_path / "events.jsonl").open() as lines:
        logged = list(read_events(lines))
    assert [(event.action, event.key, event.count) for event in logged if isinstance(event, LedgerEntry)] == [
        ("degraded", b"999", 3000),
        ("recopied", b"\xff", 1),
    ]


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValkeepError, match="ledger") as wrong:
        Ledger(tmp_path / "file" / "ledger.jsonl")
    assert wrong.value.code == "VK-LEDGER-WRITE"


def test_what_was_written_behind_a_mark_is_cut_off_and_its_counts_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    first = Ledger(path)
    first.record(LedgerNote("degraded", "field-ttl", "é", "keep-field", "clé".encode(), 0, 5, 3))
    mark = first.mark()
    assert first.mark() is mark
    first.record(LedgerNote("degraded", "field-ttl", "é", "keep-field", b"\xff", 0, 6, 4))
    first.flush()
    assert (mark.size, first.mark().size) == (len(path.read_bytes().splitlines(keepends=True)[0]), path.stat().st_size)
    again = Ledger(path, since=mark)
    again.record(LedgerNote("recopied", "key", "x"))
    again.close()
    assert [json.loads(line)["action"] for line in path.read_text().splitlines()] == ["degraded", "recopied"]
    assert again.counts == {("degraded", "field-ttl", "keep-field"): 3, ("recopied", "key", ""): 1}
    path.write_bytes(b"")
    with pytest.raises(ValkeepError, match="were written to it") as error:
        Ledger(path, since=mark)
    assert error.value.code == "VK-SPOOL-DAMAGED"
