"""Copying keys again from a source that does not permit it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.errors import Refused, ServerError
from valkeep.migrate.copier import Copier
from valkeep.migrate.ledger import Ledger
from valkeep.migrate.transform.target import FieldTtl


class Denying:
    """A connection of a user who may not DUMP: refused in the queue of MULTI, as servers do it."""

    closed = False

    async def call(self, *_: object) -> bytes:
        return b"OK"

    async def execute(self, *_: object, **__: object) -> list[Any]:
        raise ServerError("NOPERM", "User poor has no permissions to run the 'dump' command")


def test_a_copy_that_is_denied_is_a_refusal_that_can_be_remedied_and_not_the_end() -> None:
    async def story() -> None:
        copier = Copier(Endpoint.parse("redis://h"), FieldTtl.REFUSE, Ledger(None), lambda _: None, lambda: 0.0, lambda: None, None)
        copier._connection = cast("Connection", Denying())
        with pytest.raises(Refused) as refused:
            await copier._fetch([(0, b"k")])
        assert refused.value.code == "VK-COPY-DENIED"
        assert "dump" in refused.value.message

    asyncio.run(story())
