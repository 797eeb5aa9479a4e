"""Delivery by push, end to end: the same result as replication, every write once whatever breaks, and no error reply that passes unseen."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support import nodes
from tests.support.certificate import self_signed
from tests.support.counting import Counting, kill_pushing, same
from tests.support.pair import Pair, ProxiedPair
from tests.support.proxy import Proxy
from tests.support.rdb_oracle import said
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from tests.support.writers import Writers, lost
from valkeep.migrate import marker
from valkeep.runtime import ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
Client = Callable[..., Any]
PUSH = ("--deliver", "push")
LIBRARY = "#!lua name=push\nredis.register_function('answer', function() return 42 end)"


def fill(client: Any, *, field_ttl: bool) -> None:
    """Some of everything, in two databases."""
    pipe = client.pipeline(transaction=False)
    later = int(time.time() * 1000) + 3_600_000
    for number in range(300):
        pipe.set(f"string:{number}", f"value {number} " * (number % 7 + 1))
        pipe.set(f"timed:{number}", number, pxat=later + number)
        pipe.hset(f"hash:{number}", mapping={f"f{one}": one * number for one in range(number % 200 + 1)})
        pipe.rpush(f"row of {number}", *[f"item {one}" * (one % 30 + 1) for one in range(number % 150 + 1)])
        pipe.sadd(f"set:{number}", *(range(number + 1) if number % 2 else [f"m{one}" for one in range(number % 140 + 1)]))
        pipe.zadd(f"zset:{number}", {f"m{one}": one / 7 for one in range(number % 140 + 1)})
    pipe.set("12345", "a key that is a number")
    pipe.set(b"\x00\xffbinary" * 40, b"\x01" * 100_000)
    pipe.set("a" * 5000, "a key that compresses")
    for number in range(50):
        pipe.xadd("stream", {"field": number, "other": "x" * number}, id=f"{number + 1}-0")
    pipe.xgroup_create("stream", "group", id="0")
    pipe.execute()
    client.xreadgroup("group", "consumer", {"stream": ">"}, count=20)
    client.xack("stream", "group", "3-0", "4-0")
    client.xdel("stream", "5-0", "50-0")
    client.function_load(LIBRARY)
    client.execute_command("SELECT", 3)
    client.set("elsewhere", "database 3")
    client.execute_command("SELECT", 0)
    if field_ttl:
        client.hset("sessions", mapping={f"s{number}": number for number in range(100)})
        client.execute_command("HPEXPIREAT", "sessions", later, "FIELDS", 2, "s1", "s2")


def everything(client: Client, port: int, *, field_ttl: bool) -> dict[tuple[int, bytes], Any]:
    """What ordinary commands say of all keys."""
    found = {}
    for database in (0, 3):
        reader = client(port, db=database)
        for key in reader.keys("*"):
            record = said(reader, key, database=database, field_ttl=field_ttl)
            if hasattr(record.value, "groups"):  # when a consumer was seen is no data
                for group in record.value.groups:
                    group.consumers = [replace(one, seen_ms=0, active_ms=0) for one in group.consumers]
            found[database, key] = (record, reader.object("encoding", key))
    return found


@pytest.fixture
def pair(server: Server, client: Client, tmp_path: Path) -> Pair:
    source, target = server("redis-8.0", repl_backlog_size="64mb"), server("valkey-9.1")
    here = client(source)
    here.mset({f"k{number}": f"v{number}" for number in range(200)})
    return Pair(source, target, here, client(target), tmp_path)


@pytest.fixture
def proxied(server: Server, client: Client, tmp_path: Path) -> Iterator[ProxiedPair]:
    source, target = server("redis-8.0"), server("valkey-9.1")
    with Proxy(("127.0.0.1", source.port)) as to_source, Proxy(("127.0.0.1", target.port)) as to_target:
        found = ProxiedPair(source, target, client(source), client(target), tmp_path, to_source, to_target)
        found.lease = 30_000
        yield found


def import_mode(client: Any) -> str | None:
    found: str | None = client.config_get("import-mode").get("import-mode")
    return found


def flushes(client: Any) -> int:
    """How often it was emptied."""
    return int(client.info("commandstats").get("cmdstat_flushall", {}).get("calls", 0))


def is_marked(client: Any) -> bool:
    return bool(client.exists(marker.KEY))


@pytest.mark.parametrize(
    ("source", "target", "expiry"),
    [
        ("redis-7.0", "valkey-8.0", "recopy"),
        ("redis-8.0", "valkey-8.1", "import-mode"),
        ("redis-8.0", "valkey-9.1", "import-mode"),
    ],
)
def test_a_push_under_writers_is_verified_and_cut_over_without_a_loss(
    server: Server, client: Client, tmp_path: Path, source: str, target: str, expiry: str
) -> None:
    pair = Pair(*(one := (server(source), server(target))), client(one[0]), client(one[1]), tmp_path)
    fill(pair.here, field_ttl=source == "redis-8.0" and target == "valkey-9.1")
    with Writers(pair.source.port) as writers, pair.run(*PUSH) as run:
        assert run.wait() == 0, run.stderr
        writers.stop()
        assert lost(writers.acknowledged(), pair.there) == []
        assert writers.refused > 0
        run.assert_nothing_left()
    assert pair.fence == "255"
    result = json.loads((run.report / "run.json").read_text())
    assert (result["verdict"], result["mismatches"]) == ("valid", 0)
    assert result["delivery"] == {"how": "push", "expiry": expiry, "recopied": 0}
    assert not is_marked(pair.there)
    assert import_mode(pair.there) == (None if target == "valkey-8.0" else "no")
    assert pair.there.fcall("answer", 0) == 42


def test_a_push_equals_native_delivery_key_by_key(server: Server, client: Client, tmp_path: Path) -> None:
    source, native, pushed = server("redis-8.0"), server("valkey-9.1"), server("valkey-9.1")
    here = client(source)
    fill(here, field_ttl=True)
    for target, more in ((native, ()), (pushed, PUSH)):
        pair = Pair(source, target, here, client(target), tmp_path / str(target.port))
        with pair.run(*more) as run:
            assert run.wait() == 0, run.stderr
        here.config_set("min-replicas-to-write", 0)
    both = [everything(client, one.port, field_ttl=True) for one in (native, pushed)]
    assert len(both[0]) > 1800
    assert both[0] == both[1]
    assert client(native).function_list() == client(pushed).function_list()


@pytest.mark.parametrize("seed", [1])
def test_writes_that_must_not_be_done_twice_survive_cuts_and_killed_clients(proxied: ProxiedPair, seed: int) -> None:
    """In the snapshot and in the stream; the answer to a transaction may be among what is lost."""
    rng = random.Random(seed)
    proxied.here.mset({f"k{number}": "v" * 500 for number in range(5000)})
    with Counting(proxied.here, seed) as load, proxied.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("attach")
        proxied.to_target.cut()
        run.wait_for("waiting")
        for _ in range(12):
            kill_pushing(proxied.there)
            wanted = load.done + rng.randint(3, 30)
            until(lambda wanted=wanted: load.done > wanted, "the load goes on")  # type: ignore[misc]
        assert proxied.valkeep("cutover").process.returncode == 0, run.stderr
        load.stop()
        assert run.wait() == 0, run.stderr
    assert load.done > 200
    same(proxied.here, proxied.there)


def test_a_transaction_whose_answer_is_lost_is_not_done_again_and_what_it_wrote_is_copied_again(proxied: ProxiedPair) -> None:
    with proxied.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("waiting")
        proxied.to_target.mangle = lambda _answer: b""
        proxied.here.incr("lonely")
        until(lambda: proxied.there.get("lonely") == b"1", "the batch was executed")
        proxied.to_target.mangle = None
        kill_pushing(proxied.there)
        proxied.here.incr("lonely")
        until(lambda: proxied.there.get("lonely") == b"2", "the stream goes on")
        assert proxied.valkeep("cutover").process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
    assert proxied.there.get("lonely") == b"2"
    calls = {name: told["calls"] for name, told in proxied.there.info("commandstats").items()}
    assert calls.get("cmdstat_incr", 0) + calls.get("cmdstat_incrby", 0) == 2  # a copy of the key would hide a third
    assert json.loads((run.report / "run.json").read_text())["delivery"]["recopied"] == 1


def test_an_error_reply_ends_the_move_with_the_command_and_puts_the_target_in_order(pair: Pair) -> None:
    with pair.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("waiting")
        assert import_mode(pair.there) == "yes"
        pair.there.rpush("planted", "by somebody else")
        pair.here.incr("planted")
        assert run.wait() == 4
        assert run.code == "VK-PUSH-REPLY"
        assert "INCRBY of key b'planted'" in run.stderr, run.stderr
        assert "WRONGTYPE" in run.stderr
        run.assert_nothing_left()
    assert pair.fence == "0"
    assert import_mode(pair.there) == "no"
    assert not is_marked(pair.there)
    assert pair.there.get("k7") == b"v7"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (lambda there: there.config_set("maxmemory", "1mb"), "VK-PUSH-OOM"),
        (lambda there: there.execute_command("REPLICAOF", "127.0.0.1", "1"), "VK-PUSH-READONLY"),
        (lambda there: there.set(marker.KEY, "somebody else's"), "VK-PUSH-MARKER"),
    ],
    ids=["out of memory", "made a replica", "marker overwritten"],
)
def test_a_target_that_refuses_or_is_taken_away_ends_the_move(pair: Pair, fault: Callable[[Any], None], code: str) -> None:
    with pair.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("waiting")
        fault(pair.there)
        if code == "VK-PUSH-MARKER":
            kill_pushing(pair.there)
        pair.here.set("next", "value")
        assert run.wait() in (4, 5), run.stderr
        assert run.code == code, run.stderr
    assert pair.fence == "0"


def test_a_target_that_was_restarted_ends_the_move(server: Server, client: Client, tmp_path: Path) -> None:
    source, target = server("redis-8.0"), server("valkey-9.1", appendonly="yes")
    pair = Pair(source, target, client(source), client(target), tmp_path)
    with pair.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("waiting")
        target.restart()
        assert run.wait() in (4, 5)
        assert run.code == "VK-TARGET-LOST"
    assert pair.fence == "0"


@pytest.mark.parametrize(("target", "expiry"), [("valkey-8.0", "recopy"), ("valkey-9.1", "import-mode")])
def test_a_key_renewed_just_before_its_end_lives_on_a_target_that_is_behind(
    server: Server, client: Client, tmp_path: Path, target: str, expiry: str
) -> None:
    there = server(target)
    pair = Pair(source := server("redis-8.0"), there, client(source), client(there), tmp_path)
    with pair.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("waiting")
        there.pause()
        try:
            pair.here.set("session", "precious", px=2000)
            pair.here.pexpire("session", 100_000)
            time.sleep(2.5)  # its first life is over on the target's clock
        finally:
            there.resume()
        assert pair.valkeep("cutover").process.returncode == 0, run.stderr
        assert run.wait() == 0, run.stderr
    assert pair.there.get("session") == b"precious"
    assert pair.there.pttl("session") > 50_000
    delivery = json.loads((run.report / "run.json").read_text())["delivery"]
    assert delivery == {"how": "push", "expiry": expiry, "recopied": int(expiry == "recopy")}


def test_a_target_with_keys_is_wiped_only_when_that_is_allowed(pair: Pair) -> None:
    pair.there.set("old", "data")
    with pair.run(*PUSH) as run:
        assert run.wait() == 4
        assert run.code == "VK-TARGET-NOT-EMPTY"
    assert pair.there.get("old") == b"data"
    with pair.run(*PUSH, "--wipe-target", name="again") as run:
        assert run.wait() == 0, run.stderr
    assert pair.there.get("old") is None
    assert pair.there.dbsize() == 200


def test_what_somebody_else_wrote_to_the_target_is_named(pair: Pair) -> None:
    with pair.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("waiting")
        pair.there.set("k7", "overwritten")
    verify = pair.folder / "verify"
    with Valkeep("migrate", "verify", *pair.where()[:4], "--json", "-", folder=verify, report=False) as process:
        assert process.wait() == 1
        found = json.loads(process.stdout)
    assert [one["key"] for one in found["examples"]] == ["k7"]


def test_a_user_who_may_not_write_is_refused_before_anything_is_changed(pair: Pair) -> None:
    pair.there.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-restore")
    where = [f"valkey://app:secret@127.0.0.1:{pair.target.port}" if word == pair.target.endpoint else word for word in pair.where()]
    pair.where = lambda: tuple(where)  # type: ignore[method-assign]
    with pair.run(*PUSH) as run:
        assert run.wait() == 4
        assert run.code == "VK-TARGET-COMMANDS"
        assert "secret" not in run.stderr
    assert pair.there.dbsize() == 0


def test_a_target_as_services_give_it_takes_a_push_over_tls_from_a_user_who_may_only_read_and_write(
    server: Server, client: Client, tmp_path: Path
) -> None:
    self_signed(tmp_path, "IP:127.0.0.1")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    reserved = ports.reserve()
    tls: dict[str, nodes.Setting] = {
        "tls-port": reserved.port,
        "tls-cert-file": cert,
        "tls-key-file": key,
        "tls-ca-cert-file": cert,
        "tls-auth-clients": "no",
    }
    source, target = server("redis-8.0"), server("valkey-8.1", tls)
    there = client(target)
    there.execute_command(
        "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config", "-replicaof", "-psync", "-sync", "-debug"
    )
    password = tmp_path / "password"
    password.write_text("secret")
    where = (
        "--source",
        source.endpoint,
        "--target",
        f"valkeys://app@127.0.0.1:{reserved.port}?ca={cert}",
        "--state",
        str(tmp_path / "state"),
    )
    more = ("--target-password-file", str(password), "--acknowledge", "all")
    try:
        fill(client(source), field_ttl=False)
        with Writers(source.port) as writers, Valkeep("migrate", "run", *where, *more, *PUSH, folder=tmp_path / "run") as run:
            run.wait_for("follow")
            kill_pushing(there)
            assert run.wait() == 0, run.stderr
            writers.stop()
            assert lost(writers.acknowledged(), there) == []
        assert "secret" not in run.stderr
        result = json.loads((run.report / "run.json").read_text())
        assert (result["verdict"], result["delivery"]["expiry"]) == ("valid", "recopy")
    finally:
        reserved.release()


def test_a_run_that_was_killed_is_gone_on_with_and_nothing_is_done_twice(pair: Pair) -> None:
    with Counting(pair.here, 7) as load:
        with pair.run(*PUSH, "--cutover", "manual") as run:
            run.wait_for("waiting")
            run.kill()
        wiped = flushes(pair.there)
        wanted = load.done + 50
        until(lambda: load.done > wanted, "the load goes on")
        with pair.run(*PUSH, "--cutover", "manual", name="again") as run:
            run.wait_for("waiting")
            assert "this one goes on" in run.stderr
            assert flushes(pair.there) == wiped
            assert pair.valkeep("cutover").process.returncode == 0, run.stderr
            load.stop()
            assert run.wait() == 0, run.stderr
            run.assert_nothing_left(pair.folder / "state")
    same(pair.here, pair.there)
    assert import_mode(pair.there) == "no"


def test_a_run_that_was_killed_in_its_snapshot_begins_anew(pair: Pair) -> None:
    with pair.run(*PUSH) as run:
        run.wait_for("attach")
        run.kill()
    with pair.run(*PUSH, "--wipe-target", name="again") as run:
        assert run.wait() == 0, run.stderr
    assert pair.there.dbsize() == 200
    assert import_mode(pair.there) == "no"


def test_after_a_kill_abort_puts_the_target_in_order(pair: Pair) -> None:
    with pair.run(*PUSH, "--cutover", "manual") as run:
        run.wait_for("waiting")
        run.kill()
    abort = pair.valkeep("abort")
    assert abort.process.returncode == 0, abort.stderr
    assert import_mode(pair.there) == "no"
    assert not is_marked(pair.there)
    pair.here.set("still", "writable")


@pytest.mark.parametrize("behind", ["fence", "promote"])
def test_killed_within_the_cut_over_one_side_serves_and_has_everything(proxied: ProxiedPair, behind: str) -> None:
    pair = proxied
    with Writers(pair.source.port) as writers, pair.run(*PUSH) as run:
        if behind == "fence":
            pair.to_source.when(b"$3\r\n255\r\n", after=run.kill)
            until(lambda: not run.running, lambda: run.stderr)
            assert run.process.returncode == -signal.SIGKILL, run.stderr
        else:
            run.wait_for("cutover:promote")
            run.kill()
        abort = pair.valkeep("abort")
        done = abort.process.returncode != 0  # it refuses where the target has taken over
        assert behind == "promote" or not done, abort.stderr
        writers.stop()
    serving = pair.there if done else pair.here
    serving.set("somebody", "writes")
    assert lost(writers.acknowledged(), serving) == []
