"""Preflight: is this source ready to move to this target? Reads only, and says GO, CONDITIONAL-GO or NO-GO with its reasons.

Facts are gathered first (`gather`, `census`, `snapshot`), then judged by pure functions (`checks`): so each check is tested with a planted
violation and no server, and nothing that is asked can be forgotten between two questions.
"""

from __future__ import annotations

import asyncio
import time

from valkeep.client.endpoint import Endpoint
from valkeep.migrate import fence
from valkeep.migrate.preflight.checks import Case, judge
from valkeep.migrate.preflight.codes import CODES
from valkeep.migrate.preflight.facts import Census, ServerFacts
from valkeep.migrate.preflight.finding import Finding, Severity, Verdict
from valkeep.migrate.preflight.gather import gather
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.report import PreflightReport
from valkeep.migrate.preflight.shards import gather_source, gather_target
from valkeep.report.events import Emit, Phase, VerdictEvent

__all__ = [
    "CODES",
    "Census",
    "Finding",
    "PreflightOptions",
    "PreflightReport",
    "ServerFacts",
    "Severity",
    "Verdict",
    "gather",
    "preflight",
]


async def preflight(source: Endpoint, target: Endpoint | None, options: PreflightOptions, emit: Emit) -> PreflightReport:
    """Look at both sides and judge; of a cluster any node is given, and every shard asked. Changes nothing; only ``options.full_census`` makes the source
    fork, and says so first.

    Raises `ConnectionLost`, `Refused` or `RemoteProtocolError` where a server can't be reached, logged in to, or is none: nothing was judged then.
    """
    started = time.monotonic()

    def at() -> float:
        return time.monotonic() - started

    emit(Phase(at(), "preflight"))
    tasks = [asyncio.ensure_future(gather_source(source, options, emit, at))]
    if target is not None:
        tasks.append(asyncio.ensure_future(gather_target(target, options.timeout)))
    try:
        here, *rest = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    there = rest[0] if rest else None
    findings = judge(Case(here, there, options))
    report = PreflightReport(findings, here, there, options, fence.weakest(map(fence.decide, here.shards)), at())
    emit(Phase(at(), "preflight", done=True))
    emit(
        VerdictEvent(
            at(), str(report.verdict), {"of": "preflight", "blockers": list(report.blockers), "conditions": list(report.conditions)}
        )
    )
    return report
