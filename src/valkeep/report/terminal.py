"""What a person sees of a job: a live view while it runs, and its story in tables when it is over.

On a terminal the live view is a few lines that are drawn again (on stderr, so that stdout stays free for results); piped, it is plain
lines: each phase, each note, and the progress every two seconds. ``watch`` chooses, and writes the event log beside it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from valkeep.report.eventlog import EventLog
from valkeep.report.events import Emit, Event, Fault, Held, Lag, LedgerEntry, Note, Phase, Progress, Pulse, VerdictEvent, fan_out
from valkeep.report.rate import Rate
from valkeep.report.recording import is_news, label

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from valkeep.report.story import Story

__all__ = ["STYLES", "VERDICTS", "Dashboard", "show", "watch"]

WINDOW: Final = 1.5  # seconds over which speeds are averaged
EVERY: Final = 2.0  # seconds between progress lines when piped
WORD: Final = 24  # letters of the longest word that tables keep whole
STALE: Final = 3.0  # seconds after which a lag is that of a link that is no more, and a pulse that of a load that has ended
SILENT_MS: Final = 150.0  # without an ack; less is how clients work


class Speed:
    """A counter's rate over the last ``WINDOW`` seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, at: float, value: int) -> None:
        self._seen.append((at, value))
        while len(self._seen) > 2 and at - self._seen[0][0] > WINDOW:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (began, low), (now, high) = self._seen[0], self._seen[-1]
        return max(0.0, (high - low) / (now - began)) if now > began else 0.0


class Dashboard:
    """The state behind both views; pure: ``emit`` takes events in, ``rows`` says what to show."""

    def __init__(self) -> None:
        self.phase = ""
        self.detail = ""
        self.since = 0.0
        self.now = 0.0
        self.finished: list[tuple[str, float]] = []  # the last phases, and how long they took
        self.progress: Progress | None = None
        self.lag: Lag | None = None
        self.held: Held | None = None
        self.rate: Rate | None = None
        self.pulse: Pulse | None = None
        self.faults: dict[str, Fault] = {}  # those that go on
        self.fault: Fault | None = None  # the last one
        self.recovered: list[str] = []  # what came after it
        self.notes: deque[Note] = deque(maxlen=4)
        self.ledger = 0
        self.verdict = ""  # of the job; a part's is a word beside its phase
        self._keys, self._bytes = Speed(), Speed()

    def emit(self, event: Event) -> None:
        self.now = max(self.now, event.at)
        if not is_news(event):
            return
        match event:
            case Phase(done=False):
                self._leave(event.at)
                self.phase, self.detail, self.since = event.name, event.detail, event.at
            case Phase():
                if event.name == self.phase:
                    self._leave(event.at)
            case Progress():
                if self.progress is None or self.progress.phase != event.phase:
                    self._keys, self._bytes = Speed(), Speed()
                self.progress = event
                self._keys.add(event.at, event.keys)
                self._bytes.add(event.at, event.bytes)
            case Lag():
                self.lag = event
            case Held():
                self.held = event if event.why else None
            case Rate():
                self.rate = event
            case Pulse():
                self._after_fault(event)
                self.pulse = event
            case Fault(healed=True):
                self.faults.pop(fault_words(event), None)
            case Fault():
                if event.lasting:
                    self.faults[fault_words(event)] = event
                self.fault, self.recovered = event, []
            case Note():
                self.notes.append(event)
            case LedgerEntry():
                self.ledger += event.count
            case VerdictEvent():
                self.verdict = self.verdict if "of" in event.detail else event.verdict
                self.pulse, self.fault, self.faults, self.recovered = None, None, {}, []  # the next drill has its own
            case _:
                pass

    def _after_fault(self, pulse: Pulse) -> None:
        """What pulses tell of a recovery: who is primary now, and that there are acks again. As coarse as they are; the logs have the exact times."""
        if self.fault is None or self.pulse is None:
            return
        seconds = pulse.at - self.fault.at
        self.recovered += [f"{node} primary after {seconds:,.1f} s" for node in pulse.primaries if node not in self.pulse.primaries]
        if self.pulse.silent_ms >= SILENT_MS > pulse.silent_ms:
            self.recovered.append(f"acks after {seconds:,.1f} s")

    def _leave(self, at: float) -> None:
        if self.phase:
            self.finished.append((self.phase, at - self.since))
        self.phase = self.detail = ""
        self.progress = None

    def rows(self) -> list[tuple[str, str]]:
        """(label, text) for each line that has something to say now."""
        rows: list[tuple[str, str]] = []
        if self.progress is not None:
            rows.append(("compared" if self.progress.phase.startswith("verify") else "copied", self._progress(self.progress)))
        if self.held is not None:  # the lag would be 0: the target has all that may be sent
            rows.append(("held", f"{_bytes(self.held.bytes)} wait: nothing is sent from source offset {self.held.offset} on"))
            rows.append(("why", self.held.why))
            rows.append(("remedy", self.held.remedy))
        elif self.lag is not None and self.now - self.lag.at < STALE:
            in_ms = f", {self.lag.milliseconds:.1f} ms" if self.lag.milliseconds is not None else ""
            rows.append(("lag", f"{_bytes(self.lag.bytes)}{in_ms}"))
        if self.rate is not None and self.rate.acked:
            rows.append(("writers", f"{self.rate.per_second:,.0f} acked/s by the {self.rate.node}, {self.rate.acked:,} in all"))
        if self.pulse is not None and self.now - self.pulse.at < STALE:
            rows += self._load(self.pulse)
        rows += [("fault", f"{words}, for {self.now - fault.at:,.1f} s") for words, fault in self.faults.items()]
        if self.recovered:
            rows.append(("since", ", ".join(self.recovered)))
        if self.ledger:
            rows.append(("ledger", f"{self.ledger:,} changed or refused"))
        return rows

    def _load(self, pulse: Pulse) -> list[tuple[str, str]]:
        others = "".join(f", {count:,} {word}" for count, word in ((pulse.failed, "failed"), (pulse.open, "unanswered")) if count)
        rows = [("load", f"{pulse.per_second:,.0f} acked/s, {pulse.acked:,} in all{others}")]
        if pulse.primaries:
            rows.append(("primary", ", ".join(pulse.primaries)))
        if pulse.silent_ms >= SILENT_MS:
            rows.append(("gap", f"{pulse.silent_ms / 1000:,.2f} s without an ack"))
        return rows

    def _progress(self, progress: Progress) -> str:
        parts = [f"{progress.keys:,}{f' of {progress.total_keys:,}' if progress.total_keys else ''} keys"]
        speed, volume = self._keys.per_second, self._bytes.per_second
        if speed:
            parts.append(f"{speed:,.0f} keys/s")
        if volume:
            parts.append(f"{volume / 1e6:,.1f} MB/s")
        if speed and progress.total_keys > progress.keys:
            parts.append(f"{(progress.total_keys - progress.keys) / speed:,.1f} s left")
        elif volume and progress.total_bytes > progress.bytes:
            parts.append(f"{(progress.total_bytes - progress.bytes) / volume:,.1f} s left")
        return ", ".join(parts)


def fault_words(fault: Fault) -> str:
    nodes = ", ".join(fault.nodes)
    return f"{fault.name} {fault.target}" + (f" ({nodes})" if nodes and nodes != fault.target else "")


def _said(event: Fault) -> str:
    return f"{'healed' if event.healed else 'fault'}: {fault_words(event)}"


def _bytes(count: int) -> str:
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= limit:
            return f"{count / limit:,.1f} {unit}"
    return f"{count:,} bytes"


class _Plain:
    """Lines for a pipe or a log file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Dashboard()
        self._last = -EVERY

    def emit(self, event: Event) -> None:
        board = self._board
        before = board.recovered
        known = len(before)
        board.emit(event)
        if not is_news(event):
            return
        if board.recovered is before:
            for what in before[known:]:
                self._line(event.at, what)
        match event:
            case Phase(done=False):
                self._line(event.at, f"{label(event.name)}{': ' if event.detail else ''}{event.detail}")
                self._last = event.at
            case Note():
                self._line(event.at, f"{'' if event.level == 'info' else event.level + ': '}{event.text}")
            case VerdictEvent():
                self._line(event.at, f"{label(event.detail.get('of', 'verdict'))}: {event.verdict}")
            case Fault():
                self._line(event.at, _said(event))
            case Progress() | Lag() | Rate() | Held() | Pulse():
                if event.at - self._last >= EVERY and (rows := [row for row in board.rows() if row[0] not in ("why", "remedy")]):
                    self._last = event.at  # why it is held, a note has said
                    self._line(event.at, "; ".join(f"{name} {text}" for name, text in rows))
            case _:
                pass

    def _line(self, at: float, text: str) -> None:
        self._console.print(f"{at:8.2f} s  {text}", markup=False, highlight=False, soft_wrap=True)


class _Live:
    """A few lines that stay in place; notes scroll past above them."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._board = Dashboard()
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._live.__exit__(None, None, None)

    def emit(self, event: Event) -> None:
        from rich.text import Text

        before = len(self._board.finished)
        self._board.emit(event)
        for name, seconds in self._board.finished[before:]:
            self._console.print(Text.assemble((f"  ✓ {label(name):<27}", "green"), (f"{seconds:6.2f} s", "dim")))
        if isinstance(event, Note):
            style = {"warning": "yellow", "error": "bold red"}.get(event.level, "dim")
            self._console.print(Text(f"    {event.text}", style=style))
        elif isinstance(event, Fault):
            self._console.print(Text(f"    {_said(event)}", style="dim" if event.healed else "red"))

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        board = self._board
        head = Spinner("dots", Text.assemble((label(board.phase) or "…", "bold"), "  ", (board.detail, "dim")), style="cyan")
        grid = Table.grid(padding=(0, 2))
        for name, text in board.rows():
            grid.add_row(Text(f"    {name:<8}", style="dim"), Text(text))
        return Group(head, grid)


def _tell_end(log: EventLog, show: Emit, at: float) -> None:
    if log.ended:
        show(Note(at, "warning", log.ended))


def _while_it_can(show: Emit) -> Emit:
    """A terminal that was closed is no reason for the job to end."""
    gone = False

    def emit(event: Event) -> None:
        nonlocal gone
        if not gone:
            try:
                show(event)
            except OSError:
                gone = True

    return emit


@contextlib.contextmanager
def watch(log: Path | None = None, *, console: Console | None = None, also: Emit | None = None, stamped: bool = False) -> Iterator[Emit]:
    """``with watch(report / "events.jsonl") as emit: job(emit)``: the live view on stderr, and the event log where one is wanted.

    A job of several parts has several clocks; unless it is ``stamped`` already, every event gets the seconds since ``watch`` began.
    ``also``: one more subscriber.
    """
    from valkeep.report.console import PatientConsole

    console = console or PatientConsole(stderr=True, highlight=False)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        subscribers: list[Emit] = [also] if also is not None else []
        view: _Live | _Plain = stack.enter_context(_Live(console)) if console.is_terminal else _Plain(console)
        if log is not None:
            record = EventLog(log)
            stack.callback(lambda: _tell_end(record, view.emit, time.monotonic() - began))
            subscribers.append(stack.enter_context(record).emit)
        everyone = fan_out(*subscribers, _while_it_can(view.emit))
        yield everyone if stamped else lambda event: everyone(replace(event, at=time.monotonic() - began))


# ------------------------------------------------------------------------------------------------------------------ afterwards

STYLES: Final = {"good": "green", "bad": "bold red", "warn": "yellow"}
VERDICTS: Final = {"valid": "bold green", "GO": "bold green", "invalid": "bold red", "NO-GO": "bold red"}


def show(story: Story, console: Console, *, tables: bool = False) -> None:
    """The outcome: verdict, numbers, reasons, what to do next; with ``tables`` also the proof in detail."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble((story.title, "bold"), "  ", (story.verdict, VERDICTS.get(story.verdict, "bold yellow"))))
    console.print(Text(story.subtitle, style="dim"))
    numbers = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    numbers.add_column()
    numbers.add_column(justify="right")
    numbers.add_column(style="dim")
    for tile in story.tiles:
        value = f"{tile.value}{' ' if tile.unit else ''}{tile.unit}"
        numbers.add_row(Text(tile.label), Text(value, style=STYLES.get(tile.tone, "bold")), Text(tile.note))
    console.print(numbers)
    for table in story.tables if tables else ():
        grid = Table(
            title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE, caption=table.note or None, caption_justify="left"
        )
        for place, column in enumerate(table.columns):
            short = all(" " not in row[place] and len(row[place]) <= WORD for row in table.rows)  # a code is not cut in two
            grid.add_column(Text(column), justify="right" if place in table.numeric else "left", no_wrap=short, overflow="fold")
        for row in table.rows:
            grid.add_row(*[Text(cell) for cell in row])
        console.print(grid)
    console.print(Text(story.sentence))
    for reason in story.reasons:
        console.print(Text(f"  ✗ {reason}", style="red"))
    if story.command:
        console.print(Text.assemble("\nNext, your own source:\n  ", (story.command, "bold cyan")), soft_wrap=True)
