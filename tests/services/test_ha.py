"""docker-compose.ha.yml, used as its first lines say, by ordinary clients on the host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
import valkey
from valkey.sentinel import Sentinel

from tests.services.project import Project, docker, if_answered
from tests.support.waiting import until
from valkeep.runtime.docker import Docker

SENTINELS = [("127.0.0.1", port) for port in (27001, 27002, 27003)]


@pytest.fixture(scope="module")
def ha(server_image: str) -> Iterator[Project]:
    with Project("ha", VALKEY_IMAGE=server_image) as project:
        yield project


def find(sentinels: list[tuple[str, int]] = SENTINELS) -> Sentinel:
    return Sentinel(sentinels, socket_timeout=2.0)


def named(sentinels: list[tuple[str, int]] = SENTINELS) -> tuple[str, int] | None:
    """Whom the sentinels call the primary; None while they call it down."""
    try:
        return tuple(find(sentinels).discover_master("valkeep"))
    except valkey.ValkeyError:
        return None


def another_than(before: tuple[str, int] | None, sentinels: list[tuple[str, int]] = SENTINELS) -> Any:
    return until(lambda: (now := named(sentinels)) not in (None, before) and now, "another primary is named", 100)


def primary() -> Any:
    return find().master_for("valkeep", socket_timeout=10.0, decode_responses=True)


def node(address: tuple[str, int]) -> Any:
    host, port = address
    return valkey.Valkey(host, port, socket_timeout=2.0, decode_responses=True)


def name_of(address: tuple[str, int]) -> str:
    return f"n{address[1] - 7000}"


def whole(sentinels: list[tuple[str, int]] = SENTINELS, password: str | None = None) -> bool:
    """One primary, and both replicas online behind it."""
    try:
        info = find(sentinels).master_for("valkeep", socket_timeout=2.0, password=password).info("replication")
    except valkey.ValkeyError:
        return False
    return (
        info["role"] == "master" and info["connected_slaves"] == 2 and all(info[f"slave{number}"]["state"] == "online" for number in (0, 1))
    )


def acked_by_all(client: Any, key: str, value: str) -> None:
    with client.pipeline(transaction=False) as pipe:
        assert pipe.set(key, value).execute_command("WAIT", 2, 5000).execute() == [True, 2]


def test_create_read_update_delete_through_sentinel_discovery(ha: Project) -> None:
    client = primary()
    assert client.set("crud", "1")
    assert client.get("crud") == "1"
    assert client.set("crud", "2")
    assert client.get("crud") == "2"
    replica = find().slave_for("valkeep", socket_timeout=2.0, decode_responses=True)
    until(if_answered(lambda: replica.get("crud") == "2"), "the replica has the update")
    assert client.delete("crud") == 1
    assert client.get("crud") is None


def test_a_killed_primary_is_replaced_and_nothing_acknowledged_by_all_is_lost(ha: Project) -> None:
    until(whole, "whole before the fault", 100)
    before = named()
    assert before
    client = primary()
    for number in range(200):
        acked_by_all(client, f"kept:{number}", str(number))
    docker("kill", ha.container(name_of(before)))
    after = another_than(before)
    client = primary()
    assert client.mget([f"kept:{number}" for number in range(200)]) == [str(number) for number in range(200)]

    def writes() -> bool:
        try:
            return bool(client.set("after", "the failover"))
        except valkey.ValkeyError:  # NOREPLICAS until the other replica has found it
            return False

    until(writes, "the new primary takes writes", 60)
    docker("start", ha.container(name_of(before)))
    until(whole, "the killed one follows", 100)
    old = node(before)
    assert old.info("replication")["master_port"] == after[1]
    until(if_answered(lambda: old.get("after") == "the failover"), "it has what it missed")


def test_a_primary_that_comes_back_after_another_was_promoted_takes_no_writes(ha: Project) -> None:
    until(whole, "whole before the fault", 100)
    before = named()
    assert before
    docker("kill", ha.container(name_of(before)))
    another_than(before)
    docker("start", ha.container(name_of(before)))
    old = node(before)
    refused = set()

    def demoted() -> bool:
        try:
            assert not old.set("doomed", "1"), "a stale primary acknowledged a write"
        except valkey.ResponseError as error:
            refused.add(str(error).split()[0])
        except valkey.ValkeyError:
            return False
        return bool(old.info("replication")["role"] == "slave")

    until(if_answered(demoted), "the stale primary is told whom to follow", 100, every=0.02)
    assert refused <= {"NOREPLICAS", "READONLY", "You", "Not"}, refused
    until(whole, "whole again", 100)


def test_data_and_roles_outlive_the_containers(ha: Project) -> None:
    until(whole, "whole before", 100)
    acked_by_all(primary(), "outlives", "containers")
    before = named()
    ha.down()
    ha.up()
    until(whole, "whole after", 100)
    assert named() == before
    assert primary().get("outlives") == "containers"


def test_a_primary_that_restarts_quickly_comes_back_with_its_data(ha: Project) -> None:
    until(whole, "whole before", 100)
    acked_by_all(primary(), "restarted", "with data")
    before = named()
    assert before
    docker("restart", ha.container(name_of(before)))
    until(whole, "whole after", 100)
    assert primary().get("restarted") == "with data"


def test_published_ports_alone_are_enough_when_the_hosts_address_is_announced(bare_image: str, docker: Docker) -> None:
    """As with Docker Desktop, where the host does not reach the containers' network. With a password, because they are published to others."""
    subnet = docker.run("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}").strip()
    host = str(next(ipaddress.ip_network(subnet).hosts()))  # of the bridge docker0
    ports = {
        f"VALKEY_{name}_PORT": str(port)
        for name, port in {"N1": 7011, "N2": 7012, "N3": 7013, "S1": 27011, "S2": 27012, "S3": 27013}.items()
    }
    project = Project(
        "ha",
        VALKEY_IMAGE=bare_image,
        VALKEY_HOST_IP=host,
        VALKEY_NET="172.30.79",
        VALKEY_PASSWORD="let#me-in",
        COMPOSE_PROJECT_NAME="valkeep-mapped",
        **ports,
    )
    sentinels = [(host, port) for port in (27011, 27012, 27013)]
    with project:
        assert named(sentinels) == (host, 7011)
        with pytest.raises(valkey.AuthenticationError):
            find(sentinels).master_for("valkeep", socket_timeout=2.0).ping()
        until(lambda: whole(sentinels, "let#me-in"), "whole", 100)
        assert sorted(find(sentinels).discover_slaves("valkeep")) == [(host, 7012), (host, 7013)]
        docker.run("kill", "valkeep-mapped-n1-1")
        assert another_than((host, 7011), sentinels) in ((host, 7012), (host, 7013))
