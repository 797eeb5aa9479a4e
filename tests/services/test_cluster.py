"""docker-compose.cluster.yml, used as its first lines say, by ordinary clients on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import valkey
from valkey.cluster import ClusterNode, ValkeyCluster

from tests.services.project import Project, docker, if_answered
from tests.support.waiting import until

PORTS = range(7101, 7107)


@pytest.fixture(scope="module")
def cluster(server_image: str) -> Iterator[Project]:
    with Project("cluster", VALKEY_IMAGE=server_image) as project:
        yield project


def connect() -> Any:
    return ValkeyCluster(startup_nodes=[ClusterNode("127.0.0.1", port) for port in PORTS], socket_timeout=10.0, decode_responses=True)


def node(port: int) -> Any:
    return valkey.Valkey("127.0.0.1", port, socket_timeout=10.0, decode_responses=True)


def primaries() -> list[int]:
    return [port for port in PORTS if node(port).info("replication")["role"] == "master"]


def shard_of(port: int) -> tuple[int, int]:
    """The ports of the primary and of the replica of this node's shard."""
    info = node(port).info("replication")
    return (port, info["slave0"]["port"]) if info["role"] == "master" else (info["master_port"], port)


def container(cluster: Project, port: int) -> str:
    return cluster.container(f"n{port - 7100}")


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
    until(healthy, "healthy before", 100)
    client = connect()
    for number in range(300):
        assert client.set(f"kept:{number}", number)
    for port in primaries():
        assert node(port).wait(1, 5000) == 1
    killed, heir = shard_of(7101)
    docker("kill", container(cluster, killed))
    until(if_answered(lambda: node(heir).info("replication")["role"] == "master"), "its replica is promoted", 100)
    left = [port for port in PORTS if port != killed]
    until(if_answered(lambda: all(node(port).cluster("info")["cluster_slots_ok"] == "16384" for port in left)), "all slots are served", 100)
    client = connect()
    assert [client.get(f"kept:{number}") for number in range(300)] == [str(number) for number in range(300)]
    assert all(client.set(f"after:{number}", number) for number in range(100))
    docker("start", container(cluster, killed))
    until(healthy, "the killed one follows", 100)
    assert shard_of(killed) == (heir, killed)


def test_up_on_a_formed_cluster_changes_nothing(cluster: Project) -> None:
    until(healthy, "healthy before", 100)

    def layout() -> dict[frozenset[str], Any]:
        """The nodes of each shard, whoever is its primary → its slots."""
        nodes = node(7102).execute_command("CLUSTER NODES").values()
        shards = {one["node_id"]: one["slots"] for one in nodes if one["master_id"] == "-"}
        return {
            frozenset(one["node_id"] for one in nodes if primary in (one["node_id"], one["master_id"])): shards[primary]
            for primary in shards
        }

    assert connect().set("stays", "1")
    before = layout()
    cluster.up()
    assert "formed already" in docker("logs", cluster.container("init"))
    cluster.down()
    cluster.up()
    until(healthy, "healthy after", 100)
    assert layout() == before
    assert connect().get("stays") == "1"
