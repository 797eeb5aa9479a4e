"""Builds the compiled half of ``valkeep.wire``. Everything else about the package is in pyproject.toml.

``src/valkeep/wire/**/*.py`` is ordinary Python that runs as it is. A module that has a ``.pxd`` of the same name beside it is also
compiled to C (Cython's pure Python mode), into one abi3 extension that every CPython from 3.11 on can load.

Beside it one small library is made of plain C, on Linux: ``runtime/synced_shim.c``, which servers under test are started with (LD_PRELOAD).
It is no module of Python; it is built and placed like one, so that wheels carry it.

``VALKEEP_COMPILE`` decides:

    auto     (default) compile where a C compiler and Cython are present; a module that fails stays interpreted
    never    do not try
    require  anything that is not compiled is an error: continuous integration, benches, wheels

In-place builds (``make build``, editable installs) go by the hash of the sources and not by file times: a module whose source, or
any ``.pxd`` that it cimports, changed loses its old ``.so`` *before* the new one is built. So a failed build leaves an
interpreted module, never a stale compiled one. Extensions whose ``.py`` or ``.pxd`` has gone are removed as well.

Traps that this file steps around: a left-over ``build/`` folder hides a failed build (hence the hashes, and the unlinking); a compiled
module that cimports one which stayed interpreted does not load (so it stays interpreted too); ``.pxd`` files are package data, or
the sdist loses them. Cython runs in a process for each module, as many at a time as there are cores.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent.resolve()
SOURCE = Path("src")
WIRE = SOURCE / "valkeep" / "wire"
SHIM = SOURCE / "valkeep" / "runtime" / "synced_shim.c"
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
    """What wants to be compiled, relative to the project's root."""
    if MODE == "never":
        return []
    wire = HERE / WIRE
    modules = sorted(path.relative_to(HERE) for path in wire.rglob("*.py") if path.with_suffix(".pxd").exists())
    return [*modules, SHIM] if sys.platform == "linux" else modules


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def digest(path: Path) -> str:
    """Of everything that decides about a module's extension: its source, the declarations it sees, this file, the tools."""
    seen = hashlib.sha256(f"{sys.version}{sys.platform}{_cython_version()}".encode())
    for part in (HERE / path, *declarations(HERE / path.with_suffix(".pxd")), HERE / "setup.py"):
        seen.update(part.name.encode() + b"\0" + part.read_bytes() + b"\0")
    return seen.hexdigest()


def declarations(first: Path) -> list[Path]:
    """``first`` and every ``.pxd`` of wire that it cimports, transitively; by the last part of the module's name, so rather too many.
    None where there is no ``first``: plain C has no declarations."""
    if not first.exists():
        return []
    every = sorted((HERE / WIRE).rglob("*.pxd"))
    found: set[Path] = set()
    todo = [first]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            named = set(re.findall(r"(\w+)\s+cimport\b|\bcimport\s+[\w.]*?(\w+)\s*(?:as\b|$)", one.read_text(), re.MULTILINE))
            # `from .rdb cimport handler` names the module after the word, not before it
            named |= {
                (word, "") for line in re.findall(r"\bcimport\s+(.+)$", one.read_text(), re.MULTILINE) for word in re.findall(r"\w+", line)
            }
            words = {word for pair in named for word in pair if word}
            todo += [other for other in every if other.stem in words]
    return sorted(found)


def to_c(path: Path) -> Path | None:
    """Translate one module into C, in a process of its own; None, and the reason on stderr, when that fails. C is C already.

    Trap for authors of ``.pxd``: in a ``@cython.final`` class, Cython 3.3 writes the exception value of a ``long long`` method with a doubled
    suffix (``-1LLLL``), which no C compiler takes. Declare such a method ``Py_ssize_t``, or leave ``final`` away.
    """
    if path.suffix == ".c":
        return path
    target = Path("build", "cython", *path.parts).with_suffix(".c")
    (HERE / target).parent.mkdir(parents=True, exist_ok=True)
    options = [f"-X{name}={value}" for name, value in DIRECTIVES.items() if name != "language_level"]
    command = [
        sys.executable,
        "-m",
        "cython",
        "-3",
        *options,
        "-I",
        str(SOURCE),
        "--module-name",
        module_name(path),
        "-o",
        str(target),
        str(path),
    ]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "no Cython" if "No module named" in done.stderr else done.stderr or done.stdout
        print(f"valkeep: {path}: {said}", file=sys.stderr)
        return None
    return target


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
    """``build_ext`` that goes by the hashes of the sources and lets one module fail without the others."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # The Extensions given to setup() only say that there are some; the real ones are made in run().
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
        if todo:
            print(f"valkeep: compiling {len(todo)} modules, a minute or two, once …", flush=True)
        failed = self._build(todo)
        lost = {path.with_suffix(".pxd") for path in failed}
        for path in sorted(wanted):
            # a compiled module that cimports an interpreted one does not load
            if path not in failed and lost & {one.relative_to(HERE) for one in declarations(HERE / path.with_suffix(".pxd"))}:
                self._result(module_name(path)).unlink(missing_ok=True)
                failed.append(path)
        if self._in_place:
            done = {str(path): key for path, key in wanted.items() if path not in failed}
            HASHES.parent.mkdir(exist_ok=True)
            HASHES.write_text(json.dumps(done, indent=1, sort_keys=True) + "\n")
        if failed:
            names = ", ".join(module_name(path) for path in failed)
            if MODE == "require":
                raise SystemExit(f"VALKEEP_COMPILE=require, and these are not compiled: {names}")
            print(f"valkeep: not compiled (what is Python runs, some 25 times slower): {names}", file=sys.stderr)
        elif todo:
            print(f"valkeep: compiled {len(todo)} modules")

    def _drop_stale(self, wanted: dict[Path, str], known: dict[str, str]) -> None:
        for built in [*sorted((HERE / WIRE).rglob("*.so")), *sorted((HERE / SHIM).parent.glob("*.so"))]:
            suffix = SHIM.suffix if built.parent == (HERE / SHIM).parent else ".py"
            path = (built.parent / (built.name.split(".")[0] + suffix)).relative_to(HERE)
            if path not in wanted or known.get(str(path)) != wanted[path]:
                built.unlink()
        for path in wanted:
            if not any((HERE / path).parent.glob(f"{path.stem}.*.so")):
                known.pop(str(path), None)

    def _build(self, todo: list[Path]) -> list[Path]:
        """Compile ``todo``; returns what failed. C files are made one by one, so that one broken module does not take the others with it."""
        if not todo:
            return []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            made = dict(zip(todo, pool.map(to_c, todo), strict=True))
        extensions = {path: self._extension(path, file) for path, file in made.items() if file is not None}
        self.extensions = list(extensions.values())
        self.check_extensions_list(self.extensions)
        self.force = True
        self.parallel = os.cpu_count() or 1
        if self.extensions:
            build_ext.run(self)
        return [path for path in todo if path not in extensions or not self._result(module_name(path)).exists()]

    def _extension(self, path: Path, file: Path) -> Extension:
        name = module_name(path)
        extension = Extension(
            name, [str(file)], py_limited_api=True, define_macros=[("Py_LIMITED_API", "0x030B0000")], extra_compile_args=["-g0", "-w"]
        )
        extension.optional = True  # whether a failure is allowed is decided in _run, once, for all of them
        extension._full_name, extension._links_to_dynamic, extension._needs_stub = name, False, False
        extension._file_name = self.get_ext_filename(name)
        self.ext_map[name] = self.ext_map[extension._file_name] = extension
        # an older result in build/ would be copied in place of one that fails to build now
        (Path(self.build_lib) / extension._file_name).unlink(missing_ok=True)
        return extension

    def _result(self, name: str) -> Path:
        """Where the extension is at the end: in place, beside its source."""
        if self._in_place:
            return HERE / SOURCE / self.get_ext_filename(name)
        return Path(self.get_ext_fullpath(name))

    def get_source_files(self) -> list[str]:
        return [str(path) for path in sources()]


placeholders: list[Any] = [Extension(module_name(path), [str(path)], py_limited_api=True) for path in sources()]
setup(
    ext_modules=placeholders,
    cmdclass={"build_ext": BuildWire},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if placeholders else {},
)
