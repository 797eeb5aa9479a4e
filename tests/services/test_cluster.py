"""docker-compose.cluster.yml, used as its first lines say, by ordinary clients on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import valkey
from valkey.cluster import ClusterNode, ValkeyCluster

from tests.services.project import Project, docker
from tests.support.waiting import until

PORTS = range(7101, 7107)


@pytest.fixture(scope="module")
def cluster(server_image: str) -> Iterator[Project]:
    with Project("cluster", VALKEY_IMAGE=server_image) as project:
        yield project


def connect() -> Any:
    return ValkeyCluster(startup_nodes=[ClusterNode("127.0.0.1", port) for port in PORTS], socket_timeout=2.0, decode_responses=True)


def node(port: int) -> Any:
    return valkey.Valkey("127.0.0.1", port, socket_timeout=2.0, decode_responses=True)


def healthy() -> bool:
    """Every node answers, serves all slots, and six of them have a role with a good link."""
    try:
        states = [(node(port).cluster("info"), node(port).info("replication")) for port in PORTS]
    except valkey.ValkeyError:
        return False
    linked = [info["connected_slaves"] >= 1 if info["role"] == "master" else info["master_link_status"] == "up" for _, info in states]
    return all(linked) and all(info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384" for info, _ in states)


def test_create_read_update_delete_on_every_shard(cluster: Project) -> None:
    client = connect()
    for number in range(100):
        key = f"crud:{number}"
        assert client.set(key, "1")
        assert client.set(key, "2")
        assert client.get(key) == "2"
    per_shard = [node(port).dbsize() for port in (7101, 7102, 7103)]
    assert sum(per_shard) >= 100
    assert min(per_shard) > 10
    for number in range(100):
        assert client.delete(f"crud:{number}") == 1


def test_a_killed_primary_is_replaced_by_its_replica_and_all_slots_are_served(cluster: Project) -> None:
    until(healthy, "healthy before", 40)
    client = connect()
    for number in range(300):
        assert client.set(f"kept:{number}", number)
    for port in (7101, 7102, 7103):
        assert node(port).wait(1, 5000) == 1
    docker("kill", cluster.container("n1"))
    until(lambda: node(7104).info("replication")["role"] == "master", "n4 is promoted", 40)
    until(lambda: all(node(port).cluster("info")["cluster_slots_ok"] == "16384" for port in range(7102, 7107)), "all slots are served", 40)
    client = connect()
    assert [client.get(f"kept:{number}") for number in range(300)] == [str(number) for number in range(300)]
    assert all(client.set(f"after:{number}", number) for number in range(100))
    docker("start", cluster.container("n1"))
    until(healthy, "n1 follows n4", 40)
    assert node(7101).info("replication")["role"] == "slave"


def test_up_on_a_formed_cluster_changes_nothing(cluster: Project) -> None:
    until(healthy, "healthy before", 40)

    def layout() -> dict[str, Any]:
        return {one["node_id"]: one["slots"] for one in node(7102).execute_command("CLUSTER NODES").values()}

    assert connect().set("stays", "1")
    before = layout()
    cluster.up()
    assert "formed already" in docker("logs", cluster.container("init"))
    cluster.down()
    cluster.up()
    until(healthy, "healthy after", 40)
    assert layout() == before
    assert connect().get("stays") == "1"
