"""A drill as a value: what runs, what is written to it, what goes wrong when, and what has to come of it, in numbers.

    Drill = topology + load + steps + expectations

A step is a fault with a target that is resolved when its moment comes (the *current* primary, not n1), a pause before it and a
condition to wait for after it. Because all of it is data, a drill can be listed, replayed from one line, generated from a seed and
shrunk. This module is pure; `run` executes.

One step as text, which ``--schedule`` reads and every report prints::

    kill:primary@2.0            after 2.0 s of the state before: kill the primary
    partition:primary,c1@0+8    cut the primary and the client c1 off the rest, for 8 s
    pause:replica:2@1.5+3       the second replica hangs for 3 s
    config:primary(min-replicas-to-write=1)@0
    heal:all@4                  after 4 s: what the steps before broke is made good

Targets: ``primary``, ``replica``, ``sentinel``, ``shard``, each with ``:N`` for the N-th (of the shard N for primary and shard, N-th
of all for the others); a node's name (``n2``); a client's name (``c1``); several with commas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from valkeep.errors import UsageError
from valkeep.topology.spec import TopologySpec

__all__ = ["CONDITIONS", "HEAL", "ClientSpec", "Drill", "Expectation", "Load", "Step", "parse_schedule", "schedule_text"]

HEAL: Final = "heal"
"""In place of a fault: what the steps before broke is made good (started again, resumed, connected). Its target is ``all`` or the name of a fault."""

CONDITIONS: Final = ("none", "promoted", "recovered", "moved", "redundant", "settled")
"""What a step can wait for; see `Step`."""

_STEP: Final = re.compile(
    r"(?P<fault>[a-z-]+):(?P<target>[\w:,*-]+)(?:\((?P<options>[^)]*)\))?@(?P<after>\d+(?:\.\d+)?)(?:\+(?P<lasts>\d+(?:\.\d+)?))?(?:~(?P<until>[a-z-]+))?"
)


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """One client of the load.

    ``follow``: finds the primary again (through the sentinels, by MOVED) after an error; otherwise it stays on the node it first had.
    ``wait``: replicas that each write waits for (WAIT), at most ``wait_ms``; fewer make the write an ``info``.
    ``source``: the address it connects from ("" = any); the run fills it in where nodes have addresses of their own.
    """

    name: str
    follow: bool = True
    wait: int = 0
    wait_ms: int = 100
    source: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """``mix``: which operations (see `workloads`); ``clients``; ``rate``: operations/s of all clients together; ``batch``: operations in
    one pipeline; ``tags``: hash tags of its keys, spread evenly over the slots; ``driver``: ``recorder`` (our own, no hidden retries),
    ``valkey-py``, ``redis-py``, ``glide`` or ``valkeep``."""

    mix: str = "mixed"
    clients: tuple[ClientSpec, ...] = field(default_factory=lambda: tuple(ClientSpec(f"c{number}") for number in range(1, 5)))
    rate: int = 15_000
    batch: int = 12
    tags: int = 12
    driver: str = "recorder"


@dataclass(frozen=True, slots=True)
class Step:
    """``fault``: its name in `faults`. ``after``: seconds to wait before it. ``lasts``: seconds until it is healed by itself (0 = never,
    or by its own nature). ``until``: the condition to wait for afterwards:

    none        nothing
    promoted    each shard whose primary was struck has another one
    recovered   every shard's primary acks writes again
    moved       both
    redundant   recovered, and every living node of a shard follows its one primary
    settled     moved and redundant
    """

    fault: str
    target: str
    after: float = 0.0
    lasts: float = 0.0
    until: str = "recovered"
    options: tuple[tuple[str, str], ...] = ()

    def option(self, name: str, default: str = "") -> str:
        return dict(self.options).get(name, default)

    def __str__(self) -> str:
        options = f"({','.join(f'{name}={value}' for name, value in self.options)})" if self.options else ""
        lasts = f"+{self.lasts:g}" if self.lasts else ""
        until = f"~{self.until}" if self.until != "recovered" else ""
        return f"{self.fault}:{self.target}{options}@{self.after:g}{lasts}{until}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """``measure`` (a name in the outcome's measures) has to lie in [``least``, ``most``]; None: no bound on that side. ``because``: why, in half a sentence."""

    measure: str
    least: float | None = None
    most: float | None = None
    because: str = ""

    def met(self, value: float | None) -> bool | None:
        """None where there is no value to compare: the verdict is then unknown."""
        if value is None:
            return None
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is not None and self.least == self.most:
            return f"{self.measure} = {self.least:g}"
        low = f"{self.least:g} ≤ " if self.least is not None else ""
        high = f" ≤ {self.most:g}" if self.most is not None else ""
        return f"{low}{self.measure}{high}"


@dataclass(frozen=True, slots=True)
class Drill:
    """``teaches``: one sentence. ``warm_up``: seconds of load before the first step, and not less than ``warm_operations`` recorded.
    ``settle``: seconds of load after the last step. ``needs_valkey``: the first version (major, minor) of Valkey that can do it; () = any server.
    ``random``: how many faults are drawn from the seed, in place of ``steps``."""

    name: str
    teaches: str
    topology: TopologySpec
    steps: tuple[Step, ...]
    expects: tuple[Expectation, ...]
    load: Load = field(default_factory=Load)
    warm_up: float = 2.0
    warm_operations: int = 10_000
    settle: float = 1.0
    needs_valkey: tuple[int, ...] = ()
    random: int = 0


def schedule_text(steps: tuple[Step, ...]) -> str:
    """One line; `parse_schedule` reads it back."""
    return " ".join(map(str, steps))


def parse_schedule(text: str) -> tuple[Step, ...]:
    """Read what `schedule_text` wrote. Raises ``UsageError`` naming the part that is no step."""
    steps: list[Step] = []
    for part in text.split():
        match = _STEP.fullmatch(part)
        if match is None:
            raise UsageError(
                f"{part!r} is no step of a schedule",
                remedy="the form is FAULT:TARGET[(name=value,…)]@AFTER[+LASTS][~UNTIL]: kill:primary@2",
            )
        options: list[tuple[str, str]] = []
        for pair in filter(None, (match["options"] or "").split(",")):
            name, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"{pair!r} in {part!r} is no option", remedy="options are name=value, separated by commas")
            options.append((name, value))
        steps.append(
            Step(
                match["fault"],
                match["target"],
                float(match["after"]),
                float(match["lasts"] or 0),
                match["until"] or "recovered",
                tuple(options),
            )
        )
    return tuple(steps)
