"""A check of sides that are clusters: asked of each shard, or of each pair of shards. What is the same of several is said once, and names them.

A finding names the target's shards that it is about (``shards``); the source's where the question is about the source alone (``shards``, too), or where what
is found of pairs is not about all of the source (``source shards``). Evidence that differs is told apart, of a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from valkeep.migrate.preflight.checks.case import Case, Check
from valkeep.migrate.preflight.facts import ServerFacts
from valkeep.migrate.preflight.finding import Finding
from valkeep.topology.slots import SLOTS, Ranges, slots_of

__all__ = ["ask"]

_APART: Final = 5  # shards whose evidence is told apart
_ALL: Final[Ranges] = ((0, SLOTS - 1),)
_Shard = tuple[str, ServerFacts, Ranges]


@dataclass(slots=True)
class _Told:
    """A finding, the shards that it is about, and what each of them has as evidence: name → value → whose."""

    finding: Finding
    sources: dict[str, None] = field(default_factory=dict)
    targets: dict[str, None] = field(default_factory=dict)
    evidence: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)

    def add(self, finding: Finding, source: str, target: str) -> None:
        self.sources |= {source: None} if source else {}
        self.targets |= {target: None} if target else {}
        pair = " → ".join(filter(None, (source, target)))
        for name, value in finding.evidence.items():
            whose = {"source": source or target, "target": target or source}.get(name, pair)
            self.evidence.setdefault(name, {}).setdefault(value, {})[whose] = None

    def one(self, sources: int) -> Finding:
        """``sources``: so many shards the source has."""
        evidence = {name: _apart(values) for name, values in self.evidence.items()}
        if named := self.targets or self.sources:
            evidence["shards"] = ", ".join(named)
        if self.targets and 0 < len(self.sources) < sources:
            evidence["source shards"] = ", ".join(self.sources)
        return replace(self.finding, evidence=evidence)


def ask(check: Check, case: Case) -> Iterable[Finding]:
    """Its findings. Shards that could not be asked are left out: `cluster` is about them."""
    if check.whole or not (_shards(case.source) or _shards(case.target)):
        return check.run(case)
    told: dict[tuple[str, str, str], _Told] = {}
    for source, target, one in _cases(check, case):
        for finding in check.run(one):
            told.setdefault((finding.code, finding.severity, finding.title), _Told(finding)).add(finding, source, target)
    return [one.one(len(_shards(case.source))) for one in told.values()]


def _cases(check: Check, case: Case) -> Iterator[tuple[str, str, Case]]:
    """With the addresses of the shards that each is about, "" of a side that has none."""
    sources = _shards(case.source) or [("", case.source, _ALL)]
    targets = _shards(case.target) or ([("", case.target, _ALL)] if case.target is not None else [])
    if check.each:
        yield from ((address, "", replace(case, source=facts, only="source")) for address, facts, _ in sources)
        yield from (("", address, replace(case, target=facts, only="target")) for address, facts, _ in targets)
    elif not check.needs_target:
        yield from ((address, "", replace(case, source=facts)) for address, facts, _ in sources)
    else:
        for there, target, ranges in targets:
            taken = frozenset(slots_of(ranges))
            parts = tuple((facts, _part(mine, taken)) for _, facts, mine in sources)
            yield from ((here, there, replace(case, source=facts, target=target, parts=parts)) for here, facts, _ in sources)


def _shards(facts: ServerFacts | None) -> list[_Shard]:
    """Those that could be asked; none of a side that is one server."""
    shards = facts.cluster.shards if facts is not None and facts.cluster is not None else ()
    return [(shard.address, shard.facts, shard.ranges) for shard in shards if shard.facts is not None]


def _part(mine: Ranges, taken: frozenset[int]) -> float:
    """Of a shard with these slots: so much of its data goes where ``taken`` is, were it spread evenly over its slots."""
    slots = list(slots_of(mine))
    return sum(slot in taken for slot in slots) / len(slots) if slots else 0.0


def _apart(values: dict[str, dict[str, None]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    told = [_whose(value, list(whose)) for value, whose in values.items()]
    more = f"; and {len(told) - _APART} more" if len(told) > _APART else ""
    return "; ".join(told[:_APART]) + more


def _whose(value: str, whose: list[str]) -> str:
    if len(whose) == 1 and whose[0] in value:
        return value
    return f"{value} ({whose[0]}{f' and {len(whose) - 1} more' if len(whose) > 1 else ''})"
