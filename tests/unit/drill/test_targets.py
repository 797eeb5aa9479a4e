"""What a load is aimed at: names and addresses, across the pipe and in what nodes say of each other."""

from __future__ import annotations

import json
import random

import pytest

from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.drill.script import ClientSpec
from valkeep.drill.workloads import keys
from valkeep.drill.workloads.record import Record
from valkeep.drill.workloads.routes import ClusterRoute
from valkeep.drill.workloads.targets import Place, Targets
from valkeep.errors import UsageError
from valkeep.topology.slots import key_slot
from valkeep.topology.spec import Kind

N1 = Endpoint("10.0.0.1", 7000, username="writer", password=Secret("hunter2"), tls=TLS(ca="/ca.pem", server_name="x"))
N2 = Endpoint("10.0.0.2", 7000)


def test_targets_come_out_of_the_pipe_as_they_went_in() -> None:
    targets = Targets(Kind.SENTINEL, {"n1": N1, "n2": N2}, {"s1": Endpoint("10.0.0.9", 26379)}, "mine", (b"a", b"\xff"))
    assert Targets.from_json(json.loads(json.dumps(targets.to_json()))) == targets


def test_a_node_that_nobody_named_is_called_by_its_address_and_let_in_like_the_others() -> None:
    targets = Targets(Kind.CLUSTER, {"n1": N1, "n2": N2})
    assert targets.place("10.0.0.2", 7000) == Place("n2", N2)
    stranger = targets.place("10.0.0.3", 7001)
    assert stranger.name == "10.0.0.3:7001"
    assert (stranger.endpoint.host, stranger.endpoint.port, stranger.endpoint.password) == ("10.0.0.3", 7001, Secret("hunter2"))


@pytest.mark.parametrize("nodes", [{}, {"n1": N1}])
def test_targets_without_anybody_to_ask_are_refused(nodes: dict[str, Endpoint]) -> None:
    with pytest.raises(UsageError):
        Targets(Kind.SENTINEL, nodes)


def test_a_cluster_node_without_a_name_is_the_one_that_was_asked() -> None:
    targets = Targets(Kind.CLUSTER, {"n1": N1, "n2": N2})
    route = ClusterRoute(ClientSpec("c1"), targets, random.Random(1), Record().trouble)
    answer = [
        [0, 8191, [b"", 7000, b"id1"], [b"10.0.0.7", 7000, b"id7"]],
        [8192, 16000, [None, 7000, b"id1"]],
        [16001, 16383, [b"10.0.0.2", 7000, b"id2"]],
    ]
    owners = route._read(answer, "10.0.0.1")
    assert {owners[key_slot(tag)].name for tag in keys.tags_for()} <= {"n1", "n2"}
    assert set(owners) == {key_slot(tag) for tag in targets.tags}


@pytest.mark.parametrize(("follow", "name"), [(True, "n2"), (False, "n1")])
def test_only_a_client_that_follows_believes_what_it_is_told_about_a_slot(follow: bool, name: str) -> None:
    targets = Targets(Kind.CLUSTER, {"n1": N1, "n2": N2})
    route = ClusterRoute(ClientSpec("c1", follow=follow), targets, random.Random(1), Record().trouble)
    slot = key_slot(targets.tags[0])
    route._owners = {slot: Place("n1", N1)}
    route.moved(slot, Place("n2", N2))
    assert route.place(slot).name == name
