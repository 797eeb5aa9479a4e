"""An offset that stands still proves that nobody wrote, where the server counts one; else the commands do."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from valkeep.client.connection import Connection
from valkeep.migrate.cutover.lookout import Look, Lookout


class Source:
    async def call(self, *words: Any) -> list[Any]:
        return [[b"", 0, [b"write"] if word in ("set", "lpush") else [b"readonly"]] for word in words[2:]]


def look(calls: dict[str, int], *, counted: bool) -> Look:
    return Look("run", "primary", "", 100, calls, frozenset(), {}, scripts_pass=False, counted=counted)


def wrote(before: Look, after: Look) -> tuple[str, ...]:
    return asyncio.run(Lookout(cast("Connection", Source())).wrote(before, after))


def test_an_offset_that_stands_still_is_believed_of_a_server_that_counts() -> None:
    assert wrote(look({"set": 1}, counted=True), look({"set": 2}, counted=True)) == ()


def test_a_server_that_nobody_follows_is_asked_for_its_commands() -> None:
    assert wrote(look({"set": 1, "dump": 1}, counted=False), look({"set": 2, "dump": 9}, counted=False)) == ("SET",)
    assert wrote(look({"set": 1, "dump": 1}, counted=False), look({"set": 1, "dump": 9}, counted=False)) == ()
    assert wrote(look({"set": 1}, counted=False), look({"set": 2}, counted=True)) == ("SET",)
