"""From a schedule that fails to the smallest that still does: delta debugging.

(Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002.)

    a b c d e f    fails
    a b c · · ·    passes    a half may not be enough …
    · · · d e f    passes
    a · · d e f    fails     … but a half less a piece may: pieces get smaller until leaving out any single one passes
    a · · · e ·    fails, and nothing can be left out

Servers are not deterministic: a schedule that failed once may pass the next time. So what failed stays the best until something smaller has
failed, and each candidate may be tried several times. What was tried is never tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from valkeep.drill.script import HEAL, Step

__all__ = ["Shrunk", "shrink"]

Steps = tuple[Step, ...]
Fails = Callable[[Steps], Awaitable[bool]]
"""Whether a drill on these steps is invalid."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """``steps``: the smallest schedule that failed. ``runs``: how many were played. ``complete``: leaving out any one step makes it pass;
    False when the runs were used up before that was known."""

    steps: Steps
    runs: int
    complete: bool


class _Spent(Exception):
    """No run is left."""


async def shrink(steps: Steps, fails: Fails, *, runs: int = 20, tries: int = 1) -> Shrunk:
    """``steps``: a schedule that was seen to fail; it is not run again. ``runs``: at most so many are played. ``tries``: how often a candidate is
    played before it counts as passing. Faults and the ``heal`` that belongs to them go together."""
    pieces = _pieces(steps)
    seen: set[Steps] = {steps}
    spent = 0

    async def still(kept: list[Steps]) -> bool:
        nonlocal spent
        candidate = _joined(kept)
        if candidate in seen:
            return False
        seen.add(candidate)
        for _ in range(tries):
            if spent >= runs:
                raise _Spent
            spent += 1
            if await fails(candidate):
                return True
        return False

    count = min(2, len(pieces))
    try:
        while pieces:
            smaller = await _smaller(pieces, count, still)
            if smaller is not None:
                pieces = smaller
                count = min(max(count - 1, 2), len(pieces))
            elif count >= len(pieces):
                break
            else:
                count = min(2 * count, len(pieces))
    except _Spent:
        return Shrunk(_joined(pieces), spent, complete=False)
    return Shrunk(_joined(pieces), spent, complete=True)


async def _smaller(pieces: list[Steps], count: int, still: Callable[[list[Steps]], Awaitable[bool]]) -> list[Steps] | None:
    """One of ``count`` parts alone, or all but one of them, that still fails; None when all pass."""
    bounds = [len(pieces) * number // count for number in range(count + 1)]
    parts = [(bounds[number], bounds[number + 1]) for number in range(count)]
    for kept in [pieces[begin:end] for begin, end in parts] + [pieces[:begin] + pieces[end:] for begin, end in parts]:
        if len(kept) < len(pieces) and await still(kept):
            return kept
    return None


def _pieces(steps: Steps) -> list[Steps]:
    """What can be left out: a fault with the heal of its name that follows; a ``heal:all`` goes with the fault before it."""
    pieces: list[list[Step]] = []
    for step in steps:
        if step.fault == HEAL:
            owner = next((piece for piece in reversed(pieces) if step.target in ("all", piece[0].fault) and len(piece) == 1), None)
            if owner is not None and owner is pieces[-1]:
                owner.append(step)
                continue
        pieces.append([step])
    return [tuple(piece) for piece in pieces]


def _joined(pieces: list[Steps]) -> Steps:
    return tuple(step for piece in pieces for step in piece)
