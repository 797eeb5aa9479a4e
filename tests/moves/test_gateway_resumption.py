"""``valkeep migrate gateway --state``: killed at any moment and started again, it goes on; neither the source nor a target needs a second full sync."""

from __future__ import annotations

import json
import os
import shutil
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

    def whole(self) -> None:
        """Return when the snapshot is: from then on it can be gone on with."""
        state = self.state / "gateway.json"
        until(lambda: state.exists() and "begins" in state.read_text(), "no snapshot")

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
    until(lambda: there.get("marker") == here.get("marker"), lambda: f"{there.info('replication')}", timeout=120)


def full_syncs(node: Process) -> int:
    return node.log().count("Full resync from primary")


@pytest.mark.parametrize(("seed", "versions"), [(1, ("9.1",)), (2, ("8.1", "9.1"))])
def test_killed_again_and_again_under_load_targets_end_equal_and_the_source_made_one_snapshot(
    server: Server, client: Client, tmp_path: Path, seed: int, versions: tuple[str, ...]
) -> None:
    chance = Random(seed)
    source = server("redis-8.0", enable_debug_command="yes", repl_backlog_size="256mb")
    targets = [server(f"valkey-{one}", propagation_error_behavior="panic", enable_debug_command="yes") for one in versions]
    here, followers = client(source), [client(one) for one in targets]
    here.mset({f"k{number}": number for number in range(1000)})
    options = ("--field-ttl", "drop-field", "--ledger", str(tmp_path / "ledger.jsonl"))
    with gateway(source, tmp_path, *options, versions=versions) as one, Load(source.port, seed) as load:
        process = one.listening()
        for there in followers:
            follow(there, one.port)
        for _ in range(3):
            until(lambda at=load.done: load.done > at + 20, "no load")  # type: ignore[misc]
            load.pause(chance.uniform(0, 0.1))
            process.kill()
            process = one.listening()
            assert "without a full sync" in process.stderr
        load.stop()
        for there, version in zip(followers, versions, strict=True):
            drained(here, there)
            assert digest(there, lasting=version == "8.1") == digest(here, lasting=version == "8.1")
            assert there.info("stats").get("unexpected_error_replies", 0) == 0
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process.stderr
        here.set("while it is away", 1)
        process = one.listening()
        for there in followers:
            drained(here, there)
            assert there.get("while it is away") == b"1"
        assert here.info("stats")["sync_full"] == 1
        assert [full_syncs(node) for node in targets] == [1] * len(targets)
    assert json.loads((one.state / "gateway.json").read_text())["schema"] == 1


def test_a_gateway_killed_in_a_hold_goes_on_with_what_it_kept_and_not_with_the_sources_backlog(
    server: Server, client: Client, tmp_path: Path
) -> None:
    source = server("redis-8.0", enable_debug_command="yes", repl_backlog_size="1mb")
    target = server("valkey-8.1", propagation_error_behavior="panic", enable_debug_command="yes")
    here, there = client(source), client(target)
    here.hset("hash:1", "f", "v")
    here.hset("hash:1", "n", "1")
    here.execute_command("HPEXPIRE", "hash:1", 10_000_000, "FIELDS", 1, "f")
    with gateway(source, tmp_path, "--field-ttl", "drop-field", versions=("8.1",)) as one:
        process = one.listening()
        follow(there, one.port)
        here.execute_command("ACL", "SETUSER", "default", "-dump")
        pipe = here.pipeline(transaction=True)
        pipe.set("in the same", "transaction")
        pipe.hincrby("hash:1", "n", 1)  # the target's is another hash: it is copied again, and that is denied
        pipe.execute()
        until(lambda: "nothing more is sent" in process.stderr, lambda: process.stderr)
        for number in range(40):
            here.set(f"large:{number % 3}", Random(number).randbytes(200_000))
        here.set("last", "one")
        offset = here.info("replication")["master_repl_offset"]
        until(lambda: sum(path.stat().st_size for path in one.state.glob("*/held-*")) > 7_000_000, lambda: str(one.kept()))
        until(lambda: here.info("replication")["slave0"]["offset"] >= offset, lambda: str(here.info("replication")))
        process.kill()
        assert there.get("in the same") is None
        process = one.listening()
        until(lambda: "nothing more is sent" in process.stderr, lambda: process.stderr)
        process.kill()  # and once more, in the same hold
        process = one.listening()
        here.execute_command("ACL", "SETUSER", "default", "+dump")
        drained(here, there)
        assert digest(there, lasting=True) == digest(here, lasting=True)
        assert there.hgetall("hash:1") == {b"n": b"2"}
        assert here.info("stats")["sync_full"] == 1
        assert full_syncs(target) == 1
        until(lambda: not [name for name in one.kept() if name.startswith("held")], lambda: str(one.kept()))


def test_what_cannot_be_gone_on_with_is_refused_with_its_reason_and_left_as_it_is(server: Server, client: Client, tmp_path: Path) -> None:
    source, other = server("redis-8.0"), server("redis-8.0")
    here = client(source)
    here.mset({f"k{number}": number for number in range(200)})
    with gateway(source, tmp_path, "--ledger", str(tmp_path / "ledger.jsonl")) as one:
        process = one.listening()
        one.whole()
        second = one.start()
        assert second.wait() == 4
        assert second.code == "VK-STATE-LOCKED"
        here.set("more", 1)
        until(lambda: here.info("replication")["slave0"]["offset"] == here.info("replication")["master_repl_offset"], "offset")
        process.kill()
        saved = tmp_path / "saved"
        shutil.copytree(one.state, saved, ignore=shutil.ignore_patterns("control"))
        names = one.kept()

        def kept(kind: str) -> Path:
            return next(one.state.glob(f"valkeep-kept-*/{kind}-*"))

        def rewritten(**changes: Any) -> None:
            path = one.state / "gateway.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))

        def zeroed() -> None:
            kept("checkpoint").write_bytes(bytes(1 << 17))

        wrong: list[tuple[str, Callable[[], Any], tuple[str, ...]]] = [
            ("VK-STATE-DAMAGED", zeroed, ()),
            ("VK-SPOOL-DAMAGED", lambda: os.truncate(kept("stream"), 3), ()),
            ("VK-STATE-OTHER", lambda: None, ("--field-ttl", "drop-field")),
            ("VK-SOURCE-OTHER", lambda: None, ("--source", other.endpoint)),
        ]
        for code, damage, options in wrong:
            damage()
            process = one.start(*options)
            assert process.wait() == 4, (code, process.stderr)
            assert process.code == code, process.stderr
            assert "--fresh" in process.stderr or code == "VK-SOURCE-OTHER"
            shutil.rmtree(one.state)
            shutil.copytree(saved, one.state)
        assert here.info("stats")["sync_full"] == 1
        assert client(other).info("stats")["sync_full"] == 0

        data = bytearray(kept("checkpoint").read_bytes())
        data[40] ^= 1  # one slot: the other one is enough, because nothing behind it was given to a target
        kept("checkpoint").write_bytes(data)
        process = one.listening()
        assert "without a full sync" in process.stderr
        process.kill()
        rewritten(boot="another")
        process = one.listening()
        assert "it begins with a full sync" in process.stderr
        until(lambda: here.info("stats")["sync_full"] == 2, "no full sync")
        process.kill()
        process = one.listening("--fresh")
        until(lambda: here.info("stats")["sync_full"] == 3, "no full sync")
        one.whole()
        process.send(signal.SIGTERM)
        assert process.wait() == 0
        assert len(one.kept()) == len(names)


def test_a_gateway_killed_in_the_snapshot_makes_a_new_one_and_leaves_nothing_of_the_first(
    server: Server, client: Client, tmp_path: Path
) -> None:
    source, target = server("redis-8.0", rdb_key_save_delay="10000"), server("valkey-9.1")
    here, there = client(source), client(target)
    here.mset({f"k{number}": number for number in range(300)})
    with gateway(source, tmp_path) as one:
        process = one.listening()
        there.replicaof("127.0.0.1", one.port)
        until(lambda: "attaches" in process.stderr, lambda: process.stderr)
        process.kill()
        here.config_set("rdb-key-save-delay", 0)
        process = one.listening()
        follow(there, one.port)
        assert there.dbsize() == 300
        assert len(one.kept()) == len({name.partition("-")[0] for name in one.kept()}), one.kept()


def test_a_target_that_comes_back_too_late_is_told_why_and_stays_as_it_is(server: Server, client: Client, tmp_path: Path) -> None:
    source, target = server("redis-8.0", repl_backlog_size="64mb"), server("valkey-9.1")
    here, there = client(source), client(target)
    here.set("k", 1)
    with gateway(source, tmp_path, "--keep", "1", "--spool-limit", "200") as one:
        process = one.listening()
        follow(there, one.port)
        there.replicaof("127.0.0.1", 1)
        until(lambda: "left at offset" in process.stderr, lambda: process.stderr)
        for number in range(12):
            here.set(f"large:{number % 3}", bytes(6_000_000))
        until(lambda: "no further target can attach" in process.stderr, lambda: process.stderr)
        until(
            lambda: not (one.state / "x").exists() and int(min(n for n in one.kept() if n.startswith("stream")).rpartition("-")[2]) > 0, ""
        )
        process.kill()
        process = one.listening()
        there.replicaof("127.0.0.1", one.port)
        until(lambda: "is kept, and the snapshot is not kept any more" in process.stderr, lambda: process.stderr)
        assert there.dbsize() == 1
        assert here.info("stats")["sync_full"] == 1
