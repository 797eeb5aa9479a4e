"""``valkeep doctor``: what works on this machine, and what each absence disables."""

from __future__ import annotations

import typer

from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode
from valkeep.runtime.machine import findings

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def doctor(json: JsonPath = None) -> ExitCode:
    """Look at this machine: what is compiled, which servers, Java, Docker and namespaces there are.

    Exit code 0 also when something is missing (each line says what that disables), 1 when the main job itself suffers.
    """
    found = findings()
    out = console(json)
    width = max(len(one.name) for one in found) + 2
    for one in found:
        out.print(f"{'ok' if one.found else 'NO':4}{one.name:{width}}{one.detail}", markup=False)
        if not one.found:
            out.print(f"{'':4}{'':{width}}disables: {one.disables}", markup=False)
            out.print(f"{'':4}{'':{width}}remedy:   {one.remedy}", markup=False)
    write_json({"findings": found}, json)
    return ExitCode.JUDGED_BAD if any(one.needed and not one.found for one in found) else ExitCode.GOOD
