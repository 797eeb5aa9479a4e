"""Events as JSON lines, and back: what ``events.jsonl`` of a report folder is.

    {"schema":1,"event":"Phase","at":3.41,"name":"verify","done":false,"detail":""}

Keys of records are text where they are UTF-8, else ``{"hex": …}``. A line that can't be read ends the reading (a killed job's last line is often
half a line); events of a newer version that this one does not know are passed over.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from valkeep.errors import ValkeepError
from valkeep.report import events, rate
from valkeep.report.events import Event

__all__ = ["EventLog", "from_json", "read_events", "to_json"]

SCHEMA: Final = 1

_TYPES: Final[dict[str, type[Event]]] = {
    kind.__name__: kind
    for kind in (
        events.Phase,
        events.Progress,
        events.Lag,
        events.Held,
        events.LedgerEntry,
        events.Note,
        events.VerdictEvent,
        events.Pulse,
        events.Fault,
        rate.Rate,
    )
}


def to_json(event: Event) -> dict[str, Any]:
    """The members of one line."""
    members = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    return {"schema": SCHEMA, "event": type(event).__name__} | {name: _plain(value) for name, value in members.items()}


def from_json(members: dict[str, Any]) -> Event | None:
    """The event of one line; None for one of another version's."""
    kind = _TYPES.get(str(members.get("event")))
    if kind is None:
        return None
    known = {field.name for field in dataclasses.fields(kind)}
    try:
        values: dict[str, Any] = {name: _rich(name, value) for name, value in members.items() if name in known}
        return kind(**values)
    except TypeError:
        return None


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"hex": value.hex()}
    if isinstance(value, float):
        return round(value, 6)
    return value


def _rich(name: str, value: object) -> object:
    if name == "key":
        if isinstance(value, dict):
            return bytes.fromhex(value["hex"])
        return value.encode() if isinstance(value, str) else None
    return tuple(value) if isinstance(value, list) else value


class EventLog:
    """``with EventLog(path) as log: job(emit=log.emit)``. Written through at each phase, so that a killed job leaves its story. A disk that is full in the
    middle ends the log and not the job: ``ended`` then says why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended = ""
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise ValkeepError(
                f"the event log {self.path} can't be written: {error.strerror}", remedy="choose another --report folder"
            ) from error
        return self

    def emit(self, event: Event) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(to_json(event), separators=(",", ":"), default=str) + "\n")
            if isinstance(event, (events.Phase, events.VerdictEvent)):
                self._file.flush()
        except OSError as error:
            self.ended = f"{self.path} ends early: {error.strerror}"
            self._close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self.ended = self.ended or f"{self.path} ends early: {error.strerror}"


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a log, up to the first damaged line."""
    for line in lines:
        try:
            members = json.loads(line)
        except ValueError:
            return
        event = from_json(members) if isinstance(members, dict) else None
        if event is not None:
            yield event
