"""Every checker of a drill over one history: the one entry for whoever has run a drill.

    verdicts = check_all(history, final, context)

The caller fills in:

* `FinalState` (in `evidence`): what ordinary commands read at the end;
* `Context` (here) with a `Reign` (in `reigns`) for each time that a node was primary, each with its `Deposition` when it was deposed, whose
  `Bound` comes from `promise(settings, cause, at=…, …)`.

A checker runs when its functions are in the history or its input was given; `loss` and `journals` come first, because they decide which
operations the others take for lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from valkeep.drill.checkers.availability import Availability, measure_availability
from valkeep.drill.checkers.counters import check_increments
from valkeep.drill.checkers.coverage import Coverage, SlotSample, check_coverage
from valkeep.drill.checkers.evidence import Evidence, FinalState
from valkeep.drill.checkers.host import check_host
from valkeep.drill.checkers.judgement import Judgement, judged, worst
from valkeep.drill.checkers.linear import STEPS, check_linear
from valkeep.drill.checkers.loss import LossReport, explain_loss
from valkeep.drill.checkers.monotonic import check_monotonic
from valkeep.drill.checkers.pubsub import check_messages
from valkeep.drill.checkers.redirects import Redirect, Redirects, check_redirects
from valkeep.drill.checkers.reigns import Reign
from valkeep.drill.checkers.sets import check_additions
from valkeep.drill.checkers.streams import check_groups
from valkeep.drill.checkers.transactions import check_pairs
from valkeep.drill.history import History

__all__ = ["Context", "Verdicts", "check_all"]


@dataclass(frozen=True, slots=True)
class Context:
    """What the run knows beside the history; times in ns on its clock.

    ``reigns``: per shard in order of succession. ``faults``: when each fault began and when it and its recovery were over. ``stalls``: (at,
    ms late) of the machine. ``timeout_ms``: down-after or node-timeout; 0 = none. ``redirects``, ``slots``: by time; None = not looked at.
    ``steps``: what the searches of `linear` may cost.
    """

    reigns: tuple[Reign, ...]
    faults: tuple[tuple[int, int], ...] = ()
    stalls: tuple[tuple[int, float], ...] = ()
    timeout_ms: float = 0.0
    redirects: tuple[Redirect, ...] | None = None
    slots: tuple[SlotSample, ...] | None = None
    steps: int = STEPS


@dataclass(frozen=True, slots=True)
class Verdicts:
    """``judgements``: one for each checker that ran. What was measured beside them is None where that checker failed, or did not run."""

    loss: LossReport | None
    judgements: tuple[Judgement, ...]
    availability: Availability | None = None
    coverage: Coverage | None = None
    redirects: Redirects | None = None
    lost_operations: tuple[int, ...] = ()

    @property
    def verdict(self) -> str:
        return worst(self.judgements)


Measured = TypeVar("Measured")


def check_all(history: History, final: FinalState, context: Context) -> Verdicts:
    """Pure. A checker that fails says unknown; when it is `loss`, the others do not run: they would take losses for violations."""
    try:
        evidence = Evidence(history, context.reigns)
        report, loss, journals = explain_loss(evidence, final.journals)
    except Exception as error:  # noqa: BLE001 - a checker's bug must not look like a verdict
        note = f"the checker failed: {type(error).__name__}: {error}"
        return Verdicts(None, (Judgement("loss", "unknown", 0, 0, {}, (), note),))
    judgements = [loss, journals]

    def measured(name: str, check: Callable[[], tuple[Measured, Judgement]]) -> Measured | None:
        found: list[Measured] = []

        def run() -> Judgement:
            value, judgement = check()
            found.append(value)
            return judgement

        judgements.append(judged(name, run))
        return found[0] if found else None

    checks: dict[str, tuple[tuple[str, ...], Callable[[], Judgement]]] = {
        "registers": (("write", "read", "delete"), lambda: check_linear(evidence, final.registers, steps=context.steps)),
        "monotonic": (("read",), lambda: check_monotonic(evidence)),
        "counters": (("incr",), lambda: check_increments(evidence, final.counters)),
        "sets": (("add",), lambda: check_additions(evidence, final.sets)),
        "pairs": (("multi", "eval"), lambda: check_pairs(evidence, final.pairs)),
        "streams": (("xadd", "deliver", "ack"), lambda: check_groups(evidence, final.streams)),
        "pubsub": (("publish", "receive"), lambda: check_messages(evidence)),
    }
    for name, (functions, check) in checks.items():
        if any(function in evidence.groups for function in functions):
            judgements.append(judged(name, check))
    availability = measured("availability", lambda: measure_availability(evidence, context.faults))
    slots, redirects = context.slots, context.redirects
    coverage = None if slots is None else measured("coverage", lambda: check_coverage(slots))
    followed = None if redirects is None else measured("redirects", lambda: check_redirects(evidence, redirects))
    judgements.append(check_host(context.stalls, context.timeout_ms))
    if judgements[-1].verdict == "unknown" and set(loss.counts) == {"beyond"}:
        # windows are the servers' timers, and these the stall may have stretched; a hole or an unexplained loss it can not make
        judgements[0] = replace(loss, verdict="unknown")
    return Verdicts(report, tuple(judgements), availability, coverage, followed, evidence.lost_writes())
