"""``valkeep migrate …``: the group of commands that move a live Redis to Valkey; each has a file of its own."""

from __future__ import annotations

import typer

from valkeep.cli.migrate_preflight import preflight
from valkeep.cli.migrate_run import abort, cutover, gateway, run
from valkeep.cli.migrate_verify import verify

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def migrate() -> None:
    """Move a live Redis to Valkey."""


app.command()(preflight)
app.command()(verify)
app.command()(run)
app.command()(cutover)
app.command()(abort)
app.command()(gateway)
