"""Deciding about a way back: right behind the cut-over it does not stand yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from valkeep.errors import Refused
from valkeep.migrate.back import decision
from valkeep.migrate.back.decision import Decision


def test_who_decides_before_the_way_back_stands_is_answered_when_it_does() -> None:
    async def story() -> tuple[str, dict[str, Any]]:
        made = Decision()
        asking = asyncio.create_task(made.commit())
        await asyncio.sleep(0)
        assert not asking.done()
        made.stand()
        what, answer = await made.next()
        answer.set_result({"done": ["it is let go"]})
        return what, await asking

    assert asyncio.run(story()) == ("commit", {"done": ["it is let go"]})


def test_a_way_back_that_does_not_come_to_stand_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "STANDS_SECONDS", 0.02)
    with pytest.raises(Refused) as refused:
        asyncio.run(Decision().rollback())
    assert refused.value.code == "VK-ROLLBACK-NOT-YET"
