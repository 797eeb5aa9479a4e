"""The commands in the documents work: every shell block of the README, the how-tos and the tutorial is run, as it stands, on real servers.

Blocks of one document run in order, in one folder, with ``SOURCE`` (a Redis 8.0 with data), ``TARGET`` (an empty Valkey 9.1) and its address in the
environment. A comment right above a block says what is special about it, and readers of the page do not see it:

    <!-- not run: why -->                                it is left out, for this reason
    <!-- exit 1 -->                                      its last command ends with this code
    <!-- in a terminal of its own, until: waiting -->    it goes on in the background once it has printed this
    <!-- new servers -->                                 from here on SOURCE and TARGET are others, in the state of the beginning
    <!-- new servers; exit 1 -->                         both
    <!-- new clusters -->                                as new servers, but each is a node of a cluster of three shards

Where a document reads files, ``dump.rdb`` and ``appendonlydir`` of the source are in the folder. ``valkey-cli`` is tests/support/command_line.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.cluster_pair import clusters, fill

ROOT = Path(__file__).parents[2]
SECONDS = 90.0
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md")), *sorted((ROOT / "docs" / "tutorial").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"(?<=127\.0\.0\.1[: ])\d+")
PASSWORD = "not/so:secret"


@dataclass(frozen=True, slots=True)
class Block:
    """One shell block. ``until``: what it prints when it may go on in the background; ``left_out``: why it is not run; ``anew``: on other "servers" or
    "clusters"."""

    text: str
    left_out: str = ""
    code: int = 0
    until: str = ""
    anew: str = ""


def blocks(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        note = match["note"] or ""
        others = re.fullmatch(r"new (servers|clusters)(?:; (.*))?", note)
        anew, what = (others[1], others[2] or "") if others else ("", note)
        kind, _, rest = what.partition(": ")
        if kind == "not run":
            found.append(Block(match["text"], left_out=rest))
        elif kind == "in a terminal of its own, until":
            found.append(Block(match["text"], until=rest, anew=anew))
        elif what.startswith("exit "):
            found.append(Block(match["text"], code=int(what.removeprefix("exit ")), anew=anew))
        elif what:
            raise ValueError(f"a comment that this test does not understand: {note}")
        else:
            found.append(Block(match["text"], anew=anew))
    return found


class Shell:
    """Runs the blocks of one document; leaves nothing running."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self._folder = folder
        self._environment = os.environ | variables
        self._running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def say(self, variables: dict[str, str]) -> None:
        """From now on these variables are others."""
        self._environment |= variables

    def run(self, block: Block) -> None:
        log = self._folder / f"block-{time.monotonic_ns()}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((process, log))
        if block.until:
            self._wait(process, log, lambda: block.until in log.read_text(errors="replace"))
            assert block.until in log.read_text(errors="replace"), f"{block.text}\nended before it said {block.until!r}:\n{log.read_text()}"
            return
        self._wait(process, log, lambda: False)
        self._running.remove((process, log))
        assert process.returncode == block.code, f"{block.text}\nended with {process.returncode}:\n{log.read_text(errors='replace')}"

    def _wait(self, process: subprocess.Popen[bytes], log: Path, enough: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while process.poll() is None and not enough():
            assert time.monotonic() < end, f"still runs after {SECONDS:.0f} s:\n{log.read_text(errors='replace')}"
            time.sleep(0.05)

    def close(self) -> None:
        for process, _ in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


@contextmanager
def shell(folder: Path, variables: dict[str, str]) -> Iterator[Shell]:
    with ExitStack() as stack:
        one = Shell(folder, variables)
        stack.callback(one.close)
        yield one


def free_port() -> int:
    """In place of a port that a document names: tests run beside each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Servers:
    """Makes the pairs of servers that a document, whose commands are ``text``, is about."""

    text: str
    folder: Path
    server: Server
    client: Callable[..., Any]
    stack: ExitStack

    def others(self, what: str) -> dict[str, str]:
        return self.clusters() if what == "clusters" else self.pair()

    def clusters(self) -> dict[str, str]:
        """A node of a Redis 8.0 cluster with data, and one of an empty Valkey 9.1 cluster."""
        pair = self.stack.enter_context(clusters("redis-8.0", "valkey-9.1", self.folder))
        fill(pair.here, 300)
        return dict(zip(("SOURCE", "TARGET"), pair.where()[1:4:2], strict=True))

    def pair(self) -> dict[str, str]:
        """A Redis 8.0 with data and an empty Valkey 9.1, as variables."""
        secret: dict[str, Any] = {"requirepass": PASSWORD} if "source.password" in self.text else {}
        files: dict[str, Any] = {"appendonly": "yes"} if "appendonlydir" in self.text else {}
        source, target = self.server("redis-8.0", secret | files), self.server("valkey-9.1")
        c = self.client(source, password=PASSWORD if secret else None)
        for number in range(500):
            c.hset(f"cart:{number}", mapping={"a": number, "b": "x"})
        c.execute_command("HPEXPIRE", "cart:7", 3_600_000, "FIELDS", 1, "a")
        (self.folder / "source.password").write_text(PASSWORD + "\n")
        if files:
            c.save()
            shutil.copy(source.directory / "dump.rdb", self.folder)
            shutil.copytree(source.directory / "appendonlydir", self.folder / "appendonlydir", dirs_exist_ok=True)
        return {"SOURCE": source.endpoint, "TARGET": target.endpoint.replace("redis", "valkey")}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "path",
    [path for path in DOCUMENTS if any(not block.left_out for block in blocks(path.read_text()))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_command_of_the_document_works(path: Path, server: Server, client: Callable[..., Any], tmp_path: Path) -> None:
    wanted = [block for block in blocks(path.read_text()) if not block.left_out]
    text = "".join(block.text for block in wanted)
    stack = ExitStack()
    servers = Servers(text, tmp_path, server, client, stack)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "valkey-cli").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.support.command_line "$@"\n')
    (programs / "valkey-cli").chmod(0o700)
    places = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    variables = {"PATH": os.pathsep.join(places), "XDG_STATE_HOME": str(tmp_path / "state")}
    variables["VIRTUAL_ENV"] = str(Path(sys.executable).parents[1])
    ports = {port: str(free_port()) for port in re.findall(PORT, text)}
    with stack, shell(tmp_path, variables) as sh:
        if re.search(r"\$SOURCE|\$TARGET", text) and not wanted[0].anew:
            sh.say(servers.pair())
        for block in wanted:
            if block.anew:
                sh.say(servers.others(block.anew))
            sh.run(replace(block, text=re.sub(PORT, lambda found: ports[found[0]], block.text)))


def test_every_block_that_is_left_out_says_why() -> None:
    for path in DOCUMENTS:
        for block in blocks(path.read_text()):
            assert block.left_out == "" or len(block.left_out) > 5, path


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    with shell(tmp_path, {}) as sh, pytest.raises(AssertionError, match="ended with 3"):
        sh.run(blocks("```sh\nexit 3\n```\n")[0])
    with shell(tmp_path, {}) as sh:
        sh.run(blocks("<!-- exit 3 -->\n```sh\nexit 3\n```\n")[0])


def test_a_marker_with_a_mistake_is_found() -> None:
    with pytest.raises(ValueError, match="does not understand"):
        blocks("<!-- not runs: x -->\n```sh\ntrue\n```\n")


def test_blocks_say_how_they_are_run() -> None:
    text = "<!-- new servers; exit 1 -->\n```sh\nfalse\n```\n<!-- new clusters -->\n```sh\ntrue\n```\n<!-- not run: because -->\n```sh\n:\n```\n"
    assert blocks(text) == [Block("false\n", code=1, anew="servers"), Block("true\n", anew="clusters"), Block(":\n", left_out="because")]
