"""What is asked of a target before it is promoted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

import pytest

from valkeep.client.connection import Connection
from valkeep.client.endpoint import Endpoint
from valkeep.errors import ConnectionLost
from valkeep.migrate.delivery.native import confirm

OURS = "ab" * 20


@dataclass
class Target:
    """A server that says this of its replication."""

    role: str = "slave"
    replid: str = OURS
    offset: int = 500

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.parse("redis://10.0.0.5:6379")

    async def call(self, *args: str) -> bytes:
        assert args == ("INFO", "replication")
        applied = f"slave_repl_offset:{self.offset}\r\n" if self.role == "slave" else ""
        return f"# Replication\r\nrole:{self.role}\r\n{applied}master_replid:{self.replid}\r\n".encode()


def test_a_target_that_has_it_all_is_confirmed() -> None:
    asyncio.run(confirm(cast("Connection", Target()), OURS, 500))


@pytest.mark.parametrize(
    "other", [Target(offset=499), Target(replid="cd" * 20), Target(role="master")], ids=["behind", "of-another-primary", "restarted"]
)
def test_an_acknowledgement_of_somebody_else_does_not_promote_this_target(other: Target) -> None:
    with pytest.raises(ConnectionLost) as lost:
        asyncio.run(confirm(cast("Connection", other), OURS, 500))
    assert lost.value.code == "VK-TARGET-LOST"
