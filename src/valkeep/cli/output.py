"""Where a command's answer goes: the terminal, and ``--json PATH`` beside it.

``--json -`` writes the JSON to stdout, and then everything for people goes to stderr, so that a pipe gets one JSON value and
nothing else. Every JSON value carries ``schema``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from valkeep.errors import UsageError, ValkeepError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["JsonPath", "console", "progress_console", "writable", "write_json", "write_whole"]

SCHEMA = 1
WIDE = 132  # columns where nobody says how many there are: a file or a pipe
P = TypeVar("P", str | None, Path | None)


def writable(path: P) -> P:
    """Asked before the work begins, so that the result of hours has a place to go."""
    if path is None or str(path) == "-":
        return path
    place = Path(path)
    try:
        if place.is_dir():
            raise UsageError(f"{place} is a folder", remedy="name a file in it")
        if _special(place):
            return path
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(place)
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise ValkeepError(f"{place} cannot be written: {error.strerror}", remedy="name a path that can be written") from error
    return path


def write_whole(path: Path, text: str, changed: str = "") -> None:
    """The file appears whole or not at all. ``changed``: what the work before it has changed, for the case that it cannot be written any more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _special(path):
            path.write_text(text, encoding="utf-8")
            return
        beside = _beside(path)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        late = ValkeepError(
            f"{path} could not be written: {error.strerror}", remedy="name a path that can be written", definite=not changed
        )
        late.changed = changed
        raise late from error


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _special(path: Path) -> bool:
    """A device or a pipe, say ``/dev/stderr``: it is written to, and never replaced."""
    return path.exists() and not path.is_file()


JsonPath = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH", help="Write the result as JSON to PATH; '-' is stdout.", show_default=False, callback=writable),
]


def console(json_path: str | None = None) -> Console:
    """For people: stdout, or stderr when the JSON has stdout."""
    from valkeep.report.console import PatientConsole

    stream = sys.stderr if json_path == "-" else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
    return PatientConsole(stderr=json_path == "-", highlight=False, soft_wrap=not sys.stdout.isatty(), width=wide)


def progress_console() -> Console:
    """For progress: always stderr; rich writes plain lines there when it is not a terminal."""
    from valkeep.report.console import PatientConsole

    return PatientConsole(stderr=True, highlight=False)


def write_json(value: dict[str, Any], json_path: str | None, changed: str = "") -> None:
    """``value`` with its ``schema`` first, to where ``--json`` said; nothing without it. ``changed``: as in `write_whole`."""
    if json_path is None:
        return
    text = json.dumps({"schema": SCHEMA, **value}, indent=2, default=_plain, ensure_ascii=False) + "\n"
    if json_path == "-":
        with contextlib.suppress(BrokenPipeError):  # whoever stops reading does not change the verdict
            sys.stdout.write(text)
            sys.stdout.flush()
    else:
        write_whole(Path(json_path), text, changed)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
