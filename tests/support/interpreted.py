"""``valkeep.wire`` from its sources, whether or not it is compiled.

Two uses. ``use_interpreted_wire()`` (what ``VALKEEP_TEST_WIRE=interpreted`` does in conftest.py) makes ``import valkeep.wire…`` itself
load the sources, so that the whole suite runs interpreted. ``interpreted("rdb.scan")`` loads one module *beside* the compiled one,
under the package name ``valkeep_wire_interpreted``: differential tests feed both the same bytes. That is why ``wire`` imports its own
modules relatively.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import valkeep

TWIN = "valkeep_wire_interpreted"
WIRE = Path(valkeep.__file__).parent / "wire"


class SourceOnly(importlib.abc.MetaPathFinder):
    """Finds ``package`` and everything below it in the folder of ``valkeep.wire``, with the source loader only."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.package and not fullname.startswith(self.package + "."):
            return None
        inner = fullname[len(self.package) + 1 :]
        place = WIRE.joinpath(*inner.split(".")) if inner else WIRE
        for file, below in ((place / "__init__.py", [str(place)]), (place.with_suffix(".py"), None)):
            if file.is_file():
                loader = importlib.machinery.SourceFileLoader(fullname, str(file))
                return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=below)
        return None


def use_interpreted_wire() -> None:
    """From now on ``valkeep.wire`` is its sources. Too late once it was imported."""
    early = [name for name in sys.modules if name.startswith("valkeep.wire")]
    if early:
        raise RuntimeError(f"already imported, perhaps compiled: {early}")
    sys.meta_path.insert(0, SourceOnly("valkeep.wire"))


def interpreted(module: str) -> ModuleType:
    """The interpreted twin of ``valkeep.wire.<module>``; its classes are not those of the compiled one."""
    if not any(isinstance(finder, SourceOnly) and finder.package == TWIN for finder in sys.meta_path):
        sys.meta_path.insert(0, SourceOnly(TWIN))
    return importlib.import_module(f"{TWIN}.{module}" if module else TWIN)


def both(module: str) -> list[ModuleType]:
    """``valkeep.wire.<module>`` as installed, and its interpreted twin: the parameters of a differential test."""
    return [importlib.import_module(f"valkeep.wire.{module}"), interpreted(module)]
