"""An order that a server shows, against the order that its clients know: by time, and by who wrote both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from valkeep.drill.checkers.evidence import Evidence
from valkeep.drill.history import Outcome

__all__ = ["disorder"]


def disorder(evidence: Evidence, shown: Iterable[int]) -> Iterator[tuple[int, int, str]]:
    """``shown``: numbers of operations in the order in which they took effect, as the server shows it. Yields (number, the one that stands
    before it, why that can not be) for acked ones. One whose end is not known may come late; what comes behind it may not be earlier."""
    columns = evidence.columns
    outcome, process, invoked, returned = columns.outcome, columns.process, columns.invoked, columns.returned
    latest, before = -1, -1
    last: dict[int, int] = {}
    acked = int(Outcome.OK)
    for number in shown:
        if outcome[number] == acked:
            who = process[number]
            if returned[number] < latest:
                yield number, before, "which was sent after this had been acked"
            elif number < last.get(who, -1):
                yield number, last[who], "which the same connection wrote later"
            last[who] = number
        if invoked[number] > latest:
            latest, before = invoked[number], number
