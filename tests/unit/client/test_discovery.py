"""What sentinels and cluster nodes say, read without a server: also what no server should say."""

from __future__ import annotations

from typing import Any

import pytest

from valkeep.client.cluster import Redirect, parse_redirect, parse_slots
from valkeep.client.connection import Value
from valkeep.client.endpoint import TLS, Endpoint, Secret
from valkeep.client.sentinel import SentinelDirectory, parse_address, parse_replicas, parse_switch
from valkeep.errors import RemoteProtocolError, ServerError, UsageError
from valkeep.topology.slots import SLOTS

ASKED = Endpoint("10.0.0.1", 7000, username="app", password=Secret("pw"), tls=TLS(verify="none"))


def at(host: str, port: int) -> Endpoint:
    return Endpoint(host, port, username="app", password=Secret("pw"), tls=TLS(verify="none"))


@pytest.mark.parametrize(
    ("kind", "text", "redirect"),
    [
        ("MOVED", "3999 10.0.0.2:6381", Redirect("moved", 3999, at("10.0.0.2", 6381))),
        ("ASK", "0 10.0.0.2:6381", Redirect("ask", 0, at("10.0.0.2", 6381))),
        ("MOVED", "16383 :6381", Redirect("moved", 16383, at("10.0.0.1", 6381))),
        ("MOVED", "1 ?:6381", Redirect("moved", 1, at("10.0.0.1", 6381))),
        ("MOVED", "1 fe80::1:6381", Redirect("moved", 1, at("fe80::1", 6381))),
        ("MOVED", "1 valkey-0.example:6381", Redirect("moved", 1, at("valkey-0.example", 6381))),
        ("READONLY", "You can't write against a read only replica.", None),
    ],
)
def test_a_redirection_leads_to_a_node_with_the_login_of_the_one_that_was_asked(kind: str, text: str, redirect: Redirect | None) -> None:
    assert parse_redirect(ServerError(kind, text), ASKED) == redirect


@pytest.mark.parametrize("text", ["", "3999", "3999 10.0.0.2", "x 10.0.0.2:1", "16384 10.0.0.2:1", "1 10.0.0.2:0", "1 10.0.0.2:65536"])
def test_a_redirection_to_nowhere_is_a_protocol_error(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="redirects to no address"):
        parse_redirect(ServerError("MOVED", text), ASKED)


def test_slots_without_a_host_are_on_the_node_that_was_asked() -> None:
    table = parse_slots([[0, 2, [b"", 7000, b"id", []], [None, 7001, b"id", []]], [4, 4, [b"10.0.0.3", 7002]]], ASKED)
    assert [table.owner(slot) for slot in range(5)] == [ASKED, ASKED, ASKED, None, at("10.0.0.3", 7002)]
    assert table.served == 4
    assert table.replicas == {ASKED: (at("10.0.0.1", 7001),), at("10.0.0.3", 7002): ()}
    assert table.primaries == (ASKED, at("10.0.0.3", 7002))
    assert table.nodes == (ASKED, at("10.0.0.3", 7002), at("10.0.0.1", 7001))


def test_a_moved_slot_is_somewhere_else_and_all_others_stay() -> None:
    table = parse_slots([[0, SLOTS - 1, [b"10.0.0.1", 7000]]], ASKED)
    later = table.moved(5, at("10.0.0.9", 1))
    assert [later.owner(slot) for slot in (4, 5, 6)] == [ASKED, at("10.0.0.9", 1), ASKED]
    assert table.owner(5) == ASKED
    assert len(later.owners) == SLOTS


@pytest.mark.parametrize(
    "reply", [b"OK", None, 3, [1], [[0, 1]], [[0, 1, b"x"]], [[0, 16384, [b"h", 1]]], [[2, 1, [b"h", 1]]], [[0, 1, [b"h", b"1"]]]]
)
def test_what_is_no_table_of_slots_is_a_protocol_error(reply: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_slots(reply, ASKED)


def test_a_switch_names_the_old_and_the_new_primary() -> None:
    assert parse_switch(b"valkeep 10.0.0.1 1 fe80::1 2", ASKED) == ("valkeep", at("10.0.0.1", 1), at("fe80::1", 2))
    for payload in (b"", b"valkeep 10.0.0.1 1 10.0.0.2", b"valkeep 10.0.0.1 one 10.0.0.2 2"):
        with pytest.raises(RemoteProtocolError):
            parse_switch(payload, ASKED)


def test_replicas_that_a_sentinel_believes_to_be_down_are_left_out() -> None:
    def replica(port: int, flags: bytes) -> list[bytes]:
        return [b"name", b"x", b"ip", b"10.0.0.2", b"port", b"%d" % port, b"flags", flags]

    listed = [replica(1, b"slave"), replica(2, b"s_down,slave"), replica(3, b"slave,disconnected")]
    assert parse_replicas(listed, ASKED) == (at("10.0.0.2", 1),)
    wrong: tuple[Value, ...] = (None, b"OK", [[]], [b"x"], [[b"ip", b"h"]])
    for reply in wrong:
        with pytest.raises(RemoteProtocolError):
            parse_replicas(reply, ASKED)


@pytest.mark.parametrize("reply", [None, [], [b"h"], [b"", b"1"], [b"h", b"x"], [b"h", 1]])
def test_what_is_no_address_is_a_protocol_error(reply: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_address(reply, ASKED)


def test_sentinels_are_asked_without_the_database_that_the_nodes_are_asked_with() -> None:
    directory = SentinelDirectory([Endpoint.parse("redis://h:26379/3")])
    assert (directory.sentinels[0].db, directory.login.db) == (0, 3)
    with pytest.raises(UsageError):
        SentinelDirectory([])
