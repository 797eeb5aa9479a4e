"""Who the primary of a shard is, by what nodes say of themselves and of each other."""

from __future__ import annotations

import asyncio

import pytest

from valkeep.client.cluster_nodes import NodeWord
from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.client.shard_primary import NoShardPrimary, ShardPrimary
from valkeep.topology.members import cluster_members

A, A2, A3, B = (letter * 40 for letter in "acde")
PORTS = {A: 1, A2: 2, A3: 3, B: 9}


def word(me: str, *lines: tuple[str, str, str, int]) -> NodeWord:
    """``lines``: id, flags, whom it follows, epoch."""
    said = "\n".join(
        f"{name} 10.0.0.1:{PORTS[name]}@1 {'myself,' * (name == me)}{flags} {of or '-'} 0 0 {epoch} connected"
        for name, flags, of, epoch in lines
    )
    return NodeWord(Endpoint("10.0.0.1", PORTS[me]), cluster_members(said))


def told(*words: NodeWord) -> dict[str, NodeWord]:
    return {one.me.id: one for one in words}


CALM = ((A, "master", "", 1), (A2, "slave", A, 1), (B, "master", "", 2))
SWITCHED = ((A, "slave", A2, 5), (A2, "master", "", 5), (B, "master", "", 2))


def shard() -> ShardPrimary:
    found = ShardPrimary([Endpoint("10.0.0.1", 1)], A)
    assert found.among(told(word(A, *CALM), word(B, *CALM))) is not None
    return found


def test_a_failover_leads_to_the_replica_that_was_promoted() -> None:
    lane = shard()
    found = lane.among(told(word(A2, *SWITCHED), word(B, *CALM)))
    assert found is not None
    assert found.endpoint.port == PORTS[A2]
    assert lane.members == (A2, A)


def test_a_primary_that_comes_back_with_old_news_is_not_believed() -> None:
    lane = shard()
    found = lane.among(
        told(word(A, *CALM), word(A2, (A, "master,fail", "", 1), (A2, "master", "", 5), (B, "master", "", 2)), word(B, *CALM))
    )
    assert found is not None
    assert found.me.id == A2


def test_while_the_successor_does_not_answer_nobody_is_the_primary() -> None:
    assert shard().among(told(word(A, *CALM), word(B, *SWITCHED))) is None


def test_a_failing_word_of_others_does_not_depose_a_primary_that_answers() -> None:
    gossip = ((A, "master,fail?", "", 1), (A2, "slave", A, 1), (B, "master", "", 2))
    found = shard().among(told(word(A, *CALM), word(B, *gossip)))
    assert found is not None
    assert found.me.id == A


def test_a_primary_that_became_the_replica_of_another_shard_has_no_successor() -> None:
    lane = shard()
    gone = ((A, "slave", B, 2), (A2, "slave", B, 2), (B, "master", "", 2))
    words = told(word(A, *gone), word(A2, *gone), word(B, *gone))
    assert lane.among(words) is None
    assert lane.strayed(words) == B


def test_a_replica_that_went_to_another_shard_is_no_successor_of_ours() -> None:
    lane = shard()
    calm = ((A, "master", "", 1), (A2, "slave", B, 2), (B, "master", "", 2))
    assert lane.among(told(word(A, *calm))) is not None
    later = ((A, "master", "", 1), (A2, "master", "", 6), (B, "slave", A2, 6))
    found = lane.among(told(word(A, *later), word(A2, *later)))
    assert found is not None
    assert found.me.id == A


def test_a_run_that_goes_on_knows_the_members_of_the_one_before() -> None:
    ended = ((A, "master,fail", "", 1), (A2, "master", "", 5), (B, "master", "", 2))
    words = told(word(A2, *ended), word(B, *ended))
    assert ShardPrimary([Endpoint("h")], A).among(words) is None
    found = ShardPrimary([Endpoint("h")], A, shard().members).among(words)
    assert found is not None
    assert found.me.id == A2


def test_nobody_at_all_is_a_definite_error_that_passes() -> None:
    with pytest.raises(NoShardPrimary) as error:
        asyncio.run(ShardPrimary([Endpoint("127.0.0.1", 1)], A).resolve())
    assert error.value.definite
    assert "no node of the cluster answers" in error.value.message


def test_its_name_is_without_secrets() -> None:
    lane = ShardPrimary([Endpoint("h", 7000, password=Secret("hush"))], A)
    assert lane.display == f"redis://:***@h:7000#{A[:8]}"
    assert "hush" not in f"{lane} {lane.address} {lane!r}"


def test_where_a_certificate_is_compared_with_a_name_the_announced_one_is_used() -> None:
    (one,) = cluster_members(f"{A} 10.0.0.1:1@2,node-1.example myself,master - 0 0 1 connected")
    plain = NodeWord(Endpoint("seed"), (one,)).place(one)
    checked = NodeWord(Endpoint("seed", tls=TLS()), (one,)).place(one)
    assert plain is not None
    assert checked is not None
    assert (plain.host, checked.host) == ("10.0.0.1", "node-1.example")
