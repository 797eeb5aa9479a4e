"""Is there any order of these operations on one register that all their answers agree with? A search, for small or odd cases.

Wing and Gong's search in Lowe's form ("Testing for linearizability", 2016: just-in-time linearization with memory): time is followed from
event to event, and what is kept is a set of configurations, (value, which of the operations in flight have taken effect). When an
operation returns, it must have taken effect: configurations in which it can't are dropped. None left: there is no such order.

The number of configurations is exponential in the operations in flight at one moment, so steps are counted, and a search that needs more
than its budget says None. An operation whose end nobody knows stays in flight for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from valkeep.drill.checkers.reigns import NEVER

__all__ = ["ABSENT", "DELETE", "READ", "WRITE", "Budget", "Call", "find_order"]

READ, WRITE, DELETE = 0, 1, 2
ABSENT: Final = None


class Call(NamedTuple):
    """``value``: written or read; None for a read that found nothing; for a delete what it answered: 1, 0 (nothing was there) or None
    (unknown). ``returned``: ``NEVER`` where nobody knows."""

    kind: int
    value: int | None
    invoked: int
    returned: int


@dataclass(slots=True)
class Budget:
    """Steps left, for all searches together."""

    steps: int


_Configuration = tuple[int | None, frozenset[int]]


def find_order(calls: Iterable[Call], budget: Budget, initial: int | None = None) -> bool | None:
    """Whether there is one; None when the budget is used up. An operation that was invoked when another returned is concurrent with it."""
    listed = list(calls)
    events = sorted(
        [(call.invoked, 0, number) for number, call in enumerate(listed)]
        + [(call.returned, 1, number) for number, call in enumerate(listed) if call.returned != NEVER]
    )
    configurations: set[_Configuration] = {(initial, frozenset())}
    flying: set[int] = set()
    for _, returns, number in events:
        if not returns:
            flying.add(number)
            continue
        after = _after(listed, flying, configurations, number, budget)
        if after is None:
            return None
        if not after:
            return False
        configurations = after
        flying.discard(number)
    return True


def _after(
    calls: list[Call], flying: set[int], configurations: set[_Configuration], number: int, budget: Budget
) -> set[_Configuration] | None:
    """All configurations in which the operation has taken effect, itself left out of them."""
    found: set[_Configuration] = set()
    seen = set(configurations)
    ahead = list(configurations)
    while ahead:
        budget.steps -= 1
        if budget.steps < 0:
            return None
        value, done = ahead.pop()
        if number in done:
            found.add((value, done - {number}))
            continue
        for other in flying - done:
            call = calls[other]
            if call.kind == WRITE:
                becomes = call.value
            elif call.kind == READ:
                if call.value != value:
                    continue
                becomes = value
            else:
                if call.value is not None and (call.value == 1) != (value is not ABSENT):
                    continue
                becomes = ABSENT
            following = (becomes, done | {other})
            if following not in seen:
                seen.add(following)
                ahead.append(following)
    return found
