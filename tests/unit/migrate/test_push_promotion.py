"""A target that is pushed to is promoted, or surely was not, or nobody knows: and no writer is kept out while it does not answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from valkeep.errors import ConnectionLost
from valkeep.migrate.delivery import push as pushing
from valkeep.migrate.delivery.push import Push
from valkeep.migrate.fence import Aborted


class Part:
    """``hangs``: it does not answer; ``dies``: when it is promoted."""

    def __init__(self, *, hangs: bool = False, dies: bool = False) -> None:
        self.hangs = hangs
        self.dies = dies
        self.finished = 0

    async def run_id(self) -> str:
        return "r"

    async def finish(self, markers: object) -> str:
        del markers
        if self.dies:
            raise ConnectionLost("it is gone", remedy="look")
        self.finished += 1
        return ""


class Strand:
    key = b"marker"

    def __init__(self, part: Part) -> None:
        self.part = part
        self.link = SimpleNamespace(stop=self._nothing)

    async def _nothing(self) -> None: ...

    async def confirm(self) -> None:
        if self.part.hangs:
            await asyncio.Event().wait()


def delivery(*parts: Part, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pushing, "READY_SECONDS", 0.05)
    push: Any = object.__new__(Push)
    push._parts = parts
    push._strands = {"1": tuple(Strand(part) for part in parts)}
    push._over = {}
    push._promotion = None
    push._run = SimpleNamespace(
        gateways={},
        state=SimpleNamespace(step=lambda _: None),
        journal=SimpleNamespace(clock=lambda: 7.0, emit=lambda _: None),
        errand=SimpleNamespace(target=SimpleNamespace(address="there")),
    )
    return push


def test_a_target_that_does_not_answer_before_its_promotion_was_surely_not_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Part(), Part(hangs=True)

    async def story() -> list[BaseException | float]:
        push = delivery(*parts, monkeypatch=monkeypatch)
        async with asyncio.timeout(5):
            return list(await asyncio.gather(push.promote("r+r"), push.promote("r+r"), return_exceptions=True))

    for error in asyncio.run(story()):
        assert isinstance(error, Aborted)
        assert "not all of it answered" in error.message
        assert error.definite
    assert [part.finished for part in parts] == [0, 0]


def test_another_process_in_its_place_was_surely_not_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Aborted, match="was restarted"):
        asyncio.run(delivery(Part(), monkeypatch=monkeypatch).promote("another"))


def test_once_the_first_marker_may_be_gone_nobody_says_that_it_was_not_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="may or may not have been promoted") as error:
        asyncio.run(delivery(Part(), Part(dies=True), monkeypatch=monkeypatch).promote("r+r"))
    assert not error.value.definite  # type: ignore[attr-defined]


def test_several_sources_promote_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part()

    async def story() -> list[float]:
        push = delivery(part, monkeypatch=monkeypatch)
        return list(await asyncio.gather(*(push.promote("r") for _ in range(3))))

    assert asyncio.run(story()) == [7.0] * 3
    assert part.finished == 1
