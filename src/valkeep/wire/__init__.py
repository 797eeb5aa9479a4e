"""Bytes to values and back, sans-IO: RESP, PSYNC, RDB and its packed encodings, checksums.

Nothing in here opens a socket, reads a clock or throws dice. Modules that have a ``.pxd`` beside them are compiled where a C compiler
was present at install; the same source runs interpreted elsewhere, with the same results and some 25 times slower. Inside this
package imports are relative, so that the differential tests can load the interpreted twin under another name.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__all__ = ["Build", "build"]


@dataclass(frozen=True, slots=True)
class Build:
    """Which modules of this package were installed how; names are relative to ``valkeep.wire``, for example ``rdb.scan``."""

    compiled: tuple[str, ...]
    interpreted: tuple[str, ...]

    @property
    def word(self) -> str:
        """``compiled``, ``interpreted`` or ``partly compiled``."""
        if not self.interpreted and self.compiled:
            return "compiled"
        return "partly compiled" if self.compiled else "interpreted"


def build() -> Build:
    """Look, without importing anything, how the hot modules of this package will be loaded."""
    root = Path(__file__).parent
    compiled: list[str] = []
    interpreted: list[str] = []
    for declaration in sorted(root.rglob("*.pxd")):
        stem = declaration.with_suffix("")
        if not stem.with_suffix(".py").exists():
            continue
        name = ".".join(stem.relative_to(root).parts)
        has_extension = any(stem.with_name(stem.name + suffix).exists() for suffix in EXTENSION_SUFFIXES)
        (compiled if has_extension else interpreted).append(name)
    return Build(tuple(compiled), tuple(interpreted))
