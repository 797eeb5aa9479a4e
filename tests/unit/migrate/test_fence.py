"""The fence: what it replaces, what it finds there, and that it is lifted for sure; servers answer what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from valkeep.client.connection import Connection
from valkeep.errors import Refused, ServerError
from valkeep.migrate import fence

DENIED = ServerError("NOPERM", "this user has no permissions to run the 'config|set' command")
OLD = {"min-replicas-to-write": "1", "min-replicas-max-lag": "0"}
TOKEN = "7654321"
RAISED = {"min-replicas-to-write": "255", "min-replicas-max-lag": TOKEN}


class Configured:
    """A server with these parameters. ``denied``: CONFIG SET is; ``between``: run once, before a transaction."""

    def __init__(self, settings: dict[str, str], *, denied: bool = False) -> None:
        self.settings = dict(settings)
        self.denied = denied
        self.stubborn = 0  # how many CONFIG SETs have no effect: a fence comes in between
        self.unpaused = 0

    async def call(self, *command: str) -> Any:
        (reply,) = await self.pipeline([command])
        if isinstance(reply, ServerError):
            raise reply
        return reply

    async def pipeline(self, commands: Iterable[Sequence[str]]) -> list[Any]:
        return [self._run(*command) for command in commands]

    async def execute(self, commands: Iterable[Sequence[str]]) -> list[Any]:
        return await self.pipeline(commands)

    def _run(self, *command: str) -> Any:
        match command:
            case ("CONFIG", "GET", name):
                return [name.encode(), self.settings[name].encode()] if name in self.settings else []
            case ("CONFIG", "SET", name, value):
                if self.denied:
                    return DENIED
                if self.stubborn:
                    self.stubborn -= 1
                else:
                    self.settings[name] = value
                return b"OK"
            case ("CLIENT", "UNPAUSE"):
                self.unpaused += 1
                return b"OK"
        raise AssertionError(command)


def connection(server: Configured) -> Connection:
    return cast("Connection", server)


def test_the_fence_is_known_by_both_of_its_names() -> None:
    for settings in (OLD, {"min-slaves-to-write": "1", "min-slaves-max-lag": "0"}):
        assert asyncio.run(fence.settings(connection(Configured(settings)))) == settings


@pytest.mark.parametrize("settings", [{}, {"min-replicas-to-write": "0"}, {"min-replicas-max-lag": "10"}])
def test_a_server_without_a_part_of_the_fence_is_not_taken_for_fenced(settings: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(fence.settings(connection(Configured(settings))))
    assert refused.value.code == "VK-CUTOVER-FENCE"


def test_a_fence_is_raised_under_its_token_and_lifted_to_what_was_there() -> None:
    server = Configured(OLD)
    assert asyncio.run(fence.raise_up(connection(server), OLD, TOKEN, unpause=True)) == OLD
    assert server.settings == RAISED
    assert fence.is_ours(server.settings, TOKEN)
    assert not fence.is_ours(server.settings, fence.new_token())
    assert server.unpaused == 1
    assert asyncio.run(fence.lift(connection(server), OLD, TOKEN))
    assert server.settings == OLD


def test_the_fence_of_somebody_else_is_not_lifted_unless_a_person_insists() -> None:
    server = Configured(RAISED)
    assert not asyncio.run(fence.lift(connection(server), OLD, "1234567"))
    assert server.settings == RAISED
    assert asyncio.run(fence.lift(connection(server), OLD, ""))
    assert server.settings == OLD


def test_the_fence_that_we_overwrote_is_put_back() -> None:
    theirs = {"min-replicas-to-write": "255", "min-replicas-max-lag": "1234567"}
    server = Configured(theirs)
    found = asyncio.run(fence.raise_up(connection(server), OLD, TOKEN, unpause=False))
    assert found == theirs
    assert asyncio.run(fence.lift(connection(server), found, TOKEN))
    assert server.settings == theirs


def test_what_is_put_back_is_what_was_replaced_and_not_what_was_seen_before() -> None:
    """Somebody else fenced the source after we had looked: it is theirs, and must not be lifted by us."""
    server = Configured({**OLD, "min-replicas-to-write": "255"})
    assert fence.is_up(asyncio.run(fence.raise_up(connection(server), OLD, TOKEN, unpause=False)))


def test_a_fence_that_cannot_be_raised_is_said() -> None:
    with pytest.raises(fence.Aborted, match="could not be fenced") as aborted:
        asyncio.run(fence.raise_up(connection(Configured(OLD, denied=True)), OLD, TOKEN, unpause=False))
    assert aborted.value.code == "VK-CUTOVER-FENCE"


def test_a_fence_that_arrives_while_it_is_lifted_is_lifted_again() -> None:
    server = Configured(RAISED)
    server.stubborn = 3
    assert asyncio.run(fence.lift(connection(server), OLD, TOKEN))
    assert server.settings == OLD


def test_a_fence_that_cannot_be_lifted_is_said() -> None:
    with pytest.raises(ServerError, match="no permissions"):
        asyncio.run(fence.lift(connection(Configured(RAISED, denied=True)), OLD, TOKEN))
    fought_over = Configured(RAISED)
    fought_over.stubborn = 99
    with pytest.raises(Refused, match="somebody else") as refused:
        asyncio.run(fence.lift(connection(fought_over), OLD, TOKEN))
    assert "CONFIG SET min-replicas-to-write 1" in refused.value.remedy


def test_a_source_that_is_fenced_already_is_refused_and_one_that_cannot_be_asked_is_not() -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(fence.expect_down(connection(Configured(RAISED))))
    assert refused.value.code == "VK-CUTOVER-FENCED"
    asyncio.run(fence.expect_down(connection(Configured(OLD))))
    asyncio.run(fence.expect_down(connection(Configured({}))))
