"""The house tests itself: what the documents say is there, and what is there is in the documents."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from valkeep import cli
from valkeep.errors import ExitCode

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def command_lines(text: str) -> list[str]:
    """The lines of every ```sh block, comments and continuation removed."""
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip().removeprefix("$ ") for line in lines if line.strip() and not line.lstrip().startswith("#")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def click_command(name: str) -> typer.core.TyperGroup:
    return typer.main.get_command(importlib.import_module(cli.COMMANDS[name].module).app)  # type: ignore[return-value]


def problem_with(line: str) -> str | None:
    """Why a documented command line can not be right, or None. Looks at commands, sub-commands, options and make targets; runs nothing."""
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if words[:1] == ["make"]:
        unknown = [word for word in words[1:] if "=" not in word and not word.startswith("-") and word not in make_targets()]
        return f"make has no target {unknown}" if unknown else None
    if words[:1] != ["valkeep"] or len(words) < 2 or words[1].startswith("-"):
        return None
    name, rest = words[1], words[2:]
    if name not in cli.commands():
        return f"valkeep has no command {name!r}"
    command = click_command(name)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]  # type: ignore[assignment]
    if getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        return f"{name} has no sub-command {rest[0]!r}"
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    unknown = [word.partition("=")[0] for word in rest if re.match(r"--[a-z]", word) and word.partition("=")[0] not in options]
    return f"no such option: {unknown}" if unknown else None


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_link_inside_the_repository_leads_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place = target.partition("#")[0]
        if place and not re.match(r"[a-z]+:", place):
            assert (path.parent / place).exists(), f"{path.relative_to(ROOT)} links to {target}"


def linked(path: Path) -> set[Path]:
    """The documents that this one links to."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    places = (target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target))
    return {(path.parent / place).resolve() for place in places if place.endswith(".md")}


def unreachable(root: Path) -> list[str]:
    """Pages under ``docs`` that their folder's index does not link to, and indexes that nobody gets to from the README."""
    pages = [page for page in sorted((root / "docs").rglob("*.md")) if page.name != "README.md"]
    lost = [page for page in pages if page.resolve() not in linked(page.parent / "README.md")]
    seen: set[Path] = set()
    ahead = {(root / "README.md").resolve()}
    while ahead:
        seen |= ahead
        ahead = {target for page in ahead for target in linked(page) if target.exists()} - seen
    lost += [index for index in sorted((root / "docs").rglob("README.md")) if index.resolve() not in seen]
    return [str(page.relative_to(root)) for page in lost]


def test_every_page_is_in_the_index_of_its_folder_and_every_index_is_reached_from_the_readme() -> None:
    assert unreachable(ROOT) == []


def test_a_page_that_no_index_links_to_is_found(tmp_path: Path) -> None:
    for folder in ("kept", "lost"):
        (tmp_path / "docs" / folder).mkdir(parents=True)
        (tmp_path / "docs" / folder / "README.md").write_text("- [a](a.md)")
        (tmp_path / "docs" / folder / "a.md").write_text("a")
    (tmp_path / "docs" / "kept" / "b.md").write_text("[a](a.md)")
    (tmp_path / "README.md").write_text("[kept](docs/kept/README.md)")
    assert unreachable(tmp_path) == ["docs/kept/b.md", "docs/lost/README.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_command_in_the_documents_exists_with_its_options(path: Path) -> None:
    problems = {line: problem for line in command_lines(path.read_text()) if (problem := problem_with(line))}
    assert problems == {}


def test_a_documented_command_that_does_not_exist_is_found() -> None:
    assert problem_with("valkeep teleport --source x")
    assert problem_with("valkeep version --nonsense")
    assert problem_with("make nonsense")
    assert problem_with("CI=true make check test ARGS='-k x'") is None
    assert problem_with("valkeep servers --fetch redis-8.0") is None


def test_every_command_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for name in cli.commands():
        assert f"`valkeep {name}" in text, name
        for sub in getattr(click_command(name), "commands", {}):
            assert f"`valkeep {name} {sub}" in text, f"{name} {sub}"


def options_by_command() -> set[tuple[str, str]]:
    """(command, option) of the whole command line; of migrate's commands, the oldest ones, only the last word, where that is nobody else's."""
    leaves: dict[str, Any] = {}
    for name in cli.commands():
        command = click_command(name)
        subs = getattr(command, "commands", None)
        short = {sub for sub in subs or () if name == "migrate" and sub not in cli.commands()}
        leaves |= {sub if sub in short else f"{name} {sub}": one for sub, one in subs.items()} if subs else {name: command}
    return {(name, option) for name, one in leaves.items() for parameter in one.params for option in parameter.opts if option[:2] == "--"}


def documented_options(text: str) -> set[tuple[str, str]]:
    rows = (line.replace(r"\|", " ").split("|") for line in text.splitlines() if line.startswith("| `--"))
    return {
        (command, option)
        for row in rows
        for option in re.findall(r"--[a-z-]+", row[1])
        for command in re.findall(r"[a-z]+(?: [a-z]+)?", row[2])
    }


def test_every_option_is_in_the_reference_with_just_the_commands_that_have_it() -> None:
    assert documented_options((ROOT / "docs" / "reference" / "commands.md").read_text()) == options_by_command()


def test_an_option_is_read_from_the_reference_with_each_of_its_commands() -> None:
    assert documented_options("| `--fence a\\|b`, `--x` | run, drill run | why |") == {
        (c, o) for c in ("run", "drill run") for o in ("--fence", "--x")
    }


def test_the_documented_exit_codes_are_the_programs() -> None:
    text = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE))
    assert rows == {str(int(code)): code.name for code in ExitCode}


def test_every_make_target_is_explained_by_make_help() -> None:
    explained = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in make_targets():
        assert f"make {target} " in explained, target


def test_the_readme_gives_the_two_commands_that_matter() -> None:
    lines = command_lines((ROOT / "README.md").read_text())
    assert "make rehearse" in lines
    assert "make test" in lines


def test_every_decision_record_says_what_was_decided_why_and_what_else_there_was() -> None:
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        text = path.read_text()
        for heading in ("## Decision", "## Why", "## Instead of"):
            assert heading in text, f"{path.name} lacks {heading}"
