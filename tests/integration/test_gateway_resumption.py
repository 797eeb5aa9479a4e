"""``valkeep migrate gateway --state``: killed at any moment and started again, it goes on; neither the source nor a target needs a second full sync."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.load import Load, digest
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from valkeep.runtime import ports
from valkeep.runtime.node import Process

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]


class Gateway:
    """One after the other, at the same port, with the same state."""

    def __init__(self, stack: ExitStack, source: Process | int, folder: Path, *options: str, versions: tuple[str, ...] = ("9.1",)) -> None:
        self.folder = folder
        self.state = folder / "state"
        taken = ports.reserve()
        stack.callback(taken.release)
        self.port = taken.port
        where = f"redis://127.0.0.1:{source if isinstance(source, int) else source.port}"
        wanted = [text for version in versions for text in ("--target-version", version)]
        self.arguments = ("--source", where, "--listen", f"127.0.0.1:{self.port}", "--allow", "127.0.0.1", *wanted, *options)
        self._stack = stack

    def start(self, *more: str) -> Valkeep:
        command = ("migrate", "gateway", "--state", str(self.state), *self.arguments, *more)
        return self._stack.enter_context(Valkeep(*command, folder=self.folder, report=False))

    def listening(self, *more: str) -> Valkeep:
        process = self.start(*more)
        until(lambda: "the gateway listens" in process.stderr or not process.running, lambda: process.stderr)
        assert process.running, process.stderr
        return process

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.state.glob("valkeep-kept-*/*"))


@contextmanager
def gateway(source: Process | int, folder: Path, *options: str, versions: tuple[str, ...] = ("9.1",)) -> Iterator[Gateway]:
    with ExitStack() as stack:
        yield Gateway(stack, source, folder, *options, versions=versions)


def follow(there: Any, port: int) -> None:
    there.replicaof("127.0.0.1", port)
    until(lambda: there.execute_command("ROLE")[3] == b"connected", "the target did not come online")


def drained(here: Any, there: Any) -> None:
    here.set("marker", Random().randbytes(8))
    until(lambda: there.get("marker") == here.get("marker"), lambda: f"{there.info('replication')}", timeout=40)


def full_syncs(node: Process) -> int:
    return node.log().count("Full resync from primary")


@pytest.mark.parametrize(("seed", "version"), [(1, "9.1"), (2, "8.1"), (3, "8.1")])
def test_killed_again_and_again_under_load_the_target_ends_equal_and_the_source_made_one_snapshot(
    server: Server, client: Client, tmp_path: Path, seed: int, version: str
) -> None:
    chance = Random(seed)
    source = server("redis-8.0", enable_debug_command="yes", repl_backlog_size="256mb")
    target = server(f"valkey-{version}", propagation_error_behavior="panic", enable_debug_command="yes")
    here, there = client(source), client(target)
    here.mset({f"k{number}": number for number in range(1000)})
    options = ("--field-ttl", "drop-field", "--ledger", str(tmp_path / "ledger.jsonl"))
    with gateway(source, tmp_path, *options, versions=(version,)) as one, Load(source.port, seed) as load:
        process = one.listening()
        follow(there, one.port)
        for _ in range(4):
            until(lambda at=load.done: load.done > at + 20, "no load")  # type: ignore[misc]
            chance.random()
            load.pause(chance.uniform(0, 0.05))
            process.kill()
            until(lambda at=load.done: load.done > at + 20, "no load")  # type: ignore[misc]
            process = one.listening()
            assert "without a full sync" in process.stderr
        load.stop()
        drained(here, there)
        assert digest(there, lasting=version == "8.1") == digest(here, lasting=version == "8.1")
        assert here.info("stats")["sync_full"] == 1
        assert full_syncs(target) == 1
        assert there.info("stats").get("unexpected_error_replies", 0) == 0
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process.stderr
        here.set("while it is away", 1)
        process = one.listening()
        drained(here, there)
        assert there.get("while it is away") == b"1"
        assert here.info("stats")["sync_full"] == 1
        assert full_syncs(target) == 1
    assert json.loads((one.state / "gateway.json").read_text())["schema"] == 1
