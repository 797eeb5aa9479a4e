"""The 31 numbered checks: each says ok where all is well, and notices what is planted. No server, no AWS."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from valkeep.cli.migrate_preflight import acknowledged
from valkeep.errors import UsageError
from valkeep.migrate import elasticache
from valkeep.migrate.elasticache.address import GroupAddress
from valkeep.migrate.elasticache.group import GroupFacts, NetworkFacts, Node, Route, Rule, SecurityGroup, Subnet, permits
from valkeep.migrate.elasticache.probe import Answers, GatewayFacts
from valkeep.migrate.fence import FenceMode
from valkeep.migrate.preflight.checks import Case, judge
from valkeep.migrate.preflight.checks.elasticache import CHECKS, GroupCase, judge_group
from valkeep.migrate.preflight.facts import Permission, ServerFacts
from valkeep.migrate.preflight.finding import Finding, Severity, Verdict
from valkeep.migrate.preflight.numbered import NUMBERED, NUMBERED_AREAS, numbered_markdown
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.render import lines
from valkeep.migrate.preflight.report import PreflightReport

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "preflight-elasticache.md"
EVERYTHING = (Rule("-1", 0, 65535, frozenset({"0.0.0.0/0"})),)
INSIDE = (Rule("tcp", 6379, 6400, frozenset({"10.0.0.0/16"})),)
NETWORK = NetworkFacts(
    vpc="vpc-1",
    subnets=(Subnet("subnet-a", "10.0.1.0/24", "vpc-1"), Subnet("subnet-b", "10.0.2.0/24", "vpc-1")),
    groups=(SecurityGroup("sg-cache", INSIDE, EVERYTHING),),
    gateway_vpc="vpc-1",
    gateway_subnet=Subnet("subnet-c", "10.0.3.0/24", "vpc-1"),
    gateway_groups=(SecurityGroup("sg-gateway", INSIDE, EVERYTHING),),
    routes={name: (Route("10.0.0.0/16", "local"),) for name in ("subnet-a", "subnet-b", "subnet-c")},
)
GROUP = GroupFacts(
    name="lab",
    region="eu-west-1",
    status="available",
    engine="valkey",
    version=(8, 2),
    cluster_mode=False,
    shards=1,
    nodes=(Node("lab-001", "primary", "a", "available", "8.2"), Node("lab-002", "replica", "b", "available", "8.2")),
    node_type="cache.t3.medium",
    multi_az="enabled",
    automatic_failover="enabled",
    transit_encryption=False,
    at_rest_encryption=True,
    auth=False,
    user_groups=(),
    data_tiering=False,
    global_datastore="",
    pending=(),
    endpoint=("lab.x.cache.amazonaws.com", 6379),
    parameter_group="default.valkey8",
    parameters={"databases": "16"},
    maxmemory=2_000_000_000,
    network=NETWORK,
)
MAY = dict.fromkeys(
    ("REPLCONF", "PSYNC", "INFO", "CONFIG GET", "CONFIG SET", "CLIENT PAUSE", "CLIENT UNPAUSE", "CLIENT LIST", "SELECT", "SCAN", "TYPE", "DUMP", "PTTL",
     "MULTI", "EXEC", "ROLE", "RESTORE", "DEL"),
    Permission.OK,
)  # fmt: skip
SOURCE = ServerFacts(
    "10.0.3.5:6379",
    "redis://10.0.3.5:6379",
    "redis",
    "Redis 7.4.1",
    (7, 4, 1),
    "standalone",
    "primary",
    info={"used_memory": "1000000", "loading": "0", "role": "master", "cluster_enabled": "0"},
    run_ids=("a" * 40,),
    config={"databases": "16", "protected-mode": "yes", "bind": "127.0.0.1"},
    requirepass=True,
    commands=MAY,
    loopback=False,
)
TARGET = replace(
    SOURCE,
    address="10.0.1.9:6379",
    display="valkey://10.0.1.9:6379",
    kind="valkey",
    product="Valkey 8.1.1",
    version=(8, 1, 1),
    run_ids=("b" * 40,),
    config={"databases": "16"},
    info={"used_memory": "900000", "loading": "0", "role": "master", "cluster_enabled": "0", "maxmemory": "0"},
    commands=MAY | {"REPLICAOF": Permission.DENIED, "PSYNC": Permission.DENIED},
)
ANSWERS = Answers(version=(7, 2, 4), role="master", offset=812, protected="no", databases=16)
GATEWAY = GatewayFacts(
    "10.0.3.5", 6400, here=True, runs=True, answers=ANSWERS, free=10_000_000_000, spool="/var/spool", ready="", address="10.0.3.5"
)
OPTIONS = PreflightOptions(attached_by="ElastiCache")


def findings(
    group: GroupFacts = GROUP,
    *,
    source: ServerFacts = SOURCE,
    target: ServerFacts | None = TARGET,
    gateway: GatewayFacts = GATEWAY,
    silent: str = "",
    goes_on: bool = False,
) -> dict[str, Finding]:
    general = judge(Case(source, target, replace(OPTIONS, goes_on=goes_on)))
    found = judge_group(GroupCase(group, source, target, gateway, silent, goes_on=goes_on), general)
    return {one.code: one for one in found[: len(NUMBERED)]}


def severity(number: int, **planted: Any) -> Severity:
    return findings(**planted)[f"VK-A-{number:02}"].severity


def network(**changes: Any) -> GroupFacts:
    return replace(GROUP, network=replace(NETWORK, **changes))


def denied(action: str, **changes: Any) -> GroupFacts:
    return replace(GROUP, denied={action: "no"}, **changes)


def answers(**changes: Any) -> GatewayFacts:
    return replace(GATEWAY, answers=replace(ANSWERS, **changes))


FILLED = replace(TARGET, info={**TARGET.info, "db0": "keys=7,expires=0,avg_ttl=0"})
FOLLOWS = replace(FILLED, role="replica", info={**FILLED.info, "role": "slave", "master_host": "10.0.3.5", "master_port": "6400"})
MIGRATING = replace(GROUP, status="migrating", nodes=tuple(replace(node, status="migrating") for node in GROUP.nodes))
UNDER_WAY: dict[str, Any] = {"group": MIGRATING, "target": FOLLOWS, "gateway": replace(GATEWAY, runs=False, answers=None, free=1_000_000)}


def test_a_migration_that_is_under_way_is_fine_only_for_the_run_that_goes_on_with_it() -> None:
    numbers = (1, 2, 25, 26)
    assert [severity(number, **UNDER_WAY) for number in numbers] == ["blocker", "blocker", "warning", "blocker"]
    assert [severity(number, **UNDER_WAY, goes_on=True) for number in numbers] == ["ok"] * 4
    assert [one.code for one in findings(**UNDER_WAY, goes_on=True).values() if one.severity == "blocker"] == []


@pytest.mark.parametrize("status", ["deleting", "create-failed", "creating"])
def test_a_run_that_goes_on_takes_no_group_that_cannot_be_migrated_into(status: str) -> None:
    assert severity(1, group=replace(MIGRATING, status=status), target=FOLLOWS, goes_on=True) == "blocker"
    assert severity(2, group=replace(MIGRATING, nodes=(GROUP.nodes[0], replace(GROUP.nodes[1], status=status))), goes_on=True) == "blocker"


def test_a_target_that_was_told_nothing_yet_is_judged_as_ever() -> None:
    assert severity(26, target=FILLED, goes_on=True) == "blocker"
    assert severity(26, goes_on=True) == "ok"


FINE_BUT = {6: "info", 22: "warning", 31: "info"}  # what is said where all is well, besides "ok"

B, W, U, I = Severity.BLOCKER, Severity.WARNING, Severity.UNKNOWN, Severity.INFO  # noqa: E741

PLANTED: tuple[tuple[int, Mapping[str, Any], Severity], ...] = (
    (1, {"group": replace(GROUP, status="migrating")}, B),
    (1, {"group": replace(GROUP, status="modifying")}, B),
    (2, {"group": replace(GROUP, nodes=GROUP.nodes[:1])}, B),
    (2, {"group": replace(GROUP, nodes=(GROUP.nodes[0], replace(GROUP.nodes[1], status="creating")))}, B),
    (2, {"group": replace(GROUP, nodes=(GROUP.nodes[0], replace(GROUP.nodes[1], zone="a")))}, W),
    (2, {"group": denied("elasticache:DescribeCacheClusters")}, U),
    (3, {"group": replace(GROUP, maxmemory=1_100_000)}, B),
    (3, {"group": denied("elasticache:DescribeCacheParameters", maxmemory=None, parameters=None)}, U),
    (4, {"group": replace(GROUP, data_tiering=True)}, B),
    (5, {"group": replace(GROUP, global_datastore="ldgnf-x")}, B),
    (6, {"group": denied("ec2:DescribeSubnets")}, U),
    (7, {"group": network(gateway_vpc="vpc-2")}, W),
    (7, {"group": network(gateway_vpc=None)}, U),
    (7, {"group": network(vpc=None)}, U),
    (8, {"group": network(groups=(SecurityGroup("sg-cache", INSIDE, ()),))}, B),
    (8, {"group": network(groups=None)}, U),
    (8, {"gateway": replace(GATEWAY, port=0)}, U),
    (8, {"group": network(groups=(SecurityGroup("sg-cache", INSIDE, (Rule("tcp", 1, 65535, frozenset({"pl-1"})),)),))}, U),
    (9, {"group": network(gateway_groups=(SecurityGroup("sg-gateway", (Rule("tcp", 22, 22, frozenset({"10.0.0.0/16"})),), EVERYTHING),))}, B),
    (9, {"group": network(gateway_groups=None)}, U),
    (10, {"group": network(groups=(SecurityGroup("sg-cache", (), EVERYTHING),))}, B),
    (10, {"group": network(groups=None)}, U),
    (10, {"gateway": replace(GATEWAY, here=False)}, U),
    (11, {"group": network(routes={"subnet-a": (Route("10.9.0.0/16", "local"),), "subnet-b": (Route("10.0.0.0/16", "local"),)})}, B),
    (11, {"group": network(routes={name: (Route("10.0.0.0/16", "pcx-1", active=False),) for name in ("subnet-a", "subnet-b")})}, B),
    (11, {"group": network(routes={name: (Route("0.0.0.0/0", "nat-1"),) for name in ("subnet-a", "subnet-b")})}, B),
    (11, {"group": network(routes=None)}, U),
    (12, {"group": network(groups=(SecurityGroup("sg-cache", EVERYTHING, EVERYTHING),))}, W),
    (12, {"group": network(groups=None)}, U),
    (13, {"source": replace(SOURCE, version=(99, 0, 0), product="Redis 99.0.0")}, B),
    (13, {"source": replace(SOURCE, version=(6, 2, 1), product="Redis 6.2.1")}, W),
    (14, {"source": replace(SOURCE, mode="cluster", info={**SOURCE.info, "cluster_enabled": "1"})}, B),
    (15, {"gateway": answers(password=True)}, B),
    (16, {"source": replace(SOURCE, requirepass=False, config={"databases": "16", "protected-mode": "no", "bind": "* -::*"})}, W),
    (16, {"source": replace(SOURCE, config=None)}, U),
    (17, {"source": replace(SOURCE, commands=MAY | {"PSYNC": Permission.DENIED})}, B),
    (18, {"source": replace(SOURCE, config={"databases": "64", "protected-mode": "yes"})}, W),
    (18, {"group": denied("elasticache:DescribeCacheParameters", parameters=None), "target": replace(TARGET, config=None)}, U),
    (19, {"group": replace(GROUP, engine="redis", version=(7, 1))}, B),
    (19, {"group": replace(GROUP, version=(99, 0))}, W),
    (20, {"group": replace(GROUP, cluster_mode=True, shards=3, endpoint=None), "target": None}, B),
    (21, {"group": replace(GROUP, multi_az="disabled")}, B),
    (21, {"group": replace(GROUP, automatic_failover="disabled")}, B),
    (22, {"group": replace(GROUP, transit_encryption=True)}, B),
    (23, {"group": replace(GROUP, at_rest_encryption=False)}, I),
    (24, {"group": replace(GROUP, auth=True)}, B),
    (24, {"group": replace(GROUP, user_groups=("ug-1",))}, B),
    (25, {"gateway": replace(GATEWAY, free=1_500_000)}, W),
    (25, {"gateway": replace(GATEWAY, free=None)}, U),
    (26, {"target": None, "silent": "no answer"}, B),
    (26, {"target": replace(TARGET, info={**TARGET.info, "db0": "keys=3,expires=0,avg_ttl=0"})}, B),
    (26, {"group": replace(GROUP, pending=("PrimaryClusterId",))}, W),
    (27, {"gateway": replace(GATEWAY, host="0.0.0.0")}, B),
    (27, {"gateway": replace(GATEWAY, host="127.0.0.1"), "target": replace(TARGET, loopback=False)}, B),
    (27, {"gateway": replace(GATEWAY, here=False, runs=False)}, W),
    (27, {"gateway": replace(GATEWAY, host="no.such.name", address="")}, B),
    (27, {"gateway": replace(GATEWAY, port=0)}, W),
    (28, {"source": replace(SOURCE, info={**SOURCE.info, "loading": "1"})}, B),
    (29, {"gateway": answers(unanswered=(("CLUSTER INFO", "ERR unknown command"),))}, B),
    (29, {"gateway": answers(missing=("psync",))}, B),
    (29, {"gateway": answers(version=(8, 0, 2))}, B),
    (29, {"gateway": answers(version=())}, B),
    (29, {"gateway": answers(role="slave")}, B),
    (29, {"gateway": answers(cluster=True)}, B),
    (29, {"gateway": answers(protected="yes")}, B),
    (29, {"gateway": answers(databases=32)}, B),
    (29, {"gateway": answers(offset=None)}, B),
    (29, {"gateway": replace(GATEWAY, runs=False, answers=Answers(reached="refused"))}, I),
    (30, {"gateway": replace(GATEWAY, ready="the source's snapshot is not complete yet")}, B),
    (30, {"gateway": replace(GATEWAY, ready=None)}, I),
    (31, {"source": replace(SOURCE, commands=MAY | {"CONFIG SET": Permission.DENIED, "CLIENT PAUSE": Permission.DENIED})}, W),
)  # fmt: skip


def test_where_all_is_well_each_check_says_so_and_the_verdict_asks_for_the_intended_warning_only() -> None:
    found = findings()
    assert {one.code: str(one.severity) for one in found.values() if one.severity is not Severity.OK} == {
        f"VK-A-{number:02}": word for number, word in FINE_BUT.items()
    }
    report = PreflightReport(tuple(found.values()), SOURCE, TARGET, OPTIONS, FenceMode.PAUSE, group=GROUP)
    assert report.verdict is Verdict.CONDITIONAL_GO
    assert report.conditions == ("VK-A-22",)
    assert report.may_start(frozenset({"VK-A-22"}))


@pytest.mark.parametrize(("number", "planted", "expected"), PLANTED, ids=lambda value: str(value) if isinstance(value, int) else None)
def test_what_is_planted_is_noticed_by_the_check_of_that_number(number: int, planted: Mapping[str, Any], expected: Severity) -> None:
    finding = findings(**planted)[f"VK-A-{number:02}"]
    assert finding.severity is expected
    assert finding.remedy or expected is I


def test_every_check_has_a_planted_violation_and_says_only_what_the_page_promises() -> None:
    seen: dict[int, set[str]] = {}
    for number, _, expected in PLANTED:
        seen.setdefault(number, set()).add(str(expected))
    assert set(seen) | set(FINE_BUT) == set(range(1, 32))
    assert {row.number for row in NUMBERED if seen.get(row.number, set()) - set(row.severities)} == set()


def test_there_are_31_checks_in_five_areas_in_the_order_of_their_numbers() -> None:
    assert [row.number for row in NUMBERED] == list(range(1, 32))
    assert len(CHECKS) == 31
    assert list(dict.fromkeys(row.area for row in NUMBERED)) == list(NUMBERED_AREAS)
    assert list(findings()) == [row.code for row in NUMBERED]


def test_the_reference_page_has_the_table_and_the_members() -> None:
    text = PAGE.read_text()
    assert numbered_markdown() in text
    assert {name for name in GROUP.to_json() if f"`{name}`" not in text} == set()


def test_a_general_finding_that_a_number_took_is_not_told_twice() -> None:
    found = judge_group(GroupCase(GROUP, SOURCE, TARGET, GATEWAY), judge(Case(SOURCE, TARGET, OPTIONS)))
    codes = [one.code for one in found]
    assert "VK-SOURCE-VERSION" not in codes
    assert "VK-TARGET-VERSION" not in codes
    assert [one for one in found if one.code == "VK-PLAINTEXT" and "source" in one.evidence]  # the source's side is nobody's number
    assert codes.index("VK-PEER") >= 31


def test_a_managed_target_that_denies_replicaof_and_psync_is_no_reason_to_stop() -> None:
    found = {one.code: one.severity for one in judge(Case(SOURCE, TARGET, OPTIONS))}
    assert found["VK-TARGET-COMMANDS"] is Severity.OK
    assert {one.code: one.severity for one in judge(Case(SOURCE, TARGET, PreflightOptions()))}["VK-TARGET-COMMANDS"] is Severity.BLOCKER


def test_the_text_shows_every_number_also_where_all_is_well() -> None:
    found = judge_group(GroupCase(GROUP, SOURCE, TARGET, GATEWAY), judge(Case(SOURCE, TARGET, OPTIONS)))
    report = PreflightReport(found, SOURCE, TARGET, OPTIONS, FenceMode.PAUSE, group=GROUP)
    text = "\n".join(str(line) for line in lines(report))
    assert all(f"VK-A-{number:02}" in text for number in range(1, 32))
    assert all(heading in text for heading in NUMBERED_AREAS.values())


def test_a_number_can_be_acknowledged_by_its_short_name_and_a_blocker_not_at_all() -> None:
    assert acknowledged(("a-22,VK-A-12",)) == {"VK-A-22", "VK-A-12"}
    assert acknowledged(("A-11",)) == {"VK-A-11"}  # unknown
    with pytest.raises(UsageError, match="no condition"):
        acknowledged(("A-01",))


@pytest.mark.parametrize(
    ("rules", "let"),
    [
        ((Rule("tcp", 6379, 6379, frozenset({"10.0.0.0/8"})),), True),
        ((Rule("udp", 6379, 6379, frozenset({"10.0.0.0/8"})),), False),
        ((Rule("tcp", 6380, 6390, frozenset({"10.0.0.0/8"})),), False),
        ((Rule("-1", 0, 65535, frozenset({"sg-peer"})),), True),
        ((Rule("tcp", 1, 65535, frozenset({"sg-other"})),), False),
        ((Rule("tcp", 1, 65535, frozenset({"pl-1"})),), None),
        ((Rule("tcp", 1, 65535, frozenset({"pl-1"})), Rule("-1", 0, 0, frozenset({"10.1.2.3/32"}))), True),
        ((), False),
    ],
)
def test_rules_of_security_groups_are_read_as_aws_means_them(rules: tuple[Rule, ...], let: bool | None) -> None:
    assert permits(rules, 6379, "10.1.2.3", ["sg-peer"]) is let


@pytest.mark.parametrize(
    "target",
    ["elasticache:", "elasticache:-x", "elasticache:a--b", "elasticache://lab", "elasticache:lab:6379", "elasticache:lab.x.cache.com"],
)
def test_what_names_no_group_or_mixes_both_forms_is_refused_with_a_remedy(target: str) -> None:
    with pytest.raises(UsageError) as refused:
        GroupAddress.parse(target)
    assert refused.value.remedy


def test_a_group_is_named_by_its_id_in_any_case() -> None:
    assert GroupAddress.names(" ElastiCache:Lab")
    assert not GroupAddress.names("valkey://elasticache:6379")
    assert GroupAddress.parse("elasticache:Lab-1").display == "elasticache:lab-1"


def test_the_policy_permits_just_what_is_called() -> None:
    source = Path(elasticache.__file__).parent
    text = "".join(path.read_text() for path in source.glob("*.py"))
    called = {(service, name) for service, name in re.findall(r'"(elasticache|ec2)",\s*"([a-z_]+)"', text)}
    called |= {("elasticache", name) for name in re.findall(r'_migrate\("([a-z_]+)"', text)}
    actions = {f"{service}:{''.join(word.capitalize() for word in name.split('_'))}" for service, name in called}
    policy = json.loads((PAGE.parents[1] / "how-to" / "elasticache-policy.json").read_text())
    permitted = [action for statement in policy["Statement"] for action in statement["Action"]]
    assert sorted(permitted) == sorted(actions)
    assert len(actions) == 12
