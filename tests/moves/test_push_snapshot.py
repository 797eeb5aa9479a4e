"""A snapshot brought to a real target by commands: values in pieces, functions, connections that break, replies that are errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.support.proxy import Proxy
from tests.support.rdb_oracle import said
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.client.server_info import server_info
from valkeep.errors import Refused
from valkeep.migrate.delivery.push.door import Door
from valkeep.migrate.delivery.push.snapshot import SnapshotLoad
from valkeep.migrate.spool import Spool
from valkeep.runtime.node import Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
Client = Callable[..., Any]
LARGE = 2000  # bytes


def fill(here: Any) -> None:
    later = int(time.time() * 1000) + 3_600_000
    here.set("string", bytes(range(256)) * 5000)
    here.set("compressed", b"ab" * 100_000, pxat=later)
    here.rpush("list", *[f"item {number}" * (number % 9 + 1) for number in range(3000)], b"x" * 20_000)
    here.sadd("set", *[f"member {number}" for number in range(3000)])
    here.sadd("numbers", *range(5000))
    here.zadd("zset", {f"member {number}": number / 3 - 200 for number in range(3000)} | {"most": float("inf"), "least": float("-inf")})
    here.hset("hash", mapping={f"field {number}": "value" * 3 for number in range(3000)})
    here.execute_command("HPEXPIREAT", "hash", later, "FIELDS", 2, "field 7", "field 8")
    here.pexpireat("zset", later + 5)
    pipe = here.pipeline(transaction=False)
    for number in range(1, 500):
        pipe.xadd("stream", {"field": number}, id=f"{number}-1")
        pipe.set(f"small:{number}", number)
    pipe.execute()
    here.xgroup_create("stream", "group", id="0")
    here.xreadgroup("group", "consumer", {"stream": ">"}, count=10)
    here.xdel("stream", "3-1", "499-1")
    here.function_load("#!lua name=push\nredis.register_function('answer', function() return 42 end)")


async def load(folder: Path, source: Process, target: Endpoint, *, large: int = LARGE) -> SnapshotLoad:
    spool = Spool(folder, "snapshot")
    data = (Path(source.directory) / "dump.rdb").read_bytes()
    spool.append(data)
    spool.seal()
    async with await Connection.open(target) as connection:
        door = Door(target, (await server_info(connection)).run_id)
    try:
        one = SnapshotLoad(spool, door, lambda _position: None, large)
        await one.run()
        return one
    finally:
        spool.close()


def unseen(record: Any) -> Any:
    """Without the times at which consumers were seen: no data."""
    for group in getattr(record.value, "groups", ()):
        group.consumers = [replace(one, seen_ms=0, active_ms=0) for one in group.consumers]
    return record


def same(here: Any, there: Any) -> None:
    keys = set(here.keys("*"))
    assert keys == set(there.keys("*"))
    for key in sorted(keys):
        assert unseen(said(here, key, field_ttl=True)) == unseen(said(there, key, field_ttl=True)), key


@pytest.mark.parametrize("large", [LARGE, 64 << 20])
def test_values_in_pieces_are_what_they_were(server: Server, client: Client, tmp_path: Path, large: int) -> None:
    source, target = server("valkey-9.1"), server("valkey-9.1")
    here, there = client(source), client(target)
    fill(here)
    here.save()
    there.rpush("list", "what stood there before")
    found = asyncio.run(load(tmp_path, source, Endpoint.parse(target.endpoint), large=large))
    assert found.keys == here.dbsize()
    same(here, there)
    assert there.fcall("answer", 0) == 42


def test_connections_that_break_at_any_command_change_nothing(server: Server, client: Client, tmp_path: Path) -> None:
    source, target = server("valkey-9.1"), server("valkey-9.1")
    here, there = client(source), client(target)
    fill(here)
    here.save()
    with Proxy(("127.0.0.1", target.port)) as proxy:

        def soon() -> None:
            threading.Thread(target=proxy.cut, daemon=True).start()

        for command in (b"RPUSH", b"SETRANGE", b"ZADD", b"HPEXPIREAT", b"RESTORE", b"LOAD"):
            proxy.when(command, before=soon)
            proxy.when(command, after=soon)
        asyncio.run(load(tmp_path, source, Endpoint.parse(proxy.url("valkey"))))
        assert proxy.accepted > 10
    same(here, there)


def test_an_error_reply_names_the_command_and_the_key(server: Server, client: Client, tmp_path: Path) -> None:
    source, target = server("valkey-9.1"), server("valkey-9.1")
    fill(client(source))
    client(source).function_flush()
    client(source).save()
    client(target).config_set("maxmemory", "1mb")
    with pytest.raises(Refused, match=r"answered RESTORE of key b'.*OOM") as found:
        asyncio.run(load(tmp_path, source, Endpoint.parse(target.endpoint), large=64 << 20))
    assert found.value.code == "VK-PUSH-OOM"
