"""RPUSH with the answered length: what is in a journal was written, stands there once, in order, and at the place that was answered.

Which acked appends are missing is found here too, and of these the ones that stand *before* a survivor of the same reign: `loss` judges them.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from valkeep.drill.checkers.evidence import Evidence
from valkeep.drill.checkers.judgement import Findings, Judgement
from valkeep.drill.checkers.order import disorder
from valkeep.drill.history import NOTHING, Outcome

__all__ = ["Missing", "check_journals"]

_OK: Final = int(Outcome.OK)
_FAIL: Final = int(Outcome.FAIL)


@dataclass(slots=True)
class Missing:
    """``lost``: numbers of acked appends that are not in their journal. ``holes``: those of them that stood before a survivor of their reign."""

    lost: list[int] = field(default_factory=list)
    holes: set[int] = field(default_factory=set)


def check_journals(evidence: Evidence, final: Mapping[bytes, Sequence[int]]) -> tuple[Missing, Judgement]:
    """``final``: each journal's elements as read."""
    missing, findings = Missing(), Findings("journals")
    listed = evidence.numbers("append")
    for key, numbers in listed.items():
        _check_one(evidence, findings, missing, key, numbers, final.get(key, ()))
    for key in final.keys() - listed.keys():
        if final[key]:
            findings.add("phantom", key, f"{len(final[key])} elements stand in a journal that nobody wrote")
    return missing, findings.judgement()


def _check_one(evidence: Evidence, findings: Findings, missing: Missing, key: bytes, numbers: array[int], elements: Sequence[int]) -> None:
    outcome, value, result, reign = evidence.columns.outcome, evidence.columns.value, evidence.columns.result, evidence.reign
    place = {element: position for position, element in enumerate(elements, 1)}
    again: dict[int, set[int]] = {}
    if len(place) != len(elements):
        place, again = _first_places(findings, key, elements)
    standing: dict[int, int] = {}  # place → operation
    lost: list[int] = []
    displaced: list[int] = []
    furthest: dict[int, int] = {}  # reign → the last place of a survivor
    answered: set[int] = set()
    acked = 0
    for number in numbers:
        at = place.get(value[number])
        if outcome[number] == _OK:
            acked += 1
            said = result[number]
            if said != NOTHING:
                answered.add(said << 8 | reign[number])
            else:
                answered.add(-number - 1)
            if at is None:
                lost.append(number)
                continue
            standing[at] = number
            if said not in (at, NOTHING) and said not in again.get(value[number], ()):
                displaced.append(number)
            elif at > furthest.get(reign[number], 0):
                furthest[reign[number]] = at
        elif at is not None:
            standing[at] = number
            if outcome[number] == _FAIL:
                why = evidence.history[number].error
                findings.add("resurrected", key, f"{value[number]} at place {at} was refused ({why})", operation=number)
    findings.operations += acked
    if len(answered) != acked:
        _say_answered_twice(evidence, findings, key, numbers)
    for number in displaced:
        said, at = result[number], place[value[number]]
        heir = standing.get(said)
        # where another reign gave its place away, this element was lost already
        back = heir is not None and result[heir] == said and reign[heir] != reign[number]
        kind = "resurrected" if back else "reordered"
        findings.add(kind, key, f"{value[number]} was answered place {said} and stands at {at}", operation=number)
    if len(standing) != len(place):
        strangers = sorted(at for at in place.values() if at not in standing)
        for at in strangers:
            findings.add("phantom", key, f"{elements[at - 1]!r} at place {at} was written by nobody")
    missing.lost += lost
    missing.holes.update(number for number in lost if NOTHING != result[number] < furthest.get(reign[number], 0))
    for number, before, why in disorder(evidence, [standing[at] for at in sorted(standing)]):
        findings.add("reordered", key, f"{value[number]} stands behind {value[before]}, {why}", operation=number)


def _first_places(findings: Findings, key: bytes, elements: Sequence[int]) -> tuple[dict[int, int], dict[int, set[int]]]:
    """Where each element stands first, and where again; what stands again is said. A client that repeats an append whose reply it did not get
    is answered the second place."""
    first: dict[int, int] = {}
    again: dict[int, set[int]] = {}
    for at, element in enumerate(elements, 1):
        if first.setdefault(element, at) != at:
            again.setdefault(element, set()).add(at)
            findings.add("duplicated", key, f"{element!r} stands at place {first[element]} and at {at}")
    return first, again


def _say_answered_twice(evidence: Evidence, findings: Findings, key: bytes, numbers: array[int]) -> None:
    """One reign answered one place to two appends: the server forgot the first of them."""
    columns = evidence.columns
    first: dict[tuple[int, int], int] = {}
    for number in numbers:
        if columns.outcome[number] == _OK and columns.result[number] != NOTHING:
            where = (columns.result[number], evidence.reign[number])
            if first.setdefault(where, number) != number:
                one, two = columns.value[first[where]], columns.value[number]
                findings.add("duplicated", key, f"place {where[0]} was answered twice, for {one} and for {two}", operation=number)
