"""The gateway in a process of its own: ``migrate.service.serve``, as ``valkeep migrate gateway`` runs it, but held at a start line.

Standard input: one JSON line with its settings; it begins when that line comes, and ends when the input does. Standard output: ``ready`` when everything
is imported, then its events as JSON lines.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path

import valkeep.cli.migrate
import valkeep.cli.migrate_run  # what the command would have imported: its memory counts
import valkeep.report.terminal  # noqa: F401 - see above
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.run import service
from valkeep.migrate.transform.target import FieldTtl
from valkeep.report.eventlog import to_json
from valkeep.report.events import Event


def _emit(event: Event) -> None:
    sys.stdout.write(json.dumps(to_json(event)) + "\n")
    sys.stdout.flush()


def _until_end() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    print("ready", flush=True)
    line = sys.stdin.readline()
    if not line:
        return
    given = json.loads(line)
    settings = service.ServiceSettings(
        source=Endpoint.parse(given["source"]),
        versions=(tuple(given["version"]),),
        databases=16,
        listen=("127.0.0.1", 0),
        allow=("127.0.0.1",),
        field_ttl=FieldTtl(given["field_ttl"]),
        metrics=("127.0.0.1", given["metrics"]) if given["metrics"] else None,
        spool=Path(given["spool"]),
    )
    threading.Thread(target=_until_end, daemon=True).start()
    profile = os.environ.get("VALKEEP_BENCH_PROFILE")
    if profile:
        import cProfile

        with cProfile.Profile() as measured:
            asyncio.run(service.serve(settings, _emit))
        measured.dump_stats(profile)
    else:
        asyncio.run(service.serve(settings, _emit))


if __name__ == "__main__":
    main()
