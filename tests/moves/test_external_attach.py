"""``valkeep migrate run --attach external``: a target that connects by itself, told so by somebody else (the test), and promoted by them."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.pair import Pair
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.errors import Refused, ValkeepError
from valkeep.migrate.cutover.abort import Site, abort
from valkeep.migrate.run import pipeline
from valkeep.migrate.state import StateFile
from valkeep.runtime import ports

Client = Callable[..., Any]
pytestmark = [pytest.mark.slow]


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Pair:
    return _pair(server, client, tmp_path)


def _pair(server: Server, client: Client, folder: Path, target: str = "valkey-8.1", **settings: Any) -> Pair:
    here, there = server("redis-7.0"), server(target, **settings)
    return Pair(here, there, client(here), client(there), folder)


def gateway_port(process: Valkeep) -> int:
    """Where we were told to let the target replicate from."""
    said = until(lambda: [line for line in process.stderr.splitlines() if "let the target" in line], lambda: process.stderr)
    return int(said[-1].partition("REPLICAOF 127.0.0.1 ")[2].split(",")[0])


def run(pair: Pair, *more: str, name: str = "run") -> Valkeep:
    return pair.run("--attach", "external", "--field-ttl", "keep-field", *more, name=name)


@pytest.mark.parametrize("target", ["valkey-8.1", "valkey-9.1"])
def test_a_target_that_attached_by_itself_is_verified_and_cut_over_under_writers(
    server: Server, client: Client, tmp_path: Path, target: str
) -> None:
    pair = _pair(server, client, tmp_path, target)
    pair.here.mset({f"k{number}": number for number in range(2000)})
    pair.here.expire("k1", 10_000)
    with Writers(pair.source.port, 3) as writers, run(pair) as process:
        pair.there.replicaof("127.0.0.1", gateway_port(process))
        process.wait_for("cutover:promote")
        until(lambda: "promote the target" in process.stderr, lambda: process.stderr)
        assert pair.fence == "255"
        pair.there.replicaof("NO", "ONE")
        assert process.wait() == 0, process.stderr
        writers.stop()
        acknowledged = writers.acknowledged()
    assert lost(acknowledged, pair.there) == []
    assert pair.there.dbsize() == pair.here.dbsize()
    assert pair.there.info("stats")["unexpected_error_replies"] == 0
    assert writers.refused, "the fence was not felt"
    process.assert_nothing_left()


def test_targets_that_come_before_the_snapshot_is_whole_wait_unharmed_and_keep_what_they_have(
    server: Server, client: Client, tmp_path: Path
) -> None:
    source = server("redis-7.0", rdb_key_save_delay=10_000)
    client(source).mset({f"k{number}": number for number in range(700)})  # seven seconds, and more
    early = [server(spec, repl_timeout=2) for spec in ("valkey-8.0", "valkey-8.1", "valkey-9.1")]
    there = [client(one) for one in early]
    for one in there:
        one.set("own", "data")
    with reserved() as port:
        where = ("--source", source.endpoint, "--target-version", "7.2", "--listen", f"127.0.0.1:{port}", "--allow", "127.0.0.1")
        with Valkeep("migrate", "gateway", *where, folder=tmp_path, report=False) as process:
            until(lambda: "starts a full sync" in process.stderr, lambda: process.stderr)
            for one in there:
                one.replicaof("127.0.0.1", port)
            until(lambda: ask(port, b"INFO replication\r\n").count(b"state=wait_bgsave") == 3, lambda: process.stderr)
            seen, began = set(), time.monotonic()
            while b"loading:1" in ask(port, b"INFO persistence\r\n"):
                for one in there:
                    info = one.info("replication")
                    seen.add((info["master_link_status"], info["master_sync_in_progress"], one.get("own")))
                time.sleep(0.02)
            assert time.monotonic() - began > 2, "it was no longer than repl-timeout"
            assert seen == {("down", 0, b"data")}
            for one, node in zip(there, early, strict=True):
                until(lambda one=one: one.get("k699") == b"699", node.log)  # type: ignore[misc]
                assert one.dbsize() == 700
    for node in early:
        assert node.log().count("Full resync from primary") == 1, node.log()
        assert "Timeout" not in node.log()
        assert "Retrying with SYNC" not in node.log()


def test_a_target_that_is_not_promoted_in_time_is_called_off_and_the_next_time_succeeds(pair: Pair) -> None:
    pair.here.mset({f"k{number}": number for number in range(100)})
    with Writers(pair.source.port, 2) as writers, run(pair, "--cutover", "manual", "--promote-within", "5") as process:
        pair.there.replicaof("127.0.0.1", gateway_port(process))
        process.wait_for("waiting")
        late = pair.valkeep("cutover")
        assert late.process.returncode == 1, late.stderr
        assert late.code == "VK-PROMOTE-LATE"
        assert "do NOT promote" in late.stderr
        assert pair.fence == "0"
        assert not pair.promoted
        writers.wait_for_acks(5)
        with Valkeep("migrate", "cutover", *pair.where(), folder=pair.folder / "again", report=False) as again:
            until(lambda: process.stderr.count("promote the target") == 2, lambda: process.stderr)
            pair.there.replicaof("NO", "ONE")
            assert again.wait() == 0, again.stderr
        assert process.wait() == 0, process.stderr
        writers.stop()
        acknowledged = writers.acknowledged()
    assert lost(acknowledged, pair.there) == []


def test_ctrl_c_while_the_promotion_is_waited_for_calls_it_off(pair: Pair) -> None:
    pair.here.set("k", "v")
    with run(pair) as process:
        pair.there.replicaof("127.0.0.1", gateway_port(process))
        process.wait_for("cutover:promote")
        process.send(signal.SIGINT)
        assert process.wait() == 130, process.stderr
    assert pair.fence == "0"
    assert pair.here.set("k", "w")
    assert pair.there.execute_command("ROLE")[0] == b"slave"  # never touched by us
    assert "detach it by" in process.stderr


def test_a_kill_while_the_promotion_is_waited_for_is_undone_by_abort_as_far_as_it_can(pair: Pair) -> None:
    pair.here.set("k", "v")
    with run(pair) as process:
        port = gateway_port(process)
        pair.there.replicaof("127.0.0.1", port)
        process.wait_for("cutover:promote")
        process.kill()
    assert pair.fence == "255"
    undone = pair.valkeep("abort")
    assert undone.process.returncode == 0, undone.stderr
    assert "detach it by" in undone.stdout
    assert pair.here.set("k", "w")
    assert pair.there.execute_command("ROLE")[:3] == [b"slave", b"127.0.0.1", port]


def test_a_run_that_was_killed_goes_on_with_the_target_that_still_looks_for_it(pair: Pair) -> None:
    pair.here.mset({f"k{number}": number for number in range(100)})
    with Writers(pair.source.port, 2) as writers:
        with run(pair, "--cutover", "manual", name="first") as process:
            port = gateway_port(process)
            pair.there.replicaof("127.0.0.1", port)
            process.wait_for("waiting")
            process.kill()
        writers.wait_for_acks(5)
        with run(pair, name="second") as process:
            until(lambda: "goes on replicating" in process.stderr, lambda: process.stderr)
            assert "let the target" not in process.stderr
            until(lambda: "promote the target" in process.stderr, lambda: process.stderr)
            pair.there.replicaof("NO", "ONE")
            assert process.wait() == 0, process.stderr
        writers.stop()
        acknowledged = writers.acknowledged()
    assert lost(acknowledged, pair.there) == []
    assert pair.here.info("stats")["sync_full"] == 3  # ours, and one for each verification
    assert pair.target.log().count("Full resync from primary") == 1


def test_a_run_that_was_killed_before_the_target_was_told_says_again_where_the_gateway_is(pair: Pair) -> None:
    pair.here.mset({f"k{number}": number for number in range(100)})
    with run(pair, name="first") as process:
        port = gateway_port(process)
        process.kill()
    with run(pair, name="second") as process:
        assert gateway_port(process) == port
        assert "did not follow it yet; this one goes on" in process.stderr
        pair.there.replicaof("127.0.0.1", port)
        until(lambda: "promote the target" in process.stderr, lambda: process.stderr)
        pair.there.replicaof("NO", "ONE")
        assert process.wait() == 0, process.stderr
    assert pair.there.dbsize() == pair.here.dbsize()
    assert pair.here.info("stats")["sync_full"] == 2  # ours, and the verification's


def test_abort_while_it_waits_for_the_target_touches_nothing_and_says_what_is_left(pair: Pair) -> None:
    with run(pair) as process:
        gateway_port(process)
        done = pair.valkeep("abort")
        assert done.process.returncode == 0, done.stderr
        assert "detach it by" in done.stdout
        assert process.wait() == 4
        assert process.code == "VK-ABORTED"
    assert pair.promoted


def test_a_target_that_is_promoted_too_early_ends_the_migration_also_where_another_replica_stays(
    server: Server, client: Client, pair: Pair
) -> None:
    pair.here.set("k", "v")
    with run(pair, "--cutover", "manual") as process:
        port = gateway_port(process)
        client(server("valkey-8.1")).replicaof("127.0.0.1", port)
        pair.there.replicaof("127.0.0.1", port)
        process.wait_for("waiting")
        pair.there.replicaof("NO", "ONE")
        assert process.wait() == 4, process.stderr
        assert process.code == "VK-TARGET-LOST"
    assert pair.fence == "0"
    assert pair.here.set("k", "w")


def test_a_replica_that_is_not_the_target_is_not_taken_for_it_and_a_stalled_one_holds_up_nobody(
    server: Server, client: Client, pair: Pair
) -> None:
    pair.here.mset({f"k{number}": number for number in range(100)})
    other = server("valkey-8.1")
    with Writers(pair.source.port, 2) as writers, run(pair) as process:
        port = gateway_port(process)
        client(other).replicaof("127.0.0.1", port)
        until(lambda: "does not (yet)" in process.stderr, lambda: process.stderr)
        other.pause()
        try:
            pair.there.replicaof("127.0.0.1", port)
            process.wait_for("cutover:promote")
            pair.there.replicaof("NO", "ONE")
            assert process.wait() == 0, process.stderr
        finally:
            other.resume()
        writers.stop()
        acknowledged = writers.acknowledged()
    assert lost(acknowledged, pair.there) == []


def test_who_says_an_unknown_or_a_newer_version_gets_the_format_of_the_target_and_sees_its_number_of_databases(
    server: Server, client: Client, tmp_path: Path
) -> None:
    pair = _pair(server, client, tmp_path, "valkey-8.1", databases=4)
    pair.here.set("k", "v")
    with run(pair, "--present-as", "7.0.5") as process:
        port = gateway_port(process)
        assert b"redis_version:7.0.5" in ask(port, b"INFO server\r\n")
        assert b"$9\r\ndatabases\r\n$1\r\n4\r\n" in ask(port, b"CONFIG GET databases\r\n")
        for said in ("8.2.0", "9.1.0"):
            request = f"REPLCONF capa eof capa psync2\r\nREPLCONF version {said}\r\nPSYNC ? -1\r\n"
            assert b"REDIS0011" in ask(port, request.encode(), b"REDIS")


class Slow:
    """A promoter that cannot be called off, as a control plane's: what it was asked for comes when the test lets it."""

    name = "the control plane"
    seconds = 0.5
    binding = True
    detach_by = "asking the control plane"

    def __init__(self, there: Any) -> None:
        self.there = there
        self.asked = 0

    async def prepare(self, gateway: tuple[str, int]) -> None:
        pass

    async def begin(self, gateway: tuple[str, int]) -> None:
        self.there.replicaof(*gateway)

    async def taken_up(self, gateway: tuple[str, int]) -> None:
        raise AssertionError("nothing was killed")

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def promote(self) -> None:
        self.asked += 1

    async def undo(self) -> list[str]:
        return ["undone"]


class Broken(Slow):
    """It says no."""

    async def promote(self) -> None:
        raise Refused("data not in sync", remedy="later")


class Restarts(Slow):
    """It does something else than it was asked for, as whoever edits a configuration may: the target is a primary, with what it had on disk."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.there)
        self.target = pair.target
        self.seconds = 5.0

    async def promote(self) -> None:
        self.target.restart()


class GivesUp(Slow):
    """Nothing came of it, and it says so."""

    async def begin(self, gateway: tuple[str, int]) -> None:
        del gateway

    async def watch(self) -> None:
        await asyncio.sleep(0.2)
        raise ValkeepError("the control plane gave up", remedy="ask it", code="VK-TARGET-LOST")


def in_process(pair: Pair, promoter: Any) -> Any:
    state = pair.folder / "state"
    options = pipeline.RunOptions(
        Endpoint.parse(pair.source.endpoint),
        Endpoint.parse(pair.target.endpoint),
        deliver="external",
        accept=frozenset({"all"}),
        state=state,
        skip_verify=True,
        rate_seconds=0.1,
    )
    return asyncio.run(pipeline.run(options, lambda _event: None, time.monotonic, promoter=promoter))


def aborted(pair: Pair, *, force: bool = False) -> str:
    """The code of what `valkeep migrate abort` would say, or ""."""

    async def job() -> str:
        async with (
            await Connection.open(Endpoint.parse(pair.source.endpoint)) as here,
            await Connection.open(Endpoint.parse(pair.target.endpoint)) as there,
        ):
            try:
                state = StateFile(pair.folder / "state")
                await abort([Site(here, state)], there, state, force=force)
            except ValkeepError as error:
                return error.code
            return ""

    return asyncio.run(job())


def test_a_promotion_that_cannot_be_taken_back_leaves_the_source_fenced_until_it_comes(pair: Pair) -> None:
    pair.here.set("k", "v")
    promoter = Slow(pair.there)
    with pytest.raises(ValkeepError) as raised:
        in_process(pair, promoter)
    assert raised.value.code == "VK-CUTOVER-PROMOTE"
    assert not raised.value.definite
    assert promoter.asked == 1
    assert pair.fence == "255"
    assert aborted(pair) == "VK-ABORT-UNKNOWN"
    pair.there.replicaof("NO", "ONE")  # it comes
    assert aborted(pair) == "VK-ABORT-PROMOTED"
    assert pair.fence == "255"
    assert aborted(pair, force=True) == ""
    assert pair.fence == "0"


def test_a_target_that_was_restarted_instead_of_promoted_is_not_taken_for_the_primary(pair: Pair) -> None:
    pair.here.set("k", "v")
    with pytest.raises(ValkeepError, match="another process") as raised:
        in_process(pair, Restarts(pair))
    assert raised.value.code == "VK-CUTOVER-PROMOTE"
    assert not raised.value.definite
    assert pair.fence == "255"
    assert aborted(pair) == "VK-ABORT-UNKNOWN"


def test_a_promoter_that_surely_did_not_promote_gives_the_source_its_writers_back(pair: Pair) -> None:
    pair.here.set("k", "v")
    with pytest.raises(ValkeepError, match="data not in sync") as raised:
        in_process(pair, Broken(pair.there))
    assert raised.value.code == "VK-PROMOTE-LATE"
    assert raised.value.definite
    assert pair.fence == "0"
    assert "undone" in raised.value.changed


def test_a_promoter_that_gives_up_ends_the_migration(pair: Pair) -> None:
    with pytest.raises(ValkeepError, match="gave up"):
        in_process(pair, GivesUp(pair.there))
    assert pair.fence == "0"


def ask(port: int, request: bytes, until_seen: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.sendall(request)
        answer = one.recv(65536)
        while until_seen not in answer:
            answer += one.recv(65536)
        return answer


@contextmanager
def reserved() -> Iterator[int]:
    port = ports.reserve()
    try:
        yield port.port
    finally:
        port.release()
