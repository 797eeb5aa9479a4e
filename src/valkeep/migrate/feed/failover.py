"""What sentinels say while we follow a primary that they know, and what it means for the link.

    +try-failover         nothing more is read from the primary: what it still writes, its successor may not have, and what we passed on cannot be
                          taken back. What was written until then has gone to the replicas, too; promoting one takes a few hundred milliseconds more.
    -failover-abort-…     it is read on
    +switch-master        whoever the newest configuration names is followed. The old link is left also if it still stands: a partition can keep a
                          deposed primary reachable for us, and for clients whose writes are lost

A sentinel that tries is not obeyed for ever (``HELD_BACK``): a failover that nobody ends would stop the migration. It costs nothing else: the primary
keeps what we do not read in our output buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from valkeep.client.sentinel import Attempt, NoPrimary

if TYPE_CHECKING:
    from valkeep.client.endpoint import Endpoint
    from valkeep.client.sentinel import SentinelDirectory

__all__ = ["FailoverWatch", "Follower"]

HELD_BACK = 30.0  # seconds; a sentinel tries for failover-timeout, 180 s by default, but mostly needs two
AGAIN = 0.2


class Follower(Protocol):
    """Who follows the primary."""

    def hold_back(self) -> None:
        """Read nothing more from it for now."""

    def read_on(self) -> None: ...

    def follow(self, primary: Endpoint) -> None:
        """This is the primary now; nothing changes where it is the one that is followed."""


class FailoverWatch:
    """``run`` it beside the link; it ends when it is cancelled."""

    def __init__(self, directory: SentinelDirectory, follower: Follower) -> None:
        self._directory = directory
        self._follower = follower
        self._patience: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        try:
            async with contextlib.aclosing(self._directory.news()) as news:
                async for one in news:
                    if not isinstance(one, Attempt):
                        await self._switched()
                    elif one.begun:
                        self._hold_back()
                    else:
                        self._read_on()
        finally:
            self._forget()

    async def _switched(self) -> None:
        """A sentinel that is late tells of an older one; so all of them are asked. Who is named may not have been promoted yet."""
        while True:
            try:
                primary = await self._directory.newest()
            except NoPrimary:
                await asyncio.sleep(AGAIN)
            else:
                break
        self._follower.follow(primary)

    def _hold_back(self) -> None:
        self._forget()
        self._follower.hold_back()
        self._patience = asyncio.get_running_loop().call_later(HELD_BACK, self._follower.read_on)

    def _read_on(self) -> None:
        self._forget()
        self._follower.read_on()

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
