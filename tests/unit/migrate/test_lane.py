"""Which lanes a cluster has when a migration begins, and when one that was killed goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from valkeep.client.cluster_nodes import ClusterNodes, NodeWord
from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.migrate.journal import Journal
from valkeep.migrate.outcome import RunOptions
from valkeep.migrate.run import lane
from valkeep.migrate.state import MigrationState, StateFile
from valkeep.topology.members import cluster_members
from valkeep.topology.slots import slots_of

A, A2, B, C = (letter * 40 for letter in "adbc")
PORTS = {A: 1, A2: 2, B: 3, C: 4}


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


def test_a_primary_without_slots_has_a_lane_of_its_own_behind_those_with_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some may come to it while the others are copied."""
    assert shards(monkeypatch, a="", b="0-19") == {"1": "0-19", "2": ""}


def test_a_slot_of_which_two_say_that_it_is_theirs_is_nobodys_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them has not heard yet that it went away: two lanes must never both write it."""
    assert shards(monkeypatch, a="0-9", b="9-19") == {"1": "0-8", "2": "10-19"}


# ------------------------------------------------------------------------------------------------------------ a run that goes on

Line = tuple[str, str, str]
"""Of CLUSTER NODES: id, flags, whom it follows ("": nobody)."""


def word(me: str, *lines: Line) -> NodeWord:
    said = "\n".join(
        f"{name} h:{PORTS[name]}@1 {'myself,' * (name == me)}{flags} {of or '-'} 0 0 1 connected {'10-19' * (name == B)}"
        for name, flags, of in lines
    )
    return NodeWord(Endpoint("h", PORTS[me]), cluster_members(said))


@pytest.fixture
def going_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``going_on(*words, slots="0-4")``: the lanes of a run that goes on, and which of them have something kept. ``slots``: that lane 1 had brought when the
    run before was killed; it knew A and A2 as its shard, and B as the other's. ``words``: what nodes say now."""

    def begun(*words: NodeWord, slots: str = "") -> tuple[dict[str, list[int]], set[str]]:
        async def look(*_: object, **__: object) -> dict[str, NodeWord]:
            return {one.me.id: one for one in words}

        monkeypatch.setattr(ClusterNodes, "look", look)
        options = RunOptions(Endpoint("h", PORTS[B]), Endpoint("t"), state=tmp_path)
        left = {"1": {"nodes": f"{A} {A2}", "slots": slots}, "2": {"nodes": B, "slots": "10-19"}}
        state = StateFile(tmp_path)
        state.write(MigrationState("attached", "redis://h:3", "redis://t", 41, delivery="push", source_shards=left))
        kept = {name: tmp_path / "shards" / name / "gateway.json" for name in left}
        for path in kept.values():
            path.parent.mkdir(parents=True)
            path.write_text("{}")
        found = asyncio.run(lane.starts(options, Endpoint("h", PORTS[B]), state, Journal(None, lambda _: None, lambda: 0.0)))
        carried = {
            one.name: [slot for slot, here in enumerate(one.territory.carried) if here] for one in found if one.territory is not None
        }
        return carried, {name for name, path in kept.items() if path.exists()}

    return begun


KEPT = {"1": [], "2": list(slots_of([(10, 19)]))}
DROPPED = {"2": KEPT["2"]}


def fellows(flags: str, of: str = "") -> tuple[Line, ...]:
    """A, as somebody sees it, and the others as they are."""
    return (A, flags, of), (A2, "slave", of or A), (B, "master", "")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="nobody answers"),
        pytest.param((word(B, *fellows("master")),), id="only the other answers and calls it a primary"),
        pytest.param((word(B, *fellows("master,fail?")),), id="somebody suspects it"),
        pytest.param((word(A2, *fellows("master,fail?")), word(B, *fellows("master,fail"))), id="not everybody has it as failed"),
        pytest.param((word(A, (A, "slave", A2), (A2, "master", ""), (B, "master", "")),), id="its replica is promoted and does not answer"),
        pytest.param((word(A2, *fellows("master")), word(B, *fellows("master"))), id="its replica has not been promoted yet"),
    ],
)
def test_an_empty_shard_that_only_does_not_answer_or_fails_over_keeps_its_lane(going_on: Any, words: tuple[NodeWord, ...]) -> None:
    """Slots may come back to it, and whoever has them then has to be followed."""
    assert going_on(*words) == (KEPT, {"1", "2"})


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((word(A2, *fellows("master,fail")), word(B, *fellows("master,fail"))), id="everybody has it as failed"),
        pytest.param((word(B, (B, "master", "")),), id="nobody lists it"),
        pytest.param((word(A, *fellows("slave", B)), word(B, *fellows("slave", B))), id="it is a replica of the other shard"),
        pytest.param((word(A, (A, "slave", C), (C, "master", "")),), id="it is a replica of a shard that is none of these"),
    ],
)
def test_an_empty_shard_that_is_none_any_more_has_no_lane_and_leaves_nothing_kept(going_on: Any, words: tuple[NodeWord, ...]) -> None:
    assert going_on(*words) == (DROPPED, {"2"})


def test_a_shard_that_had_slots_is_over_only_as_a_replica_of_another_of_these(going_on: Any) -> None:
    """These have its slots, then, and copy them; those of a shard that is gone may be with anybody."""
    assert going_on(word(A, *fellows("slave", B)), word(B, *fellows("slave", B)), slots="0-4") == (DROPPED, {"2"})


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((word(B, (B, "master", "")),), id="nobody lists it"),
        pytest.param((word(A2, *fellows("master,fail")), word(B, *fellows("master,fail"))), id="everybody has it as failed"),
        pytest.param((word(A, (A, "slave", C), (C, "master", "")),), id="it is a replica of a shard that is none of these"),
    ],
)
def test_a_shard_that_had_slots_keeps_its_lane_while_nobody_of_these_surely_has_them(going_on: Any, words: tuple[NodeWord, ...]) -> None:
    assert going_on(*words, slots="0-4") == (KEPT | {"1": [0, 1, 2, 3, 4]}, {"1", "2"})
