"""Who sits where: the four layouts of addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from valkeep.errors import UsageError
from valkeep.runtime.network.addresses import Addresses, client_address
from valkeep.topology.spec import TopologySpec


@contextmanager
def seated(spec: TopologySpec, layout: str) -> Iterator[Addresses]:
    addresses = Addresses(spec, layout)
    try:
        yield addresses
    finally:
        addresses.release()


def test_in_a_namespace_every_node_has_an_address_and_the_usual_port() -> None:
    with seated(TopologySpec.sentinel(), "namespace") as addresses:
        assert addresses.listen("n1") == addresses.announced("n1") == ("127.0.1.1", 7000)
        assert addresses.listen("s3") == ("127.0.3.3", 26379)
        assert addresses.settings("n2") == {"bind": "127.0.1.2", "protected-mode": "no", "port": 7000, "bind-source-addr": "127.0.1.2"}
        assert addresses.source("c4") == addresses.host("c4") == "127.0.2.4"


@pytest.mark.parametrize(
    ("spec", "node", "keys"),
    [
        (TopologySpec.sentinel(), "n1", {"replica-announce-ip", "replica-announce-port"}),
        (TopologySpec.sentinel(), "s1", {"sentinel announce-ip", "sentinel announce-port"}),
        (TopologySpec.cluster(), "n1", {"cluster-announce-ip", "cluster-announce-port", "cluster-announce-bus-port"}),
        (
            replace(TopologySpec.cluster(), tls=True),
            "n1",
            {"cluster-announce-ip", "cluster-announce-tls-port", "cluster-announce-bus-port"},
        ),
    ],
)
def test_behind_the_proxy_every_kind_of_node_announces_where_the_proxy_is(spec: TopologySpec, node: str, keys: set[str]) -> None:
    with seated(spec, "proxy") as addresses:
        lines, (host, port) = addresses.settings(node), addresses.announced(node)
        assert {key for key in lines if "announce" in key} == keys
        assert {lines[key] for key in keys} <= {host, port, port + 10000}
        assert lines["bind"] == lines["bind-source-addr"] == addresses.host(node) != host


def test_on_one_address_nodes_differ_by_port_and_nobody_can_be_told_apart() -> None:
    with seated(TopologySpec.cluster(), "ports") as addresses:
        assert {addresses.listen(name)[0] for name in addresses.seats} == {"127.0.0.1"}
        assert len({addresses.listen(name)[1] for name in addresses.seats}) == 6
        assert addresses.source("c1") == ""
        assert "bind-source-addr" not in addresses.settings("n1")


def test_more_nodes_than_a_block_has_addresses_still_differ() -> None:
    spec = TopologySpec.cluster(shards=100, replicas=5)
    with seated(spec, "namespace") as addresses:
        assert len({seat.listen for seat in addresses.seats.values()}) == 600
        assert addresses.listen("n251") == ("127.1.1.1", 7000)


def test_ports_are_free_again_when_given_back() -> None:
    with seated(TopologySpec.sentinel(), "loopback") as first:
        taken = {first.listen(name)[1] for name in first.seats}
        with seated(TopologySpec.sentinel(), "loopback") as second:
            assert taken.isdisjoint({second.listen(name)[1] for name in second.seats})
    with seated(TopologySpec.sentinel(), "loopback") as third:
        assert taken & {third.listen(name)[1] for name in third.seats}


@pytest.mark.parametrize("name", ["", "c0", "c", "7", "c99999", "C1"])
def test_a_client_needs_a_name_with_a_number(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        client_address(name)
    assert caught.value.remedy
