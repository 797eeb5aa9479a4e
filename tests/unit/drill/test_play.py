"""The end of a drill: what is there is read once every shard has one primary, and not from one that is still to be told."""

from __future__ import annotations

import asyncio
import random
import time
from types import SimpleNamespace
from typing import Any

import pytest

from valkeep.client.endpoint import Endpoint
from valkeep.drill import play
from valkeep.drill.catalogue import find
from valkeep.drill.checkers.evidence import FinalState
from valkeep.drill.script import Load
from valkeep.drill.stage import Stage
from valkeep.topology.spec import TopologySpec
from valkeep.topology.view import NodeView, View

NODES = {name: Endpoint("127.0.0.1", port) for name, port in (("n1", 7001), ("n2", 7002))}


class Scene:
    """A sentinel topology of two nodes: n1 is named by the sentinels, and both say that they are primary, until it has settled.
    ``slow``: n2 does not answer in time until then. ``gone``: it last did so long ago."""

    def __init__(self, *, settles: bool, slow: bool = False, gone: bool = False) -> None:
        self.settles, self.settled, self.slow, self.gone = settles, False, slow, gone
        self.since = {"n1": 0, "n2": 1}
        self.asked: list[str] = []

    def settle(self) -> None:
        self.settled = self.settles

    @property
    def named(self) -> str:
        return NODES["n1"].address if not self.settled else NODES["n2"].address

    @property
    def claimed(self) -> dict[str, int]:
        now = time.monotonic_ns()
        return {"n1": 0 if self.settled else now, "n2": now - 2 * play.HEARD if self.gone else now}

    @property
    def view(self) -> View:
        slow = self.slow and not self.settled
        roles = {"n1": "primary" if not self.settled else "replica", "n2": "primary"}
        return View(0, {name: NodeView(name, reached=name == "n1" or not slow, role=role) for name, role in roles.items()}, {})


def read_at_the_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    async def opened(endpoint: Endpoint, **_: Any) -> Any:
        async def call(*_words: Any) -> int:
            return 1

        async def close() -> None:
            pass

        return SimpleNamespace(endpoint=endpoint, call=call, close=close)

    async def read(connections: Any, *_: Any) -> FinalState:
        scene.asked = [connection.endpoint.address for connection in connections.values()]
        return FinalState()

    monkeypatch.setattr(play, "Connection", SimpleNamespace(open=opened))
    monkeypatch.setattr(play, "read_final", read)
    machines = {name: SimpleNamespace(endpoint=endpoint, alive=True, spec=SimpleNamespace(shard=0)) for name, endpoint in NODES.items()}
    deployment: Any = SimpleNamespace(spec=TopologySpec.sentinel(), machines=machines)
    watch: Any = scene
    stage = Stage(deployment, watch, Load(), random.Random(1), lambda _event: None, 0)
    nobody: Any = None
    playing = play._Play(find("sentinel-kill-primary"), stage, nobody, nobody)

    async def end() -> Any:
        asyncio.get_running_loop().call_later(0.05, scene.settle)
        return await playing._final()

    return asyncio.run(end()), playing.missed


def test_of_two_primaries_the_one_that_stays_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the deposed one acked would else count as there, though it goes as soon as a sentinel tells it."""
    scene = Scene(settles=True)
    (primaries, keys, final), missed = read_at_the_end(scene, monkeypatch)
    assert (primaries, keys, missed) == ({0: "n2"}, {0: 1}, [])
    assert final is not None
    assert scene.asked == [NODES["n2"].address]


def test_a_primary_that_is_slow_to_answer_is_none_the_less_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(settles=True, slow=True)
    _, missed = read_at_the_end(scene, monkeypatch)
    assert (scene.asked, missed) == ([NODES["n2"].address], [])


def test_a_primary_that_has_not_answered_for_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(settles=False, slow=True, gone=True)
    _, missed = read_at_the_end(scene, monkeypatch)
    assert (scene.asked, missed) == ([NODES["n1"].address], [])


def test_two_primaries_that_stay_so_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "FINAL_PATIENCE", 0.1)
    (primaries, _, final), missed = read_at_the_end(Scene(settles=False), monkeypatch)
    assert primaries == {0: "n1"}
    assert final is not None
    assert missed == ["two nodes said at the end that they are the primary of shard 1"]


def test_who_runs_no_more_or_claims_another_shard_disputes_nothing() -> None:
    shards = {"n1": 0, "n2": 1, "n3": 0, "n4": 0}
    claimed = dict.fromkeys(shards, time.monotonic_ns()) | {"n4": 0}
    stage: Any = SimpleNamespace(
        watch=SimpleNamespace(claimed=claimed), shard_of=shards.__getitem__, machine=lambda name: SimpleNamespace(alive=name != "n3")
    )
    nobody: Any = None
    playing = play._Play(find("sentinel-kill-primary"), stage, nobody, nobody)
    assert [playing._claims(shard) for shard in (0, 1, 2)] == [1, 1, 0]


def test_two_clocks_that_go_on_together_have_one_distance() -> None:
    assert abs(play._wall() - play._wall()) < 1_000_000


def test_a_look_at_the_clocks_that_was_held_up_is_not_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 80_000_000, 90_000_000, 90_000_010, 100_000_000, 170_000_000])
    walls = iter([5_080_000_000, 5_090_000_005, 5_100_000_000])
    monkeypatch.setattr(play, "time", SimpleNamespace(monotonic_ns=lambda: next(ticks), time_ns=lambda: next(walls)))
    assert play._wall() == 5_000_000_000
