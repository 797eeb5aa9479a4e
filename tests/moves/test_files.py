"""Snapshots and append-only files of real servers, brought to a target without them: what the target then has is what a server of their own version loads from
the same files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.test_pairs import WITH_FIELD_TTL, as_the_target_has_it, everything, load, names
from tests.support.fixtures_snapshots import VECTOR_SET, item
from tests.support.nodes import Setting
from tests.support.scripted_primary import sealed
from tests.support.valkeep_process import Valkeep
from tests.support.waiting import until
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ValkeepError
from valkeep.migrate.control import ask
from valkeep.migrate.outcome import NotEqual, RunResult
from valkeep.migrate.run.restoration import FileSource, RestoreOptions, restore
from valkeep.migrate.state import MigrationState, StateFile
from valkeep.migrate.transform.target import FieldTtl
from valkeep.migrate.verify.file_side import compare_with_file
from valkeep.report.events import Event, Phase
from valkeep.wire.resp import encode

pytestmark = pytest.mark.server


def brought(path: Path, target: Any, folder: Path, policy: FieldTtl = FieldTtl.REFUSE, **more: Any) -> RunResult:
    options = RestoreOptions(
        source=FileSource(path),
        target=Endpoint.parse(target.endpoint),
        field_ttl=policy,
        accept=more.pop("accept", frozenset({"all"})),
        report=folder / "report",
        state=folder / "state",
        **more,
    )
    return asyncio.run(restore(options, lambda _event: None, time.monotonic))


def expected(client: Callable[..., Any], node: Any, source_spec: str, target_spec: str, policy: FieldTtl) -> dict[Any, Any]:
    has_ttl, takes_ttl = source_spec in WITH_FIELD_TTL, target_spec in WITH_FIELD_TTL
    found = everything(client, node, field_ttl=has_ttl)
    if has_ttl and not takes_ttl:
        return {place: record for place, one in found.items() if (record := as_the_target_has_it(one, policy)) is not None}
    return found


def equal(client: Callable[..., Any], oracle: Any, target: Any, source_spec: str, target_spec: str, policy: FieldTtl) -> None:
    wanted = expected(client, oracle, source_spec, target_spec, policy)
    both = source_spec in WITH_FIELD_TTL and target_spec in WITH_FIELD_TTL
    found = everything(client, target, field_ttl=both)
    assert found.keys() == wanted.keys()
    assert [place for place, record in wanted.items() if found[place] != record] == []
    assert names(client(target)) == names(client(oracle))
    assert client(target).role()[0] in (b"master", "master")


@pytest.mark.parametrize(
    ("source_spec", "target_spec", "policy"),
    [
        ("redis-7.0", "valkey-8.0", FieldTtl.REFUSE),
        ("redis-8.0", "valkey-8.1", FieldTtl.DROP_FIELD),
        ("valkey-8.1", "valkey-9.1", FieldTtl.REFUSE),
        ("valkey-9.1", "valkey-8.0", FieldTtl.KEEP_FIELD),
    ],
)
def test_every_key_of_a_snapshot_arrives(
    source_spec: str, target_spec: str, policy: FieldTtl, server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server(source_spec, rdbcompression="yes", rdb_del_sync_files="no"), server(target_spec)
    load(client, source, field_ttl=source_spec in WITH_FIELD_TTL)
    client(source).save()
    result = brought(source.directory / "dump.rdb", target, tmp_path, policy)
    assert (result.verdict, result.mismatches, result.unexpected_error_replies) == ("valid", 0, 0)
    assert result.keys > 800
    equal(client, source, target, source_spec, target_spec, policy)


AOF: dict[str, Setting] = {"appendonly": "yes", "appendfsync": "always", "auto-aof-rewrite-percentage": 0}


def log_of(node: Any) -> Path:
    """The folder of its multi-part AOF."""
    return Path(node.directory) / "appendonlydir"


def write(connection: Any, name: str, *, field_ttl: bool) -> None:
    """What a log may hold, beside the dataset: transactions, scripts, expiries, several databases, moves, groups."""
    with connection.pipeline(transaction=True) as pipe:
        pipe.incr(f"{name}:counter")
        pipe.rpush(f"{name}:list", *range(5))
        pipe.execute()
    connection.eval("redis.call('set', KEYS[1], ARGV[1]); return redis.call('incr', KEYS[2])", 2, f"{name}:eval", f"{name}:evals", "x")
    connection.set(f"{name}:expiring", "v", ex=100_000)
    connection.set(f"{name}:gone", "v", px=1)
    connection.setex(f"{name}:setex", 100_000, "v")
    connection.set(f"{name}:moved", "v")
    connection.move(f"{name}:moved", 2)
    connection.copy(f"{name}:counter", f"{name}:copied")
    connection.xadd(f"{name}:stream", {"a": "1"}, id="1-1")
    connection.xgroup_create(f"{name}:stream", "group", id="0", mkstream=True)
    connection.xreadgroup("group", "me", {f"{name}:stream": ">"})
    connection.zadd(f"{name}:zset", {"a": 1.5, "b": 2})
    connection.spop(f"{name}:missing")
    connection.sadd(f"{name}:set", *range(20))
    connection.spop(f"{name}:set", 3)
    connection.append(f"{name}:annotated", b"x\r\n#TS:1\r\ny")
    connection.set(f"{name}:big", os.urandom(3 << 20))
    if field_ttl:
        connection.hset(f"{name}:hash", mapping={"a": 1, "b": 2})
        connection.execute_command("HPEXPIRE", f"{name}:hash", 10_000_000, "FIELDS", 1, "a")


def reloaded(server: Any, spec: str, folder: Path, **settings: Any) -> Any:
    """A server of this version on a copy of another one's AOF: what it loads is what counts."""
    copy = folder / "oracle"
    copy.mkdir()
    shutil.copytree(folder / "files", copy / "appendonlydir")
    return server(spec, {"dir": str(copy), "appendonly": "yes", **settings})


@pytest.mark.parametrize(
    ("source_spec", "target_spec", "settings", "policy"),
    [
        ("redis-7.0", "valkey-8.1", {"aof-use-rdb-preamble": "no"}, FieldTtl.REFUSE),
        ("redis-8.0", "valkey-9.1", {"aof-timestamp-enabled": "yes"}, FieldTtl.REFUSE),
        ("valkey-8.0", "valkey-9.1", {"aof-timestamp-enabled": "yes", "aof-use-rdb-preamble": "no"}, FieldTtl.REFUSE),
        ("valkey-9.1", "valkey-8.0", {}, FieldTtl.KEEP_FIELD),
    ],
)
def test_what_a_log_says_is_what_a_server_makes_of_it_also_when_it_was_rewritten_under_writes(
    source_spec: str, target_spec: str, settings: dict[str, Any], policy: FieldTtl, server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    has_ttl = source_spec in WITH_FIELD_TTL
    source, target = server(source_spec, AOF | settings), server(target_spec)
    here = client(source)
    load(client, source, field_ttl=has_ttl)
    here.bgrewriteaof()

    def during() -> None:
        for turn in range(5):
            write(client(source), f"during:{turn}", field_ttl=has_ttl)

    writing = threading.Thread(target=during)
    writing.start()
    writing.join()
    until(lambda: here.info("persistence")["aof_rewrite_in_progress"] == 0, "the rewrite's end")
    write(here, "after", field_ttl=has_ttl)
    source.kill()
    shutil.copytree(log_of(source), tmp_path / "files")

    result = brought(tmp_path / "files", target, tmp_path, policy)

    assert (result.verdict, result.mismatches, result.unexpected_error_replies) == ("unknown", 0, 0)
    assert any("log wrote" in limit for limit in result.limits)
    oracle = reloaded(server, source_spec, tmp_path, **settings)
    equal(client, oracle, target, source_spec, target_spec, policy)
    assert json.loads((tmp_path / "report" / "run.json").read_text())["read"] == "file"


def test_a_single_file_with_a_snapshot_at_its_head_is_read_as_the_old_servers_wrote_it(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server("redis-7.0", AOF), server("valkey-9.1")
    load(client, source, field_ttl=False)
    client(source).bgrewriteaof()
    until(
        lambda: not list(log_of(source).glob("*.1.incr.aof")) and not client(source).info("persistence")["aof_rewrite_in_progress"],
        "a rewrite",
    )
    write(client(source), "log", field_ttl=False)
    source.kill()
    (base,), (log,) = log_of(source).glob("*.base.rdb"), log_of(source).glob("*.incr.aof")
    folder = tmp_path / "oracle"
    folder.mkdir()
    (folder / "appendonly.aof").write_bytes(base.read_bytes() + log.read_bytes())
    shutil.copy(folder / "appendonly.aof", tmp_path / "old.aof")

    result = brought(tmp_path / "old.aof", target, tmp_path)

    assert (result.verdict, result.source_rdb_version) == ("unknown", 10)
    oracle = server("redis-7.0", {"dir": str(folder), "appendonly": "yes"})
    equal(client, oracle, target, "redis-7.0", "valkey-9.1", FieldTtl.REFUSE)


@pytest.mark.parametrize("cut", ["in a command", "in a transaction", "in a command of a transaction"])
def test_a_log_that_was_cut_off_counts_as_far_as_servers_load_it_and_that_is_said(
    cut: str, server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server("redis-8.0", AOF), server("valkey-9.1")
    write(client(source), "log", field_ttl=True)
    with client(source).pipeline(transaction=True) as pipe:
        pipe.set("last:one", 1)
        pipe.set("last:two", 2)
        pipe.execute()
    if cut == "in a command":
        client(source).set("last:three", "x" * 1000)
    source.kill()
    files = tmp_path / "files"
    shutil.copytree(log_of(source), files)
    (log,) = files.glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - (len("*1||$4||EXEC||") if cut == "in a transaction" else 20))

    with pytest.raises(ValkeepError) as refused:
        brought(files, target, tmp_path, accept=frozenset())
    assert refused.value.code == "VK-FILE-TAIL"
    assert client(target).dbsize() == 0

    result = brought(files, target, tmp_path)
    oracle = reloaded(server, "redis-8.0", tmp_path)
    equal(client, oracle, target, "redis-8.0", "valkey-9.1", FieldTtl.REFUSE)
    assert client(target).exists("last:one", "last:two", "last:three") == (2 if cut == "in a command" else 0)
    (tail,) = [limit for limit in result.limits if "no whole command" in limit]
    (finding,) = [one for one in result.preflight.findings if one.code == "VK-FILE-TAIL"]
    place = finding.evidence["left out"].partition("from byte ")[2].partition(" ")[0]
    if cut != "in a command of a transaction":  # what was queued there servers leave in the file, and do not apply
        assert f"offset {place}" in oracle.log()
    assert str(log) in tail


def test_what_has_expired_since_the_snapshot_was_made_is_no_difference(server: Any, client: Callable[..., Any], tmp_path: Path) -> None:
    source, target = server("redis-8.0"), server("valkey-9.1")
    here = client(source)
    for number in range(20):
        here.set(f"gone:{number}", "v", px=1500)
        here.hset(f"hash:{number}", mapping={"a": 1, "b": 2})
        here.execute_command("HPEXPIRE", f"hash:{number}", 1500, "FIELDS", 1, "a")
        here.hset(f"whole:{number}", mapping={"a": 1})
        here.execute_command("HPEXPIRE", f"whole:{number}", 1500, "FIELDS", 1, "a")
    here.set("kept", "v")
    here.save()
    until(lambda: here.dbsize() == 21, "their expiry")

    result = brought(Path(source.directory) / "dump.rdb", target, tmp_path)

    assert (result.verdict, result.mismatches) == ("valid", 0)
    until(lambda: client(target).dbsize() == 21, "their expiry on the target")
    equal(client, source, target, "redis-8.0", "valkey-9.1", FieldTtl.REFUSE)


# -- bad files, and ends in the middle ----------------------------------------------------------------------------------------------


def command(path: Path, target: Any, folder: Path, *more: str) -> Valkeep:
    return Valkeep(
        "migrate",
        "run",
        "--read",
        str(path),
        "--target",
        target.endpoint,
        "--state",
        str(folder / "state"),
        *more,
        folder=folder / f"run-{uuid4()}",
    )


def saved(node: Any, connection: Any) -> Path:
    connection.save()
    return Path(node.directory) / "dump.rdb"


def test_a_snapshot_whose_checksum_is_wrong_leaves_the_target_as_it_was(server: Any, client: Callable[..., Any], tmp_path: Path) -> None:
    source, target = server("redis-7.0"), server("valkey-8.1")
    client(source).set("k", "some value")
    client(target).set("mine", "v")
    data = saved(source, client(source)).read_bytes()
    (tmp_path / "dump.rdb").write_bytes(data.replace(b"some value", b"same value"))
    with command(tmp_path / "dump.rdb", target, tmp_path, "--wipe-target", "--acknowledge", "all") as valkeep:
        assert valkeep.wait() == 4
    assert valkeep.code == "VK-SNAPSHOT-CRC"
    assert "dump.rdb" in valkeep.stderr
    assert client(target).get("mine") == b"v"
    assert client(target).role()[0] in (b"master", "master")


def test_a_command_that_only_its_server_could_explain_is_named_with_its_place_and_nothing_is_sent(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server("redis-8.0", AOF), server("valkey-8.0")
    here = client(source)
    here.hset("hash", mapping={"a": 1, "b": 2})
    here.execute_command("HPEXPIRE", "hash", 10_000_000, "FIELDS", 1, "a")
    here.hincrby("hash", "a", 5)
    here.set("later", "v")
    client(target).set("mine", "v")
    source.kill()
    with command(log_of(source), target, tmp_path, "--wipe-target", "--acknowledge", "all", "--field-ttl", "drop-field") as valkeep:
        assert valkeep.wait() == 4
    assert valkeep.code == "VK-FILE-COMMAND"
    assert "appendonly.aof.1.incr.aof, near byte" in valkeep.stderr
    assert "migrate from there" in valkeep.stderr
    assert client(target).get("mine") == b"v"


def test_a_database_that_the_target_has_not_is_refused_also_when_only_the_log_uses_it(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server("redis-7.0", AOF, databases=32), server("valkey-9.1")
    client(source, db=20).set("k", "v")
    with command(log_of(source), target, tmp_path, "--acknowledge", "all") as valkeep:
        assert valkeep.wait() == 4
    assert valkeep.code == "VK-FILE-COMMAND"
    assert "database 20" in valkeep.stderr
    client(source).bgrewriteaof()
    until(lambda: not client(source).info("persistence")["aof_rewrite_in_progress"], "the rewrite")
    with command(log_of(source), target, tmp_path, "--acknowledge", "all") as valkeep:
        assert valkeep.wait() == 4
    assert valkeep.code == "VK-DATABASES"
    assert client(target).dbsize() == 0


def test_a_run_from_files_that_is_stopped_or_killed_can_be_undone_and_begun_again(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server("redis-7.0"), server("valkey-8.1")
    here, there = client(source), client(target)
    with here.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.set(f"key:{number}", os.urandom(200))
        pipe.execute()
    path = saved(source, here)
    there.set("mine", "v")
    more = ("--wipe-target", "--acknowledge", "all")
    with command(path, target, tmp_path, *more) as valkeep:
        valkeep.wait_for("attach")
        valkeep.send(signal.SIGINT)
        assert valkeep.wait() == 130
    until(lambda: there.role()[0] in (b"master", "master"), "the target's release")
    abort = ("migrate", "abort", "--target", target.endpoint, "--state", str(tmp_path / "state"))
    for undone in (True, False):
        with command(path, target, tmp_path, *more) as valkeep:
            valkeep.wait_for("snapshot-taken")
            target.pause()  # nobody gets further meanwhile
            valkeep.kill()
            target.resume()
        assert there.role()[0] in (b"slave", "slave")
        if undone:
            with Valkeep(*abort, folder=tmp_path / "abort", report=False) as undo:
                assert undo.wait() == 0
            assert "detached" in undo.stdout
            assert "fenced" not in undo.stdout
    with command(path, target, tmp_path, *more) as valkeep:
        assert valkeep.wait() == 0
    assert "was killed, and this one begins anew; the target is detached" in valkeep.stderr
    assert "valid: 20,000 keys" in valkeep.stdout
    with Valkeep(*abort, folder=tmp_path / "abort", report=False) as undo:
        assert undo.wait() == 0
    assert "nothing is left to undo" in undo.stdout
    assert there.dbsize() == 20_000
    assert there.role()[0] in (b"master", "master")


def test_where_an_earlier_restore_ended_is_not_taken_for_where_this_one_is(server: Any, tmp_path: Path) -> None:
    target = server("valkey-8.1")
    (tmp_path / "appendonly.aof").write_bytes(encode(b"SET", b"a", b"x"))
    StateFile(tmp_path / "state").write(MigrationState("promoted", "file:", target.endpoint, 1))
    target.pause()  # nothing is attached meanwhile
    try:
        with command(tmp_path / "appendonly.aof", target, tmp_path, "--acknowledge", "all") as valkeep:
            valkeep.wait_for("preflight")
            abort = ("migrate", "abort", "--target", target.endpoint, "--state", str(tmp_path / "state"))
            with Valkeep(*abort, folder=tmp_path / "abort", report=False) as stopped:
                assert (stopped.wait(), stopped.stdout.strip()) == (0, "nothing had been changed yet"), stopped.stderr
            assert (valkeep.wait(), valkeep.code) == (4, "VK-ABORTED")
    finally:
        target.resume()


def test_the_state_of_another_migration_is_left_alone(server: Any, client: Callable[..., Any], tmp_path: Path) -> None:
    target = server("valkey-8.1")
    (tmp_path / "appendonly.aof").write_bytes(encode(b"SET", b"a", b"x"))
    state = StateFile(tmp_path / "state")
    state.write(MigrationState("cutting", "redis://127.0.0.1:1", target.endpoint, 1))
    with command(tmp_path / "appendonly.aof", target, tmp_path, "--acknowledge", "all") as valkeep:
        assert valkeep.wait() == 4
    assert valkeep.code == "VK-STATE-UNFINISHED"
    assert (StateFile(tmp_path / "state").read() or state.current) == state.current
    assert client(target).dbsize() == 0


def test_a_difference_between_file_and_target_is_found_and_the_target_not_promoted(
    server: Any, client: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = server("redis-7.0"), server("valkey-8.1")
    for number in range(50):
        client(source).set(f"key:{number}", "v")
    path = saved(source, client(source))

    async def meddled(files: Any, *more: Any) -> Any:
        client(target).config_set("replica-read-only", "no")
        client(target).set("key:7", "w")
        client(target).delete("key:8")
        client(target).set("extra", "v")
        return await compare_with_file(files, *more)

    monkeypatch.setattr("valkeep.migrate.run.restoration.compare_with_file", meddled)
    with pytest.raises(NotEqual, match="3 of 50 keys differ"):
        brought(path, target, tmp_path)
    found = json.loads((tmp_path / "report" / "verification.json").read_text())
    assert {(one["key"], one["what"]) for one in found["examples"]} == {("key:7", "different"), ("key:8", "missing"), ("extra", "extra")}


@pytest.mark.parametrize("option", [("--source", "redis://127.0.0.1:1"), ("--cutover", "manual"), ("--keep-fence",), ("--fence", "pause")])
def test_options_about_writers_make_no_sense_with_a_file(option: tuple[str, ...], tmp_path: Path) -> None:
    with Valkeep("migrate", "run", "--read", "dump.rdb", "--target", "valkey://127.0.0.1:1", *option, folder=tmp_path) as valkeep:
        assert valkeep.wait() == 2
    assert option[0] in valkeep.stderr


def test_neither_a_source_nor_a_file_is_a_usage_error(tmp_path: Path) -> None:
    with Valkeep("migrate", "run", "--target", "valkey://127.0.0.1:1", folder=tmp_path) as valkeep:
        assert valkeep.wait() == 2
    assert "--read PATH" in valkeep.stderr


@pytest.mark.parametrize("denied", [(), ("-psync", "-sync", "-replicaof", "-slaveof")], ids=["everything permitted", "no replication"])
def test_a_target_that_cannot_replicate_is_written_to(
    denied: tuple[str, ...], server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = server("redis-8.0", AOF), server("valkey-9.1")
    load(client, source, field_ttl=True)
    client(source).save()
    write(client(source), "log", field_ttl=True)
    source.kill()
    shutil.copytree(log_of(source), tmp_path / "files")
    if denied:
        client(target).execute_command("ACL", "SETUSER", "default", *denied)
    if denied:
        result = brought(Path(source.directory) / "dump.rdb", target, tmp_path, deliver="push")
        assert (result.verdict, result.mismatches) == ("valid", 0)
        assert result.keys == sum(database["keys"] for database in client(target).info("keyspace").values())
    result = brought(tmp_path / "files", target, tmp_path, deliver="push", wipe_target=True)
    assert (result.verdict, result.mismatches) == ("unknown", 0)
    assert result.verification is not None
    assert (result.verification.source_read, result.verification.target_read) == ("file", "scan" if denied else "psync")
    assert result.to_json()["delivery"]["how"] == "push"
    equal(client, reloaded(server, "redis-8.0", tmp_path), target, "redis-8.0", "valkey-9.1", FieldTtl.REFUSE)


def test_a_log_whose_commands_are_errors_on_the_target_does_not_promote_it(server: Any, client: Callable[..., Any], tmp_path: Path) -> None:
    target = server("valkey-9.1", {"propagation-error-behavior": "ignore"})
    (tmp_path / "appendonly.aof").write_bytes(encode(b"SET", b"a", b"x") + encode(b"LPUSH", b"a", b"1"))
    with command(tmp_path / "appendonly.aof", target, tmp_path, "--acknowledge", "all") as valkeep:
        assert valkeep.wait() == 1
    assert valkeep.code == "VK-FILE-ERRORS"
    assert "1 of 2 commands" in valkeep.stderr
    until(lambda: client(target).role()[0] in (b"master", "master"), "the target's release")


def test_values_of_modules_are_found_before_anything_is_sent(server: Any, client: Callable[..., Any], tmp_path: Path) -> None:
    target = server("valkey-8.1")
    (tmp_path / "dump.rdb").write_bytes(sealed(b"REDIS0012" + item(7, "vectors", VECTOR_SET)))
    with command(tmp_path / "dump.rdb", target, tmp_path, "--acknowledge", "all") as valkeep:
        assert valkeep.wait() == 4
    assert valkeep.code == "VK-MODULE-VALUES"
    assert "vectors" in valkeep.stderr
    more = ("--target", target.endpoint)
    with Valkeep("migrate", "preflight", "--read", str(tmp_path / "dump.rdb"), *more, folder=tmp_path / "look", report=False) as look:
        assert look.wait() == 1
    assert "NO-GO" in look.stdout
    assert "VK-MODULE-VALUES" in look.stdout
    (tmp_path / "dump.rdb").write_bytes(sealed(b"REDIS0012"))
    with Valkeep(
        "migrate",
        "preflight",
        "--read",
        str(tmp_path / "dump.rdb"),
        *more,
        "--acknowledge",
        "VK-TARGET-PERSISTENCE",
        folder=tmp_path / "again",
        report=False,
    ) as look:
        assert look.wait() == 0


def test_a_log_is_not_written_to_a_target_that_would_expire_what_its_next_commands_need(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    past = int(time.time() * 1000) - 100_000
    log = tmp_path / "appendonly.aof"
    log.write_bytes(encode(b"SET", b"k", b"v", b"PXAT", b"%d" % past) + encode(b"APPEND", b"k", b"x") + encode(b"SET", b"kept", b"v"))
    old, new = server("valkey-8.0"), server("valkey-8.1")
    with command(log, old, tmp_path, "--deliver", "push", "--acknowledge", "all") as valkeep:
        assert valkeep.wait() == 4
    assert valkeep.code == "VK-FILE-EXPIRY"
    for target, deliver in ((old, "native"), (new, "push"), (server("valkey-8.1"), "native")):
        brought(log, target, tmp_path, deliver=deliver)
        assert client(target).get("k") is None
        assert client(target).get("kept") == b"v"


def test_an_abort_reaches_a_run_from_files_and_is_answered(server: Any, client: Callable[..., Any], tmp_path: Path) -> None:
    source, target = server("redis-7.0"), server("valkey-8.1")
    client(source).set("k", "v")
    options = RestoreOptions(
        FileSource(saved(source, client(source))),
        Endpoint.parse(target.endpoint),
        accept=frozenset({"all"}),
        state=tmp_path / "state",
    )
    answers: list[asyncio.Task[Any]] = []

    def aborts_when_attached(event: Event) -> None:
        if isinstance(event, Phase) and event.name == "online":
            answers.append(asyncio.create_task(ask(tmp_path / "state", "abort")))

    async def run() -> Any:
        with pytest.raises(ValkeepError) as stopped:
            await restore(options, aborts_when_attached, time.monotonic)
        assert stopped.value.code == "VK-ABORTED"
        return await answers[0]

    assert "detached" in asyncio.run(run())["done"][0]
    assert client(target).role()[0] in (b"master", "master")
