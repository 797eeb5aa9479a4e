"""kill -9 of Valkeep at steps of the way back, with writers on both sides. ``make soak`` does the same at every step, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.returning import Return, perform

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("kill", "ended"),
    [
        (Return("rollback:fence", lease=4000), "rolled-back"),
        (Return("rollback:promote", lease=4000), "rolled-back"),
    ],
    ids=lambda value: value.point if isinstance(value, Return) else value,
)
def test_no_acknowledged_write_is_missing_whenever_the_way_back_is_killed(kill: Return, ended: str, tmp_path: Path) -> None:
    outcome = perform(kill, tmp_path)
    assert outcome.violations == ()
    assert outcome.ended == ended
    assert min(outcome.acked) > 5


def test_the_judge_of_the_way_back_finds_a_planted_loss(tmp_path: Path) -> None:
    outcome = perform(Return("way-back:current", lease=4000), tmp_path, plant=True)
    assert outcome.violations
    assert all(one.startswith("list:new0 lacks") for one in outcome.violations)
