"""CLUSTER NODES and GETSLOTMIGRATIONS, of every version, and what is none."""

from __future__ import annotations

import pytest

from valkeep.errors import RemoteProtocolError
from valkeep.topology.members import cluster_members, slot_migration

A, B = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("said", "address", "hostname"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7000", ""),  # Redis 3
        ("127.0.0.1:7000@17000", "127.0.0.1:7000", ""),
        ("127.0.0.1:7000@17000,host-1", "127.0.0.1:7000", "host-1"),
        ("127.0.0.1:7000@17000,,shard-id=c0ffee", "127.0.0.1:7000", ""),
        ("127.0.0.1:7000@17000,shard-id=c0ffee", "127.0.0.1:7000", ""),
        ("2001:db8::1:7000@17000,host-1", "2001:db8::1:7000", "host-1"),
        (":7000@17000", ":7000", ""),  # it never learnt its own address
    ],
)
def test_an_address_is_read_in_every_form(said: str, address: str, hostname: str) -> None:
    (one,) = cluster_members(f"{A} {said} myself,master - 0 0 1 connected 0-16383")
    assert (one.address, one.hostname, one.primary, one.failing) == (address, hostname, True, False)


def test_slots_on_their_way_say_where_they_go_and_come_from() -> None:
    (one,) = cluster_members(f"{A} h:1@2 myself,master - 0 0 7 connected 0-5 9 [93-<-{B}] [77->-{B}]\n")
    assert one.ranges == ((0, 5), (9, 9))
    assert one.giving == ((77, B),)
    assert one.taking == ((93, B),)
    assert one.moving == (77, 93)
    assert one.epoch == 7


@pytest.mark.parametrize(
    ("flags", "failing"), [("master,fail", 1), ("slave,fail?", 1), ("handshake", 1), ("slave,noaddr", 1), ("slave", 0)]
)
def test_who_cannot_be_counted_on_is_failing(flags: str, failing: int) -> None:
    (one,) = cluster_members(f"{A} :0@0 {flags} {B} 0 0 7 disconnected")
    assert one.failing == bool(failing)
    assert one.primary_id == B
    assert not one.connected


@pytest.mark.parametrize(
    "line",
    ["nonsense", f"{A} h:1 master - 0 0 x connected", f"{A} h:1 master - 0 0 1 connected 5-99999", f"{A} h:1 master - 0 0 1 connected [5->-",
     f"{A} h:1 master - 0 0 1 connected [x->-{B}]", f"{A} h:1 master - 0 0 1 connected 9-5"],
)  # fmt: skip
def test_what_no_cluster_says_is_refused(line: str) -> None:
    with pytest.raises(RemoteProtocolError):
        cluster_members(line)


@pytest.mark.parametrize(("state", "over"), [("success", 1), ("failed", 1), ("cancelled", 1), ("waiting-to-snapshot", 0), ("", 0)])
def test_a_migration_by_the_server_is_over_or_not(state: str, over: int) -> None:
    one = slot_migration({"name": "n", "slot_ranges": "10-11 13-13", "source_node": A, "target_node": B, "state": state})
    assert one.ranges == ((10, 11), (13, 13))
    assert one.over == bool(over)
