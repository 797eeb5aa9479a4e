"""Installing from a fresh clone: without a C compiler it works and says ``interpreted``; with ``require`` it does not pretend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout"),
    pytest.mark.xdist_group("install"),
    pytest.mark.slow,
]


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VALKEEP_", "PYTEST_", "COVERAGE", "COV_"))}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**kept, **environment}, timeout=600, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is committed, and nothing that a build left behind."""
    folder = tmp_path / "clone"
    done = run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(folder)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(folder.rglob("*.so"))
    return folder


def install(clone: Path, **environment: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Into a folder of its own; what pip does without ``--target``, with the build tools of this environment (no network)."""
    place = clone.parent / "site"
    return place, run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(place), "."],
        clone,
        **environment,
    )


@pytest.mark.timeout(600)
def test_without_a_c_compiler_it_installs_says_interpreted_and_passes_the_wire_suite(clone: Path) -> None:
    place, done = install(clone, CC="/bin/false")
    assert done.returncode == 0, done.stderr
    assert not list(place.rglob("*.so"))
    assert list((place / "valkeep" / "wire").rglob("*.pxd")), "the declarations are package data"
    assert (place / "valkeep" / "py.typed").exists()
    said = run([sys.executable, "-m", "valkeep", "version", "--json", "-"], clone.parent, PYTHONPATH=str(place))
    value = json.loads(said.stdout)
    assert value["wire"] == "interpreted"
    assert value["compiled"] == []
    assert "interpreted" in said.stderr
    suite = run(["bash", ".ci/wire-tests"], clone).stdout.split()
    unit = [name for name in suite if name.startswith("tests/unit/")]
    # The property tests run interpreted in `make test` already, on the sources; here it is about what got installed.
    tested = run([sys.executable, "-m", "pytest", "-q", "-x", *unit], clone, PYTHONPATH=str(place))
    assert tested.returncode == 0, tested.stdout[-4000:]


@pytest.mark.timeout(300)
def test_when_compiling_is_required_a_missing_compiler_is_an_error(clone: Path) -> None:
    first, *others = sorted((clone / "src").rglob("*.pxd"))
    for path in others:  # one module is enough to fail
        path.unlink()
    _, done = install(clone, CC="/bin/false", VALKEEP_COMPILE="require")
    assert done.returncode != 0
    assert "VALKEEP_COMPILE=require, and these are not compiled" in done.stdout + done.stderr
    assert first.stem in done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_an_unknown_compile_mode_is_refused(clone: Path) -> None:
    _, done = install(clone, VALKEEP_COMPILE="perhaps")
    assert done.returncode != 0
    assert "auto, never, require" in done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.skipif(not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler")
def test_an_in_place_build_never_leaves_a_stale_extension(clone: Path) -> None:
    """A changed source loses its old extension even when the new build fails, and a module that went takes its extension with it."""
    wire = clone / "src" / "valkeep" / "wire"
    for path in [*wire.rglob("*.pxd")]:
        path.unlink()
    (wire / "one.py").write_text("def answer() -> int:\n    return 1\n")
    (wire / "one.pxd").write_text("cpdef int answer()\n")
    (wire / "two.py").write_text("def answer() -> int:\n    return 2\n")
    (wire / "two.pxd").write_text("cpdef int answer()\n")
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    assert run(build, clone, VALKEEP_COMPILE="require").returncode == 0
    assert sorted(path.name.split(".")[0] for path in wire.rglob("*.so")) == ["one", "two"]
    before = (wire / "one.abi3.so").stat().st_mtime_ns
    assert run(build, clone).returncode == 0
    assert (wire / "one.abi3.so").stat().st_mtime_ns == before, "nothing changed, nothing is built"

    stamp = (wire / "one.py").stat()
    (wire / "one.py").write_text("def answer() -> int:\n    return 3\n")
    os.utime(wire / "one.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a checkout of an older commit would
    (wire / "two.pxd").unlink()
    assert run(build, clone, CC="/bin/false").returncode == 0
    assert list(wire.rglob("*.so")) == []
    assert run(build, clone, VALKEEP_COMPILE="require").returncode == 0
    value = run([sys.executable, "-c", "from valkeep.wire.one import answer; print(answer())"], clone, PYTHONPATH=str(clone / "src"))
    assert value.stdout == "3\n"


@pytest.mark.timeout(300)
@pytest.mark.skipif(not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler")
def test_a_module_that_does_not_compile_takes_along_those_that_cimport_it_and_no_others(clone: Path) -> None:
    """A compiled module that cimports an interpreted one does not even load."""
    wire = clone / "src" / "valkeep" / "wire"
    for path in [*wire.rglob("*.pxd")]:
        path.unlink()
    one = "class One:\n    def __init__(self) -> None:\n        self.number = 1\n"
    (wire / "one.py").write_text(one + "\n\ndef promised() -> int:\n    return 1\n")
    (wire / "one.pxd").write_text("cdef class One:\n    cdef public int number\n\ncpdef int promised()\n")
    (wire / "two.py").write_text("from .one import One\n\n\ndef answer() -> int:\n    return One().number + 1\n")
    (wire / "two.pxd").write_text("from .one cimport One\ncpdef int answer()\n")
    (wire / "three.py").write_text("def answer() -> int:\n    return 3\n")
    (wire / "three.pxd").write_text("cpdef int answer()\n")
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    ask = [sys.executable, "-c", "from valkeep.wire import two, three; print(two.answer(), three.answer())"]
    done = run(build, clone, VALKEEP_COMPILE="require")
    assert done.returncode == 0, done.stderr
    assert run(ask, clone, PYTHONPATH=str(clone / "src")).stdout == "2 3\n"

    (wire / "one.py").write_text(one)  # what the .pxd promises is gone
    done = run(build, clone)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name.split(".")[0] for path in wire.rglob("*.so")) == ["three"]
    assert "valkeep.wire.one" in done.stderr
    assert "valkeep.wire.two" in done.stderr
    assert run(ask, clone, PYTHONPATH=str(clone / "src")).stdout == "2 3\n"
    assert run(build, clone, VALKEEP_COMPILE="require").returncode != 0
