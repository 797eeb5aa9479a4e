"""The recorder's process: what it is told and what it tells (see `conversation`; the parent's end is `recorder`).

    parent → {"load": …, "targets": …, "seed": 1}
    process → {"event": "found"}                                      every client knows where to write
    parent → {"do": "start" | "pause" | "stop"}
    process → {"event": "tick", "at": ns, "operations": n, "acked": n, "refused": n, "nodes": {name: ns of its last ack}}   every 100 ms
    process → {"event": "paused", …the same}                          nothing is in flight
    process → {"event": "history", "path": …, "stalls": […], "moved": […], "processes": […], "troubles": […]}

Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from valkeep.drill.script import ClientSpec, Load
from valkeep.drill.workloads.conversation import converse, obey, say
from valkeep.drill.workloads.crew import Crew
from valkeep.drill.workloads.heartbeat import Heartbeat
from valkeep.drill.workloads.targets import Targets
from valkeep.errors import ValkeepError


def _load(data: dict[str, Any]) -> Load:
    return Load(**data | {"clients": tuple(ClientSpec(**client) for client in data["clients"])})


def _standing(crew: Crew) -> dict[str, Any]:
    record = crew.record
    return {
        "at": time.monotonic_ns(),
        "operations": len(crew.record.history),
        "acked": record.acked,
        "refused": record.refused,
        "nodes": record.acked_at,
    }


async def _work(workdir: Path, settings: dict[str, Any], messages: AsyncIterator[dict[str, Any]]) -> bool:
    try:
        crew = Crew(_load(settings["load"]), Targets.from_json(settings["targets"]), settings["seed"])
        await crew.begin()
    except ValkeepError as error:
        say(event="failed", why=error.message, remedy=error.remedy)
        async for _ in messages:  # until the parent has heard it, and goes
            pass
        return False
    say(event="found")
    heartbeat = Heartbeat()
    heartbeat.start()

    async def pause() -> None:
        await crew.gate.shut()
        say(event="paused", **_standing(crew))

    def tick() -> None:
        say(event="tick", **_standing(crew))

    if not await obey(messages, crew.run(), start=crew.gate.open, pause=pause, stop=crew.gate.end, tick=tick):
        return False
    heartbeat.stop()
    path = workdir / "history.vkh"
    await asyncio.to_thread(path.write_bytes, b"".join(crew.record.history.packed()))
    record = crew.record
    troubles = [[client, text, count] for (client, text), count in record.troubles.items()]
    say(event="history", path=str(path), stalls=heartbeat.stalls, moved=record.moved, processes=record.processes, troubles=troubles)
    return True


if __name__ == "__main__":
    sys.exit(converse(_work))
