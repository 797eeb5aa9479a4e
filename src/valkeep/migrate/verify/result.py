"""What a verification found: values only. The report folder's ``verification.json`` is ``Comparison.to_json()``, schema 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from valkeep.errors import ExitCode

__all__ = ["EXAMPLES", "Comparison", "Difference", "key_json", "merged"]

_COUNTS: Final = (
    *("keys_source", "keys_target", "missing", "extra", "different", "unsettled"),
    *("expired", "looked_again", "repaired", "memory_bytes"),
)
EXAMPLES = 20
"""Differences that are shown with names; all of them are counted, and all are in the file that ``--repair`` reads."""


def key_json(key: bytes) -> dict[str, str | None]:
    """A key as two JSON members, like the ledger's: text where it is UTF-8, else hexadecimal."""
    try:
        return {"key": key.decode(), "key_hex": None}
    except UnicodeDecodeError:
        return {"key": None, "key_hex": key.hex()}


@dataclass(frozen=True, slots=True)
class Difference:
    """One key (or one library of functions, ``what`` = "function") that the target has otherwise than it should.

    ``what``: missing | extra | different | expiry | function | misplaced (on a shard that does not own its slot)
    ``detail``: for people, from a second look at the examples; may be "".
    """

    database: int
    key: bytes
    what: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"database": self.database, **key_json(self.key), "what": self.what, "detail": self.detail}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Difference:
        key = data["key"].encode() if data["key"] is not None else bytes.fromhex(data["key_hex"])
        return cls(data["database"], key, data["what"], data["detail"])


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of ``full``, ``round`` or ``final``; counts are of everything known since the last ``full`` began.

    ``missing``, ``extra``, ``different``: final differences. ``unsettled``: keys written since they were last found equal.
    ``expired``: keys that one server had forgotten already and no client could see at the other (no difference). ``verdict``: "valid" (no
    difference, nothing unsettled), "invalid" (a difference), "unknown" (nothing found, but not all could be judged: ``reasons`` say why).
    ``source_offset``: what the verdict holds at; ``target_offset``: of the target's snapshot, in the target's own count.
    ``looked_again``: keys compared by commands, ``rounds``: in so many rounds. ``notes``: tolerances and limits that were in force.
    ``source_read``, ``target_read``: how a side was read, "psync" (a snapshot), "file" or "scan". A source that is read by SCAN is not followed: what was
    written there after a key was looked at is not known, except in ``final``; nor is a cluster.
    ``source_shards``, ``target_shards``: so many servers make a side up.
    """

    keys_source: int = 0
    keys_target: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    unsettled: int = 0
    examples: tuple[Difference, ...] = ()
    seconds: float = 0.0
    keys_per_second: float = 0.0
    source_offset: int = 0
    target_offset: int = 0
    verdict: str = "unknown"
    expired: int = 0
    functions: int = 0
    looked_again: int = 0
    rounds: int = 0
    repaired: int = 0
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    memory_bytes: int = 0
    source_read: str = "psync"
    target_read: str = "psync"
    source_shards: int = 1
    target_shards: int = 1

    @property
    def differences(self) -> int:
        return self.missing + self.extra + self.different

    @property
    def hot_only(self) -> bool:
        """Nothing speaks against the target but keys that never held still: ``final`` under a pause can settle these."""
        return self.verdict == "unknown" and not self.differences and self.unsettled > 0

    @property
    def exit_code(self) -> ExitCode:
        return {"valid": ExitCode.GOOD, "invalid": ExitCode.JUDGED_BAD}.get(self.verdict, ExitCode.UNKNOWN)

    @classmethod
    def unknown(cls, reason: str) -> Comparison:
        return cls(verdict="unknown", reasons=(reason,))

    def because(self, reason: str) -> Comparison:
        """The same with the verdict unknown for this reason too (an invalid one stays invalid)."""
        return replace(self, verdict="invalid" if self.differences else "unknown", reasons=(*self.reasons, reason))

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"schema": 1}
        for name in self.__slots__:
            value = getattr(self, name)
            if name == "examples":
                value = [one.to_json() for one in value]
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, float):
                value = round(value, 4)
            out[name] = value
        return out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Comparison:
        known = {name: data[name] for name in cls.__slots__ if name in data}
        known["examples"] = tuple(Difference.from_json(one) for one in data.get("examples", ()))
        for name in ("reasons", "notes"):
            known[name] = tuple(data.get(name, ()))
        return cls(**known)


def merged(found: Sequence[Comparison]) -> Comparison:
    """Comparisons of parts that have no key in common, as one: counts and memory added up, the worst verdict. ``target_offset`` and ``source_offset`` are those
    of the first: every part has its own."""
    first, *others = found
    if not others:
        return first
    verdict = next((one for one in ("invalid", "unknown") if any(part.verdict == one for part in found)), "valid")

    def total(name: str) -> int:
        return sum(getattr(part, name) for part in found)

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(one for part in found for one in getattr(part, name)))

    counts: dict[str, Any] = {name: total(name) for name in _COUNTS}
    return replace(
        first,
        **counts,
        verdict=verdict,
        examples=all_of("examples")[:EXAMPLES],
        reasons=all_of("reasons"),
        notes=all_of("notes"),
        seconds=max(part.seconds for part in found),
        keys_per_second=sum(part.keys_per_second for part in found),
        rounds=max(part.rounds for part in found),
        functions=max(part.functions for part in found),
        source_shards=total("source_shards"),
        target_shards=max(part.target_shards for part in found),
    )
