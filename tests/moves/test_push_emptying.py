"""Slots of a real shard are emptied: they and nothing else, however often it is begun again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import valkey

from tests.support.cluster_target import cluster_of
from valkeep.migrate import marker
from valkeep.migrate.delivery.push.emptying import calls, ranges_in
from valkeep.migrate.marker import Marker
from valkeep.runtime.local import LocalDeployment
from valkeep.topology.slots import even_ranges, key_slot, tag_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
MARKER = marker.key_in(0, "lane")
VALUE = Marker("a" * 40, 7).value
EMPTIED = ((0, 300), (500, 500))


@pytest.fixture(scope="module", params=["valkey-8.0", "valkey-8.1", "valkey-9.1"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalDeployment]:
    with cluster_of(request.param, 2) as deployment:
        yield deployment


@pytest.fixture
def shard(cluster: LocalDeployment) -> Iterator[Any]:
    endpoint = next(iter(cluster.machines.values())).endpoint
    client = valkey.Valkey(host=endpoint.host, port=endpoint.port)
    client.flushall()
    for slot in (0, 1, 255, 256, 300, 301, 499, 500, 501):
        tag = tag_for(slot).decode()
        for number in range(3):
            client.set(f"{{{tag}}}{number}", "x")
        client.set(f"{{{tag}}}timed", "x", px=1)
    pipe = client.pipeline(transaction=False)
    for number in range(3500):  # more than one piece of a slot
        pipe.set(f"{{{tag_for(7).decode()}}}{number}", "x")
    pipe.execute()
    for lane in ("", "lane", "another"):
        client.set(marker.key_in(0, lane), "old")
    client.set(MARKER + b":no marker", "x")
    yield client
    client.close()


def inside(key: bytes) -> bool:
    return any(first <= key_slot(key) <= last for first, last in EMPTIED) and not marker.is_marker(0, key)


def run(client: Any, commands: list[bytes]) -> list[bytes]:
    """One line for each reply."""
    kwargs = client.connection_pool.connection_kwargs
    with socket.create_connection((kwargs["host"], kwargs["port"]), timeout=20) as connection, connection.makefile("rb") as lines:
        connection.sendall(b"".join(commands))
        return [lines.readline() for _ in commands]


def test_a_shard_loses_the_keys_of_these_slots_and_no_others(shard: Any) -> None:
    before = set(shard.keys("*"))
    assert any(inside(key) for key in before)
    assert run(shard, [*calls(EMPTIED, MARKER, VALUE)]) == [b"+OK\r\n"] * 4
    after = set(shard.keys("*"))
    assert after == {key for key in before if not inside(key)}
    assert len([key for key in after if marker.is_marker(0, key)]) == 3
    assert shard.get(MARKER) == VALUE
    assert shard.get(marker.key_in(0)) == b"old"
    assert all(shard.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 0 for slot in (1, 7, 255, 256, 300, 500))


def test_it_may_be_done_again_from_wherever_it_broke_off(shard: Any) -> None:
    commands = [*calls(EMPTIED, MARKER, VALUE)]
    for broken in range(len(commands)):
        shard.set(f"{{{tag_for(3).decode()}}}again", "x")
        shard.set(MARKER, "old")
        run(shard, commands[:broken])
        assert shard.get(MARKER) == b"old"
    assert run(shard, commands) == [b"+OK\r\n"] * 4
    assert run(shard, commands) == [b"+OK\r\n"] * 4
    assert not any(inside(key) for key in shard.keys("*"))
    assert shard.get(MARKER) == VALUE


def test_who_does_not_own_the_marker_s_slot_does_nothing(cluster: LocalDeployment, shard: Any) -> None:
    other = marker.key_in(16383)
    before = set(shard.keys("*"))  # of those that expire just now, none
    (reply,) = run(shard, [*calls([(0, 10)], other, VALUE)])
    assert reply.startswith(b"-MOVED 16383")
    assert set(shard.keys("*")) == before


def test_a_full_server_is_emptied_all_the_same(shard: Any) -> None:
    shard.config_set("maxmemory", 1)
    try:
        assert run(shard, [*calls(EMPTIED, MARKER, VALUE)]) == [b"+OK\r\n"] * 4
    finally:
        shard.config_set("maxmemory", 0)
    assert not any(inside(key) for key in shard.keys("*"))


def test_only_the_slots_of_a_shard_are_taken_of_what_is_said() -> None:
    owned = bytes(first <= slot <= last for first, last in even_ranges(2)[:1] for slot in range(16384))
    assert ranges_in([b"0-10", b"8000-16383"], owned) == ((0, 10), (8000, 8191))
    assert ranges_in([b"9000-9001"], owned) == ()
