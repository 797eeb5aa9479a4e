"""What becomes of one command of the stream, as values; ``commands`` decides, ``stream`` acts on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from valkeep.migrate.transform.target import FieldTtl, TargetFormat
from valkeep.wire.commands import Place

if TYPE_CHECKING:
    from valkeep.migrate.transform.maybe import MaybeSet
    from valkeep.migrate.transform.notes import LedgerNote

__all__ = ["PASS", "Drop", "Hold", "Outcome", "Pass", "Recopy", "Replace", "Rule", "Situation"]


@dataclass(frozen=True, slots=True)
class Pass:
    """The command's own bytes."""


@dataclass(frozen=True, slots=True)
class Replace:
    """These commands instead."""

    instead: tuple[tuple[bytes, ...], ...]
    note: LedgerNote | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing is sent, and nothing is missing."""

    note: LedgerNote | None = None


@dataclass(frozen=True, slots=True)
class Recopy:
    """These keys are copied again at a later, known offset."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing more can be sent. ``why`` names the command and both versions; ``remedy`` what a person can do; ``places``: keys whose copy would free it."""

    why: str
    remedy: str
    places: tuple[Place, ...] = ()


Outcome = Pass | Replace | Drop | Recopy | Hold


@dataclass(frozen=True, slots=True)
class Situation:
    """What a rule may look at besides the arguments. ``database``: the one selected in the stream; ``offset``: the source's, of the command."""

    database: int
    offset: int
    target: TargetFormat
    policy: FieldTtl
    lost_fields: MaybeSet


Rule = Callable[[list[bytes], Situation], Outcome]

PASS: Final = Pass()
