"""Builds the compiled half of ``valkeep.wire``. Everything else about the package is in pyproject.toml.

``src/valkeep/wire/**/*.py`` is ordinary Python that runs as it is. A module that has a ``.pxd`` of the same name beside it is also
compiled to C (Cython's pure Python mode), into one abi3 extension that every CPython from 3.11 on can load.

``VALKEEP_COMPILE`` decides:

    auto     (default) compile where a C compiler and Cython are present; a module that fails stays interpreted
    never    do not try
    require  anything that is not compiled is an error: continuous integration, benches, wheels

In-place builds (``make build``, editable installs) go by the hash of the sources and not by file times: a module whose sources, or
any ``.pxd`` they might cimport, changed loses its old ``.so`` *before* the new one is built. So a failed build leaves an
interpreted module, never a stale compiled one. Extensions whose ``.py`` or ``.pxd`` has gone are removed as well.

Traps that this file steps around: ``optional`` must be set on the Extension that ``cythonize`` returns (a copy); ``.pxd`` files are
package data, or the sdist loses them; a left-over ``build/`` folder hides a failed build (hence the hashes).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent.resolve()
SOURCE = Path("src")
WIRE = SOURCE / "valkeep" / "wire"
HASHES = HERE / "build" / "wire.json"
MODE = os.environ.get("VALKEEP_COMPILE", "auto")
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,  # C types come from the .pxd alone, so that both builds do the same arithmetic
    "boundscheck": True,
    "wraparound": False,
}
if MODE not in ("auto", "never", "require"):
    sys.exit(f"VALKEEP_COMPILE={MODE!r} is not one of auto, never, require")


def sources() -> list[Path]:
    """The modules that want to be compiled, relative to the project's root."""
    if MODE == "never":
        return []
    wire = HERE / WIRE
    return sorted(path.relative_to(HERE) for path in wire.rglob("*.py") if path.with_suffix(".pxd").exists())


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def digest(path: Path) -> str:
    """Of everything that decides about a module's extension: its source, all declarations, this file, the tools."""
    seen = hashlib.sha256(f"{sys.version}{sys.platform}{_cython_version()}".encode())
    for part in (HERE / path, *sorted((HERE / WIRE).rglob("*.pxd")), HERE / "setup.py"):
        seen.update(part.name.encode() + b"\0" + part.read_bytes() + b"\0")
    return seen.hexdigest()


def _cython_version() -> str:
    try:
        from Cython import __version__
    except ImportError:
        return "none"
    return str(__version__)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One in-place build at a time in this tree."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    HASHES.parent.mkdir(exist_ok=True)
    with (HASHES.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class BuildWire(build_ext):
    """``build_ext`` that compiles module by module, so that one broken module does not take the others with it."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # The Extensions given to setup() only say that there are some; the real ones are made in run().
        self._tool = self.compiler  # run() replaces the name by an object, and takes only a name
        self._in_place = bool(self.inplace) or bool(getattr(self, "editable_mode", False))

    def run(self) -> None:
        with _alone() if self._in_place else contextlib.nullcontext():
            self._run()

    def _run(self) -> None:
        wanted = {path: digest(path) for path in sources()}
        known: dict[str, str] = {}
        if self._in_place:
            with contextlib.suppress(OSError, ValueError):
                known = json.loads(HASHES.read_text())
            self._drop_stale(wanted, known)
        todo = [path for path, key in wanted.items() if not (self._in_place and known.get(str(path)) == key)]
        failed = [path for path in todo if not self._build_one(path)]
        if self._in_place:
            done = {str(path): key for path, key in wanted.items() if path not in failed}
            HASHES.parent.mkdir(exist_ok=True)
            HASHES.write_text(json.dumps(done, indent=1, sort_keys=True) + "\n")
        if failed:
            names = ", ".join(module_name(path) for path in failed)
            if MODE == "require":
                raise SystemExit(f"VALKEEP_COMPILE=require, and these are not compiled: {names}")
            print(f"valkeep: these run interpreted, some 25 times slower: {names}", file=sys.stderr)
        elif todo:
            print(f"valkeep: compiled {len(todo)} modules")

    def _drop_stale(self, wanted: dict[Path, str], known: dict[str, str]) -> None:
        for built in sorted((HERE / WIRE).rglob("*.so")):
            path = (built.parent / (built.name.split(".")[0] + ".py")).relative_to(HERE)
            if path not in wanted or known.get(str(path)) != wanted[path]:
                built.unlink()
        for path in wanted:
            if not any((HERE / path).parent.glob(f"{path.stem}.*.so")):
                known.pop(str(path), None)

    def _build_one(self, path: Path) -> bool:
        try:
            from Cython.Build import cythonize
            from Cython.Compiler.Errors import CompileError
        except ImportError:
            print("valkeep: no Cython, so no compiled wire", file=sys.stderr)
            return False
        declared = Extension(
            module_name(path),
            [str(path)],
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-g0"],
        )
        try:
            (made,) = cythonize(
                [declared], build_dir="build/cython", compiler_directives=DIRECTIVES, include_path=["src"], force=True, quiet=True
            )
        except CompileError as error:
            print(f"valkeep: {path}: {error}", file=sys.stderr)
            return False
        made.optional = MODE == "auto"
        self.extensions = [made]
        self.compiler = self._tool
        self.force = True
        self.check_extensions_list(self.extensions)
        for attribute, value in (("_full_name", made.name), ("_links_to_dynamic", False), ("_needs_stub", False)):
            setattr(made, attribute, value)
        self.ext_map[made.name] = made
        made._file_name = self.get_ext_filename(made.name)
        self.ext_map[made._file_name] = made
        try:
            build_ext.run(self)
        except Exception as error:  # noqa: BLE001 - whatever a tool chain may throw
            print(f"valkeep: {path}: {error}", file=sys.stderr)
            return False
        return Path(self.get_ext_fullpath(made.name)).exists() or (HERE / SOURCE / made._file_name).exists()

    def get_source_files(self) -> list[str]:
        return [str(path) for path in sources()]


placeholders: list[Any] = [Extension(module_name(path), [str(path)], py_limited_api=True) for path in sources()]
setup(
    ext_modules=placeholders,
    cmdclass={"build_ext": BuildWire},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if placeholders else {},
)
