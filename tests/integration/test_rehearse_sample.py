"""The rehearsal's second opinion by ordinary commands: equal data sets are equal, and each planted difference is found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.drill.rehearsal.dataset import Abilities, dataset
from valkeep.drill.rehearsal.spotcheck import SpotCheck, sample_keys, spot_check
from valkeep.runtime.node import Process

pytestmark = pytest.mark.server

NOW = 2_000_000_000_000


def checked(server: Callable[..., Process], damage: list[tuple[Any, ...]], policy: str = "refuse") -> SpotCheck:
    source, target = server("valkey-9.1"), server("valkey-9.1")

    async def work() -> SpotCheck:
        ends = [Endpoint.parse(node.endpoint) for node in (source, target)]
        for end in ends:
            async with await Connection.open(end) as connection:
                for block in dataset(random.Random(3), 1000, Abilities(field_ttl=True, functions=True), now_ms=NOW, databases=(0,)):
                    await connection.pipeline(block.commands)
        async with await Connection.open(ends[1]) as connection:
            for command in damage:
                await connection.call(*command)
        keys = await sample_keys(ends[0], random.Random(1), [0], per_database=2000)
        return await spot_check(ends[0], ends[1], keys, field_ttl=policy, target_has_field_ttl=policy == "refuse")

    return asyncio.run(work())


def test_equal_data_is_equal(server: Callable[..., Process]) -> None:
    found = checked(server, [])
    assert found.differences == ()
    assert found.keys > 500
    assert found.kinds.keys() >= {"string", "list", "set", "hash", "zset", "stream"}


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        (("PEXPIREAT", "big-set:0", NOW * 2), "big-set:0"),
        (("LSET", "big-list:1", 5, "other"), "big-list:1"),
        (("ZINCRBY", "big-zset:0", 1, "new"), "big-zset:0"),
        (("XACK", "big-stream:2", "billing", "5001-0"), "big-stream:2"),
        (("XGROUP", "SETID", "big-stream:2", "idle", "0"), "big-stream:2"),
        (("HSET", "field-ttl:0", "extra", "1"), "field-ttl:0"),
        (("SETBIT", "bitmap:0", 4001, 1), "bitmap:0"),
        (("DEL", "hyperloglog:0"), "hyperloglog:0"),
        (("FUNCTION", "FLUSH"), "function libraries"),
    ],
)
def test_a_planted_difference_is_found(server: Callable[..., Process], damage: tuple[Any, ...], key: str) -> None:
    found = checked(server, [damage])
    assert len(found.differences) == 1
    assert key in found.differences[0]


def test_a_lost_field_ttl_is_found(server: Callable[..., Process]) -> None:
    source_only = [
        ("EVAL", "local f = redis.call('HKEYS', KEYS[1]); return redis.call('HPERSIST', KEYS[1], 'FIELDS', 1, f[1])", 1, "field-ttl:1")
    ]
    found = checked(server, source_only)
    assert len(found.differences) == 1
    assert "field-ttl:1" in found.differences[0]
