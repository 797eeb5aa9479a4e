"""``valkeep down``: ends what ``valkeep up`` holds."""

from __future__ import annotations

from typing import Annotated

import typer

from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def down(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Which; not needed when only one is up.", show_default=False)] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that is up.")] = False,
    json: JsonPath = None,
) -> ExitCode:
    """End a topology and wait until no process and no folder of it is left."""
    from valkeep.runtime.standing import all_standing, end, find

    if name and everything:
        raise UsageError("a name or --all, not both", remedy="valkeep down --all")
    standing = [find(name)] if name else all_standing()
    if not name and not everything and len(standing) != 1:
        names = ", ".join(one.name for one in standing)
        raise UsageError(
            f"several are up: {names}" if standing else "nothing is up",
            remedy="name one, or say --all" if standing else "there is nothing to end",
        )
    for one in standing:
        end(one)
        kept = f"; its files are in {one.folder}" if one.kept else ""
        console(json).print(f"{one.name} is down: {len(one.nodes)} nodes ended, nothing left{kept}", markup=False)
    write_json({"ended": [one.name for one in standing]}, json)
    return ExitCode.GOOD
