"""The end of every run, whoever ran it: judged, announced, and completed by what only the run itself knows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from valkeep.drill.judging import judge
from valkeep.drill.outcome import DrillOutcome
from valkeep.drill.play import Played
from valkeep.report.events import Emit, VerdictEvent
from valkeep.runtime.deployment import Deployment

__all__ = ["Clock", "conclude"]


@dataclass(slots=True)
class Clock:
    """Made when a run begins. ``started``: Unix seconds. ``begun``, ``ready``: seconds on the monotonic clock; the latter set when the load may begin."""

    started: float = field(default_factory=lambda: time.time_ns() / 1e9)
    begun: float = field(default_factory=time.monotonic)
    ready: float = 0.0


def conclude(played: Played, deployment: Deployment, clock: Clock, emit: Emit, *, seed: int, replay: str) -> DrillOutcome:
    """The verdict, emitted as well. ``replay``: the one command line that does the same again."""
    checked = time.monotonic()
    outcome = judge(played)
    ended = time.monotonic()
    emit(VerdictEvent((time.monotonic_ns() - played.origin) / 1e9, outcome.verdict, {"of": played.drill.name}))
    return replace(
        outcome,
        server=deployment.server,
        runtime=deployment.runtime,
        network_how=deployment.network.how,
        seed=seed,
        started=clock.started,
        finished=time.time_ns() / 1e9,
        phases={"start": clock.ready - clock.begun, **outcome.phases, "check": ended - checked, "total": ended - clock.begun},
        replay=replay,
    )
