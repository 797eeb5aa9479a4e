"""Deciding about a way back: right behind the cut-over it does not stand yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from valkeep.errors import ConnectionLost, Refused, ValkeepError
from valkeep.migrate.back import decision
from valkeep.migrate.back.decision import Decision
from valkeep.migrate.back.old import lost


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


def test_before_the_cut_over_nobody_waits_for_a_way_back() -> None:
    for say in ("commit", "rollback"):
        with pytest.raises(Refused, match="not cut over") as refused:
            asyncio.run(getattr(Decision(due=lambda: False), say)())
        assert refused.value.code == "VK-ROLLBACK-NOT-YET"


def test_whoever_decides_about_a_way_back_that_ends_is_told_why_before_and_afterwards() -> None:
    async def story() -> list[BaseException | dict[str, Any]]:
        made = Decision()
        asking = asyncio.create_task(made.commit())
        await asyncio.sleep(0)
        made.ended(lost("it was restarted"))
        made.ended(ValkeepError("another word", remedy="none"))
        return [*await asyncio.gather(asking, made.rollback(), return_exceptions=True)]

    for told in asyncio.run(story()):
        assert isinstance(told, ConnectionLost)
        assert (told.code, "it was restarted" in told.message) == ("VK-ROLLBACK-LOST", True)


def test_who_has_gone_before_anybody_began_with_it_has_not_decided() -> None:
    async def story() -> str:
        made = Decision()
        made.stand()
        gone, stays = asyncio.create_task(made.rollback()), asyncio.create_task(made.commit())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        what, answer = await made.next()
        answer.set_result({})
        await stays
        return what

    assert asyncio.run(asyncio.wait_for(story(), 10)) == "commit"


def test_a_way_back_that_does_not_come_to_stand_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "STANDS_SECONDS", 0.02)
    with pytest.raises(Refused) as refused:
        asyncio.run(Decision().rollback())
    assert refused.value.code == "VK-ROLLBACK-NOT-YET"
