"""What every case has to satisfy, whatever it is fed to.

* Only ``RemoteProtocolError`` and ``Refused`` may come out (``LocalProtocolError`` blames us, so that input of others never raises it), each
  with a remedy.
* Compiled and interpreted give the same: result, or kind and text of the error.
* The pieces in which bytes come change nothing but the text of an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from types import ModuleType
from typing import Any

from tests.support.interpreted import interpreted
from valkeep.errors import Refused, RemoteProtocolError, ValkeepError

__all__ = ["Finding", "Target", "agree", "attempt", "by_both", "installed", "same", "twin"]

ALLOWED = (RemoteProtocolError, Refused)


class Finding(AssertionError):
    """A case that broke a rule."""


@dataclass(frozen=True, slots=True)
class Target:
    """``make`` gives a case from a seeded generator; ``check`` raises ``Finding``, or anything else that it should not, when a rule is broken.
    The generator given to ``check`` depends on the case's bytes only, so that the bytes alone are a reproducer."""

    name: str
    make: Callable[[Random], bytes]
    check: Callable[[bytes, Random], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt ended that was allowed to fail."""

    kind: str
    text: str


def failure(error: ValkeepError) -> Failure:
    if type(error) not in ALLOWED:
        raise Finding(f"{type(error).__name__} for bytes of others: {error}") from error
    if not error.remedy or not error.message:
        raise Finding(f"an error without a message or remedy: {error!r}") from error
    return Failure(type(error).__name__, error.message)


def attempt(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, or the ``Failure`` it was allowed to raise."""
    try:
        return work()
    except ValkeepError as error:
        return failure(error)


def by_both(module: str, work: Callable[[ModuleType], Any]) -> list[Any]:
    """``attempt`` of ``work`` with the compiled module and with its interpreted twin."""
    return [attempt(partial(work, each)) for each in (installed(module), twin(module))]


def same(what: str, first: Any, second: Any) -> None:
    if first != second and repr(first) != repr(second):  # repr: nan is equal to itself
        raise Finding(f"{what} differ:\n  {_shown(first, second)}\n  {_shown(second, first)}")


def agree(what: str, first: Any, second: Any) -> None:
    """Like ``same``, but errors may say it in other words."""
    if isinstance(first, Failure) and isinstance(second, Failure) and first.kind == second.kind:
        return
    same(what, first, second)


def _shown(value: Any, other: Any) -> str:
    """``value`` around the first place where it differs from ``other``."""
    text, against = repr(value), repr(other)
    place = next((at for at, (a, b) in enumerate(zip(text, against, strict=False)) if a != b), min(len(text), len(against)))
    start = max(0, place - 120)
    return f"{'…' if start else ''}{text[start : place + 200]}"


def installed(module: str) -> ModuleType:
    import importlib

    return importlib.import_module(f"valkeep.wire.{module}")


def twin(module: str) -> ModuleType:
    return interpreted(module)
