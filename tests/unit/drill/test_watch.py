"""What a watch remembers of nodes that say different things, or nothing any more."""

from __future__ import annotations

import asyncio

import pytest

from valkeep.client.connection import Value
from valkeep.client.endpoint import Endpoint
from valkeep.drill.watch import Watch
from valkeep.topology.spec import Kind

PRIMARY: list[Value] = [b"role:master\r\nmaster_replid:" + b"a" * 40 + b"\r\nmaster_repl_offset:7\r\n"]
REPLICA: list[Value] = [b"role:slave\r\nmaster_host:127.0.0.2\r\nmaster_port:1\r\nmaster_link_status:up\r\nslave_repl_offset:7\r\n"]
SILENT: list[Value] = []


@pytest.mark.parametrize(
    ("said", "claims"),
    [
        ([], False),
        ([SILENT], False),
        ([PRIMARY], True),
        ([REPLICA], False),
        ([PRIMARY, SILENT, SILENT], True),  # slow to answer, or gone: it has not said that it is none
        ([PRIMARY, REPLICA], False),
        ([PRIMARY, REPLICA, SILENT], False),
        ([REPLICA, SILENT, PRIMARY], True),
    ],
)
def test_a_node_claims_to_be_a_primary_by_the_last_that_was_heard_of_it(said: list[list[Value]], claims: bool) -> None:
    async def heard() -> int:
        watch = Watch(Kind.SENTINEL, {"n1": Endpoint("127.0.0.1", 1)}, {})
        for at, replies in enumerate(said):
            await watch._note("n1", replies, at)
        return watch.claimed["n1"]

    assert (asyncio.run(heard()) > 0) == claims
