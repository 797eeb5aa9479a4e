"""Which primaries without slots preflight asks: those that are there by their own word."""

from __future__ import annotations

import asyncio

import pytest

from valkeep.client.cluster_nodes import NodeWord
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.preflight.options import PreflightOptions
from valkeep.migrate.preflight.shards import _Cluster
from valkeep.topology.members import cluster_members

A, B, D, E = (letter * 40 for letter in "abde")
HERE = Endpoint("10.0.0.4", 7004)
THERE = f"{D} 10.0.0.4:7004@17004 master - 0 0 3 connected\n"


def word(number: int, more: str) -> NodeWord:
    """Of A (1) or B (2), who have all slots; ``more``: further lines of CLUSTER NODES."""
    lines = [
        f"{node} 10.0.0.{place}:700{place}@1700{place} {'myself,' * (place == number)}master - 0 0 {place} connected {slots}\n"
        for place, node, slots in ((1, A, "0-8191"), (2, B, "8192-16383"))
    ]
    return NodeWord(Endpoint(f"10.0.0.{number}", 7000 + number), cluster_members("".join(lines) + more))


def asked(monkeypatch: pytest.MonkeyPatch, first: str, second: str, own: str = THERE) -> list[str]:
    """Addresses. ``own``: what the node at `HERE` says of itself; "": nothing."""

    async def said(_: _Cluster, node: Endpoint) -> NodeWord | None:
        assert node.address == HERE.address
        return NodeWord(HERE, cluster_members(own.replace(" master", " myself,master").replace(" slave", " myself,slave"))) if own else None

    monkeypatch.setattr(_Cluster, "_word", said)
    cluster = _Cluster(Endpoint("10.0.0.1", 7001), PreflightOptions(), idle=True)
    return [shard.primary.address for shard in asyncio.run(cluster._without_slots([word(1, first), word(2, second)]))]


def test_a_primary_that_has_no_slots_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, THERE, THERE) == [HERE.address]


def test_whoever_knows_its_address_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = f"{D} :0@0 master,noaddr - 0 0 3 disconnected\n"
    assert asked(monkeypatch, unknown, THERE) == asked(monkeypatch, THERE, unknown) == [HERE.address]


def test_a_node_that_has_another_name_by_now_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    new = THERE.replace(D, E)
    assert asked(monkeypatch, THERE.replace("master", "master,fail?") + new, new, own=new) == [HERE.address]


def test_another_clusters_node_at_its_place_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, THERE, THERE, own=THERE.replace(D, E)) == []


def test_one_that_is_a_replica_by_its_own_word_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, THERE, THERE, own=THERE.replace("master -", f"slave {A}")) == []


def test_one_that_has_slots_by_its_own_word_is_not_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that was asked for names it soon; a lane of a shard that is asked twice would be two."""
    assert asked(monkeypatch, THERE, THERE, own=THERE.replace("connected", "connected 5")) == []


def test_one_that_does_not_answer_is_asked_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a check says what is wrong with it."""
    assert asked(monkeypatch, THERE, THERE, own="") == [HERE.address]


@pytest.mark.parametrize("flags", ["master,fail", "handshake"])
def test_one_that_anybody_has_given_up_or_does_not_know_yet_is_not_asked(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    assert asked(monkeypatch, THERE.replace("master", flags), THERE) == []
