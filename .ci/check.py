"""What `make check` runs: format, lint, types, import contracts, the tree, the documentation. Every step runs; the exit status is 1 when any failed.

The tree check keeps out of the repository what only one machine knows: addresses of package registries in lock files, this
checkout's own absolute path, a person's home folder; and module names that name nothing (``utils``, ``common``, …).
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.resolve()
BIN = ROOT / ".venv" / "bin"
NAMELESS = frozenset(["utils", "util", "common", "helpers", "helper", "base", "manager", "misc"])
REGISTRY = re.compile(
    r"--(?:extra-)?index-url|--find-links|https?://[^\s'\")>]*/(?:simple|packages|pypi)\b|\bfiles\.python" + "hosted", re.IGNORECASE
)
BANNER = re.compile(r"[╔╗╚╝║╩╦]|^-+$|^$|KEPT$")
LONG = 400
"""Lines of a module beyond which its first lines have to give the reason (the words "long because")."""


def run(*command: str) -> list[str]:
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines() or [f"exit status {done.returncode}"] if done.returncode else []


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def tree() -> list[str]:
    problems: list[str] = []
    here, home = str(ROOT) + "/", str(Path.home())
    for path in tracked():
        name = path.relative_to(ROOT)
        if path.suffix == ".py" and path.stem in NAMELESS:
            problems.append(f"{name}: a module's name is its noun; {path.stem!r} names nothing")
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        problems += [
            f"{name}:{number}: an absolute path of this machine"
            for number, line in enumerate(text.splitlines(), 1)
            if here in line or (len(home) > 3 and home + "/" in line)
        ]
        if name.parts[0] == "requirements" or name.name in ("pyproject.toml", "Makefile", "setup.py"):
            problems += [
                f"{name}:{number}: an address of a package registry: {line.strip()[:80]}"
                for number, line in enumerate(text.splitlines(), 1)
                if REGISTRY.search(line.replace("--no-emit-index-url", "").replace("--no-emit-find-links", ""))
            ]
        if name.parts[0] == "src" and path.suffix == ".py" and text.count("\n") > LONG and "long because" not in text[:6000].lower():
            problems.append(f"{name}: {text.count(chr(10))} lines; split it, or say in its essay what it is long because of")
    return problems


def locked() -> list[str]:
    """Every requirement of every lock carries hashes."""
    return [
        f"{lock.name}: {requirement.splitlines()[0]} has no hash"
        for lock in sorted((ROOT / "requirements").glob("*.lock"))
        for requirement in re.findall(r"(?m)^[A-Za-z0-9][^\n]*(?:\n[ ]+[^\n]*)*", lock.read_text())
        if "--hash=sha256:" not in requirement
    ]


STEPS: list[tuple[str, Callable[[], list[str]]]] = [
    ("format", lambda: run("ruff", "format", "--check", "--quiet", ".")),
    ("lint", lambda: run("ruff", "check", "--quiet", "--output-format=concise", ".")),
    ("types", lambda: run("mypy", "--no-error-summary")),
    ("imports", lambda: [line for line in run("lint-imports", "--no-cache") if not BANNER.search(line)]),
    ("tree", tree),
    ("locks", locked),
    ("documentation", lambda: run("python", "-m", "pytest", "-q", "-p", "no:randomly", "tests/unit/test_house_docs.py")),
]


def main(names: list[str]) -> int:
    failed = 0
    for name, step in STEPS:
        if names and name not in names:
            continue
        begun = time.monotonic()
        problems = step()
        print(f"{'FAILED' if problems else 'ok':6}  {name}  ({time.monotonic() - begun:.1f} s)", flush=True)
        if problems:
            failed += 1
            print("\n".join(f"        {line}" for line in problems), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
