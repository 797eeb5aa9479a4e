"""Which lanes a cluster has when a migration begins."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from valkeep.client.cluster_nodes import ClusterNodes, NodeWord
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.run import lane
from valkeep.topology.members import cluster_members

A, B = "a" * 40, "b" * 40


class _Opened:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


def shards(monkeypatch: pytest.MonkeyPatch, **slots: str) -> dict[str, str]:
    """Lane → slots. ``slots``: what each node says of itself."""

    async def opened(*_: object, **__: object) -> _Opened:
        return _Opened()

    async def info(_: object) -> Any:
        return SimpleNamespace(mode="cluster")

    async def look(*_: object, **__: object) -> dict[str, NodeWord]:
        own = {A: slots["a"], B: slots["b"]}
        return {
            me: NodeWord(Endpoint("h", port), cluster_members(f"{me} h:{port}@1 myself,master - 0 0 1 connected {own[me]}"))
            for port, me in ((1, A), (2, B))
        }

    monkeypatch.setattr(Connection, "open", opened)
    monkeypatch.setattr(lane, "server_info", info)
    monkeypatch.setattr(ClusterNodes, "look", look)
    return {name: shard["slots"] for name, shard in asyncio.run(lane._shards(Endpoint("h", 1))).items()}


def test_each_primary_has_a_lane_with_its_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shards(monkeypatch, a="0-9", b="10-19") == {"1": "0-9", "2": "10-19"}


def test_a_slot_of_which_two_say_that_it_is_theirs_is_nobodys_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them has not heard yet that it went away: two lanes must never both write it."""
    assert shards(monkeypatch, a="0-9", b="9-19") == {"1": "0-8", "2": "10-19"}
