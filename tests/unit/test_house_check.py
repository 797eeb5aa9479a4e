"""The checks of the tree find what is planted for them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """.ci/check.py, looking at an empty repository in ``tmp_path``."""
    spec = importlib.util.spec_from_file_location("house_check", ROOT / ".ci" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "requirements").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("src/valkeep/utils.py", "", "names nothing"),
        ("docs/a.md", "look into {root}/src\n", "absolute path"),
        ("tests/a.py", "PATH = '{home}/bin'\n", "absolute path"),
        ("requirements/dev.lock", "--index-url https://mirror.example/simple\n", "package registry"),
        ("requirements/dev.lock", "a @ https://mirror.example/packages/a.whl\n", "package registry"),
        ("src/valkeep/long.py", "x = 1\n" * 401, "401 lines"),
    ],
)
def test_what_does_not_belong_into_the_tree_is_found(check: ModuleType, tmp_path: Path, name: str, text: str, said: str) -> None:
    assert check.tree() == []
    plant(tmp_path, name, text.format(root=tmp_path, home=Path.home()))
    problems = check.tree()
    assert len(problems) == 1
    assert said in problems[0]
    assert name in problems[0]


def test_a_long_module_that_gives_its_reason_is_allowed(check: ModuleType, tmp_path: Path) -> None:
    plant(tmp_path, "src/valkeep/table.py", '"""Long because it is one table."""\n' + "x = 1\n" * 600)
    assert check.tree() == []


def test_a_requirement_without_a_hash_is_found(check: ModuleType, tmp_path: Path) -> None:
    plant(tmp_path, "requirements/dev.lock", "good==1 \\\n    --hash=sha256:00\nbad==2 \\\n    --no-hash\n")
    assert check.locked() == ["dev.lock: bad==2 \\ has no hash"]


def test_every_step_of_the_check_runs_even_when_one_fails(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "STEPS", [("one", lambda: ["broken"]), ("two", list)])
    assert check.main([]) == 1
    out = capsys.readouterr().out
    assert re.search(r"FAILED\s+one", out)
    assert re.search(r"ok\s+two", out)
    assert check.main(["two"]) == 0


def test_a_python_without_ensurepip_is_named_with_the_package_that_has_it(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec python3 "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "venv", f"VENV={tmp_path}/venv", f"PYTHON={python}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert re.search(r"no ensurepip.*python3\.\d+-venv", done.stderr, re.DOTALL)
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_too_old_is_named_with_its_version(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'Python 3.9.2'\nexit 1\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "venv", f"VENV={tmp_path}/venv", f"PYTHON={python}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "3.11 or newer" in done.stderr
    assert "3.9.2" in done.stderr
