"""Random schedules: faults that fit a topology, drawn from a seed. The same seed, the same schedule.

One fault is over before the next begins, but the topology may still be busy with it: half of the steps wait until every replica is back, the
others only until somebody takes writes.

A schedule is *fair*: whatever sound servers do under it is explained, and at its end they are well. So a drill on it may expect that
no loss is unexplained, that no checker finds anything, and that every condition comes. A killed primary is started again, at any time:
before anybody noticed, while another is being promoted, or long after. One thing is left out: a failover on purpose (``promote``) is
drawn only as the first, because a sentinel's news of its replicas are up to ten seconds old, and after any other fault it may find none fit.

Pure: chance comes in as ``rng``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from valkeep.drill.script import HEAL, Step
from valkeep.topology.spec import Kind, TopologySpec

if TYPE_CHECKING:
    from random import Random

__all__ = ["random_steps"]

GAP: Final = (0.2, 1.5)
"""s between the end of one fault's condition and the next fault."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """``kinds``: of topologies that it fits. ``target``: as in `Step`, without the number. ``lasts``: s, at least and at most, in
    timeouts; None: over at once. ``dies``: its process ends, and is started again by a step of its own, after another one reigns."""

    weight: int
    fault: str
    target: str
    kinds: frozenset[Kind]
    lasts: tuple[float, float] | None = (0.2, 3.0)
    options: tuple[tuple[str, str], ...] = ()
    dies: bool = False
    first: bool = False


_BOTH: Final = frozenset({Kind.SENTINEL, Kind.CLUSTER})
_SENTINEL: Final = frozenset({Kind.SENTINEL})
_CLUSTER: Final = frozenset({Kind.CLUSTER})
_CHOICES: Final = (
    _Choice(3, "kill", "primary", _BOTH, dies=True),
    _Choice(2, "kill", "primary", _BOTH, (0.2, 4.0)),
    _Choice(2, "term", "primary", _BOTH, dies=True),
    _Choice(3, "pause", "primary", _BOTH),
    _Choice(3, "partition", "primary", _BOTH, (0.5, 4.0)),
    _Choice(2, "partition", "primary", _BOTH, (0.5, 4.0), (("way", "in"),)),
    _Choice(2, "partition", "primary", _BOTH, (0.5, 4.0), (("way", "out"),)),
    _Choice(2, "isolate", "primary", _BOTH, (0.5, 4.0)),
    _Choice(2, "kill", "replica", _BOTH),
    _Choice(2, "pause", "replica", _BOTH),
    _Choice(2, "isolate", "replica", _BOTH),
    _Choice(1, "restart", "replica", _BOTH, None),
    _Choice(2, "sentinel-loss", "sentinel", _SENTINEL, (1.0, 4.0)),
    _Choice(2, "pause", "sentinel", _SENTINEL, (1.0, 4.0)),
    _Choice(1, "isolate", "sentinel", _SENTINEL, (1.0, 4.0)),
    _Choice(2, "promote", "primary", _SENTINEL, None, (("mode", "plain"),), first=True),
    _Choice(2, "promote", "primary", _CLUSTER, None, (("mode", "cluster"),), first=True),
)


def random_steps(spec: TopologySpec, rng: Random, count: int = 4) -> tuple[Step, ...]:
    """``count`` faults and what heals them. A standalone server, where nobody takes over, is paused and nothing else."""
    return tuple(_steps(spec, rng, count))


def _steps(spec: TopologySpec, rng: Random, count: int) -> Iterator[Step]:
    for number in range(count):
        last = number == count - 1
        choice = _drawn(spec, rng, first=number == 0)
        after = round(rng.uniform(*GAP), 2)
        target = _target(spec, choice.target, rng)
        if choice.dies:
            yield Step(choice.fault, target, after, until="moved", options=choice.options)
            yield Step(HEAL, choice.fault, round(rng.uniform(0.0, 1.0), 2), until="redundant")
            continue
        lasts = 0.0 if choice.lasts is None else round(rng.uniform(*choice.lasts) * (spec.timeout_ms or 1000) / 1000, 2)
        # in a hurry the next fault finds a topology that has a primary, and maybe nobody who follows it; the last waits for all
        until = "redundant" if last or rng.random() < 0.5 or spec.replicas < 2 else "recovered"
        yield Step(choice.fault, target, after, lasts, until, choice.options)


def _drawn(spec: TopologySpec, rng: Random, *, first: bool) -> _Choice:
    fitting = [choice for choice in _CHOICES if spec.kind in choice.kinds and _there(spec, choice.target) and (first or not choice.first)]
    if not spec.replicas or not fitting:
        return _Choice(1, "pause", "primary", frozenset(Kind))
    return rng.choices(fitting, [choice.weight for choice in fitting])[0]


_COUNTS: Final[dict[str, Callable[[TopologySpec], int]]] = {
    "primary": lambda spec: spec.shards,
    "replica": lambda spec: spec.shards * spec.replicas,
    "sentinel": lambda spec: spec.sentinels if spec.sentinels > spec.quorum else 0,
}


def _there(spec: TopologySpec, target: str) -> bool:
    return _COUNTS[target](spec) > 0


def _target(spec: TopologySpec, target: str, rng: Random) -> str:
    """With a number, where there are several."""
    count = _COUNTS[target](spec)
    return target if count == 1 else f"{target}:{rng.randint(1, count)}"
