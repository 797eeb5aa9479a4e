"""Every checker of a drill over one history: the one entry for whoever has run a drill.

    loss, judgements = check_all(history, final, context)

The caller fills in:

* `FinalState` (in `evidence`): what ordinary commands read at the end;
* `Context` (here) with a `Reign` (in `reigns`) for each time that a node was primary, each with its `Deposition` when it was deposed, whose
  `Bound` comes from `promise(settings, cause, at=…, …)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from valkeep.drill.checkers.evidence import Evidence, FinalState
from valkeep.drill.checkers.judgement import Judgement
from valkeep.drill.checkers.loss import LossReport, explain_loss
from valkeep.drill.checkers.reigns import Reign
from valkeep.drill.history import History

__all__ = ["Context", "Verdicts", "check_all"]


@dataclass(frozen=True, slots=True)
class Context:
    """What the run knows beside the history; times in ns on its clock.

    ``reigns``: per shard in order of succession. ``faults``: when each fault began and when it and its recovery were over.
    """

    reigns: tuple[Reign, ...]
    faults: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """``loss``: None when it could not be told."""

    loss: LossReport | None
    judgements: tuple[Judgement, ...]


def check_all(history: History, final: FinalState, context: Context) -> Verdicts:
    """Pure. A checker that fails says unknown."""
    evidence = Evidence(history, context.reigns)
    report, loss, journals = explain_loss(evidence, final.journals)
    return Verdicts(report, (loss, journals))
