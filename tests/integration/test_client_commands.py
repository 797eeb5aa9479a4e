"""The client's table of reads, compared with what real servers say of their commands."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Server
from valkeep.client.commands import READS, REPEATABLE
from valkeep.client.connection import Connection, Value
from valkeep.client.endpoint import Endpoint

pytestmark = pytest.mark.server

#: Their sub-commands alone are reads.
_CONTAINERS = {b"OBJECT", b"XINFO"}
#: Read-only by their flag, and not in the table: no use of them needs a replica or a second time.
_LEFT_OUT = {b"LOLWUT", b"CLUSTERSCAN"}


def commands(server: Server, spec: str) -> dict[bytes, Value]:
    async def ask() -> dict[bytes, Value]:
        async with await Connection.open(Endpoint("127.0.0.1", server(spec).port)) as connection:
            return {row[0].upper(): row for row in await connection.call("COMMAND")}

    return asyncio.run(ask())


def test_every_command_that_is_held_for_a_read_is_one_on_every_server(server: Server) -> None:
    for spec in ("redis-7.0", "redis-8.0", "valkey-8.0", "newest-valkey"):
        rows = commands(server, spec)
        for name in READS & set(rows) - _CONTAINERS:
            assert b"readonly" in rows[name][2], (spec, name)
        assert not any(b"readonly" in rows[name][2] for name in REPEATABLE)
        for name in _CONTAINERS:
            assert all(b"write" not in sub[2] for sub in rows[name][9]), name


def test_no_read_of_the_newest_servers_is_missing(server: Server) -> None:
    for spec in ("redis-8.0", "newest-valkey"):
        reads = {name for name, row in commands(server, spec).items() if b"readonly" in row[2]}
        assert reads - READS <= _LEFT_OUT
