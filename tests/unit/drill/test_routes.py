"""How a client of a drill finds its first place."""

from __future__ import annotations

import asyncio

import pytest

from valkeep.drill.workloads import routes


@pytest.mark.parametrize(("known_after", "found"), [(1, True), (3, True), (10**9, False)])
def test_the_first_look_may_take_several(monkeypatch: pytest.MonkeyPatch, known_after: int, found: bool) -> None:
    monkeypatch.setattr(routes, "FIRST_PATIENCE", 0.1 if not found else 30.0)
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1

    assert asyncio.run(routes._found(look, lambda: looks >= known_after)) == found
    assert looks == known_after or (not found and looks > 1)
