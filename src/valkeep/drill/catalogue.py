"""Finding drills: those that come with Valkeep (`drills`), and those of other packages.

Whoever has drills of their own registers them under the entry point group ``valkeep.drills``: a `Drill`, or a function of the timeout
that returns one::

    [project.entry-points."valkeep.drills"]
    our-failover = "our_package.drills:our_failover"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

from valkeep.drill.drills import BUILT_IN, RANDOM, Maker
from valkeep.drill.script import Drill
from valkeep.errors import UsageError, ValkeepError

__all__ = ["GROUP", "drills", "find", "random_drills"]

GROUP: Final = "valkeep.drills"
TIMEOUT_MS: Final = 1000


def drills(timeout_ms: int | None = None) -> dict[str, Drill]:
    """Name → drill: those of Valkeep, then those of other packages. ``timeout_ms``: None for what each drill uses by itself (1000)."""
    found = _made(BUILT_IN, timeout_ms)
    for entry in entry_points(group=GROUP):
        drill = _loaded(entry.name, entry.load, timeout_ms or TIMEOUT_MS)
        if drill.name in found:
            raise ValkeepError(
                f"the drill {drill.name!r} of {entry.value} is there already", remedy="rename it, or uninstall the package that brings it"
            )
        found[drill.name] = drill
    return found


def random_drills(timeout_ms: int | None = None) -> dict[str, Drill]:
    """Those whose steps are drawn from the seed."""
    return _made(RANDOM, timeout_ms)


def _made(makers: tuple[Maker, ...], timeout_ms: int | None) -> dict[str, Drill]:
    return {drill.name: drill for drill in (maker(timeout_ms or TIMEOUT_MS) for maker in makers)}


def _loaded(name: str, load: Callable[[], object], timeout_ms: int) -> Drill:
    try:
        made = load()
        drill = made if isinstance(made, Drill) else made(timeout_ms) if callable(made) else None
    except Exception as error:
        raise ValkeepError(
            f"the drill {name!r} of another package can not be loaded: {type(error).__name__}: {error}",
            remedy="mend or uninstall the package that brings it",
        ) from error
    if not isinstance(drill, Drill):
        raise ValkeepError(
            f"the entry point {name!r} is no drill", remedy="it has to be a Drill, or a function of the timeout in ms that returns one"
        )
    return drill


def find(name: str, timeout_ms: int | None = None) -> Drill:
    """The drill of this name; other packages, which may make theirs of ours by this very function, are asked last. Raises ``UsageError``
    with the nearest one."""
    import difflib

    ours = _made(BUILT_IN + RANDOM, timeout_ms)
    if name in ours:
        return ours[name]
    known = drills(timeout_ms) | ours
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        f"there is no drill {name!r}",
        remedy=f"did you mean {near[0]}? 'valkeep drill list' shows all" if near else "'valkeep drill list' shows all",
    )
