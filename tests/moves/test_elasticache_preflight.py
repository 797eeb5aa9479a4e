"""Preflight of a move to ElastiCache: real boto3 against the control plane of the tests, over real servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.elasticache_plane import GROUP, PlaneOfTests
from tests.support.valkeep_process import Valkeep
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate.elasticache.address import GroupAddress
from valkeep.migrate.elasticache.plane import Plane
from valkeep.migrate.preflight import PreflightOptions, PreflightReport, Verdict
from valkeep.migrate.preflight.managed import GatewayPlace, preflight_group
from valkeep.runtime import ports
from valkeep.runtime.node import Process

QUICK = PreflightOptions(rate_seconds=0.05)


@pytest.fixture
def plane(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlaneOfTests]:
    with PlaneOfTests(server("valkey-8.1")) as started:
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        yield started


@pytest.fixture
def source(server: Server) -> Process:
    return server("redis-8.0")


def free_port() -> int:
    """Nobody listens there."""
    reserved = ports.reserve()
    reserved.release()
    return reserved.port


def look(source: Process, plane: PlaneOfTests, gateway: tuple[str, int] | None = None, group: str = GROUP) -> PreflightReport:
    place = GatewayPlace(gateway or ("127.0.0.1", free_port()), Path("/tmp"))
    address = GroupAddress(group, None, plane.url)
    return asyncio.run(preflight_group(Endpoint.parse(source.endpoint), address, place, QUICK, lambda _: None))


def by_number(report: PreflightReport) -> dict[int, str]:
    return {number: str(finding.severity) for number, finding in enumerate(report.findings[:31], 1)}


def test_a_group_as_aws_wants_it_is_conditional_go_with_the_intended_warning(source: Process, plane: PlaneOfTests) -> None:
    report = look(source, plane)
    assert report.verdict is Verdict.CONDITIONAL_GO
    assert report.conditions == ("VK-A-22",)
    assert {number for number, severity in by_number(report).items() if severity not in ("ok", "info")} == {22}
    assert report.group is not None
    assert report.group.to_json()["product"] == "ElastiCache for Valkey 8.2"
    assert set(plane.calls) == {
        "DescribeReplicationGroups",
        "DescribeCacheClusters",
        "DescribeCacheParameters",
        "DescribeCacheSubnetGroups",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DescribeRouteTables",
        "DescribeNetworkInterfaces",
    }, "preflight only reads"


PLANTED: tuple[tuple[str, Callable[[PlaneOfTests], Any], str], ...] = (
    ("encryption on", lambda plane: plane.group.update(TransitEncryptionEnabled=True), "VK-A-22"),
    ("cluster mode", lambda plane: plane.group.update(ClusterEnabled=True), "VK-A-20"),
    ("no Multi-AZ", lambda plane: plane.group.update(MultiAZ="disabled"), "VK-A-21"),
    ("data tiering", lambda plane: plane.group.update(DataTiering="enabled"), "VK-A-04"),
    ("migrating already", lambda plane: plane.group.update(Status="migrating"), "VK-A-01"),
    ("AUTH on", lambda plane: plane.group.update(AuthTokenEnabled=True), "VK-A-24"),
    ("an engine of Redis", lambda plane: plane.group.update(Engine="redis"), "VK-A-19"),
    ("a node that is too small", lambda plane: setattr(plane, "maxmemory", 1000), "VK-A-03"),
    ("egress closed", lambda plane: plane.security_groups[0].update(IpPermissionsEgress=[]), "VK-A-08"),
    ("ingress closed", lambda plane: plane.security_groups[1].update(IpPermissions=[]), "VK-A-09"),
    ("target closed", lambda plane: plane.security_groups[0].update(IpPermissions=[]), "VK-A-10"),
)


@pytest.mark.parametrize(("plant", "code"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_what_aws_would_refuse_is_no_go_beforehand(
    source: Process, plane: PlaneOfTests, plant: Callable[[PlaneOfTests], Any], code: str
) -> None:
    plant(plane)
    report = look(source, plane)
    assert report.verdict is Verdict.NO_GO
    assert code in report.blockers
    assert all(one.remedy for one in report.findings if one.severity == "blocker")


def test_a_missing_permission_is_unknown_and_names_the_action(source: Process, plane: PlaneOfTests) -> None:
    plane.denied = {"DescribeSecurityGroups", "DescribeRouteTables", "DescribeNetworkInterfaces", "DescribeCacheParameters"}
    report = look(source, plane)
    assert report.verdict is Verdict.CONDITIONAL_GO
    unknown = {number for number, severity in by_number(report).items() if severity == "unknown"}
    assert unknown == {3, 6, 7, 8, 9, 10, 11, 12, 18}
    remedies = " ".join(one.remedy for one in report.findings if one.severity == "unknown")
    for action in ("ec2:DescribeSecurityGroups", "ec2:DescribeRouteTables", "ec2:DescribeNetworkInterfaces"):
        assert action in remedies


def test_a_gateway_that_is_asked_and_is_an_ordinary_server_is_no_go(source: Process, plane: PlaneOfTests) -> None:
    report = look(source, plane, gateway=("127.0.0.1", source.port))  # a Redis 8 with protected-mode
    assert "VK-A-29" in report.blockers


def test_an_endpoint_that_does_not_answer_is_a_finding_and_the_rest_is_told(source: Process, plane: PlaneOfTests) -> None:
    plane.group["NodeGroups"][0]["PrimaryEndpoint"]["Port"] = free_port()
    report = look(source, plane)
    assert report.blockers == ("VK-A-26",)
    assert len(report.findings) > 31


@contextmanager
def refused() -> Iterator[list[ValkeepError]]:
    caught: list[ValkeepError] = []
    with pytest.raises(ValkeepError) as error:
        yield caught
    caught.append(error.value)
    assert error.value.remedy
    assert error.value.definite
    assert "never-shown-anywhere" not in f"{error.value.message} {error.value.remedy}"


def test_a_group_that_is_not_there_is_told_with_its_region(source: Process, plane: PlaneOfTests) -> None:
    with refused() as caught:
        look(source, plane, group="no-such")
    assert caught[0].code == "VK-EC-NOT-FOUND"


def test_a_group_that_may_not_be_described_names_the_action(source: Process, plane: PlaneOfTests) -> None:
    plane.denied = {"DescribeReplicationGroups"}
    with refused() as caught:
        look(source, plane)
    assert caught[0].code == "VK-AWS-DENIED"
    assert "elasticache:DescribeReplicationGroups" in caught[0].remedy


def test_missing_credentials_are_told_with_where_they_are_looked_for(
    source: Process, plane: PlaneOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with refused() as caught:
        look(source, plane)
    assert caught[0].code == "VK-AWS-CREDENTIALS"


def test_a_missing_region_is_told(source: Process, plane: PlaneOfTests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with refused() as caught:
        look(source, plane)
    assert caught[0].code == "VK-AWS-REGION"


def test_missing_boto3_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with refused() as caught:
        Plane(GroupAddress("lab"))
    assert caught[0].code == "VK-AWS-EXTRA"
    assert "valkeep[aws]" in caught[0].remedy


def test_an_api_that_does_not_answer_is_told(source: Process, plane: PlaneOfTests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valkeep.migrate.elasticache.plane.ATTEMPTS", 1)
    nowhere = replace(GroupAddress(GROUP), url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionLost) as lost:
        asyncio.run(Plane(nowhere).status())
    assert lost.value.code == "VK-AWS-UNREACHED"
    with pytest.raises(ConnectionLost) as lost:
        asyncio.run(Plane(nowhere).complete())
    assert not lost.value.definite, "it may have been carried out"


def test_a_throttled_call_is_tried_again(plane: PlaneOfTests) -> None:
    from tests.support.aws_wire import Denial

    left = 2

    def throttle(_: str) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Denial("Throttling", "Rate exceeded")

    plane.before = throttle
    assert asyncio.run(Plane(GroupAddress(GROUP, None, plane.url)).status()) == "available"
    assert left == -1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("ReplicationGroupNotUnderMigrationFault", "VK-EC-NOT-UNDER-MIGRATION"),
        ("ReplicationGroupAlreadyUnderMigrationFault", "VK-EC-UNDER-MIGRATION"),
        ("InvalidReplicationGroupState", "VK-EC-STATE"),
        ("InvalidParameterCombination", "VK-EC-PARAMETER"),
        ("ExpiredToken", "VK-AWS-CREDENTIALS"),
        ("SomethingNew", "VK-AWS-ERROR"),
    ],
)
def test_each_refusal_of_aws_has_a_code_and_a_remedy(plane: PlaneOfTests, fault: str, code: str) -> None:
    from tests.support.aws_wire import Denial

    def refuse(_: str) -> None:
        raise Denial(fault, "these are AWS' words")

    plane.before = refuse
    with pytest.raises(ValkeepError) as raised:
        asyncio.run(Plane(GroupAddress(GROUP, None, plane.url)).complete())
    assert raised.value.code == code
    assert "AWS' words" in raised.value.message
    assert raised.value.remedy
    assert isinstance(raised.value, Refused) or code == "VK-AWS-ERROR"


def test_the_command_says_all_numbers_writes_them_and_wants_the_intended_warning_acknowledged(
    source: Process, plane: PlaneOfTests, tmp_path: Path
) -> None:
    command = ("migrate", "preflight", "--source", source.endpoint, *plane.options, "--gateway", f"127.0.0.1:{free_port()}")
    with Valkeep(*command, "--json", str(tmp_path / "a.json"), folder=tmp_path, report=False, env=plane.environment) as valkeep:
        assert valkeep.wait() == 1
    assert "CONDITIONAL-GO: acknowledge what you know about: --acknowledge VK-A-22" in valkeep.stdout
    written = json.loads((tmp_path / "a.json").read_text())
    assert [one["code"] for one in written["findings"][:31]] == [f"VK-A-{number:02}" for number in range(1, 32)]
    assert written["elasticache"]["group"] == GROUP
    with Valkeep(*command, "--acknowledge", "A-22", folder=tmp_path, report=False, env=plane.environment) as valkeep:
        assert valkeep.wait() == 0
    everything = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert "never-shown-anywhere" not in everything


def test_options_of_aws_without_a_group_are_a_usage_error(source: Process) -> None:
    command = ["preflight", "--source", source.endpoint, "--target", source.endpoint, "--aws-region", "eu-west-1"]
    done = subprocess.run([sys.executable, "-m", "valkeep", "migrate", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "belong to --target elasticache:ID" in done.stderr


def test_a_full_census_reads_a_whole_snapshot_for_a_group_too(source: Process, plane: PlaneOfTests) -> None:
    place = GatewayPlace(("127.0.0.1", free_port()), Path("/tmp"))
    options = replace(QUICK, full_census=True)
    address = GroupAddress(GROUP, None, plane.url)
    report = asyncio.run(preflight_group(Endpoint.parse(source.endpoint), address, place, options, lambda _: None))
    assert report.source.census is not None
    assert report.source.census.mode == "full"
