"""Events on their way to people: the log and back, the dashboard, plain lines, the recording behind the charts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from valkeep.errors import ValkeepError
from valkeep.report.eventlog import EventLog, from_json, read_events, to_json
from valkeep.report.events import Event, Fault, Held, Lag, LedgerEntry, Note, Phase, Progress, Pulse, VerdictEvent
from valkeep.report.rate import Rate
from valkeep.report.recording import Recording, label, spans_between, thin
from valkeep.report.story import Story, Table, Tile
from valkeep.report.terminal import Dashboard, show, watch

EVENTS: list[Event] = [
    Phase(0.0, "preflight", detail="reads only"),
    Phase(1.0, "preflight", done=True),
    Phase(1.0, "snapshot"),
    Progress(1.5, "snapshot", keys=1000, bytes=100_000, total_keys=5000),
    Progress(2.0, "snapshot", keys=3000, bytes=300_000, total_keys=5000),
    Lag(2.5, "127.0.0.1:1", 2048, 3.5),
    Held(2.55, 4711, 3 << 10, "VADD is unknown to Valkey", "delete the key"),
    Held(2.58, 4799, 0, "", ""),
    Rate(2.6, 500, 6500.0, "source"),
    LedgerEntry(2.7, "degraded", "field-ttl", "why", "keep-field", b"k\xff", 2, 812, 3),
    LedgerEntry(2.75, "refused", "command X", "unknown", "", None, 0, 900),
    Note(2.8, "warning", "a note", {"n": 1}),
    Fault(2.81, "kill", "primary", ("n1",)),
    Pulse(2.82, 40_000, 120, 12, 11_500.5, 840.0, ("n1",)),
    Pulse(2.83, 40_000, 120, 12, 0.0, 850.0, ("n1", "n2")),
    VerdictEvent(2.9, "GO", {"of": "preflight"}),
    VerdictEvent(3.0, "valid", {"mismatches": 0}),
]


def test_events_survive_the_log() -> None:
    assert [from_json(json.loads(json.dumps(to_json(event)))) for event in EVENTS] == EVENTS


def test_a_log_is_read_up_to_its_first_damaged_line(tmp_path: Path) -> None:
    with EventLog(tmp_path / "deep" / "events.jsonl") as log:
        for event in EVENTS:
            log.emit(event)
    lines = (tmp_path / "deep" / "events.jsonl").read_text().splitlines()
    assert list(read_events(lines)) == EVENTS
    assert list(read_events([*lines[:3], lines[3][:20], *lines[4:]])) == EVENTS[:3]


def test_events_of_another_version_are_passed_over() -> None:
    assert from_json({"schema": 2, "event": "Weather", "at": 1.0}) is None
    assert from_json({"schema": 1, "event": "Lag", "at": 1.0}) is None  # its other members are missing
    assert from_json({"schema": 1, "event": "Phase", "at": 1.0, "name": "x", "mood": "good"}) == Phase(1.0, "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is /dev/full here")
def test_a_disk_that_is_full_in_the_middle_ends_the_log_and_not_the_job(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    out = io.StringIO()
    done = False
    with watch(tmp_path / "events.jsonl", console=Console(file=out, width=200)) as emit:
        for event in EVENTS * 2:
            emit(event)
        done = True
    assert done
    assert "warning" in out.getvalue().splitlines()[-1]
    assert "events.jsonl ends early: No space left on device" in out.getvalue()


def test_a_log_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValkeepError, match="can't be written"), EventLog(tmp_path / "file" / "events.jsonl"):
        pass


def test_the_dashboard_knows_speed_remaining_time_and_lag() -> None:
    board = Dashboard()
    for event in EVENTS:
        board.emit(event)
    rows = dict(board.rows())
    assert rows["copied"] == "3,000 of 5,000 keys, 4,000 keys/s, 0.4 MB/s, 0.5 s left"
    assert rows["lag"] == "2.0 KiB, 3.5 ms"
    assert rows["writers"] == "6,500 acked/s by the source, 500 in all"
    assert rows["ledger"] == "4 changed or refused"
    assert board.finished == [("preflight", 1.0)]
    assert board.verdict == "valid"


def test_while_the_stream_is_held_the_dashboard_shows_how_much_waits_and_the_remedy_and_no_lag_of_zero() -> None:
    board = Dashboard()
    board.emit(Lag(1.0, "127.0.0.1:1", 0, 0.4))
    assert dict(board.rows()) == {"lag": "0 bytes, 0.4 ms"}
    board.emit(Held(2.0, 4711, 3 << 20, "VADD is unknown to Valkey", "delete the key"))
    board.emit(Lag(2.5, "127.0.0.1:1", 0, 0.4))
    assert dict(board.rows()) == {
        "held": "3.0 MiB wait: nothing is sent from source offset 4711 on",
        "why": "VADD is unknown to Valkey",
        "remedy": "delete the key",
    }
    board.emit(Held(3.0, 4799, 0, "", ""))
    assert dict(board.rows()) == {"lag": "0 bytes, 0.4 ms"}


def test_a_move_that_waits_says_so_and_tells_of_the_rounds_beside_it_only_what_is_bad() -> None:
    def rounds(verdict: str) -> list[Event]:
        return [Phase(2.0, "verify-round"), Phase(3.0, "verify-round", done=True), VerdictEvent(3.0, verdict, {"of": "verify-round"})]

    board, recording, out = Dashboard(), Recording(), io.StringIO()
    with watch(console=Console(file=out, width=200), also=recording.emit, stamped=True) as emit:
        for event in (Phase(1.0, "waiting", detail="for `valkeep migrate cutover`"), *rounds("valid") * 3):
            emit(event)
            board.emit(event)
        assert (board.phase, board.finished) == ("waiting", [])
        assert len(out.getvalue().splitlines()) == len(recording.lines) == 1
        for event in rounds("invalid"):
            emit(event)
    assert out.getvalue().splitlines()[-1].endswith("compare what was written: invalid")
    assert recording.lines[-1].text == "compare what was written: invalid"


def test_the_lag_of_a_link_that_is_no_more_is_not_shown() -> None:
    board = Dashboard()
    board.emit(Lag(1.0, "127.0.0.1:1", 4096, 0.4))
    board.emit(Rate(5.0, 10, 1.0, "target"))
    assert "lag" not in dict(board.rows())


def test_what_was_held_has_a_chart() -> None:
    recording = Recording([Held(1.0, 5, 100, "why", "remedy"), Held(2.0, 5, 200, "why", "remedy"), Held(3.0, 9, 0, "", "")])
    (chart,) = recording.charts_of_lag()
    assert chart.series[0].points == ((1.0, 100.0), (2.0, 200.0), (3.0, 0.0))


def test_piped_progress_is_plain_lines() -> None:
    out = io.StringIO()
    with watch(console=Console(file=out, width=200), stamped=True) as emit:
        for event in EVENTS:
            emit(event)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "preflight: reads only" in text
    assert "warning: a note" in text
    assert "preflight: GO" in text
    assert [line for line in text.splitlines() if "verdict:" in line] == [text.splitlines()[-1]]
    assert text.splitlines()[-1].endswith("verdict: valid")


def test_the_live_view_draws_and_leaves_the_finished_phases() -> None:
    out = io.StringIO()
    with watch(console=Console(file=out, width=100, force_terminal=True), stamped=True) as emit:
        for event in EVENTS:
            emit(event)
    text = out.getvalue()
    assert "✓ preflight" in text
    assert "a note" in text


def test_watch_gives_all_parts_of_a_job_one_clock(tmp_path: Path) -> None:
    with watch(tmp_path / "events.jsonl", console=Console(file=io.StringIO())) as emit:
        emit(Phase(999_999.0, "a"))
        emit(Phase(3.0, "b"))
    first, second = read_events((tmp_path / "events.jsonl").read_text().splitlines())
    assert 0 <= first.at <= second.at < 10


def test_a_recording_makes_spans_charts_and_lines() -> None:
    recording = Recording([*EVENTS, Lag(2.9, "127.0.0.1:1", 10, 1.0)])
    assert recording.chart_of_keys() is None  # one point draws no line
    recording.emit(Progress(2.5, "snapshot", keys=4000, bytes=400_000, total_keys=5000))
    assert recording.steps == [("preflight", 0.0), ("snapshot", 1.0)]
    assert [chart.unit for chart in recording.charts_of_lag()] == ["ms", "bytes"]
    chart = recording.chart_of_keys()
    assert chart is not None
    assert chart.series[0].points == ((2.0, 4000.0), (2.5, 2000.0))
    assert [line.level for line in recording.lines].count("warning") == 3
    assert recording.verdict == "valid"


def test_what_several_servers_tell_at_almost_the_same_time_is_one_rate() -> None:
    told = [Progress(second + shard / 1e6, "snapshot", keys=1000 * (3 * second + shard)) for second in range(4) for shard in range(3)]
    chart = Recording(told).chart_of_keys()
    assert chart is not None
    assert [value for _, value in chart.series[0].points] == [pytest.approx(3000.0, rel=0.01)] * 3


def test_a_step_lasts_until_the_next() -> None:
    spans = spans_between([("attach", 1.0), ("snapshot-taken", 2.0), ("online", 2.01)], 3.0)
    assert [(span.name, span.start, span.end) for span in spans] == [("snapshot", 1.0, 2.0), ("follow", 2.01, 3.0)]
    assert spans_between([], 3.0) == ()
    assert label("cutover:drain-after-fence") == "drain again"


def test_thinning_keeps_the_peaks() -> None:
    assert thin([(0.0, 1.0), (0.01, 9.0), (0.02, 2.0), (0.2, 3.0)], 0.1) == ((0.0, 9.0), (0.2, 3.0))


def test_a_story_is_shown_with_its_reasons_and_the_next_command() -> None:
    out = io.StringIO()
    tables = (Table("Ledger", ("what", "count"), (("field-ttl", "3"),), numeric=frozenset({1})),)
    story = Story(
        "Redis → Valkey",
        "sub",
        "invalid",
        "Two are lost.",
        (Tile("Lost", "2", tone="bad"),),
        (),
        tables,
        (),
        ("set: lost",),
        "valkeep next",
    )
    show(story, Console(file=out, width=100), tables=True)
    for wanted in ("Redis → Valkey", "invalid", "Lost", "Two are lost.", "✗ set: lost", "valkeep next", "field-ttl"):
        assert wanted in out.getvalue()


def test_a_code_in_a_narrow_table_is_neither_cut_nor_broken() -> None:
    out = io.StringIO()
    rows = (("VK-SOURCE-PERSISTENCE", "info", "how the source keeps its data, " * 3, "a long remedy " * 5),)
    show(
        Story("t", "s", "valid", "x", (), (), (Table("T", ("code", "severity", "finding", "remedy"), rows),), (), (), ""),
        Console(file=out, width=80),
        tables=True,
    )
    assert "VK-SOURCE-PERSISTENCE " in out.getvalue()
    assert "…" not in out.getvalue()


def test_the_dashboard_shows_how_the_load_does_whom_it_reaches_and_for_how_long_nobody_answered() -> None:
    board = Dashboard()
    board.emit(Pulse(1.0, 40_000, 0, 0, 11_500.0, 2.0, ("n1",)))
    assert board.rows() == [("load", "11,500 acked/s, 40,000 in all"), ("primary", "n1")]
    board.emit(Fault(1.1, "kill", "primary", ("n1",)))
    board.emit(Pulse(1.6, 40_100, 300, 12, 200.0, 480.0, ()))
    assert board.rows() == [
        ("load", "200 acked/s, 40,100 in all, 300 failed, 12 unanswered"),
        ("gap", "0.48 s without an ack"),
        ("fault", "kill primary (n1), for 0.5 s"),
    ]
    board.emit(Pulse(2.3, 40_100, 400, 12, 0.0, 900.0, ("n2",)))
    board.emit(Pulse(2.4, 40_400, 400, 0, 3000.0, 1.0, ("n2",)))
    assert dict(board.rows())["since"] == "n2 primary after 1.2 s, acks after 1.3 s"
    board.emit(Fault(2.5, "kill", "primary", ("n1",), healed=True))
    board.emit(Fault(2.5, "promote", "primary", ("n2",), lasting=False))
    assert "fault" not in dict(board.rows())
    board.emit(VerdictEvent(2.6, "valid", {"of": "sentinel-kill-primary"}))
    assert board.rows() == []


def test_a_pipe_is_told_of_faults_and_of_each_step_back(tmp_path: Path) -> None:
    out = io.StringIO()
    with watch(console=Console(file=out, width=200), stamped=True) as emit:
        for event in EVENTS:
            emit(event)
    text = out.getvalue()
    assert "2.81 s  fault: kill primary (n1)" in text
    assert "2.83 s  n2 primary after 0.0 s" in text
