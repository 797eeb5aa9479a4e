"""kill -9 of Valkeep at steps of the cut-over, with writers that the pause holds. ``make soak`` does the same at every step, again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soak.killing import Kill, perform

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("kill", "left"),
    [
        (Kill("wire:attach"), "writable"),
        (Kill("wire:pause"), "writable"),
        (Kill("wire:fence"), "fenced"),
        (Kill("wire:last-look"), "fenced"),
        (Kill("wire:promote-unsent"), "fenced"),
        (Kill("wire:promote", source="redis-7.0", target="valkey-8.1"), "promoted"),
        (Kill("wire:keep"), "promoted"),
        (Kill("wire:last-look", fence="direct"), "fenced"),
    ],
    ids=lambda value: value.point if isinstance(value, Kill) else value,
)
def test_no_acknowledged_write_is_missing_whenever_valkeep_is_killed(kill: Kill, left: str, tmp_path: Path) -> None:
    outcome = perform(kill, tmp_path)
    assert outcome.violations == ()
    assert outcome.acked > 50
    found = "promoted" if outcome.promoted else "fenced" if outcome.fenced else "writable"
    assert found == left, outcome
    if kill.point == "wire:pause":
        assert outcome.held, "no writer was held by the pause when the kill fell"


def test_the_judge_finds_a_planted_loss(tmp_path: Path) -> None:
    def plant(target: Any) -> None:
        target.lrem("list:0", 1, b"7")
        target.set("key:1:3", b"4")

    outcome = perform(Kill("cutover:promoted"), tmp_path, plant=plant)
    assert outcome.promoted
    assert sorted(outcome.violations) == ["target: key:1:3 is b'4'", "target: list:0 lacks 7"]
