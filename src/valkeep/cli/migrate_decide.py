"""``valkeep migrate cutover`` and ``abort``: a person decides about a migration that runs, or that was killed."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from valkeep.cli.endpoint import Source, SourcePasswordEnv, SourcePasswordFile, Target, TargetPasswordEnv, TargetPasswordFile, source_of
from valkeep.cli.migrate_elasticache import target_named
from valkeep.cli.migrate_options import State
from valkeep.cli.output import JsonPath, console, write_json
from valkeep.errors import ExitCode

__all__ = ["abort", "cutover"]


def cutover(source: Source, target: Target, state: State = None, json: JsonPath = None) -> ExitCode:
    """Cut over a migration that waits for it (`valkeep migrate run --cutover manual`)."""
    from valkeep.errors import Refused
    from valkeep.migrate.control import ask
    from valkeep.migrate.state import default_directory

    here, there = source_of(source), target_named(target)
    directory = state or default_directory(here.display, there.display)
    answer = asyncio.run(ask(directory, "cutover"))
    if answer is None:
        raise Refused(
            f"no migration runs in {directory}",
            remedy="`valkeep migrate status` lists those that run here, with the --source and --target to say (of a cluster the nodes that run was given)",
        )
    done = f"cut over: {answer['promoted']} is the primary now; write pause {answer['write_pause_ms']} ms"
    console(json).print(done, markup=False)
    write_json(answer, json, changed=done)
    return ExitCode.GOOD


def abort(
    target: Target,
    source: Source = "",
    state: State = None,
    force: Annotated[bool, typer.Option("--force", help="Make the source writable although the target was promoted.")] = False,
    source_password_file: SourcePasswordFile = None,
    source_password_env: SourcePasswordEnv = None,
    target_password_file: TargetPasswordFile = None,
    target_password_env: TargetPasswordEnv = None,
    json: JsonPath = None,
) -> ExitCode:
    """Undo what a migration changed: the source accepts writes again, the target is detached. Also after a kill -9.

    Without --source: a move from files (`valkeep migrate run --read PATH`).
    """
    from valkeep.migrate.run.undo import undo

    here = source_of(source, source_password_file, source_password_env) if source else None
    there = target_named(target, target_password_file, target_password_env)
    done = asyncio.run(undo(here, there, state, force=force))
    for line in done:
        console(json).print(line, markup=False)
    write_json({"done": done}, json, changed="; ".join(done))
    return ExitCode.GOOD
