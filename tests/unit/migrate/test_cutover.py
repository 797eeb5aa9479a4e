"""The cut-over's own decisions, with servers that answer what they are told to."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from valkeep.client.connection import Connection
from valkeep.errors import Refused
from valkeep.migrate.cutover import FenceMode, fence_before, fence_mode


class Configured:
    """A server that knows these parameters."""

    def __init__(self, **settings: str) -> None:
        self._settings = {name.replace("_", "-"): value for name, value in settings.items()}

    async def call(self, command: str, word: str, name: str) -> list[bytes]:
        assert (command, word) == ("CONFIG", "GET")
        return [name.encode(), self._settings[name].encode()] if name in self._settings else []


def test_the_fence_is_known_by_both_of_its_names() -> None:
    for settings in ({"min-replicas-to-write": "0", "min-replicas-max-lag": "10"}, {"min-slaves-to-write": "1", "min-slaves-max-lag": "0"}):
        server = Configured(**{name.replace("-", "_"): value for name, value in settings.items()})
        assert asyncio.run(fence_before(cast("Connection", server))) == settings


@pytest.mark.parametrize("settings", [{}, {"min_replicas_to_write": "0"}, {"min_replicas_max_lag": "10"}])
def test_a_server_without_a_part_of_the_fence_is_not_taken_for_fenced(settings: dict[str, str]) -> None:
    server = cast("Connection", Configured(**settings))
    with pytest.raises(Refused) as refused:
        asyncio.run(fence_before(server))
    assert refused.value.code == "VK-CUTOVER-FENCE"
    assert asyncio.run(fence_mode(server)) is FenceMode.EXTERNAL
