"""Where a command's answer goes: the terminal, and ``--json PATH`` beside it.

``--json -`` writes the JSON to stdout, and then everything for people goes to stderr, so that a pipe gets one JSON value and
nothing else. Every JSON value carries ``schema``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valkeep.errors import ValkeepError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["JsonPath", "console", "progress_console", "write_json"]

SCHEMA = 1

JsonPath = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON to PATH; '-' is stdout.", show_default=False)
]


def console(json_path: str | None = None) -> Console:
    """For people: stdout, or stderr when the JSON has stdout."""
    from rich.console import Console

    return Console(stderr=json_path == "-", highlight=False, soft_wrap=not sys.stdout.isatty())


def progress_console() -> Console:
    """For progress: always stderr; rich writes plain lines there when it is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def write_json(value: dict[str, Any], json_path: str | None) -> None:
    """``value`` with its ``schema`` first, to where ``--json`` said; nothing without it. A file appears whole or not at all."""
    if json_path is None:
        return
    text = json.dumps({"schema": SCHEMA, **value}, indent=2, default=_plain, ensure_ascii=False) + "\n"
    if json_path == "-":
        sys.stdout.write(text)
        return
    path = Path(json_path)
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        raise ValkeepError(f"the JSON could not be written to {path}: {error}", remedy="name a path that can be written") from error


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
