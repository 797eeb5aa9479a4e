"""More of what `valkeep drill` refuses before anything starts, and what stands around on a user's machine that must not matter."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.nodes import start
from tests.support.waiting import holds
from valkeep import cli
from valkeep.client.endpoint import Endpoint
from valkeep.drill import run as running
from valkeep.drill.script import ClientSpec, Load
from valkeep.drill.workloads.recorder import Recorder
from valkeep.drill.workloads.targets import Targets
from valkeep.topology.spec import Kind

pytestmark = pytest.mark.server


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def drill(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """``valkeep drill run`` in this process; nothing may be started by it."""

    def started(*_: object) -> None:
        pytest.fail("a topology was started")

    monkeypatch.setattr(running, "_deployment", started)

    def go(*words: str) -> Said:
        capfd.readouterr()
        status = cli.run(["drill", "run", "sentinel-kill-primary", "--network", "none", *words])
        said = Said(int(status), *capfd.readouterr())
        assert "Traceback" not in said.err
        assert said.out == ""
        return said

    return go


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--mix", "everything"), 2, "mixes are append, mixed, registers, scripts, streams, pubsub"),
        (("--rate", "0"), 2, "--rate"),
        (("--rate", "many"), 2, "--rate"),
        (("--seed", "x"), 2, "--seed"),
        (("--runtime", "cloud"), 2, "--runtime"),
        (("--url", "redis://127.0.0.1:6379"), 2, "--url"),
        (("--topology", "sentinel:1+0+3"), 2, "a replica has to be promoted, and there would be none"),
        (("--server", "/bin/false"), 4, "/bin/false is no Redis or Valkey server"),
        (("--server", "/etc/hostname"), 4, "/etc/hostname"),
        (("--server", "valkey-1.0"), 4, "valkey-1.0"),
    ],
)
def test_bad_input_is_named_with_its_exit_code(drill: Callable[..., Said], words: tuple[str, ...], status: int, said: str) -> None:
    done = drill(*words)
    assert (done.status, said in done.err) == (status, True), done.err


@pytest.mark.parametrize("option", ["--report", "--html", "--junit", "--json"])
def test_a_place_that_can_not_be_written_is_known_before_anything_starts(drill: Callable[..., Said], tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    done = drill(option, str(tmp_path / "file" / "below"))
    assert (done.status, str(tmp_path / "file") in done.err, "cannot be written" in done.err) == (4, True, True), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("client", ["valkey-py", "redis-py", "glide"])
def test_a_library_that_is_missing_is_named_with_what_brings_it(
    drill: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    done = drill("--client", client)
    assert (done.status, "pip install 'valkeep[clients]'" in done.err) == (4, True), done.err


def test_a_file_in_the_current_folder_is_not_taken_for_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "random", "heapq", "valkey"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    monkeypatch.chdir(tmp_path)

    async def main() -> int:
        async with start("newest-valkey") as node:
            load = Load("append", (ClientSpec("c1"),), 3000)
            async with Recorder(load, Targets(Kind.STANDALONE, {"n1": Endpoint(*node.address)}), tmp_path / "work", 1) as recorder:
                await recorder.start()
                await holds(lambda: recorder.operations >= 100, "nothing is recorded")
                return len((await recorder.finish()).history)

    assert asyncio.run(main()) >= 100
