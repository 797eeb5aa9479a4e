"""Every check catches the violation that is planted for it, and a healthy pair has none.

Facts are planted, no server is asked: `PLANTED` has a row for each code and severity in the table of codes, and a test says when one is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from valkeep.migrate import fence
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.preflight.checks import CHECKS, Case, judge
from valkeep.migrate.preflight.codes import CODES
from valkeep.migrate.preflight.facts import Census, Clock, ClusterFacts, Permission, Rate, ServerFacts, ShardFacts
from valkeep.migrate.preflight.finding import Finding, Severity, Verdict, verdict_of
from valkeep.migrate.preflight.gather import PROBES
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.transform.target import FieldTtl
from valkeep.topology.slots import even_ranges

MIB = 1 << 20
OF_FILES = {("VK-FILE", "info"), ("VK-FILE-TAIL", "warning"), ("VK-FILE-EXPIRY", "blocker")}  # planted in test_preflight_files.py
INFO: Mapping[str, str] = {
    "role": "master",
    "loading": "0",
    "rdb_bgsave_in_progress": "0",
    "rdb_last_bgsave_status": "ok",
    "aof_enabled": "1",
    "used_memory": str(100 * MIB),
    "used_memory_rss": str(120 * MIB),
    "total_system_memory": str(8192 * MIB),
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "repl_backlog_size": str(64 * MIB),
    "number_of_cached_scripts": "0",
    "unexpected_error_replies": "0",
}
CONFIG: Mapping[str, str] = {
    "databases": "16",
    "save": "3600 1",
    "bind": "10.0.0.1",
    "protected-mode": "yes",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "repl-timeout": "60",
    "tls-replication": "no",
    "notify-keyspace-events": "",
}
MAY = dict.fromkeys([*PROBES, "PSYNC", "MULTI", "EXEC"], Permission.OK)
SOURCE = ServerFacts(
    address="10.0.0.1:6379",
    display="rediss://10.0.0.1:6379",
    kind="redis",
    product="Redis 7.2.4",
    version=(7, 2, 4),
    mode="standalone",
    role="primary",
    loopback=False,
    tls=True,
    info={**INFO, "db0": "keys=1000,expires=10,avg_ttl=0", "master_replid": "a" * 40},
    run_ids=("1" * 40,),
    config=CONFIG,
    requirepass=False,
    primaryauth=False,
    primaryauth_fits=True,
    user="default",
    acl_users=("default",),
    commands=MAY,
    modules=(),
    clock=Clock(0.0, 1.0, 1_000_000),
    rate=Rate(1000.0, True, 1.0),
    sentinels=(),
    hello=0,
    census=Census("sample", True, 1000, 1000, {"string": 1000}),
)
TARGET = replace(
    SOURCE,
    address="10.0.0.2:6379",
    display="rediss://10.0.0.2:6379",
    kind="valkey",
    product="Valkey 8.1.1",
    version=(8, 1, 1),
    info={**INFO, "master_replid": "b" * 40},
    run_ids=("2" * 40,),
    config={**CONFIG, "rdb-version-check": "strict"},
    census=None,
    rate=None,
)
R74 = {"version": (7, 4, 1), "product": "Redis 7.4.1"}


def change(facts: ServerFacts, changes: Mapping[str, Any]) -> ServerFacts:
    """``info``, ``config`` and ``commands`` are merged (a None value removes), the rest replaced."""
    merged: dict[str, Any] = {}
    for name, value in changes.items():
        if name in ("info", "config", "commands") and isinstance(value, dict):
            union = {**(getattr(facts, name) or {}), **value}
            merged[name] = {key: one for key, one in union.items() if one is not None}
        else:
            merged[name] = value
    return replace(facts, **merged)


def findings(source: Mapping[str, Any] = {}, target: Mapping[str, Any] | None = {}, **options: Any) -> tuple[Finding, ...]:
    there = None if target is None else change(TARGET, target)
    return judge(Case(change(SOURCE, source), there, PreflightOptions(**options)))


def shards(
    served: int = 16384,
    moving: str = "",
    second: Mapping[str, Any] | None = {},
    replicas: tuple[Mapping[str, str], Mapping[str, str]] = ({"10.0.0.21:6379": "8.1.1"}, {"10.0.0.22:6379": "8.1.1"}),
) -> dict[str, Any]:
    """A target of two shards; ``second``: what is planted into one of them, None: it does not answer."""
    return _shards_of(TARGET, 1, served, moving, second, replicas)


def source_shards(
    served: int = 16384,
    moving: str = "",
    second: Mapping[str, Any] | None = {},
    replicas: tuple[Mapping[str, str], Mapping[str, str]] = ({"10.0.0.41:6379": "7.2.4"}, {"10.0.0.42:6379": "7.2.4"}),
) -> dict[str, Any]:
    """A source of two shards, as `shards`."""
    return _shards_of(SOURCE, 3, served, moving, second, replicas)


def _shards_of(
    like: ServerFacts,
    net: int,
    served: int,
    moving: str,
    second: Mapping[str, Any] | None,
    replicas: tuple[Mapping[str, str], Mapping[str, str]],
) -> dict[str, Any]:
    node = change(like, {"mode": "cluster", "address": f"10.0.0.{net}1:6379"})
    theirs = {"address": f"10.0.0.{net}2:6379", "run_ids": (f"{net + 3}" * 40,), "info": {"master_replid": f"{net + 3}" * 40}}
    other = None if second is None else change(change(node, theirs), second)
    pair = (node.address, node, replicas[0]), (theirs["address"], other, replicas[1])
    ranges = even_ranges(2)
    found = tuple(
        ShardFacts(str(address), ranges[number : number + 1], facts, "" if facts else "refused", behind)
        for number, (address, facts, behind) in enumerate(pair)
    )
    return {"mode": "cluster", "cluster": ClusterFacts(served, found, moving)}


B, W, I = "blocker", "warning", "info"  # noqa: E741
Row = tuple[str, str, dict[str, Any], dict[str, Any] | None, dict[str, Any]]
PLANTED: list[Row] = [
    ("VK-INFO-DENIED", B, {"info": dict.fromkeys(SOURCE.info)}, {}, {}),
    ("VK-PEER", B, {"mode": "sentinel", "role": "sentinel", "product": "Sentinel of Valkey 8.1.1"}, {}, {}),
    ("VK-PEER", B, {}, {"kind": "other", "product": "Dragonfly 1.2"}, {}),
    ("VK-PROXY", B, {"run_ids": ("1" * 40, "3" * 40)}, {}, {}),
    ("VK-SAME-SERVER", B, {}, {"run_ids": ("1" * 40,)}, {}),
    ("VK-SAME-SERVER", B, {}, {"info": {"master_replid": "a" * 40}}, {}),
    ("VK-PLAINTEXT", W, {"tls": False}, {}, {}),
    ("VK-PLAINTEXT", W, {}, {"tls": False}, {}),
    ("VK-REPLICATION-TLS", W, {}, {"config": {"tls-replication": "yes"}}, {}),
    ("VK-PROTECTED-MODE", W, {"config": {"protected-mode": "no", "bind": "0.0.0.0"}}, {}, {}),
    ("VK-PROTECTED-MODE", W, {}, {"config": {"protected-mode": "no", "bind": ""}}, {}),
    ("VK-CLOCK-SKEW", W, {}, {"clock": Clock(1500.0, 1.0, 1_001_500)}, {}),
    ("VK-CLOCK-SKEW", W, {}, {"clock": Clock(-1500.0, 1.0, 998_500)}, {}),
    ("VK-CLOCK-SKEW", I, {}, {"clock": Clock(300.0, 1.0, 1_000_300)}, {}),
    ("VK-SOURCE-VERSION", B, {"version": (2, 6, 17), "product": "Redis 2.6.17"}, {}, {}),
    ("VK-SOURCE-VERSION", B, {"version": (9, 0), "product": "Redis 9.0"}, {}, {}),
    ("VK-SOURCE-VERSION", W, {"version": (6, 2, 14), "product": "Redis 6.2.14"}, {}, {}),
    ("VK-SOURCE-VERSION", W, {"version": (8, 6, 0), "product": "Redis 8.6.0"}, {}, {}),
    ("VK-SOURCE-VERSION", W, {"kind": "valkey", "version": (9, 2, 0), "product": "Valkey 9.2.0"}, {"version": (9, 1, 2)}, {}),
    ("VK-CLUSTER", B, source_shards(), {}, {"deliver": "push"}),
    ("VK-CLUSTER", B, source_shards(), shards(), {}),
    ("VK-CLUSTER", B, source_shards(), shards(), {"deliver": "push", "read": "scan"}),
    ("VK-CLUSTER", B, source_shards(), shards(), {"deliver": "push", "rollback": True}),
    ("VK-CLUSTER", B, {"mode": "cluster"}, {}, {"attached_by": "ElastiCache"}),
    ("VK-SOURCE-CLUSTER", B, source_shards(served=16383), shards(), {"deliver": "push"}),
    ("VK-SOURCE-CLUSTER", B, source_shards(moving="slot 7 at 10.0.0.31:6379"), None, {}),
    ("VK-SOURCE-CLUSTER", B, source_shards(second=None), shards(), {"deliver": "push"}),
    ("VK-SOURCE-CLUSTER", B, {"mode": "cluster", "cluster": ClusterFacts(0, ())}, None, {}),
    ("VK-SOURCE-CLUSTER", W, source_shards(second={"version": (7, 2, 5)}), shards(), {"deliver": "push"}),
    ("VK-SOURCE-CLUSTER", W, source_shards(replicas=({"10.0.0.41:6379": ""}, {"10.0.0.42:6379": "7.2.4"})), None, {}),
    ("VK-CLUSTER-REPLICAS", I, source_shards(replicas=({}, {"10.0.0.42:6379": "7.2.4"})), None, {}),
    ("VK-SAME-SERVER", B, source_shards(), shards(second={"run_ids": ("6" * 40,)}), {"deliver": "push"}),
    ("VK-LOADING", B, source_shards(second={"info": {"loading": "1"}}), shards(), {"deliver": "push"}),
    ("VK-LOADING", B, source_shards(), shards(second={"info": {"loading": "1"}}), {"deliver": "push"}),
    ("VK-SOURCE-COMMANDS", B, source_shards(second={"commands": {"CLUSTER GETKEYSINSLOT": Permission.DENIED}}), None, {}),
    (
        "VK-SOURCE-COMMANDS",
        B,
        source_shards(second={"kind": "valkey", "version": (9, 0), "commands": {"CLUSTER GETSLOTMIGRATIONS": Permission.DENIED}}),
        None,
        {},
    ),
    ("VK-MODULE-VALUES", B, source_shards(second={"census": Census("full", True, 9, 9, {"module": 9}, {"ReJSON-RL": 9})}), None, {}),
    ("VK-FORK-MEMORY", W, source_shards(second={"info": {"used_memory_rss": str(8190 * MIB)}}), shards(), {"deliver": "push"}),
    ("VK-CUTOVER", W, source_shards(second={"commands": {"CONFIG SET": Permission.DENIED}}), shards(), {"deliver": "push"}),
    ("VK-SPOOL-ROOM", W, {}, {}, {"spool_free": 99 * MIB}),
    ("VK-SPOOL-ROOM", W, source_shards(), shards(), {"deliver": "push", "spool_free": 199 * MIB}),
    ("VK-TARGET-MEMORY", B, source_shards(), shards(second={"info": {"maxmemory": str(120 * MIB)}}), {"deliver": "push"}),
    ("VK-CLUSTER", B, {}, {"mode": "cluster"}, {}),
    ("VK-CLUSTER", B, {}, shards(), {"deliver": "push", "rollback": True}),
    ("VK-TARGET-CLUSTER", B, {}, shards(served=16383), {"deliver": "push"}),
    ("VK-TARGET-CLUSTER", B, {}, shards(moving="slot 7 at 10.0.0.11:6379"), {"deliver": "push"}),
    ("VK-TARGET-CLUSTER", B, {}, shards(second=None), {"deliver": "push"}),
    ("VK-TARGET-CLUSTER", W, {}, shards(second={"version": (8, 1, 2)}), {"deliver": "push"}),
    ("VK-TARGET-CLUSTER", W, {}, shards(replicas=({"10.0.0.21:6379": ""}, {"10.0.0.22:6379": "8.1.1"})), {"deliver": "push"}),
    ("VK-CLUSTER-REPLICAS", W, {}, shards(replicas=({"10.0.0.21:6379": "8.1.1"}, {})), {"deliver": "push"}),
    ("VK-CLUSTER-REPLICAS", I, {}, shards(replicas=({}, {})), {"deliver": "push"}),
    ("VK-CLUSTER-DATABASES", B, {"info": {"db3": "keys=7,expires=0,avg_ttl=0"}}, shards(), {"deliver": "push"}),
    ("VK-CLUSTER-COMMANDS", W, {"calls": {"get": 9, "mset": 2, "exec": 0}}, shards(), {"deliver": "push"}),
    ("VK-CLUSTER-COMMANDS", I, {}, shards(), {"deliver": "push"}),
    ("VK-TARGET-NOT-EMPTY", B, {}, shards(second={"info": {"db0": "keys=3,expires=0,avg_ttl=0"}}), {"deliver": "push"}),
    ("VK-TARGET-MEMORY", B, {}, shards(second={"info": {"maxmemory": str(60 * MIB)}}), {"deliver": "push"}),
    ("VK-LOADING", B, {"info": {"loading": "1"}}, {}, {}),
    ("VK-LOADING", B, {}, {"info": {"async_loading": "1"}}, {}),
    ("VK-SOURCE-BUSY", I, {"info": {"rdb_bgsave_in_progress": "1"}}, {}, {}),
    ("VK-SOURCE-SAVE-FAILED", W, {"info": {"rdb_last_bgsave_status": "err"}}, {}, {}),
    ("VK-SOURCE-REPLICA", W, {"role": "replica", "info": {"role": "slave", "master_link_status": "up"}}, {}, {}),
    ("VK-SOURCE-LINK-DOWN", B, {"role": "replica", "info": {"role": "slave", "master_link_status": "down"}}, {}, {}),
    ("VK-SOURCE-COMMANDS", B, {"commands": {"PSYNC": Permission.DENIED}}, {}, {}),
    ("VK-SOURCE-COMMANDS", B, {"commands": {"REPLCONF": Permission.MISSING}}, {}, {}),
    ("VK-BACKLOG", W, {"info": {"repl_backlog_size": str(MIB)}, "rate": Rate(MIB / 5, True, 1.0)}, {}, {}),
    ("VK-OUTPUT-BUFFER", W, {"rate": Rate(100 * MIB, True, 1.0), "info": {"repl_backlog_size": str(8192 * MIB)}}, {}, {}),
    (
        "VK-OUTPUT-BUFFER",  # the soft limit: only a sync that takes longer than its seconds meets it
        W,
        {"rate": Rate(MIB, False, 1.0), "info": {"used_memory": str(4096 * MIB)}},
        {"info": {"maxmemory": "0"}},
        {},
    ),
    ("VK-REPL-TIMEOUT", W, {"config": {"repl-timeout": "5"}}, {}, {}),
    ("VK-DISKLESS", I, {"config": {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "5"}}, {}, {}),
    ("VK-SOURCE-PERSISTENCE", I, {}, {}, {}),
    ("VK-SOURCE-SENTINEL", W, {"sentinels": ("sentinel-1f-cmd",), "hello": 1}, {}, {}),
    ("VK-SOURCE-REPLICAS", I, {"info": {"slave0": "ip=10.0.0.2,port=6379,state=online,offset=7,lag=0"}}, {}, {}),
    ("VK-TARGET-VERSION", B, {}, {"kind": "redis", "version": (7, 2, 4), "product": "Redis 7.2.4"}, {}),
    ("VK-TARGET-VERSION", W, {}, {"version": (9, 2, 0), "product": "Valkey 9.2.0"}, {}),
    ("VK-TARGET-REPLICA", B, {}, {"role": "replica"}, {}),
    ("VK-TARGET-SENTINEL", B, {}, {"hello": 1}, {}),
    ("VK-TARGET-SENTINEL", B, {}, {"sentinels": ("sentinel-1f-pubsub",), "hello": None}, {}),
    ("VK-TARGET-NOT-EMPTY", B, {}, {"info": {"db3": "keys=1,expires=0,avg_ttl=0"}}, {}),
    ("VK-TARGET-NOT-EMPTY", I, {}, {"info": {"db3": "keys=1,expires=0,avg_ttl=0"}}, {"wipe_target": True}),
    ("VK-TARGET-SENTINEL", W, {}, {"hello": 1}, {"deliver": "push"}),
    ("VK-TARGET-COMMANDS", B, {}, {"commands": {"REPLICAOF": Permission.MISSING}}, {}),
    ("VK-TARGET-COMMANDS", B, {}, {"commands": {"RESTORE": Permission.NO_KEYS}}, {"deliver": "push"}),
    ("VK-PUSH-EXPIRY", I, {}, {"commands": {"CONFIG SET": Permission.DENIED}}, {"deliver": "push"}),
    (
        "VK-EVICTION",
        W,
        {"info": {"maxmemory": str(500 * MIB), "maxmemory_policy": "allkeys-lru"}},
        {"info": {"maxmemory": str(500 * MIB), "maxmemory_policy": "allkeys-lru"}},
        {"deliver": "push"},
    ),
    ("VK-TARGET-PERSISTENCE", W, {}, {"info": {"aof_enabled": "0"}, "config": {"save": ""}}, {}),
    ("VK-PRIMARYAUTH", I, {}, {"primaryauth": True}, {}),
    ("VK-PRIMARYAUTH", I, {}, {"requirepass": True, "primaryauth_fits": False}, {}),
    ("VK-TARGET-MIN-REPLICAS", W, {}, {"config": {"min-replicas-to-write": "1"}, "info": {"connected_slaves": "0"}}, {}),
    ("VK-TARGET-CLIENTS", W, {"info": {"connected_clients": "500"}}, {"info": {"maxclients": "500"}}, {}),
    ("VK-TARGET-ERRORS", I, {}, {"info": {"unexpected_error_replies": "3"}}, {}),
    ("VK-TARGET-MEMORY", B, {}, {"info": {"maxmemory": str(124 * MIB)}}, {}),
    ("VK-TARGET-HOST-MEMORY", W, {}, {"info": {"total_system_memory": str(110 * MIB)}}, {}),
    ("VK-EVICTION", W, {}, {"info": {"maxmemory": str(500 * MIB), "maxmemory_policy": "allkeys-lru"}}, {}),
    (
        "VK-EVICTION",
        W,
        {"info": {"maxmemory": str(500 * MIB), "maxmemory_policy": "allkeys-lru"}},
        {"info": {"maxmemory": str(500 * MIB)}},
        {},
    ),
    ("VK-EVICTION", I, {"info": {"maxmemory_policy": "allkeys-lru"}}, {}, {}),
    ("VK-FORK-MEMORY", W, {"info": {"total_system_memory": str(125 * MIB)}}, {}, {}),
    ("VK-RDB-PAIR", I, R74, {}, {}),
    ("VK-DATABASES", B, {"info": {"db20": "keys=1,expires=0,avg_ttl=0"}, "config": {"databases": "32"}}, {}, {}),
    ("VK-DATABASES", W, {"config": {"databases": "32"}}, {}, {}),
    ("VK-CENSUS-SAMPLED", W, {"census": Census("sample", False, 1000, 500, {"string": 500})}, {}, {}),
    ("VK-SNAPSHOT", B, {"census": None, "unasked": {"SNAPSHOT": "snapshot byte 77: type 99"}}, {}, {}),
    ("VK-CENSUS-MISSING", W, {"census": None, "unasked": {"SCAN": "NOPERM"}}, {}, {}),
    ("VK-MODULE-VALUES", B, {"census": Census("sample", True, 2, 2, {"module": 1}, {"ReJSON-RL": 1})}, {}, {}),
    ("VK-MODULES", I, {"modules": ("bf",)}, {}, {}),
    ("VK-FIELD-TTL", B, {**R74, "info": {"db0": "keys=9,expires=0,avg_ttl=0,subexpiry=2"}}, {}, {}),
    ("VK-FIELD-TTL", W, {**R74, "info": {"db0": "keys=9,expires=0,avg_ttl=0,subexpiry=2"}}, {}, {"field_ttl": FieldTtl.KEEP_FIELD}),
    (
        "VK-FIELD-TTL",
        W,
        {**R74, "census": Census("sample", True, 9, 9, {"hash": 9}, field_ttl_hashes=1)},
        {},
        {"field_ttl": FieldTtl.DROP_FIELD},
    ),
    ("VK-FIELD-TTL", I, {**R74, "info": {"db0": "keys=9,expires=0,avg_ttl=0,subexpiry=0"}}, {}, {}),
    ("VK-CUTOVER", W, {"commands": {"CONFIG SET": Permission.DENIED}}, {}, {}),
    ("VK-CUTOVER", W, {"version": (6, 2, 14), "product": "Redis 6.2.14", "info": {"number_of_cached_scripts": "3"}}, {}, {}),
    ("VK-CUTOVER", I, {"commands": {"CLIENT PAUSE": Permission.DENIED}}, {}, {}),
    ("VK-ROLLBACK-VERSION", B, {"version": (6, 2, 14), "product": "Redis 6.2.14"}, {}, {"rollback": True}),
    ("VK-ROLLBACK-DENIED", B, {"commands": {"REPLICAOF": Permission.DENIED}}, {}, {"rollback": True}),
    ("VK-ROLLBACK-DENIED", B, {}, {"commands": {"PSYNC": Permission.DENIED}}, {"rollback": True}),
    ("VK-ROLLBACK-TLS", B, {"config": {"tls-replication": "yes"}}, {}, {"rollback": True}),
    ("VK-ROLLBACK-FIELD-TTL", W, {}, {"version": (9, 1, 2)}, {"rollback": True}),
    ("VK-ROLLBACK-FIELD-TTL", I, {}, {"version": (9, 1, 2)}, {"rollback": True, "field_ttl": FieldTtl.KEEP_FIELD}),
    (
        "VK-ROLLBACK-BACKLOG",
        W,
        {"rate": Rate(1 << 20, exact=True, seconds=1.0)},
        {"info": {"repl_backlog_size": "1048576"}},
        {"rollback": True},
    ),
    ("VK-ROLLBACK-DATABASES", I, {}, {"config": {"databases": "32"}}, {"rollback": True}),
    ("VK-COMPARE-COMMANDS", W, {"commands": {"DUMP": Permission.DENIED}}, {}, {}),
    ("VK-COMPARE-COMMANDS", W, {"commands": {"DUMP": Permission.NO_KEYS}}, {}, {}),
    ("VK-COMPARE-COMMANDS", W, {}, {"commands": {"PSYNC": Permission.MISSING}}, {}),
    ("VK-NOT-CARRIED", I, {"acl_users": ("default", "app")}, {}, {}),
    ("VK-UNCHECKED-SOURCE", W, {"unasked": {"CONFIG GET": "NOPERM no"}, "config": None}, {}, {}),
    ("VK-UNCHECKED-SOURCE", W, {"unasked": {"CLIENT LIST": "NOPERM", "PUBSUB NUMSUB": "NOPERM"}, "sentinels": None, "hello": None}, {}, {}),
    ("VK-UNCHECKED-SOURCE", I, {"unasked": {"ACL USERS": "NOPERM no"}}, {}, {}),
    ("VK-UNCHECKED-TARGET", W, {}, {"unasked": {"CLIENT LIST": "NOPERM", "PUBSUB NUMSUB": "NOPERM"}, "sentinels": None, "hello": None}, {}),
    ("VK-UNCHECKED-TARGET", I, {}, {"unasked": {"CLIENT LIST": "NOPERM"}, "sentinels": None}, {}),
    ("VK-NO-TARGET", I, {}, None, {}),
]


@pytest.mark.parametrize(
    ("code", "severity", "source", "target", "options"), PLANTED, ids=[f"{row[0]}-{row[1]}-{i}" for i, row in enumerate(PLANTED)]
)
def test_a_planted_violation_is_found(
    code: str, severity: str, source: dict[str, Any], target: dict[str, Any] | None, options: dict[str, Any]
) -> None:
    found = [finding for finding in findings(source, target, **options) if finding.code == code and finding.severity == severity]
    assert found, f"{code} was not found as {severity}"
    if severity in (B, W):
        assert all(finding.remedy and finding.evidence for finding in found)


def test_every_code_and_severity_of_the_table_is_planted() -> None:
    table = {(row.code, severity) for row in CODES for severity in row.severities}
    assert {(row[0], row[1]) for row in PLANTED} | OF_FILES == table


def test_a_planted_violation_changes_no_other_blocker() -> None:
    for code, severity, source, target, options in PLANTED:
        blockers = {finding.code for finding in findings(source, target, **options) if finding.severity == B}
        assert blockers <= {code, "VK-SOURCE-LINK-DOWN", "VK-MODULE-VALUES"}, (code, severity)


def test_a_healthy_pair_is_go_and_every_check_speaks_or_is_silent_about_good_news() -> None:
    found = findings()
    assert verdict_of(found) is Verdict.GO, [finding for finding in found if finding.severity in (B, W)]
    assert all(finding.code in {row.code for row in CODES} for finding in found)


def test_findings_use_only_codes_and_severities_of_the_table() -> None:
    table = {row.code: {*row.severities, "ok"} for row in CODES}
    for _, _, source, target, options in PLANTED:
        for finding in findings(source, target, **options):
            assert finding.severity in table[finding.code], finding


def test_checks_have_unique_names_and_known_areas() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert {check.area for check in CHECKS} == {row.area for row in CODES}


def test_checks_survive_a_server_that_refuses_everything_but_info() -> None:
    bare = {
        "config": None,
        "requirepass": None,
        "primaryauth": None,
        "primaryauth_fits": None,
        "user": None,
        "acl_users": None,
        "commands": dict.fromkeys(MAY, Permission.UNKNOWN),
        "modules": None,
        "clock": None,
        "rate": None,
        "sentinels": None,
        "hello": None,
        "census": None,
        "info": {name: None for name in INFO if name != "role"},
        "unasked": dict.fromkeys(("CONFIG GET", "SCAN", "TIME", "PSYNC", "MULTI", "CLIENT LIST", "PUBSUB NUMSUB"), "NOPERM"),
    }
    found = findings(bare, bare)
    assert verdict_of(found) is Verdict.CONDITIONAL_GO
    assert {"VK-UNCHECKED-SOURCE", "VK-UNCHECKED-TARGET", "VK-CENSUS-MISSING", "VK-CUTOVER"} <= {f.code for f in found if f.severity == W}


def test_a_peer_that_is_no_server_is_not_judged_further() -> None:
    found = findings({"mode": "sentinel"})
    assert {finding.code for finding in found} == {"VK-PEER"}


def test_the_users_failure_is_explained_in_its_own_words() -> None:
    (found,) = [finding for finding in findings(R74) if finding.code == "VK-RDB-PAIR"]
    text = " ".join(found.evidence.values())
    assert "invalid RDB received" in text
    assert "Can't handle RDB format version 12" in text
    assert "REDIS0012" in text
    assert "REDIS0011" in text


def test_relaxed_check_on_a_new_target_is_said_to_fail_only_with_field_ttls() -> None:
    relaxed: dict[str, Any] = {"version": (9, 1, 2), "config": {"rdb-version-check": "relaxed"}}
    without = {**R74, "info": {"db0": "keys=9,expires=0,avg_ttl=0,subexpiry=0"}}
    with_ttl = {**R74, "info": {"db0": "keys=9,expires=0,avg_ttl=0,subexpiry=1"}}
    assert [f.severity for f in findings(without, relaxed) if f.code == "VK-RDB-PAIR"] == [Severity.OK]
    assert [f.severity for f in findings(with_ttl, relaxed) if f.code == "VK-RDB-PAIR"] == [Severity.INFO]
    old = {**relaxed, "version": (8, 1, 1)}
    assert [f.severity for f in findings(without, old) if f.code == "VK-RDB-PAIR"] == [Severity.INFO]


def test_a_valkey_9_source_does_not_fit_natively_into_valkey_8() -> None:
    source: dict[str, Any] = {"kind": "valkey", "version": (9, 1, 0), "info": {"db0": "keys=9,expires=0,keys_with_volatile_items=0"}}
    (found,) = [f for f in findings(source) if f.code == "VK-RDB-PAIR"]
    assert found.severity is Severity.INFO
    assert "Wrong signature" in found.evidence["native replication"]


def test_field_ttls_cross_to_valkey_9_as_they_are() -> None:
    source = {**R74, "info": {"db0": "keys=9,expires=0,avg_ttl=0,subexpiry=2"}}
    assert [f.severity for f in findings(source, {"version": (9, 1, 2)}) if f.code == "VK-FIELD-TTL"] == [Severity.OK]


def test_maxmemory_of_exactly_the_data_and_a_quarter_is_enough() -> None:
    def severity(limit: int) -> list[Severity]:
        return [f.severity for f in findings({}, {"info": {"maxmemory": str(limit)}}) if f.code == "VK-TARGET-MEMORY"]

    assert severity(125 * MIB) == [Severity.OK]
    assert severity(125 * MIB - 1) == [Severity.BLOCKER]


def test_data_is_what_is_left_without_buffers() -> None:
    facts = change(SOURCE, {"info": {"mem_total_replication_buffers": str(30 * MIB), "mem_clients_normal": str(10 * MIB)}})
    assert facts.data_bytes == 60 * MIB


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, FenceMode.PAUSE),
        ({"version": (6, 0, 16)}, FenceMode.DIRECT),
        ({"commands": {"CLIENT UNPAUSE": Permission.MISSING}}, FenceMode.DIRECT),
        ({"commands": {"CONFIG SET": Permission.UNKNOWN}}, FenceMode.EXTERNAL),
        ({"role": "replica"}, FenceMode.EXTERNAL),
        ({"kind": "valkey", "version": (8, 0, 1)}, FenceMode.PAUSE),
    ],
)
def test_how_the_source_is_fenced_follows_from_version_and_permissions(changes: dict[str, Any], mode: FenceMode) -> None:
    assert fence.decide(change(SOURCE, changes)) is mode


def test_clock_skew_within_the_uncertainty_of_slow_links_is_not_reported() -> None:
    slow = {"clock": Clock(1050.0, 600.0, 1_000_000)}
    assert [f.severity for f in findings({"clock": Clock(0.0, 600.0, 1_000_000)}, slow) if f.code == "VK-CLOCK-SKEW"] == [Severity.OK]


@pytest.mark.parametrize(("scripts", "severity"), [("0", Severity.OK), ("3", W), ("", W)])
def test_scripts_pass_the_fence_of_a_redis_before_7(scripts: str, severity: Severity) -> None:
    found = findings({"version": (6, 2, 14), "product": "Redis 6.2.14", "info": {"number_of_cached_scripts": scripts}})
    assert [f.severity for f in found if f.code == "VK-CUTOVER"] == [severity]


def evidence_of(code: str, found: tuple[Finding, ...], name: str = "source") -> str:
    (one,) = [finding for finding in found if finding.code == code]
    return one.evidence[name]


@pytest.mark.parametrize("changes", [{"rdb_bgsave_in_progress": "1"}, {"aof_last_write_status": "err"}])
def test_a_source_that_saves_or_could_not_save_is_not_called_quiet_as_well(changes: dict[str, str]) -> None:
    assert [f.severity for f in findings({"info": changes}) if f.code == "VK-SOURCE-BUSY"] in ([Severity.INFO], [])
    assert [f.severity for f in findings() if f.code == "VK-SOURCE-BUSY"] == [Severity.OK]


def test_the_remedy_for_a_command_is_the_one_for_why_it_is_not_permitted() -> None:
    (denied,) = [f for f in findings({"commands": {"PSYNC": Permission.DENIED}, "user": "mover"}) if f.code == "VK-SOURCE-COMMANDS"]
    assert "ACL SETUSER mover +psync" in denied.remedy
    assert "rename-command" not in denied.remedy
    (renamed,) = [f for f in findings({"commands": {"REPLCONF": Permission.MISSING}}) if f.code == "VK-SOURCE-COMMANDS"]
    assert "rename-command" in renamed.remedy
    assert "ACL SETUSER" not in renamed.remedy


def test_replication_is_called_permitted_only_where_that_is_known() -> None:
    assert [f.severity for f in findings() if f.code == "VK-SOURCE-COMMANDS"] == [Severity.OK]
    assert [f for f in findings({"commands": {"PSYNC": Permission.UNKNOWN}}) if f.code == "VK-SOURCE-COMMANDS"] == []


@pytest.mark.parametrize(("diskless", "words"), [("yes", "waits 5 s before it forks"), ("no", "writes the snapshot to its disk first")])
def test_how_the_source_will_make_its_snapshot_is_told_as_it_is_configured(diskless: str, words: str) -> None:
    found = findings({"config": {"repl-diskless-sync": diskless, "repl-diskless-sync-delay": "5"}})
    assert [words in f.title for f in found if f.code == "VK-DISKLESS"] == [True]


@pytest.mark.parametrize(
    ("aof", "save", "text"),
    [
        ("1", "3600 1", "AOF on, RDB '3600 1'"),
        ("0", "3600 1", "AOF off, RDB '3600 1'"),
        ("0", "", "AOF off, RDB off"),
        ("0", None, "AOF off, RDB not known"),
    ],
)
def test_how_the_source_keeps_its_data_is_told_as_it_is_configured(aof: str, save: str | None, text: str) -> None:
    found = findings({"info": {"aof_enabled": aof}, "config": {"save": save}})
    assert evidence_of("VK-SOURCE-PERSISTENCE", found) == text


@pytest.mark.parametrize(("exact", "said"), [(True, False), (False, True)])
def test_a_write_rate_that_was_estimated_is_called_so(exact: bool, said: bool) -> None:
    found = findings({"rate": Rate(1000.0, exact, 1.0)})
    for code in ("VK-BACKLOG", "VK-OUTPUT-BUFFER"):
        assert ("estimated" in evidence_of(code, found, "write rate")) is said


def test_examples_of_field_ttls_and_the_snapshot_that_was_read_are_in_the_evidence() -> None:
    census = Census(
        "full", True, 9, 9, {"hash": 9}, field_ttl_hashes=2, examples={"field-ttl": ("db0 'h'",)}, snapshot_version=12, snapshot_bytes=99
    )
    found = findings({**R74, "census": census}, {"version": (9, 1, 2)})
    assert evidence_of("VK-FIELD-TTL", found, "examples") == "db0 'h'"
    assert any("RDB 12, 99 bytes" in value for finding in found for value in finding.evidence.values())


def test_each_shard_of_a_target_is_judged_and_named_and_needs_memory_for_its_share() -> None:
    def of(code: str, **second: Any) -> list[Finding]:
        return [finding for finding in findings({}, shards(second=second), deliver="push") if finding.code == code]

    (full,) = [one for one in of("VK-TARGET-NOT-EMPTY", info={"db0": "keys=3,expires=0,avg_ttl=0"}) if one.severity == B]
    assert full.evidence["shards"] == "10.0.0.12:6379"
    (version,) = of("VK-TARGET-VERSION")
    assert version.evidence["shards"] == "10.0.0.11:6379, 10.0.0.12:6379"
    assert B not in [
        one.severity for one in of("VK-TARGET-MEMORY", info={"maxmemory": str(63 * MIB)})
    ]  # half of 100 MiB, and a quarter of that
    assert B in [one.severity for one in of("VK-TARGET-MEMORY", info={"maxmemory": str(62 * MIB)})]


def test_each_shard_of_a_source_is_judged_and_named() -> None:
    def of(code: str, source: Mapping[str, Any], target: Mapping[str, Any] = shards()) -> list[Finding]:
        return [one for one in findings(source, target, deliver="push") if one.code == code]

    slow = source_shards(second={"rate": Rate(64e6, True, 1.0)})
    short, fine = sorted(of("VK-BACKLOG", slow), key=lambda one: one.severity == "ok")
    assert (short.severity, short.evidence["shards"]) == (W, "10.0.0.32:6379")
    assert fine.evidence["shards"] == "10.0.0.31:6379"
    (fork,) = of("VK-FORK-MEMORY", source_shards(second={"info": {"used_memory": str(300 * MIB)}}))
    assert fork.evidence["used memory"] == "100.0 MiB (10.0.0.31:6379); 300.0 MiB (10.0.0.32:6379)"
    (peer,) = [one for one in of("VK-PEER", source_shards()) if "source" in one.evidence]
    assert peer.evidence["source"] == "10.0.0.31:6379, cluster, primary; 10.0.0.32:6379, cluster, primary"
    (target,) = [one for one in of("VK-PEER", source_shards()) if "target" in one.evidence]
    assert "source shards" not in target.evidence
    skewed = of("VK-CLOCK-SKEW", source_shards(second={"clock": Clock(-1500.0, 1.0, 998_500)}))
    (late,) = [one for one in skewed if one.severity == W]
    assert late.evidence["source shards"] == "10.0.0.32:6379"
    assert late.evidence["shards"] == "10.0.0.11:6379, 10.0.0.12:6379"
    assert late.evidence["source"] == "TIME 998500 ms"
    uneven = of("VK-TARGET-PERSISTENCE", source_shards(second={"info": {"aof_enabled": "0"}}))
    assert [one.evidence["source"] for one in uneven] == ["AOF on, RDB '3600 1' (10.0.0.31:6379); AOF off, RDB '3600 1' (10.0.0.32:6379)"]
    twice = [
        one
        for one in of("VK-TARGET-MEMORY", source_shards(), shards(second={"info": {"maxmemory": str(125 * MIB)}}))
        if one.severity != "ok"
    ]
    assert twice == []  # each shard's data goes to one of the target's
    assert not [
        one for one in findings(source_shards(), shards(), deliver="push") if one.code in ("VK-CLUSTER-DATABASES", "VK-CLUSTER-COMMANDS")
    ]


def test_a_source_that_is_a_cluster_is_go_where_nothing_speaks_against_it() -> None:
    found = findings(source_shards(), shards(), deliver="push")
    assert verdict_of(found) is Verdict.GO, [one for one in found if one.severity not in ("ok", "info")]
    assert verdict_of(findings(source_shards(), None)) is Verdict.GO
    going_on = findings(source_shards(moving="slot 7 at 10.0.0.31:6379"), shards(), deliver="push", goes_on=True)
    assert verdict_of(going_on) is Verdict.GO
    modes = [FenceMode.PAUSE, FenceMode.DIRECT, FenceMode.EXTERNAL]
    assert [fence.weakest([one, FenceMode.PAUSE]) for one in modes] == modes


def test_a_target_that_is_a_cluster_is_go_where_nothing_speaks_against_it() -> None:
    found = findings({"calls": {"get": 1}}, shards(), deliver="push")
    assert verdict_of(found) is Verdict.GO, [finding for finding in found if finding.severity in (B, W)]
    (native,) = [finding for finding in findings({}, shards()) if finding.code == "VK-CLUSTER" and finding.severity == B]
    assert "--deliver push" in native.remedy


def test_the_target_of_a_killed_run_that_is_gone_on_with_may_be_a_replica_and_have_keys() -> None:
    target = {"role": "replica", "info": {"db0": "keys=3,expires=0,avg_ttl=0"}}
    ours = [one.severity for one in findings({}, target, goes_on=True) if one.code in ("VK-TARGET-REPLICA", "VK-TARGET-NOT-EMPTY")]
    strange = [one.severity for one in findings({}, target) if one.code in ("VK-TARGET-REPLICA", "VK-TARGET-NOT-EMPTY")]
    assert (ours, strange) == ([Severity.OK, Severity.OK], [B, B])
