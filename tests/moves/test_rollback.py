"""The way back: after the cut-over the old server is kept current, and can be cut back to, or be let go. Writers write to both sides all the time: what
either acknowledged must be on whoever is the primary in the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support import nodes
from tests.support.pair import Pair
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.migrate.control import ask

pytestmark = [pytest.mark.slow]
Client = Callable[..., Any]
FENCED, OPEN = "255", "0"
PANIC: dict[str, nodes.Setting] = {"propagation-error-behavior": "panic"}
WRITES = 10_000
COMMANDS = """
SET a 1 EX 900
SET a 2 KEEPTTL
SET a 3 IFEQ 2 KEEPTTL
DELIFEQ a nothing
SET gone 1
DELIFEQ gone 1
MSETEX 2 m1 1 m2 2 EX 900
HSETEX f EX 900 FIELDS 2 one 1 two 2
HSETEX f NX EX 900 FIELDS 1 three 3
HSETEX f FIELDS 1 four 4
HEXPIRE f 900 FIELDS 1 four
HEXPIRE f 800 XX FIELDS 2 one four
HGETEX f EX 700 FIELDS 1 one
HPERSIST f FIELDS 1 two
HGETDEL f FIELDS 1 three
HINCRBY f two 5
GEOADD g 13.36 38.11 Palermo 15.08 37.50 Catania
GEOSEARCHSTORE near g FROMLONLAT 15 37 BYRADIUS 200 km
GEOSEARCHSTORE within g BYPOLYGON 4 10 30 20 30 20 45 10 45
BITOP OR bits a m1
SETRANGE range 5 xyz
BITFIELD field SET u8 0 255
PFADD hll a b c
RPUSH l 1 2 3 4
LMPOP 1 l LEFT COUNT 2
LMOVE l l2 LEFT RIGHT
SADD set 1 2 3
SPOP set
SINTERSTORE set2 set set
ZADD z 1 a 2 b 3 c
ZADD z GT CH 5 a
ZRANGESTORE z2 z 0 1
ZMPOP 1 z MIN
COPY l l3
RENAME l3 l4
EXPIRE l4 900 NX
PERSIST l4
XADD x * k v
XGROUP CREATE x g 0
XREADGROUP GROUP g c STREAMS x >
XAUTOCLAIM x g d 0 0
INCRBYFLOAT float 1.5
SORT l STORE sorted
FUNCTION FLUSH
SWAPDB 2 3
"""


@pytest.fixture
def pair_of(server: Server, client: Client, tmp_path: Path) -> Callable[[str, str], Pair]:
    def make(old: str, new: str) -> Pair:
        source, target = server(old, PANIC), server(new, PANIC)
        here = client(source)
        here.mset({f"k{number}": f"v{number}" for number in range(200)})
        here.hset("h", mapping={"a": 1, "b": 2})
        return Pair(source, target, here, client(target), tmp_path)

    return make


@pytest.fixture
def pair(pair_of: Callable[[str, str], Pair]) -> Pair:
    return pair_of("redis-7.0", "valkey-9.1")


def fence_of(client: Any) -> str:
    return str(client.config_get("min-replicas-to-write")["min-replicas-to-write"])


def write(client: Any, count: int) -> None:
    """So many commands, of which some are a Valkey's own, and some look different in its stream."""
    pipe = client.pipeline(transaction=False)
    for number in range(count // 10):
        pipe.set(f"k{number % 300}", f"new{number}")
        pipe.incr("counter")
        pipe.rpush("list", number)
        pipe.zadd("scores", {f"m{number % 50}": number})
        pipe.execute_command("SET", "condition", number)
        pipe.execute_command("SET", "condition", "held", "IFEQ", number)
        pipe.set(f"short{number}", 1, px=600_000)
        pipe.hincrby("h", "a", 1)
        pipe.xadd("stream", {"n": number}, maxlen=100)
        pipe.delete(f"short{number - 5}")
        if number % 100 == 0:
            pipe.execute()
    pipe.execute()
    client.xgroup_create("stream", "g", "0")
    client.xreadgroup("g", "c", {"stream": ">"}, count=10)


def contents(client: Any) -> dict[bytes, Any]:
    """Everything, by ordinary commands."""
    read = {b"string": client.get, b"hash": client.hgetall, b"set": client.smembers, b"list": lambda key: client.lrange(key, 0, -1)}
    read[b"zset"] = lambda key: client.zrange(key, 0, -1, withscores=True)
    read[b"stream"] = lambda key: (client.xrange(key), client.xpending(key, "g"))
    return {key: (read[client.type(key)](key), client.pexpiretime(key)) for key in client.scan_iter(count=1000)}


def test_after_a_rollback_the_old_server_has_every_write_that_either_side_acknowledged(pair: Pair) -> None:
    pair.here.mset({f"brief{number}": number for number in range(20)})
    with ExitStack() as stack:
        before = stack.enter_context(Writers(pair.source.port, 2, prefix="old"))
        run = stack.enter_context(pair.run("--rollback"))
        run.wait_for("online")  # from here on the target takes no writes until it is promoted
        after = stack.enter_context(Writers(pair.target.port, 2, prefix="new"))
        run.wait_for("way-back:current")
        write(pair.there, WRITES)
        after.wait_for_acks(20)
        assert pair.here.execute_command("ROLE")[0] == b"slave"
        full_syncs = pair.there.info()["sync_full"]
        rolled = pair.valkeep("rollback")
        assert rolled.process.returncode == 0, rolled.stderr
        assert run.wait() == 0, run.stderr
        steps = run.phases()[run.phases().index("way-back:current") :]
        assert [step for step in steps if step in ("verify", "verified")] == [
            "verify",
            "verified",
        ]  # of the old server, before it is cut back to
        before.wait_for_acks(5)
        assert (fence_of(pair.here), fence_of(pair.there)) == (OPEN, FENCED)
        before.stop()
        after.stop()
        assert lost(before.acknowledged(), pair.here) == []
        assert lost(after.acknowledged(), pair.here) == []
        assert after.acked > 40
        run.assert_nothing_left()
    there = contents(pair.there)
    here = contents(pair.here)
    assert {key: here.get(key) for key in there if b"old" not in key} == {key: value for key, value in there.items() if b"old" not in key}
    assert full_syncs == 1  # of the verification before the cut-over
    result = json.loads((run.report / "run.json").read_text())
    assert (result["verdict"], result["way_back"]["outcome"]) == ("valid", "rolled-back")
    assert result["way_back"]["carried"] >= WRITES
    assert pair.here.info()["unexpected_error_replies"] == 0


def test_after_a_commit_the_old_server_stands_alone_and_refuses(pair: Pair) -> None:
    with Writers(pair.source.port, 2, prefix="old") as before, pair.run("--rollback") as run:
        run.wait_for("way-back:current")
        write(pair.there, 100)
        committed = pair.valkeep("commit")
        assert committed.process.returncode == 0, committed.stderr
        assert run.wait() == 0, run.stderr
        acked = before.acked
        refused = before.refused
        until(lambda: before.refused > refused + 5, lambda: "the old server did not refuse")
        assert before.acked == acked
        assert pair.here.execute_command("ROLE")[0] == b"master"
        assert (fence_of(pair.here), fence_of(pair.there)) == (FENCED, OPEN)
        run.assert_nothing_left()
    assert "refuses writes" in committed.stdout
    assert not (pair.folder / "state" / "back").exists()
    assert pair.valkeep("abort").code == "VK-ABORT-PROMOTED"
    assert fence_of(pair.here) == FENCED
    assert pair.valkeep("rollback").code == "VK-ROLLBACK-NONE"
    assert pair.valkeep("commit").process.returncode == 0


def test_a_key_that_expired_on_the_old_server_only_is_brought_back(pair: Pair) -> None:
    """It expires between the fence and the moment when the old server becomes a replica, and lives on on the new one."""
    with pair.run("--rollback", "--cutover", "manual") as run:
        run.wait_for("waiting")
        pair.here.mset({f"brief{number}": number for number in range(50)})
        for number in range(50):
            pair.here.pexpire(f"brief{number}", 1200 + 20 * number)
        assert pair.valkeep("cutover").process.returncode == 0
        for number in range(50):
            pair.there.persist(f"brief{number}")
        run.wait_for("way-back:current")
        left = {key for key in pair.there.scan_iter("brief*", count=1000) if pair.there.ttl(key) == -1}
        assert pair.valkeep("rollback").process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
    assert {key for key in pair.here.scan_iter("brief*", count=1000) if pair.here.ttl(key) == -1} == left


def test_an_old_server_that_was_restarted_is_no_way_back(pair: Pair) -> None:
    with pair.run("--rollback") as run:
        run.wait_for("way-back:current")
        pair.source.restart()
        run.wait()
        assert run.code == "VK-ROLLBACK-LOST"
        assert run.process.returncode == 5
        assert "there is no way back any more" in run.stderr
        assert pair.there.set("k", "goes on")


def test_a_way_back_that_was_killed_is_gone_on_with_and_rolled_back(pair: Pair) -> None:
    with Writers(pair.source.port, 2, prefix="old") as before, pair.run("--rollback") as run:
        run.wait_for("online")
        with Writers(pair.target.port, 2, prefix="new") as after:
            run.wait_for("way-back:current")
            after.wait_for_acks(10)
            run.kill()
            after.wait_for_acks(10)
            rolled = pair.valkeep("rollback")
            assert rolled.process.returncode == 0, rolled.stderr
        before.wait_for_acks(5)
        before.stop()
        assert lost(before.acknowledged(), pair.here) == []
        assert lost(after.acknowledged(), pair.here) == []
    assert "rolled back" in rolled.stdout
    assert pair.here.info()["sync_partial_err"] == pair.there.info()["sync_partial_err"] == 0
    assert pair.valkeep("rollback").process.returncode == 0  # it was done already
    assert "was rolled back" in pair.valkeep("abort").stdout
    assert pair.valkeep("commit").code == "VK-ROLLBACK-NONE"


def test_who_did_not_ask_for_a_way_back_has_one_while_the_backlog_reaches(pair: Pair) -> None:
    with pair.run() as run, Writers(pair.source.port, 2, prefix="old") as before:
        assert run.wait() == 0, run.stderr
        write(pair.there, 500)
        rolled = pair.valkeep("rollback")
        assert rolled.process.returncode == 0, rolled.stderr
        before.wait_for_acks(3)
        before.stop()
        assert lost(before.acknowledged(), pair.here) == []
    assert pair.here.get("counter") == b"50"
    assert fence_of(pair.there) == FENCED


def test_a_new_server_that_followed_another_one_meanwhile_is_no_beginning(pair: Pair, server: Server, client: Client) -> None:
    other = server("valkey-9.1")
    with pair.run() as run:
        assert run.wait() == 0, run.stderr
    client(other).set("of", "another")
    pair.there.replicaof("127.0.0.1", other.port)
    until(lambda: pair.there.get("of"), lambda: "it does not follow")
    pair.there.replicaof("NO", "ONE")
    assert pair.valkeep("rollback").code == "VK-ROLLBACK-LOST"
    assert pair.here.execute_command("ROLE")[0] == b"master"


@pytest.mark.parametrize(("old", "policy"), [("redis-7.0", "keep-field"), ("redis-8.0", "refuse"), ("valkey-8.0", "keep-field")])
def test_what_only_a_newer_valkey_says_reaches_the_old_server(pair_of: Callable[[str, str], Pair], old: str, policy: str) -> None:
    """The old server would end with the first command that it does not know (`propagation-error-behavior panic`); the rollback compares everything."""
    pair = pair_of(old, "valkey-9.1")
    with pair.run("--rollback", "--field-ttl", policy) as run:
        run.wait_for("way-back:current")
        there = pair.there
        for line in COMMANDS.strip().splitlines():
            there.execute_command(*line.split())
        there.eval(
            "redis.call('SET', KEYS[1], 'by a script'); return redis.call('HSETEX', KEYS[2], 'EX', '900', 'FIELDS', '1', 'f', 'v')",
            2,
            "s1",
            "s2",
        )
        rolled = pair.valkeep("rollback")
        assert rolled.process.returncode == 0, rolled.stderr
        assert run.wait() == 0, run.stderr
    ours, theirs = contents(pair.here), contents(there)
    assert ours.keys() == theirs.keys()
    assert {key for key in ours if ours[key] != theirs[key]} == set()


def test_after_a_rollback_it_can_be_tried_again(pair: Pair) -> None:
    """What is left of the first way back must not decide about the second one."""
    for attempt in ("first", "second"):
        pair.there.config_set("min-replicas-to-write", 0)  # the fence of the rollback
        with pair.run("--rollback", "--wipe-target", name=attempt) as run:
            run.wait_for("way-back:current")
            pair.there.set("attempt", attempt)
            if attempt == "second":
                run.kill()
            assert pair.valkeep("rollback").process.returncode == 0, run.stderr
        assert pair.here.get("attempt") == attempt.encode()
        assert (fence_of(pair.here), fence_of(pair.there)) == (OPEN, FENCED)


def test_a_way_back_that_nobody_keeps_can_be_committed(pair: Pair) -> None:
    with pair.run("--rollback") as run:
        run.wait_for("way-back:current")
        run.kill()
    again = pair.run(name="again")
    with again:
        again.wait()
    assert again.code == "VK-STATE-UNFINISHED"
    for force in ((), ("--force",)):
        assert pair.valkeep("abort", *force).code == "VK-ABORT-PROMOTED"
    assert pair.valkeep("commit").process.returncode == 0
    assert (fence_of(pair.here), pair.here.execute_command("ROLE")[0]) == (FENCED, b"master")


def test_before_the_cut_over_there_is_nothing_to_decide_and_right_behind_it_there_is(pair: Pair) -> None:
    async def both() -> tuple[dict[str, Any] | None, ...]:
        return await ask(pair.folder / "state", "cutover"), await ask(pair.folder / "state", "commit")

    with pair.run("--rollback", "--cutover", "manual") as run:
        run.wait_for("waiting")
        for what in ("rollback", "commit"):
            said = pair.valkeep(what)
            assert (said.process.returncode, said.code) == (4, "VK-ROLLBACK-NOT-YET")
        assert fence_of(pair.here) == OPEN
        cut, committed = asyncio.run(both())
        assert cut is not None
        assert committed is not None
        assert (cut["promoted"], committed["outcome"]) == (pair.target.endpoint, "committed")
        assert run.wait() == 0, run.stderr
