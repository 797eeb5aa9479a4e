"""The cut-over's own decisions, where no server of ours behaves so: a source on which something writes in spite of the fence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from valkeep.client.connection import Connection
from valkeep.errors import ConnectionLost, ServerError
from valkeep.migrate.cutover import abort
from valkeep.migrate.cutover.cutover import Cutover
from valkeep.migrate.cutover.lookout import Look, Lookout
from valkeep.migrate.fence import Aborted, FenceMode
from valkeep.migrate.state import MigrationState, StateFile
from valkeep.report.events import Event

UP = {"min-replicas-to-write": "255", "min-replicas-max-lag": "10"}
LOOK = Look("1" * 40, "primary", ":", 100, {}, frozenset(), UP, scripts_pass=True)
SOURCE = cast("Connection", SimpleNamespace(endpoint=SimpleNamespace(address="10.0.0.1:6379"), closed=False))


class Leaky(Lookout):
    """A source whose scripts go on writing for ``writes`` looks."""

    def __init__(self, writes: int) -> None:
        super().__init__(SOURCE)
        self.left = writes
        self.offset = 100

    async def look(self, parameters: object) -> Look:
        self.offset += 50 if self.left else 0
        return replace(LOOK, offset=self.offset)

    async def wrote(self, earlier: Look, later: Look) -> tuple[str, ...]:
        if earlier.offset == later.offset:
            return ()
        self.left -= 1
        return ("EVAL",)


class Heir:
    """A successor that notes what it was asked to have."""

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets

    async def identify(self) -> str:
        return "2" * 40

    async def drained(self, source_offset: int) -> None:
        self.offsets.append(source_offset)

    async def promote(self, run_id: str) -> float:
        raise AssertionError(f"nobody asked for a promotion of {run_id}")


def cutover(lookout: Lookout, mode: FenceMode, drained: list[int], clock: Callable[[], float], folder: Path) -> Cutover:
    async def verify(offset: int) -> tuple[int, int]:
        return 0, 0

    events: list[Event] = []
    made = Cutover(
        SOURCE,
        Heir(drained),
        mode=mode,
        lease_ms=200,
        keep_fence=False,
        gateway_port=0,
        verify=verify,
        state=StateFile(folder),
        emit=events.append,
        clock=clock,
    )
    made._lookout = lookout
    made._first = LOOK
    made._before = dict(UP)
    made._token = UP["min-replicas-max-lag"]
    made._until = 1.0
    return made


def test_what_passes_the_fence_is_drained_until_nothing_does(tmp_path: Path) -> None:
    drained: list[int] = []
    asyncio.run(cutover(Leaky(3), FenceMode.PAUSE, drained, lambda: 0.5, tmp_path)._drain_all(0.2))
    assert drained == [150, 200, 250, 300]


@pytest.mark.parametrize("mode", [FenceMode.PAUSE, FenceMode.DIRECT])
def test_a_fence_that_does_not_hold_calls_the_cut_over_off_when_the_lease_ends(mode: FenceMode, tmp_path: Path) -> None:
    with pytest.raises(Aborted) as aborted:
        asyncio.run(cutover(Leaky(99), mode, [], lambda: 1.5, tmp_path)._drain_all(0.2))
    assert aborted.value.code == "VK-CUTOVER-PASSED"
    assert "EVAL" in aborted.value.message


@pytest.mark.parametrize(("leaks", "seconds"), [(True, 0.05), (False, 0.0)], ids=["before-7.0", "since"])
def test_writers_wait_for_silence_only_behind_a_fence_that_scripts_pass(
    leaks: bool, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    class Source(Leaky):
        async def look(self, parameters: object) -> Look:
            return replace(await super().look(parameters), scripts_pass=leaks)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(cutover(Source(0), FenceMode.DIRECT, [], lambda: 0.5, tmp_path)._drain_all(0.2))
    assert slept == [seconds]


def test_a_direct_cut_over_refuses_writers_no_longer_than_the_lease(tmp_path: Path) -> None:
    async def story() -> None:
        async def endless(offset: int) -> tuple[int, int]:
            await asyncio.sleep(60)
            return 0, 0

        clock = asyncio.get_running_loop().time
        one = cutover(Leaky(0), FenceMode.DIRECT, [], clock, tmp_path)
        one._verify = endless

        async def nothing(*_: object, **__: object) -> None:
            one._until = clock() + one._lease

        one._raise_fence = nothing  # type: ignore[method-assign]
        one._transactions_over = nothing  # type: ignore[method-assign]
        began = clock()
        with pytest.raises(Aborted) as aborted:
            await one._silence_writers()
        assert aborted.value.code == "VK-CUTOVER-LEASE"
        assert clock() - began < 5

    asyncio.run(story())


def test_writers_that_were_not_stopped_are_noticed_up_to_the_promotion(tmp_path: Path) -> None:
    one = cutover(Leaky(1), FenceMode.EXTERNAL, [], lambda: 0.5, tmp_path)
    one._silent = LOOK
    with pytest.raises(Aborted) as aborted:
        asyncio.run(one._drain_all(0.2))
    assert aborted.value.code == "VK-CUTOVER-WRITERS"


def test_calling_off_restores_nothing_at_a_source_that_is_another_process_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Client ids begin anew in a new process: the one that we would kill is somebody else."""
    asked: list[Any] = []
    again = SimpleNamespace(closed=False, close=lambda: asyncio.sleep(0), pipeline=asked.append)

    async def reopened(source: Connection) -> Connection:
        return cast("Connection", again)

    async def server_info(source: Connection) -> SimpleNamespace:
        return SimpleNamespace(run_id="2" * 40)

    monkeypatch.setattr(abort, "reopened", reopened)
    monkeypatch.setattr(abort, "server_info", server_info)
    state = StateFile(tmp_path)
    state.write(MigrationState("cutting", "redis://a:1", "redis://b:1", 1, fence_before=UP))
    lost = abort.Paused(cast("Connection", SimpleNamespace(closed=True)), 7, "1" * 40, UP, "10")
    asyncio.run(abort.call_off(lost, state, ConnectionLost("gone", remedy="wait")))
    assert asked == []
    assert state.current is not None
    assert (state.current.step, state.current.fence_before) == ("attached", {})


def test_a_fence_that_cannot_be_kept_over_a_restart_is_said_and_hides_no_cut_over(tmp_path: Path) -> None:
    async def refuse(*_: str) -> object:
        raise ServerError("ERR", "The server is running without a config file")

    one = cutover(Leaky(0), FenceMode.PAUSE, [], lambda: 0.5, tmp_path)
    one._source = cast("Connection", SimpleNamespace(call=refuse))
    one._state.write(MigrationState("promoted", "redis://a:1", "redis://b:1", 1))
    said: list[Event] = []
    one._emit = said.append
    assert not asyncio.run(one._keep())
    assert "without a config file" in str(said)


class Allies:
    """Others who come, and what was drained when they were asked. ``seconds``: that they were given."""

    def __init__(self, drained: list[int]) -> None:
        self.drained = drained
        self.asked: list[tuple[str, int]] = []
        self.seconds: list[float] = []

    async def all_drained(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.asked.append(("all drained", len(self.drained)))

    async def decide(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.asked.append(("decide", len(self.drained)))

    def left(self, why: BaseException) -> None:
        raise AssertionError(why)


@pytest.mark.parametrize("mode", FenceMode)
def test_a_shard_that_waited_for_the_others_looks_at_its_source_once_more_before_all_decide(mode: FenceMode, tmp_path: Path) -> None:
    drained: list[int] = []
    allies = Allies(drained)
    asyncio.run(cutover(Leaky(0), mode, drained, lambda: 0.9, tmp_path)._agree(allies))
    assert allies.asked == [("all drained", 0), ("decide", 1)]
    left = 0.2 if mode is FenceMode.EXTERNAL else 0.1  # of the lease
    assert allies.seconds == [pytest.approx(left)] * 2
