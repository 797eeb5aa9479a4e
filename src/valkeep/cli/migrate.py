"""``valkeep migrate …``: the group of commands that move a live Redis to Valkey; each has a file of its own."""

from __future__ import annotations

import typer

from valkeep.cli.migrate_back import commit, rollback
from valkeep.cli.migrate_decide import abort, cutover
from valkeep.cli.migrate_gateway import gateway
from valkeep.cli.migrate_plan import plan
from valkeep.cli.migrate_preflight import preflight
from valkeep.cli.migrate_run import run
from valkeep.cli.migrate_status import status
from valkeep.cli.migrate_verify import verify

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def migrate() -> None:
    """Move a live Redis to Valkey."""


app.command(short_help="is this source ready to move? GO, CONDITIONAL-GO or NO-GO; reads only")(preflight)
app.command(short_help="how the work splits, and what it costs whom; reads only")(plan)
app.command(short_help="move it: preflight, copy, follow, verify, cut over")(run)
app.command(short_help="cut over a migration that waits for it")(cutover)
app.command(short_help="undo a migration before its end, also after a kill -9")(abort)
app.command(short_help="cut back to the old server (after `run --rollback`)")(rollback)
app.command(short_help="give up the way back: the old server is let go")(commit)
app.command(short_help="every migration on this machine, and what to do next")(status)
app.command(short_help="compare every key, TTL and field of two servers")(verify)
app.command(short_help="the gateway alone, as a service")(gateway)
