"""``valkeep servers``: the server programs that rehearsals, drills and tests can start."""

from __future__ import annotations

from typing import Annotated

import typer

from valkeep.cli.output import JsonPath, console, progress_console, write_json
from valkeep.errors import ExitCode, ValkeepError
from valkeep.runtime import servers as binaries
from valkeep.runtime.machine import in_ci

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def servers(
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="[SPEC]...", help="For example redis-8.0; default: all that tests use.")
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch what is missing into the cache; the system is not changed.")] = False,
    json: JsonPath = None,
) -> ExitCode:
    """List the Redis and Valkey servers found here, or fetch missing ones.

    A named SPEC that is still missing at the end is an error. Without names, what is missing is only said (in CI it is an error).
    """
    wanted = specs or list(binaries.SPECS)
    missing: dict[str, ValkeepError] = {}
    for spec in wanted:
        try:
            if fetch:
                _fetch(spec)
            else:
                binaries.find(spec)
        except ValkeepError as error:
            if error.exit_code is ExitCode.USAGE:
                raise
            missing[spec] = error
    out = console(json)
    present = binaries.available()
    for binary in present:
        out.print(f"{binary.spec:12} {'.'.join(map(str, binary.version)):8} {binary.origin:28} {binary.path}")
    for spec, why in missing.items():
        out.print(f"{spec:12} missing  {why.message}\n{'':12} remedy:  {why.remedy}", markup=False)
    write_json(
        {
            "cache": binaries.cache_folder(),
            "servers": [{"spec": one.spec, "version": list(one.version), "origin": one.origin, "path": one.path} for one in present],
            "missing": {spec: why.message for spec, why in missing.items()},
        },
        json,
    )
    return ExitCode.NOT_RUN if missing and (specs or in_ci()) else ExitCode.GOOD


def _fetch(spec: str) -> None:
    try:
        binaries.find(spec)
    except binaries.ServerMissing:
        progress_console().print(f"fetching {spec} into {binaries.cache_folder()}, once …", markup=False, soft_wrap=True)
        binaries.fetch(spec)
