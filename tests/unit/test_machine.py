"""``valkeep doctor`` on machines that lack something: each absence says what it disables and what helps, and none of it is fatal for the main job."""

from __future__ import annotations

import importlib.util
import shutil
import stat
from pathlib import Path

import pytest

from valkeep.runtime import machine, synced
from valkeep.runtime.network import namespace, nft


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; it is empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    nft.program.cache_clear()
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def finding(name: str) -> machine.Finding:
    nft.program.cache_clear()
    return next(
        one
        for one in (machine._nft(), machine._namespaces(), machine._synced(), machine._libraries(), machine._compose())
        if one.name == name
    )


@pytest.fixture
def nothing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **_more: which(name))
    monkeypatch.setattr(namespace, "possible", lambda: "user namespaces are forbidden")
    monkeypatch.setattr(synced, "unavailable", lambda: "no shim")
    monkeypatch.setattr(machine, "find_spec", lambda _name: None)
    return bare


@pytest.mark.parametrize("name", ["nft", "namespaces", "sync watch", "client libraries", "Docker Compose"])
def test_what_a_drill_lacks_says_what_that_disables_and_what_helps(nothing: Path, name: str) -> None:
    assert nothing.is_dir()
    found = finding(name)
    assert not found.found
    assert found.detail
    assert "drills" in found.disables
    assert found.remedy
    assert not found.needed


@pytest.mark.parametrize(
    ("script", "found", "detail"),
    [
        ('[ "$1" = compose ] && echo 2.40.3', True, "2.40.3 (docker compose)"),
        ('[ "$1" = compose ] && echo v5.0.1', True, "5.0.1 (docker compose)"),
        ("echo 1.29.2", False, "no Compose 2"),
        ("echo docker: unknown command; exit 1", False, "no Compose 2"),
    ],
)
def test_compose_is_known_by_its_version(bare: Path, script: str, found: bool, detail: str) -> None:
    program(bare, "docker", script)
    compose = machine._compose()
    assert (compose.found, compose.detail) == (found, detail)


def test_the_older_program_of_compose_counts_from_its_second_version_on(bare: Path) -> None:
    program(bare, "docker", "exit 1")
    program(bare, "docker-compose", "echo 2.26.1")
    assert machine._compose().detail == "2.26.1 (docker-compose)"


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name == "glide" else real("json"))
    assert machine._libraries().detail == "without GLIDE"
    monkeypatch.setattr(machine, "find_spec", lambda _name: real("json"))
    assert machine._libraries().found
