"""What the state of the whole says after an attempt to cut several shards over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from valkeep.errors import ValkeepError
from valkeep.migrate.cutover.joint import CalledOff
from valkeep.migrate.fence import Aborted
from valkeep.migrate.run.attempts import Attempts, Still
from valkeep.migrate.state import MigrationState, StateFile

SLOTS = Aborted("slot 7 is on its way", remedy="wait", code="VK-CUTOVER-SLOTS")
FENCED = {"min-replicas-to-write": "0"}


class Whole:
    """Two shards whose cut-overs go as ``ends`` says: what is raised, and the step that their state is left at."""

    def __init__(self, folder: Path, **ends: tuple[BaseException | None, str]) -> None:
        self.state = StateFile(folder)
        self.state.write(MigrationState("attached", "s", "t", 1))
        self.looked: list[dict[str, str]] = []
        self.ends = ends
        lanes = []
        for name in ends:
            state = StateFile(folder / name)
            state.write(MigrationState("attached", "s", "t", 1, source_replid=f"history of {name}"))
            lanes.append(SimpleNamespace(name=name, start=SimpleNamespace(display=name), state=state))
        self.legs: Any = [SimpleNamespace(lane=lane) for lane in lanes]
        attempts: Any = object.__new__(Attempts)
        attempts._state = self.state
        attempts._options = SimpleNamespace(lease_ms=1000)
        attempts._delivery = SimpleNamespace(identify=self._identify)
        attempts._journal = SimpleNamespace(emit=lambda _event: None)
        attempts._slots = self
        attempts._cutover = lambda leg, allies, _emit: SimpleNamespace(run=lambda: self._run(leg.lane, allies))
        self.attempts = attempts

    async def _identify(self) -> str:
        return "r"

    async def expect_still(self, fenced: dict[str, str]) -> None:
        self.looked.append(fenced)

    async def _run(self, lane: Any, allies: Any) -> None:
        error, step = self.ends[lane.name]
        assert self.state.read().step == "cutting"  # type: ignore[union-attr]
        lane.state.step("cutting", fence_before=FENCED)
        await allies.all_drained(1.0)
        await allies.decide(1.0)
        lane.state.step(step)
        if error is not None:
            raise error

    def end(self) -> tuple[BaseException, str]:
        with pytest.raises(BaseException) as error:  # noqa: PT011
            asyncio.run(self.attempts._cut_together(self.legs))
        return error.value, self.state.read().step  # type: ignore[union-attr]


def test_a_promotion_that_surely_did_not_happen_leaves_nothing_to_be_aborted(tmp_path: Path) -> None:
    off = Aborted("it was not promoted", remedy="again", code="VK-TARGET-LOST")
    whole = Whole(tmp_path, one=(off, "attached"), two=(off, "attached"))
    assert whole.end() == (off, "attached")
    assert whole.looked == [{"one": "history of one", "two": "history of two"}]


def test_while_one_shard_may_be_fenced_the_whole_is_in_the_middle_of_its_cut_over(tmp_path: Path) -> None:
    stuck = ValkeepError("could not be made writable", remedy="abort", definite=False, code="VK-CUTOVER-UNFENCE")
    off = CalledOff("called off", remedy="see that shard")
    assert Whole(tmp_path, one=(off, "attached"), two=(stuck, "cutting")).end() == (stuck, "cutting")


def test_where_the_promotion_could_not_be_written_down_it_is_not_forgotten(tmp_path: Path) -> None:
    late = ValkeepError("the promotion's reply was lost", remedy="ask", definite=False, code="VK-CUTOVER-PROMOTE")
    assert Whole(tmp_path, one=(late, "promoted"), two=(late, "promoted")).end()[1] == "cutting"


def attempted(*ends: Aborted, cluster: bool = True, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often it was tried, until it came about or was given up."""
    monkeypatch.setattr("valkeep.migrate.run.attempts.RETRY_SECONDS", 0.001)
    left = list(ends)
    attempts: Any = object.__new__(Attempts)
    attempts.manual = False
    attempts._slots = Still()
    attempts._cluster = cluster
    attempts._all = ()
    attempts._journal = SimpleNamespace(say=lambda *_: None)
    attempts._handover = SimpleNamespace(answer=lambda *_, **__: None)

    async def cut() -> tuple[()]:
        if left:
            raise left.pop(0)
        return ()

    attempts._cut = cut
    try:
        asyncio.run(attempts.run())
    except Aborted:
        return len(ends) - len(left)
    return len(ends) + 1


def test_slots_that_keep_moving_are_waited_for_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempted(*[SLOTS] * 20, monkeypatch=monkeypatch) == 21


@pytest.mark.parametrize("code", ["VK-CUTOVER-ROLE", "VK-CUTOVER-REPLICA"])
def test_a_shard_that_fails_over_in_the_cut_over_is_cut_over_again(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    demoted = Aborted("it is a replica now", remedy="give the primary", code=code)
    assert attempted(demoted, monkeypatch=monkeypatch) == 2
    assert attempted(demoted, cluster=False, monkeypatch=monkeypatch) == 1


def test_what_may_pass_is_tried_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    lag = Aborted("too slow", remedy="wait", code="VK-CUTOVER-LAG")
    assert attempted(*[lag, SLOTS] * 9, monkeypatch=monkeypatch) == 5
