"""Preflight on real servers: what it finds, what it says where it may not look, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support import nodes
from tests.support.certificate import self_signed
from tests.support.waiting import until
from valkeep.client.endpoint import Endpoint, Secret
from valkeep.errors import ConnectionLost, Refused, RemoteProtocolError, ValkeepError
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.preflight import Finding, PreflightOptions, PreflightReport, Verdict, preflight
from valkeep.migrate.preflight.facts import Permission
from valkeep.migrate.transform.target import FieldTtl
from valkeep.report.events import Event, Note
from valkeep.runtime import ports
from valkeep.runtime.node import Process

Client = Callable[..., Any]
QUICK = PreflightOptions(rate_seconds=0.05)


def look(
    source: Process | Endpoint, target: Process | Endpoint | None = None, events: list[Event] | None = None, **options: Any
) -> PreflightReport:
    def endpoint(one: Process | Endpoint) -> Endpoint:
        return one if isinstance(one, Endpoint) else Endpoint.parse(one.endpoint)

    there = None if target is None else endpoint(target)
    emit = (lambda _: None) if events is None else events.append
    return asyncio.run(preflight(endpoint(source), there, replace(QUICK, **options), emit))


def found(report: PreflightReport, code: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.code == code]


def severities(report: PreflightReport, code: str) -> list[str]:
    return [str(finding.severity) for finding in found(report, code)]


def user(node: Process, name: str, word: str = "secret-word") -> Endpoint:
    return Endpoint(node.host, node.port, username=name, password=Secret(word))


SAVING: dict[str, nodes.Setting] = {"save": "3600 1"}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("redis-7.0", "valkey-8.1"),
        ("redis-8.0", "valkey-8.1"),
        ("redis-8.0", "valkey-9.1"),
        ("valkey-8.1", "valkey-9.1"),
        ("valkey-9.1", "valkey-9.1"),
    ],
)
def test_a_healthy_pair_is_go_and_its_facts_are_those_that_the_servers_tell(
    server: Server, client: Client, source: str, target: str
) -> None:
    here, there = server(source, SAVING), server(target, SAVING)
    oracle = client(here)
    for i in range(50):
        oracle.set(f"k{i}", i)
    oracle.rpush("list", 1, 2)
    client(here, db=5).sadd("set", "a")
    report = look(here, there)
    assert report.verdict is Verdict.GO, report.findings
    assert report.source.version == here.binary.version
    assert report.source.kind == here.binary.name
    assert report.target is not None
    assert report.target.version == there.binary.version
    assert report.source.databases == int(oracle.config_get("databases")["databases"])
    assert report.source.keys == oracle.dbsize() + 1
    census = report.source.census
    assert census is not None
    assert census.complete
    assert census.kinds == {"string": 50, "list": 1, "set": 1}
    assert report.cutover is FenceMode.PAUSE
    assert report.to_json()["cutover"] == "pause-and-fence"


def test_the_pair_that_failed_for_the_user_is_explained(server: Server) -> None:
    report = look(server("redis-8.0", SAVING), server("valkey-8.1", SAVING))
    (finding,) = found(report, "VK-RDB-PAIR")
    assert finding.severity == "info"
    assert "invalid RDB received" in finding.evidence["native replication"]
    assert "Can't handle RDB format version 12" in finding.evidence["native replication"]


def test_native_replication_fails_as_preflight_says(server: Server, client: Client) -> None:
    here, there = server("redis-8.0"), server("valkey-8.1")
    client(here).set("k", "v")
    client(there).execute_command("REPLICAOF", here.host, here.port)
    until(lambda: "Can't handle RDB format version 12" in there.log(), there.log)
    client(there).execute_command("REPLICAOF", "NO", "ONE")


def test_preflight_changes_nothing_and_runs_none_of_the_commands_it_asks_about(server: Server, client: Client) -> None:
    here, there = server("redis-8.0"), server("valkey-8.1")
    for node in (here, there):
        client(node).config_resetstat()
    client(here).set("k", "v")
    before = {node.port: client(node).config_get("*") for node in (here, there)}
    look(here, there)
    for node in (here, there):
        oracle = client(node)
        ran = {name.removeprefix("cmdstat_") for name, counts in oracle.info("commandstats").items() if counts["calls"]}
        allowed = {
            "info",
            "config|get",
            "config|resetstat",
            "acl|whoami",
            "acl|users",
            "acl|dryrun",
            "module|list",
            "client|list",
            "client|setname",
        }
        allowed |= {
            "client|setinfo",
            "client|id",
            "pubsub|numsub",
            "time",
            "command|info",
            "multi",
            "exec",  # outside a transaction: an error, which says whether it would be permitted
            "discard",
            "select",
            "scan",
            "type",
            "object|encoding",
        }
        assert ran <= allowed | {"ping", "hello", "set", "hrandfield", "hpexpiretime"}
        assert oracle.config_get("*") == before[node.port]
        assert oracle.info("replication")["role"] == "master"
        assert oracle.info("replication")["connected_slaves"] == 0
    assert client(here).dbsize() == 1
    assert client(here).set("k", "w")  # no pause is left behind
    assert client(there).dbsize() == 0


def test_a_user_without_psync_and_config_is_told_so_and_what_could_not_be_checked(server: Server, client: Client) -> None:
    here, there = server("redis-8.0", SAVING), server("valkey-8.1", SAVING)
    client(here).set("app:1", "v")
    client(here).execute_command("ACL", "SETUSER", "low", "on", ">secret-word", "~*", "&*", "+@all", "-@admin", "-psync")
    report = look(user(here, "low"), there)
    assert report.verdict is Verdict.NO_GO
    assert "VK-SOURCE-COMMANDS" in report.blockers
    (finding,) = found(report, "VK-SOURCE-COMMANDS")
    assert "PSYNC denied" in finding.evidence["source"]
    assert "ACL SETUSER low +psync +replconf" in finding.remedy
    assert severities(report, "VK-UNCHECKED-SOURCE") == ["warning"]
    assert "databases" in found(report, "VK-UNCHECKED-SOURCE")[0].evidence["CONFIG GET"]
    assert severities(report, "VK-CUTOVER") == ["warning"]
    assert report.source.user == "low"
    assert report.source.census is not None


@pytest.mark.parametrize("spec", ["redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1"])
def test_a_user_with_only_what_is_needed_may_replicate(server: Server, client: Client, spec: str) -> None:
    here, there = server(spec, SAVING), server("valkey-9.1", SAVING)
    rules = "+psync +replconf +ping +info +config +client +dump +pttl +select +multi +exec +discard +scan +type +object +time +acl|whoami"
    rules += " +command +eval +hrandfield +hpexpiretime" if spec == "redis-8.0" else " +command +eval"
    client(here).execute_command("ACL", "SETUSER", "mover", "on", ">secret-word", "~*", "&*", *rules.split())
    client(here).set("k", "v")
    report = look(user(here, "mover"), there)
    assert severities(report, "VK-SOURCE-COMMANDS") == ["ok"], report.source.commands
    assert severities(report, "VK-CUTOVER") == ["ok"]
    assert report.source.may("PSYNC") is Permission.OK
    assert report.source.may("REPLICAOF") is Permission.DENIED
    assert report.verdict is Verdict.GO, [finding for finding in report.findings if finding.severity in ("warning", "blocker")]


def test_a_user_who_may_not_discard_is_asked_all_the_same(server: Server, client: Client) -> None:
    """The transaction in which permissions are asked ends with its connection: nothing after it is queued."""
    here, there = server("redis-8.0"), server("valkey-8.1")
    client(here).set("k", "v")
    client(here).execute_command("ACL", "SETUSER", "low", "on", ">secret-word", "~*", "&*", "+@all", "-discard")
    report = look(user(here, "low"), there)
    assert report.cutover is FenceMode.PAUSE
    assert report.source.census is not None
    assert report.source.census.seen == 1


@pytest.mark.parametrize("denied", ["exec", "multi"])
def test_a_user_who_may_run_no_transaction_learns_before_the_copy_that_nothing_can_fence_the_source(
    server: Server, client: Client, denied: str
) -> None:
    here, there = server("redis-8.0"), server("valkey-8.1")
    client(here).execute_command("ACL", "SETUSER", "low", "on", ">secret-word", "~*", "&*", "+@all", f"-{denied}")
    report = look(user(here, "low"), there)
    assert report.source.may(denied.upper()) is Permission.DENIED
    assert report.cutover is FenceMode.EXTERNAL
    (finding,) = found(report, "VK-CUTOVER")
    assert finding.severity == "warning"
    assert f"+{denied}" in finding.remedy


def test_a_user_without_info_gets_one_finding_and_no_crash(server: Server, client: Client) -> None:
    here, there = server("redis-7.0"), server("valkey-8.1")
    client(here).execute_command("ACL", "SETUSER", "blind", "on", ">secret-word", "~*", "+@all", "-info")
    report = look(user(here, "blind"), there)
    assert report.blockers == ("VK-INFO-DENIED",)
    assert "NOPERM" in found(report, "VK-INFO-DENIED")[0].evidence["source"]


@pytest.mark.parametrize("spec", ["redis-7.0", "redis-8.0", "valkey-9.1"])
def test_a_user_for_some_keys_only_is_told_which_permission_lacks(server: Server, client: Client, spec: str) -> None:
    here = server(spec, SAVING)
    client(here).execute_command("ACL", "SETUSER", "some", "on", ">secret-word", "~app:*", "&*", "+@all")
    client(here).set("other:1", "v")
    report = look(user(here, "some"))
    (finding,) = found(report, "VK-COMPARE-COMMANDS")
    assert finding.severity == "warning"
    assert finding.remedy.startswith("permit all keys: ACL SETUSER some ~*")
    assert {"VK-CENSUS-SAMPLED", "VK-UNCHECKED-SOURCE"} <= set(report.conditions)


def test_a_user_who_may_not_scan_gets_a_condition_instead_of_a_census(server: Server, client: Client) -> None:
    here = server("redis-8.0", SAVING)
    client(here).execute_command("ACL", "SETUSER", "noscan", "on", ">secret-word", "~*", "&*", "+@all", "-scan")
    client(here).set("k", "v")
    report = look(user(here, "noscan"))
    assert "VK-CENSUS-MISSING" in report.conditions
    full = look(user(here, "noscan"), full_census=True)
    assert "VK-CENSUS-MISSING" not in full.conditions
    assert severities(full, "VK-UNCHECKED-SOURCE") == ["ok"]


@pytest.mark.parametrize("renamed", ["PSYNC", "REPLCONF"])
def test_a_renamed_command_is_found(server: Server, renamed: str) -> None:
    here = server("redis-7.0", {"rename-command": f"{renamed} hidden-{renamed.lower()}"})
    report = look(here)
    assert "VK-SOURCE-COMMANDS" in report.blockers
    assert f"{renamed} missing" in found(report, "VK-SOURCE-COMMANDS")[0].evidence["source"]
    assert "rename-command" in found(report, "VK-SOURCE-COMMANDS")[0].remedy


def test_a_server_without_config_is_judged_with_what_it_tells(server: Server) -> None:
    here = server("valkey-8.1", {"rename-command": ['CONFIG ""', 'CLIENT ""']})
    there = server("valkey-9.1", {"rename-command": ['CONFIG ""', 'REPLICAOF ""']})
    report = look(here, there)
    assert report.cutover is FenceMode.EXTERNAL
    assert {"VK-UNCHECKED-SOURCE", "VK-UNCHECKED-TARGET", "VK-CUTOVER"} <= set(report.conditions)
    assert "VK-TARGET-COMMANDS" in report.blockers
    assert severities(report, "VK-TARGET-SENTINEL") == ["ok"]


def test_a_target_with_too_small_a_maxmemory_is_no_go(server: Server, client: Client) -> None:
    here, there = server("redis-7.0"), server("valkey-8.1", maxmemory="8mb")
    client(here).set("big", b"x" * (8 << 20))
    report = look(here, there)
    (finding,) = found(report, "VK-TARGET-MEMORY")
    assert finding.severity == "blocker"
    assert finding.evidence["target"] == "maxmemory 8.0 MiB"


@pytest.fixture
def sentinel(server: Server, tmp_path: Path) -> Callable[[Process], Process]:
    """``sentinel(node)``: a Sentinel that watches the node. A server whose program is called so is one."""

    def watch(node: Process) -> Process:
        binary = nodes.binary("valkey-9.1")
        link = tmp_path / "valkey-sentinel"
        link.symlink_to(binary.path)
        return server(
            replace(binary, path=link), {"sentinel": [f"monitor watched {node.host} {node.port} 1"], "propagation-error-behavior": "ignore"}
        )

    return watch


def test_a_sentinel_that_watches_the_target_is_no_go(server: Server, client: Client, sentinel: Callable[[Process], Process]) -> None:
    here, there = server("redis-7.0"), server("valkey-8.1")
    assert severities(look(here, there), "VK-TARGET-SENTINEL") == ["ok"]
    sentinel(there)
    until(lambda: client(there).pubsub_numsub("__sentinel__:hello")[0][1], "the Sentinel to come")
    report = look(here, there)
    assert "VK-TARGET-SENTINEL" in report.blockers
    assert "sentinel-" in found(report, "VK-TARGET-SENTINEL")[0].evidence["target"]
    assert "VK-TARGET-SENTINEL" not in look(there, here).blockers
    assert severities(look(there, here), "VK-SOURCE-SENTINEL") == ["warning"]


def test_a_sentinels_address_is_no_source(server: Server, sentinel: Callable[[Process], Process]) -> None:
    watched = server("valkey-8.1")
    report = look(sentinel(watched))
    assert report.blockers == ("VK-PEER",)
    assert "Sentinel" in found(report, "VK-PEER")[0].title


def test_a_target_with_keys_needs_wipe_target(server: Server, client: Client) -> None:
    here, there = server("redis-7.0"), server("valkey-8.1", SAVING)
    assert severities(look(here, there), "VK-TARGET-NOT-EMPTY") == ["ok"]
    client(there, db=3).set("k", "v")
    report = look(here, there)
    assert "VK-TARGET-NOT-EMPTY" in report.blockers
    assert "db3: 1" in found(report, "VK-TARGET-NOT-EMPTY")[0].evidence["target"]
    assert severities(look(here, there, wipe_target=True), "VK-TARGET-NOT-EMPTY") == ["info"]
    assert client(there, db=3).get("k") == b"v"


def test_the_same_server_twice_is_no_go(server: Server) -> None:
    node = server("valkey-8.1")
    assert "VK-SAME-SERVER" in look(node, Endpoint.parse(f"redis://localhost:{node.port}")).blockers


def test_replicas_are_told_apart(server: Server, client: Client) -> None:
    primary = server("valkey-8.1", SAVING)
    replica = server("valkey-8.1", {"replicaof": f"{primary.host} {primary.port}", **SAVING})
    until(lambda: client(replica).info("replication")["master_link_status"] == "up", "the link of the replica to turn")
    other = server("valkey-9.1", SAVING)
    assert "VK-TARGET-REPLICA" in look(other, replica).blockers
    assert "VK-SAME-SERVER" in look(primary, replica).blockers
    from_replica = look(replica, other)
    assert from_replica.blockers == ()
    assert "VK-SOURCE-REPLICA" in from_replica.conditions
    assert from_replica.cutover is FenceMode.EXTERNAL
    primary.kill()
    until(lambda: client(replica).info("replication")["master_link_status"] != "up", "the link of the replica to turn")
    assert "VK-SOURCE-LINK-DOWN" in look(replica, other).blockers


def test_module_values_and_field_ttls_are_found_by_sample_and_by_snapshot(server: Server, client: Client) -> None:
    here, there = server("redis-8.0", SAVING), server("valkey-8.1", SAVING)
    oracle = client(here, db=2)
    oracle.execute_command("VADD", "vectors", "VALUES", "2", "1", "2", "e")
    for name, fields in (("small", 3), ("large", 2000)):
        oracle.hset(name, mapping={f"f{i}": i for i in range(fields)})
        oracle.execute_command("HPEXPIRE", name, "3600000", "FIELDS", fields, *[f"f{i}" for i in range(fields)])
    oracle.hset("plain", "f", "v")
    for full in (False, True):
        events: list[Event] = []
        report = look(here, there, events, full_census=full)
        assert {"VK-MODULE-VALUES", "VK-FIELD-TTL"} <= set(report.blockers)
        census = report.source.census
        assert census is not None
        assert census.kinds == {"module": 1, "hash": 3}
        assert census.field_ttl_hashes == 2
        assert list(census.modules) == ["vectorset"]
        assert census.examples["module:vectorset"] == ("db2 'vectors'",)
        assert any(isinstance(event, Note) and "fork" in event.text for event in events) is full
    assert "VK-FIELD-TTL" in look(here, there, field_ttl=FieldTtl.KEEP_FIELD).conditions
    assert severities(look(here, server("valkey-9.1")), "VK-FIELD-TTL") == ["ok"]


def test_field_ttls_of_valkey_9_are_counted(server: Server, client: Client) -> None:
    here = server("valkey-9.1", SAVING)
    client(here).hset("h", "f", "v")
    client(here).execute_command("HPEXPIRE", "h", "3600000", "FIELDS", "1", "f")
    assert "VK-FIELD-TTL" in look(here, server("valkey-8.1", SAVING)).blockers


def test_a_sample_never_claims_absence_and_a_full_census_does(server: Server, client: Client) -> None:
    here = server("redis-7.0", SAVING)
    pipe = client(here).pipeline(transaction=False)
    for i in range(5000):
        pipe.set(f"k{i}", i)
    pipe.execute()
    report = look(here, sample_keys=1000)
    assert report.verdict is Verdict.CONDITIONAL_GO
    assert "VK-CENSUS-SAMPLED" in report.conditions
    assert report.source.census is not None
    assert 500 <= report.source.census.seen < 5000
    full = look(here, full_census=True)
    assert full.verdict is Verdict.GO
    assert full.source.census is not None
    assert full.source.census.kinds == {"string": 5000}


def test_a_cluster_node_is_no_go(server: Server) -> None:
    report = look(server("redis-7.0", cluster_enabled="yes"), server("valkey-8.1", cluster_enabled="yes"))
    assert severities(report, "VK-CLUSTER") == ["blocker", "blocker"]


def test_more_databases_in_use_than_the_target_has_is_no_go(server: Server, client: Client) -> None:
    here, there = server("redis-7.0", databases=20), server("valkey-8.1", databases=8)
    assert "VK-DATABASES" in look(here, there).conditions
    client(here, db=9).set("k", "v")
    assert "VK-DATABASES" in look(here, there).blockers


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, nodes.Setting]:
    """Settings of a server with a certificate for 127.0.0.1, signed by itself."""
    cert, key = self_signed(tmp_path, "IP:127.0.0.1")
    return {"tls-cert-file": str(cert), "tls-key-file": str(key), "tls-ca-cert-file": str(cert), "tls-auth-clients": "no"}


def test_a_target_that_replicates_over_tls_only_is_a_condition(server: Server, certificate: dict[str, nodes.Setting]) -> None:
    here, there = server("redis-7.0", SAVING), server("valkey-8.1", certificate | SAVING | {"tls-replication": "yes"})
    assert look(here, there).conditions == ("VK-REPLICATION-TLS",)
    assert look(here, there, gateway_tls=True).verdict is Verdict.GO


def test_a_source_is_looked_at_over_tls_and_by_a_full_census_too(
    server: Server, client: Client, certificate: dict[str, nodes.Setting]
) -> None:
    reserved = ports.reserve(None)
    try:
        here = server("redis-8.0", certificate | SAVING | {"tls-port": reserved.port})
        client(here).set("k", "v")
        endpoint = Endpoint.parse(f"rediss://127.0.0.1:{reserved.port}?ca={certificate['tls-cert-file']}")
        for full in (False, True):
            report = look(endpoint, full_census=full)
            assert report.verdict is Verdict.GO
            assert "encrypted" in found(report, "VK-PLAINTEXT")[0].title
            assert report.source.census is not None
            assert report.source.census.kinds == {"string": 1}
        with pytest.raises(ConnectionLost, match="certificate"):
            look(Endpoint.parse(f"rediss://127.0.0.1:{reserved.port}"))
    finally:
        reserved.release()


def test_passwords_are_in_no_evidence(server: Server) -> None:
    here = server("redis-7.0", requirepass="hunter2-source", masterauth="hunter2-other")
    there = server("valkey-8.1", requirepass="hunter2-target", masterauth="hunter2-other")
    endpoints = [Endpoint(node.host, node.port, password=Secret(f"hunter2-{name}")) for node, name in ((here, "source"), (there, "target"))]
    report = look(endpoints[0], endpoints[1])
    assert "hunter2" not in json.dumps(report.to_json())
    assert "hunter2" not in repr(report)
    assert severities(report, "VK-PRIMARYAUTH") == ["info"]


def test_the_write_rate_is_measured_by_the_replication_offset(server: Server, client: Client) -> None:
    primary = server("valkey-8.1", SAVING)
    replica = server("valkey-8.1", {"replicaof": f"{primary.host} {primary.port}"})
    until(lambda: client(replica).info("replication")["master_link_status"] == "up", "the link of the replica to turn")

    async def scenario() -> PreflightReport:
        looking = asyncio.ensure_future(preflight(Endpoint.parse(primary.endpoint), None, replace(QUICK, rate_seconds=0.5), lambda _: None))
        oracle = client(primary)
        while not looking.done():
            await asyncio.to_thread(oracle.set, "k", b"x" * 100_000)
        return await looking

    rate = asyncio.run(scenario()).source.rate
    assert rate is not None
    assert rate.exact
    assert rate.bytes_per_second > 100_000


def test_an_address_behind_a_load_balancer_is_no_go(server: Server) -> None:
    backends = [server("redis-7.0"), server("redis-7.0")]

    async def scenario() -> PreflightReport:
        turn = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal turn
            turn += 1
            there, back = await asyncio.open_connection(backends[turn % 2].host, backends[turn % 2].port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(1 << 16):
                    sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

        balancer = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with balancer:
            port = balancer.sockets[0].getsockname()[1]
            return await preflight(Endpoint("127.0.0.1", port), None, QUICK, lambda _: None)

    assert "VK-PROXY" in asyncio.run(scenario()).blockers


def unexpected(greeting: bytes) -> ValkeepError:
    """What preflight says to a peer that answers everything with ``greeting``."""

    async def scenario() -> ValkeepError:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1 << 16)
            writer.write(greeting)
            writer.close()

        peer = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with peer:
            port = peer.sockets[0].getsockname()[1]
            with pytest.raises(ValkeepError) as raised:
                await preflight(Endpoint("127.0.0.1", port), None, QUICK, lambda _: None)
            return raised.value

    return asyncio.run(scenario())


def test_a_peer_that_is_not_redis_is_a_clear_error() -> None:
    error = unexpected(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    assert isinstance(error, RemoteProtocolError)
    assert "HTTP" in error.message
    assert error.remedy
    assert isinstance(unexpected(b""), ConnectionLost)
    assert isinstance(unexpected(b"220 mail.example.org ESMTP\r\n"), RemoteProtocolError)


def test_a_wrong_password_is_refused_and_not_shown(server: Server) -> None:
    here = server("redis-7.0", requirepass="right")
    with pytest.raises(Refused, match="did not accept the password") as raised:
        look(Endpoint(here.host, here.port, password=Secret("wrong-and-secret")))
    assert "wrong-and-secret" not in raised.value.message + raised.value.remedy


# --- the command -------------------------------------------------------------------------------------------------------------------------


def valkeep(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "valkeep", "migrate", "preflight", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def test_the_command_asks_for_acknowledgement_and_exits_by_the_table(server: Server, client: Client, tmp_path: Path) -> None:
    here, there = server("redis-8.0"), server("valkey-8.1")
    client(here).set("k", "v")
    pair = ("--source", here.endpoint, "--target", there.endpoint)
    first = valkeep(*pair, "--json", str(tmp_path / "preflight.json"))
    assert first.returncode == 1, first.stderr
    assert "CONDITIONAL-GO: acknowledge what you know about: --acknowledge VK-TARGET-PERSISTENCE" in first.stdout
    value = json.loads((tmp_path / "preflight.json").read_text())
    assert (value["schema"], value["verdict"], value["to_acknowledge"]) == (1, "CONDITIONAL-GO", ["VK-TARGET-PERSISTENCE"])
    second = valkeep(*pair, "--acknowledge", "VK-TARGET-PERSISTENCE", "--json", "-")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["may_start"] is True
    assert "CONDITIONAL-GO" in second.stderr
    client(there).set("k", "v")
    third = valkeep(*pair, "--acknowledge", "VK-TARGET-PERSISTENCE")
    assert third.returncode == 1
    assert "NO-GO: VK-TARGET-NOT-EMPTY" in third.stdout
    assert "\x1b" not in third.stdout


def test_the_command_says_before_a_full_census_what_the_fork_costs(server: Server) -> None:
    here = server("redis-8.0")
    done = valkeep("--source", here.endpoint, "--census", "full")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fork" in done.stderr
    assert "used memory" in done.stderr


def test_the_command_exits_4_where_nobody_answers_or_the_password_is_wrong(server: Server, tmp_path: Path) -> None:
    here = server("redis-7.0", requirepass="right")
    (tmp_path / "word").write_text("wrong-and-secret\n")
    done = valkeep("--source", here.endpoint, "--source-password-file", str(tmp_path / "word"))
    assert done.returncode == 4
    assert "remedy:" in done.stderr
    assert "wrong-and-secret" not in done.stdout + done.stderr
    here.kill()
    gone = valkeep("--source", here.endpoint)
    assert gone.returncode == 4
    assert "refused the connection" in gone.stderr


def test_the_command_takes_passwords_from_file_and_environment(server: Server, tmp_path: Path) -> None:
    here, there = server("redis-7.0", requirepass="right"), server("valkey-8.1", requirepass="other", save="3600 1")
    (tmp_path / "word").write_text("right\n")
    arguments = ("--source", here.endpoint, "--source-password-file", str(tmp_path / "word"))
    done = valkeep(*arguments, "--target", there.endpoint, "--target-password-env", "TARGET_WORD", TARGET_WORD="other")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--source", "nonsense"),
        ("--source", "redis://h", "--acknowledge", "VK-NONSENSE"),
        ("--source", "redis://h", "--census", "some"),
        (),
    ],
)
def test_the_command_exits_2_on_nonsense(arguments: tuple[str, ...]) -> None:
    assert valkeep(*arguments).returncode == 2
